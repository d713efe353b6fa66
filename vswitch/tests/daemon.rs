//! `vswitchd` as a process: what it prints, how it ends, whom it turns away.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use control::MacAddress;
use control::api::{
    Apply, DropsList, Export, FdbAdd, FdbDel, FdbEntry, FdbFlush, FdbKey, FdbKind, FdbList, FdbLoad,
    FdbLoaded, FdbRow, FlowList, GetStatus, NeighbourList, PortDel, PortList, TunnelShow,
};
use control::client::{Client, ClientError};
use control::schema::{Place, StaticEntry};

/// A folder with a configuration, a socket and a state; gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(config: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vswitchd-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("switch.toml"), config).unwrap();
        Folder(path)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchd"));
        command.arg("--config").arg(self.0.join("switch.toml"));
        command.arg("--socket").arg(self.socket()).arg("--state-dir").arg(self.0.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// What it prints when it refuses to start.
    fn refusal(&self) -> String {
        let output = self.command().output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Daemon {
    child: Child,
    ready: String,
    output: BufReader<ChildStdout>,
}

impl Daemon {
    fn start(folder: &Folder) -> Daemon {
        let mut child = folder.command().spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        // Ends also when the daemon does.
        output.read_line(&mut ready).unwrap();
        if ready.is_empty() {
            let mut messages = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut messages);
            panic!("the daemon ended: {messages}");
        }
        Daemon { child, ready, output }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BRIDGE: &str = "[[bridge]]\nname = \"blue\"\n";

#[test]
fn it_says_one_line_when_ready_and_ends_with_0_when_asked() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let folder = Folder::new(BRIDGE);
        let mut daemon = Daemon::start(&folder);
        let expected = format!("vswitchd {} ready: ", env!("CARGO_PKG_VERSION"));
        assert!(daemon.ready.starts_with(&expected), "{:?}", daemon.ready);
        assert!(daemon.ready.contains(folder.socket().to_str().unwrap()));
        let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
        assert!(client.call(&Export {}).unwrap().config.contains("blue"));
        daemon.signal(signal);
        assert_eq!(daemon.end().code(), Some(0));
        let mut more = String::new();
        daemon.output.read_to_string(&mut more).unwrap();
        assert_eq!(more, "", "one line");
        assert!(!folder.socket().exists());
    }
}

/// A bridge with a port, and a tunnel that reaches one VTEP.
const STRETCHED: &str = "[limits]\nframes = 1024\nremotes = 4\n[[bridge]]\nname = \"blue\"\nvni = 5001\n\
    [[port]]\nname = \"web1\"\nbridge = \"blue\"\ntype = \"null\"\n\
    [[port]]\nname = \"uplink\"\ntype = \"null\"\n\
    [[underlay]]\nname = \"core\"\nport = \"uplink\"\nshare = false\naddress = [\"192.0.2.1/24\"]\n\
    [[tunnel]]\nname = \"dc\"\ntype = \"vxlan\"\nunderlay = \"core\"\nremote = [\"192.0.2.2\"]\n";

fn station(number: u32) -> MacAddress {
    let [_, b, c, d] = number.to_be_bytes();
    MacAddress::new([2, 0, 0, b, c, d])
}

fn at_port(number: u32) -> FdbEntry {
    let place = Place::Port("web1".parse().unwrap());
    FdbEntry { bridge: "blue".parse().unwrap(), vlan: None, mac: station(number), place, ip: None }
}

fn at_remote(number: u32, last: u8) -> FdbEntry {
    let place = Place::Remote { tunnel: "dc".parse().unwrap(), remote: [192, 0, 2, last].into() };
    FdbEntry { place, ..at_port(number) }
}

fn load(
    client: &mut Client,
    origin: &str,
    replace: bool,
    entries: Vec<FdbEntry>,
) -> Result<[u64; 3], ClientError> {
    let origin = origin.parse().unwrap();
    let FdbLoaded { changed, unchanged, removed } = client.call(&FdbLoad { origin, replace, entries })?;
    Ok([changed, unchanged, removed])
}

fn kinds(client: &mut Client) -> Vec<(MacAddress, FdbKind, Option<u8>)> {
    let last = |row: &FdbRow| match row.remote {
        Some(std::net::IpAddr::V4(remote)) => Some(remote.octets()[3]),
        _ => None,
    };
    let rows = client.fdb(&FdbList::default()).unwrap();
    rows.iter().map(|row| (row.mac, row.kind, last(row))).collect()
}

/// The time is that of a loaded machine and of a program that is not optimised; else it is a tenth of this.
#[test]
fn ten_thousand_entries_are_one_change_and_outlive_their_client() {
    const TIME: Duration = Duration::from_secs(2);
    let folder = Folder::new(STRETCHED);
    let _daemon = Daemon::start(&folder);
    let connect = || Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    let entries = |range: std::ops::Range<u32>| -> Vec<FdbEntry> {
        let entry = |number| if number % 2 == 0 { at_port(number) } else { at_remote(number, 2) };
        range.map(entry).collect()
    };
    let began = Instant::now();
    assert_eq!(load(&mut connect(), "evpn", true, entries(0..10_000)).unwrap(), [10_000, 0, 0]);
    println!("10,000 entries: {:?}", began.elapsed());
    assert!(began.elapsed() < TIME, "{:?}", began.elapsed());
    let mut client = connect();
    assert_eq!(kinds(&mut client).len(), 10_000);
    assert_eq!(load(&mut client, "cni", false, vec![at_port(20_000)]).unwrap(), [1, 0, 0]);
    // Half of them are known, half of them are gone, and another's stay.
    let began = Instant::now();
    assert_eq!(load(&mut client, "evpn", true, entries(5_000..15_000)).unwrap(), [5_000, 5_000, 5_000]);
    println!("10,000 entries for others: {:?}", began.elapsed());
    assert!(began.elapsed() < TIME, "{:?}", began.elapsed());
    let seen = kinds(&mut client);
    assert_eq!(seen.len(), 10_001);
    assert!(seen.iter().all(|(_, kind, _)| *kind == FdbKind::Loaded));
    assert_eq!(load(&mut client, "evpn", true, vec![]).unwrap(), [0, 0, 10_000]);
    assert_eq!(kinds(&mut client), [(station(20_000), FdbKind::Loaded, None)]);
}

#[test]
fn a_load_with_a_mistake_changes_nothing() {
    let folder = Folder::new(STRETCHED);
    let _daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    let port = |name: &str| FdbEntry { place: Place::Port(name.parse().unwrap()), ..at_port(2) };
    let bridge = FdbEntry { bridge: "bleu".parse().unwrap(), ..at_port(2) };
    let at_ipv6 = Place::Remote { tunnel: "dc".parse().unwrap(), remote: "2001:db8::2".parse().unwrap() };
    let at_ipv6 = FdbEntry { place: at_ipv6, ..at_port(2) };
    let ip = |number, ip: &str| FdbEntry { ip: ip.parse().ok(), ..at_port(number) };
    for (wrong, says) in [
        (vec![bridge], "bridge \"bleu\" does not exist; nearest is \"blue\""),
        (vec![port("wbe1")], "port \"wbe1\" does not exist; nearest is \"web1\""),
        (vec![port("uplink")], "port \"uplink\" is not in bridge \"blue\""),
        (vec![at_remote(2, 1)], "192.0.2.1 is an address of our own"),
        (vec![at_ipv6], "underlay \"core\" has no address to reach 2001:db8::2 from"),
        (vec![at_port(1)], "an entry before this one says that it is elsewhere"),
        (vec![ip(3, "224.0.0.1")], "224.0.0.1 is not the address of a host"),
        (vec![ip(3, "10.0.0.1"), ip(4, "10.0.0.1")], "another station has 10.0.0.1"),
    ] {
        let number = 1 + wrong.len() as u32;
        let error = load(&mut client, "evpn", true, [vec![at_remote(1, 2)], wrong].concat()).unwrap_err();
        let ClientError::Switch(error) = error else { panic!("{error}") };
        assert!(error.message.contains(says), "{error}");
        assert_eq!((error.data.errors.len(), error.data.errors[0].line), (1, number), "{error}");
    }
    let at_remotes =
        |lasts: std::ops::Range<u8>| lasts.map(|last| at_remote(last.into(), last)).collect::<Vec<_>>();
    let error = load(&mut client, "evpn", true, at_remotes(3..7));
    assert!(error.unwrap_err().to_string().contains("[limits] remotes"));
    assert_eq!(kinds(&mut client), []);
    assert_eq!(load(&mut client, "evpn", true, at_remotes(3..6)).unwrap(), [3, 0, 0]);
    assert_eq!(
        load(&mut client, "evpn", true, at_remotes(6..9)).unwrap(),
        [3, 0, 3],
        "those before make room"
    );
}

#[test]
fn what_is_loaded_gives_way_to_what_is_configured_and_goes_with_its_place() {
    let folder = Folder::new(STRETCHED);
    let _daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    let remotes = |client: &mut Client| {
        let detail = client.call(&TunnelShow { name: "dc".parse().unwrap() }).unwrap();
        let flood = &detail.vnis[0].flood;
        (detail.row.remotes.iter().map(|row| row.address.to_string()).collect::<Vec<_>>(), flood.len())
    };
    let everywhere = FdbEntry { mac: MacAddress::ZERO, ..at_remote(0, 8) };
    let address = FdbEntry { ip: "10.0.0.2".parse().ok(), ..at_remote(2, 9) };
    let entries = vec![at_port(1), address, everywhere];
    assert_eq!(load(&mut client, "evpn", true, entries.clone()).unwrap(), [3, 0, 0]);
    assert_eq!(load(&mut client, "evpn", true, entries).unwrap(), [0, 3, 0]);
    assert_eq!(remotes(&mut client), (vec!["192.0.2.2".into(), "192.0.2.8".into(), "192.0.2.9".into()], 2));
    let neighbours = client.neighbours(&NeighbourList::default()).unwrap();
    assert_eq!((neighbours.len(), neighbours[0].remote), (1, Some([192, 0, 2, 9].into())));

    let entry = StaticEntry {
        bridge: "blue".parse().unwrap(),
        vlan: None,
        mac: station(1),
        place: Place::Remote { tunnel: "dc".parse().unwrap(), remote: [192, 0, 2, 2].into() },
    };
    let key = FdbKey { bridge: entry.bridge.clone(), vlan: 0, mac: entry.mac };
    let far = (station(2), FdbKind::Loaded, Some(9));
    client.call(&FdbAdd { entry }).unwrap();
    assert_eq!(kinds(&mut client), [(station(1), FdbKind::Static, Some(2)), far]);
    client.call(&FdbDel { entry: key }).unwrap();
    assert_eq!(kinds(&mut client), [(station(1), FdbKind::Loaded, None), far]);
    client.call(&PortDel { name: "web1".parse().unwrap() }).unwrap();
    assert_eq!(kinds(&mut client), [far]);
    assert_eq!(load(&mut client, "evpn", true, vec![]).unwrap(), [0, 0, 2]);
    assert_eq!(remotes(&mut client), (vec!["192.0.2.2".into()], 1));
    assert_eq!((kinds(&mut client), client.neighbours(&NeighbourList::default()).unwrap()), (vec![], vec![]));
}

/// An empty list would look like an answer.
#[test]
fn a_filter_that_names_nothing_is_refused() {
    let folder = Folder::new(&format!("[switch]\nworkers = [0]\n{BRIDGE}"));
    let _daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    let (bridge, port) = (|| "bleu".parse().ok(), || "web1".parse().ok());
    let refusals = [
        client.call(&PortList { bridge: bridge() }).err(),
        client.call(&FdbList { bridge: bridge(), ..FdbList::default() }).err(),
        client.call(&FdbFlush { bridge: bridge(), ..FdbFlush::default() }).err(),
        client.call(&FdbList { port: port(), ..FdbList::default() }).err(),
        client.call(&FlowList { port: port(), ..FlowList::default() }).err(),
        client.call(&FlowList { worker: Some(1), ..FlowList::default() }).err(),
        client.call(&DropsList { port: port() }).err(),
    ];
    for (refusal, name) in
        refusals.iter().zip(["bleu", "bleu", "bleu", "web1", "web1", "worker \"1\"", "web1"])
    {
        let text = refusal.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(text.contains(name) && text.contains("does not exist"), "{name}: {refusal:?}");
    }
    assert!(client.call(&FlowList { worker: Some(0), ..FlowList::default() }).is_ok());
}

#[test]
fn frames_of_a_source_are_recorded_up_to_the_end_and_replayed() {
    let config = |ports: &str| format!("[switch]\nworkers = [0]\n[limits]\nframes = 1024\n{BRIDGE}{ports}");
    let port = |name: &str, keys: String| format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\n{keys}\n");
    let folder = Folder::new("");
    let (one, two) = (folder.0.join("one.pcap"), folder.0.join("two.pcap"));
    let source = port("source", "type = \"null\"\nrate = 5000\nsize = 100".to_owned());
    let record = |file: &PathBuf| port("record", format!("type = \"pcap\"\nwrite = \"{}\"", file.display()));
    let replay = port("replay", format!("type = \"pcap\"\nread = \"{}\"", one.display()));
    let frames = |file: &PathBuf| {
        let replay = pmd::pcap::Replay::read(file).unwrap();
        (0..replay.len()).map(|i| replay.frame(i).unwrap().to_vec()).collect::<Vec<_>>()
    };
    for (ports, least) in [(source + &record(&one), 500), (replay + &record(&two), 500)] {
        fs::write(folder.0.join("switch.toml"), config(&ports)).unwrap();
        let mut daemon = Daemon::start(&folder);
        let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let least = least.max(if two.exists() { frames(&one).len() as u64 } else { 0 });
        while client.call(&GetStatus {}).unwrap().sent < least {
            assert!(Instant::now() < deadline, "{:?}", client.call(&PortList::default()));
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.end().code(), Some(0));
    }
    let recorded = frames(&one);
    assert!(recorded.iter().all(|frame| frame.len() == 100));
    let numbers = recorded.iter().map(|frame| u64::from_be_bytes(frame[14..22].try_into().unwrap()));
    assert!(numbers.eq(0..recorded.len() as u64), "in order, none lost");
    assert!(frames(&two) == recorded, "what was recorded is what is replayed");
}

#[test]
fn wrong_usage_is_2_and_every_mistake_of_the_configuration_has_its_place() {
    let folder = Folder::new("[[bridge]]\nname = \"blue\"\naging_s = 9\n[[port]]\nname = 7\n");
    let status = folder.command().arg("--nonsense").output().unwrap().status;
    assert_eq!(status.code(), Some(2));
    let refusal = folder.refusal();
    let file = folder.0.join("switch.toml");
    let places: Vec<_> =
        refusal.lines().map(|line| line.strip_prefix(&format!("{}:", file.display()))).collect();
    assert!(places.len() >= 2 && places.iter().all(Option::is_some), "{refusal}");
    assert!(refusal.contains("switch.toml:3:1: ") && refusal.contains("ageing_s"), "{refusal}");
    assert!(!folder.socket().exists());
    fs::remove_file(&file).unwrap();
    assert!(folder.refusal().contains("cannot read the configuration"));
}

/// What runs and what a restart comes back to are the same, also when the disk fails at the last moment.
#[test]
fn a_state_that_cannot_become_the_stored_one_does_not_run_either() {
    let folder = Folder::new(BRIDGE);
    let _daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    // It can be written; but what it replaces cannot take the name of the state before.
    let in_the_way = folder.0.join("state/state.toml.previous");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    let red = Apply { config: BRIDGE.replace("blue", "red"), file: "red.toml".into(), dry_run: false };
    let refusal = client.call(&red).unwrap_err().to_string();
    assert!(refusal.contains("nothing was changed") && refusal.contains("rename"), "{refusal}");
    assert!(client.call(&Export {}).unwrap().config.contains("blue"));
    assert!(fs::read_to_string(folder.0.join("state/state.toml")).unwrap().contains("blue"));
    fs::remove_dir_all(&in_the_way).unwrap();
    client.call(&red).unwrap();
    assert!(client.call(&Export {}).unwrap().config.contains("red"));
    assert!(fs::read_to_string(folder.0.join("state/state.toml")).unwrap().contains("red"));
}

#[test]
fn a_second_daemon_is_turned_away_and_the_first_goes_on() {
    let (folder, other) = (Folder::new(BRIDGE), Folder::new(BRIDGE));
    let mut daemon = Daemon::start(&folder);
    // The same state directory, then only the same socket.
    let refusal = folder.refusal();
    assert!(refusal.contains(&format!("(process {})", daemon.child.id())), "{refusal}");
    let output = other.command().args(["--socket"]).arg(folder.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "clap takes an option once");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchd"));
    command.arg("--socket").arg(folder.socket()).arg("--state-dir").arg(other.0.join("state"));
    let output = command.output().unwrap();
    let refusal = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(refusal.contains("another vswitchd listens at"), "{refusal}");
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    assert!(client.call(&Export {}).unwrap().config.contains("blue"));
    assert!(daemon.child.try_wait().unwrap().is_none());
}

#[test]
fn after_kill_9_the_next_one_takes_over_socket_and_state() {
    let folder = Folder::new(BRIDGE);
    let mut daemon = Daemon::start(&folder);
    daemon.child.kill().unwrap();
    daemon.end();
    assert!(folder.socket().exists());
    let daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    assert!(client.call(&Export {}).unwrap().config.contains("blue"));
    drop(daemon);
    // A changed file is applied, a damaged state is survived.
    fs::write(folder.0.join("switch.toml"), BRIDGE.replace("blue", "red")).unwrap();
    drop(Daemon::start(&folder));
    let state = folder.0.join("state/state.toml");
    let text = fs::read_to_string(&state).unwrap();
    assert!(text.contains("red"));
    fs::write(&state, &text[..text.len() - 5]).unwrap();
    let _daemon = Daemon::start(&folder);
    let mut client = Client::connect(&folder.socket(), Duration::from_secs(20)).unwrap();
    // The file is not the one that the state before the change came from.
    assert!(client.call(&Export {}).unwrap().config.contains("red"));
}
