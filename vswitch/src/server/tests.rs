use super::*;
use control::api::*;
use control::client::{Client, ClientError};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize};

/// A switch that knows a few answers and counts resets.
#[derive(Default)]
struct Mock {
    resets: AtomicUsize,
    /// `worker.reset` waits while this is locked.
    gate: Mutex<()>,
}

fn refuse<T>() -> Result<T, ApiError> {
    Err(ApiError::new(ErrorCode::System, "not here").object("port \"web1\"").cause("why").fix("what to do"))
}

macro_rules! mock {
    ($($method:ident($call:ident) -> $response:ty $(= $body:expr)?;)*) => {
        impl Backend for Mock {
            $(fn $method(&self, request: $call) -> Result<$response, ApiError> {
                let _ = &request;
                mock!(@ self, request, $($body)?)
            })*
        }
    };
    (@ $this:ident, $request:ident,) => { refuse() };
    (@ $this:ident, $request:ident, $body:expr) => { $body($this, $request) };
}

mock! {
    status(GetStatus) -> Status;
    apply(Apply) -> Applied = |_: &Mock, request: Apply| {
        Ok(Applied { changed: !request.dry_run, steps: vec![request.file] })
    };
    diff(Diff) -> Applied;
    export(Export) -> Exported = |_: &Mock, _| Ok(Exported { config: "x".repeat(32 << 20) });
    rollback(Rollback) -> Applied = |_: &Mock, _| panic!("as it may happen");
    port_list(PortList) -> Vec<PortRow> = |_: &Mock, _| Ok(vec![]);
    port_show(PortShow) -> PortDetail;
    port_add(PortAdd) -> Applied;
    port_del(PortDel) -> Applied;
    bridge_list(BridgeList) -> Vec<BridgeRow>;
    bridge_show(BridgeShow) -> BridgeDetail;
    bridge_add(BridgeAdd) -> Applied;
    bridge_del(BridgeDel) -> Applied;
    fdb_list(FdbList) -> FdbPage;
    fdb_add(FdbAdd) -> Applied;
    fdb_del(FdbDel) -> Applied;
    fdb_load(FdbLoad) -> FdbLoaded;
    fdb_flush(FdbFlush) -> Flushed = |_: &Mock, _| Ok(Flushed { removed: 7 });
    tunnel_list(TunnelList) -> Vec<TunnelRow>;
    tunnel_show(TunnelShow) -> TunnelDetail;
    tunnel_ping(TunnelPing) -> Vec<Pinged>;
    neighbour_list(NeighbourList) -> NeighbourPage;
    events(Events) -> Vec<Event>;
    flow_list(FlowList) -> FlowPage;
    worker_list(WorkerList) -> Vec<WorkerRow>;
    worker_reset(WorkerReset) -> Nothing = |mock: &Mock, _| {
        drop(mock.gate.lock());
        mock.resets.fetch_add(1, Ordering::SeqCst);
        Ok(Nothing {})
    };
    worker_rebalance(WorkerRebalance) -> Rebalanced;
    drops_list(DropsList) -> Vec<DropRow>;
    trace(Trace) -> Traced;
}

/// A server over a mock, in a folder that is gone when the test is over.
struct Bench {
    folder: PathBuf,
    socket: PathBuf,
    mock: Arc<Mock>,
    server: Option<Server>,
}

impl Bench {
    fn new(patience: Patience) -> Bench {
        let folder = folder();
        let socket = folder.join("run/control.sock");
        let mock = Arc::new(Mock::default());
        let server = Listener::bind(&socket).unwrap().serve(mock.clone(), patience, |_| {}).unwrap();
        Bench { folder, socket, mock, server: Some(server) }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket, Duration::from_secs(20)).unwrap()
    }

    /// A connection for bytes of one's own.
    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn open(&self) -> usize {
        self.server.as_ref().unwrap().shared.connections().open.len()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("vswitch-api-{}-{number}", std::process::id()));
    fs::create_dir(&path).unwrap();
    path
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends bytes and reads what comes until the server closes.
fn exchange(mut stream: UnixStream, bytes: &[u8]) -> String {
    // The server may close before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_are_answered_in_order_with_result_or_refusal() {
    let bench = Bench::new(Patience::default());
    let mut client = bench.client();
    for number in 0..10 {
        let apply = Apply { config: String::new(), file: number.to_string(), dry_run: number % 2 == 0 };
        let applied = client.call(&apply).unwrap();
        assert_eq!(applied, Applied { changed: number % 2 == 1, steps: vec![number.to_string()] });
        let Err(ClientError::Switch(error)) = client.call(&GetStatus {}) else { panic!() };
        assert_eq!(error.to_string(), "port \"web1\": not here\n  cause: why\n  fix: what to do");
    }
    assert_eq!(client.call(&PortList::default()).unwrap(), vec![]);
    assert_eq!(client.call(&FdbFlush::default()).unwrap().removed, 7);
}

#[test]
fn a_notification_is_carried_out_and_not_answered() {
    let bench = Bench::new(Patience::default());
    let lines = "{\"jsonrpc\":\"2.0\",\"method\":\"worker.reset\"}\n\
                 {\"jsonrpc\":\"2.0\",\"method\":\"worker.reset\",\"id\":\"x\"}\n";
    assert_eq!(exchange(bench.raw(), lines.as_bytes()), "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":{}}\n");
    assert_eq!(bench.mock.resets.load(Ordering::SeqCst), 2);
}

#[test]
fn nonsense_is_refused_and_the_connection_goes_on() {
    let bench = Bench::new(Patience::default());
    let deep = format!("{}{}\n", "[".repeat(100), "]".repeat(100));
    let lines = format!(
        "no json\n{deep}[]\n{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"port.lst\"}}\n\
         {{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"port.list\",\"params\":{{\"brigde\":\"b\"}}}}\n\
         {{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"port.list\"}}\n"
    );
    let answers = exchange(bench.raw(), lines.as_bytes());
    let answers: Vec<serde_json::Value> =
        answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<i64> =
        answers.iter().map(|answer| answer["error"]["code"].as_i64().unwrap_or(0)).collect();
    assert_eq!(codes, [-32700, -32600, -32600, -32601, -32602, 0]);
    let ids: Vec<Option<i64>> = answers.iter().map(|answer| answer["id"].as_i64()).collect();
    assert_eq!(ids, [None, None, None, Some(1), Some(2), Some(3)]);
}

#[test]
fn a_line_without_end_is_refused_with_the_limit() {
    let bench = Bench::new(Patience::default());
    let answer = exchange(bench.raw(), &vec![b'x'; MAX_REQUEST_BYTES + (1 << 20)]);
    assert!(answer.contains(&format!("at most {MAX_REQUEST_BYTES} bytes")), "{answer}");
    wait("the connection stays", || bench.open() == 0);
}

#[test]
fn a_panic_costs_an_error_and_nothing_else() {
    let bench = Bench::new(Patience::default());
    let mut client = bench.client();
    let Err(ClientError::Switch(error)) = client.call(&Rollback::default()) else { panic!() };
    assert_eq!((error.code, error.message.contains("`rollback`")), (ErrorCode::Internal, true));
    assert_eq!(client.call(&PortList::default()).unwrap(), vec![]);
}

#[test]
fn a_client_that_never_reads_hurts_nobody_and_is_cut_off() {
    let bench = Bench::new(Patience { answer: Duration::from_millis(300), ..Patience::default() });
    let mut silent = bench.raw();
    for _ in 0..4 {
        silent.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"export\"}\n").unwrap();
    }
    wait("the client is not served", || bench.open() == 1);
    let client = std::cell::RefCell::new(bench.client());
    wait("the client is not cut off", || {
        let before = Instant::now();
        assert_eq!(client.borrow_mut().call(&PortList::default()).unwrap(), vec![]);
        assert!(before.elapsed() < Duration::from_secs(5));
        // The other one only.
        bench.open() == 1
    });
}

#[test]
fn a_client_that_trickles_or_says_nothing_is_cut_off() {
    let bench = Bench::new(Patience { request: Duration::from_millis(300), ..Patience::default() });
    let began = Instant::now();
    let mut trickle = bench.raw();
    // Each byte comes in time, the line does not.
    while trickle.write_all(b" ").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "still connected");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() >= Duration::from_millis(290));
    assert_eq!(bench.raw().read(&mut [0]).unwrap(), 0, "closed without a word");
}

#[test]
fn one_client_too_many_is_told_so_and_a_place_comes_free() {
    let bench = Bench::new(Patience::default());
    let mut clients: Vec<UnixStream> = (0..CONNECTIONS).map(|_| bench.raw()).collect();
    wait("they are not served", || bench.open() == CONNECTIONS);
    let mut late = bench.client();
    let Err(ClientError::Switch(error)) = late.call(&PortList::default()) else { panic!("served") };
    assert_eq!(error.code, ErrorCode::Busy);
    assert!(error.to_string().contains("64 clients are connected"), "{error}");
    clients.pop();
    wait("the place stays taken", || bench.open() < CONNECTIONS);
    assert_eq!(bench.client().call(&PortList::default()).unwrap(), vec![]);
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_server() {
    let mut bench = Bench::new(Patience::default());
    let metadata = fs::symlink_metadata(&bench.socket).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o660);
    drop(bench.server.take());
    assert!(!bench.socket.exists());
}

#[test]
fn a_stop_lets_the_answer_out_and_cuts_the_idle() {
    let mut bench = Bench::new(Patience::default());
    let gate = bench.mock.clone();
    let held = gate.gate.lock().unwrap();
    let (mut idle, mut client) = (bench.raw(), bench.client());
    let waiting = std::thread::spawn(move || client.call(&WorkerReset {}));
    wait("they are not served", || bench.open() == 2);
    let server = bench.server.take().unwrap();
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    drop(held);
    let outcome = waiting.join().unwrap();
    // The request may not have been read before the stop; then the connection just ends.
    assert!(matches!(outcome, Ok(Nothing {}) | Err(ClientError::Closed(_))), "{outcome:?}");
    stopping.join().unwrap();
}

#[test]
fn a_request_that_hangs_does_not_hang_the_stop() {
    let mut bench = Bench::new(Patience { stop: Duration::from_millis(200), ..Patience::default() });
    let gate = bench.mock.clone();
    let held = gate.gate.lock().unwrap();
    bench.raw().write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"worker.reset\"}\n").unwrap();
    wait("it is not served", || bench.open() == 1);
    let began = Instant::now();
    bench.server.take().unwrap().stop();
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(held);
}

#[test]
fn a_living_daemon_keeps_its_socket_and_a_dead_one_does_not() {
    let bench = Bench::new(Patience::default());
    let refused = Listener::bind(&bench.socket).unwrap_err();
    assert!(matches!(refused, SocketError::InUse(_)));
    let text = refused.to_string();
    assert!(text.contains("control.sock") && text.contains("--socket"), "{text}");
    assert_eq!(bench.client().call(&PortList::default()).unwrap(), vec![]);

    // Somebody else's living socket, without our lock.
    let other = bench.folder.join("other.sock");
    let listener = UnixListener::bind(&other).unwrap();
    assert!(matches!(Listener::bind(&other), Err(SocketError::InUse(_))));
    // As after kill -9.
    drop(listener);
    assert!(other.exists());
    let taken = Listener::bind(&other).unwrap();
    drop(UnixStream::connect(&other).unwrap());
    drop(taken);
    assert!(!other.exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let bench = Bench::new(Patience::default());
    let path = bench.folder.join("thing");
    let what = |path: &Path| match Listener::bind(path).unwrap_err() {
        SocketError::NotASocket { what, .. } => what,
        other => panic!("{other}"),
    };
    fs::write(&path, "precious").unwrap();
    assert_eq!(what(&path), "a file");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&bench.socket, &path).unwrap();
    assert_eq!(what(&path), "a symbolic link");
    assert_eq!(what(&bench.folder.join("run")), "a directory");
    let text = Listener::bind(Path::new("/proc/nowhere/x.sock")).unwrap_err().to_string();
    assert!(text.starts_with("mkdir /proc/nowhere: ") && text.contains("--socket"), "{text}");
}

#[test]
fn a_socket_that_is_ours_no_more_is_not_removed() {
    let mut bench = Bench::new(Patience::default());
    fs::remove_file(&bench.socket).unwrap();
    let _other = UnixListener::bind(&bench.socket).unwrap();
    drop(bench.server.take());
    assert!(bench.socket.exists());
}

/// Runs the test again as somebody else, who connects to the socket named here.
const STRANGER: &str = "VSWITCH_TEST_STRANGER";

#[test]
fn strangers_are_turned_away_also_from_an_open_socket_and_members_of_the_group_are_not() {
    if let Some(socket) = std::env::var_os(STRANGER) {
        let outcome = Client::connect(Path::new(&socket), Duration::from_secs(20))
            .and_then(|mut client| client.call(&PortList::default()));
        match outcome {
            Ok(_) => println!("outcome: served"),
            Err(error) => println!("outcome: {error}"),
        }
        return;
    }
    let bench = Bench::new(Patience::default());
    let name =
        "server::tests::strangers_are_turned_away_also_from_an_open_socket_and_members_of_the_group_are_not";
    // Where everybody can run it from.
    let program = bench.folder.join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let stranger = |groups: &str| {
        let child = Command::new("setpriv")
            .args(["--reuid", "54321", "--regid", "54321"])
            .args([groups])
            .arg(&program)
            .args(["--exact", name, "--nocapture"])
            .env(STRANGER, &bench.socket)
            .output()
            .unwrap();
        String::from_utf8([child.stdout, child.stderr].concat()).unwrap()
    };
    let said = stranger("--clear-groups");
    assert!(said.contains("permission denied"), "{said}");
    fs::set_permissions(&bench.socket, fs::Permissions::from_mode(0o666)).unwrap();
    let said = stranger("--clear-groups");
    assert!(said.contains("you may not control this switch") && said.contains("user 54321"), "{said}");
    fs::set_permissions(&bench.socket, fs::Permissions::from_mode(0o660)).unwrap();
    std::os::unix::fs::chown(&bench.socket, None, Some(54322)).unwrap();
    let said = stranger("--groups=54322");
    assert!(said.contains("outcome: served"), "{said}");
}
