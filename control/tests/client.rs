//! The client against a socket that answers as it is told.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use control::MacAddress;
use control::api::*;
use control::client::{Client, ClientError};

/// A directory of our own for the sockets of one test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("control-client-{}-{test}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves one connection: `answer` makes the bytes to send for each request, and what was asked is returned.
fn serve(
    directory: &Directory,
    answer: impl Fn(&Request) -> Vec<u8> + Send + 'static,
) -> JoinHandle<Vec<Request>> {
    let listener = UnixListener::bind(directory.socket()).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut writer: UnixStream = stream.try_clone().unwrap();
        let mut reader = MessageReader::new(stream, MAX_REQUEST_BYTES);
        let mut asked = Vec::new();
        while let Ok(Some(line)) = reader.next_line() {
            let request = decode_request(&line).unwrap();
            let bytes = answer(&request);
            asked.push(request);
            if bytes.is_empty() || writer.write_all(&bytes).is_err() {
                break;
            }
        }
        asked
    })
}

fn connect(directory: &Directory) -> Client {
    Client::connect(&directory.socket(), Duration::from_secs(20)).unwrap()
}

#[test]
fn asks_and_understands() {
    let directory = Directory::new("asks");
    let server = serve(&directory, |request| match &request.call {
        Call::Export(_) => {
            encode_response(request.id.as_ref(), &Ok(Exported { config: "[switch]\n".to_owned() }))
        }
        call => {
            let error = ApiError::new(ErrorCode::System, "no").object(call.name()).cause("c").fix("f");
            encode_response::<Nothing>(request.id.as_ref(), &Err(error))
        }
    });
    let mut client = connect(&directory);
    assert_eq!(client.call(&Export {}).unwrap().config, "[switch]\n");
    let error = client.call(&WorkerReset {}).unwrap_err();
    assert_eq!(error.to_string(), "worker.reset: no\n  cause: c\n  fix: f");
    assert_eq!(
        client.call(&Export {}).unwrap().config,
        "[switch]\n",
        "a refusal does not end the connection"
    );
    drop(client);
    let ids: Vec<Option<Id>> = server.join().unwrap().into_iter().map(|request| request.id).collect();
    assert_eq!(ids, [1, 2, 3].map(|id| Some(Id::Number(id))));
}

#[test]
fn joins_the_pages_of_the_fdb() {
    let row = |mac| FdbRow {
        bridge: "b".parse().unwrap(),
        vlan: 0,
        mac: MacAddress::new([2, 0, 0, 0, 0, mac]),
        port: "p".parse().ok(),
        tunnel: None,
        remote: None,
        origin: None,
        kind: FdbKind::Learned,
        age_s: 1,
    };
    let directory = Directory::new("pages");
    let server = serve(&directory, move |request| {
        let Call::FdbList(list) = &request.call else { return Vec::new() };
        let (entries, next) = match &list.after {
            None => (vec![row(1), row(2)], Some(row(2).key())),
            Some(key) if *key == row(2).key() => (vec![row(3)], None),
            Some(_) => return Vec::new(),
        };
        encode_response(request.id.as_ref(), &Ok(FdbPage { entries, next }))
    });
    let rows = connect(&directory).fdb(&FdbList::default()).unwrap();
    assert_eq!(rows, [row(1), row(2), row(3)]);
    assert_eq!(server.join().unwrap().len(), 2);
}

#[test]
fn a_page_that_does_not_move_on_ends_the_list() {
    let directory = Directory::new("stuck");
    let key = FdbKey { bridge: "b".parse().unwrap(), vlan: 0, mac: MacAddress::default() };
    let server = serve(&directory, move |request| {
        encode_response(request.id.as_ref(), &Ok(FdbPage { entries: vec![], next: Some(key.clone()) }))
    });
    assert_eq!(connect(&directory).fdb(&FdbList::default()).unwrap(), []);
    assert_eq!(server.join().unwrap().len(), 2);
}

#[test]
fn a_client_turned_away_reads_why() {
    let directory = Directory::new("denied");
    let listener = UnixListener::bind(directory.socket()).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let error = ApiError::new(ErrorCode::Denied, "user 1000 may not control the switch");
        stream.write_all(&encode_response::<Nothing>(None, &Err(error))).unwrap();
    });
    let mut client = connect(&directory);
    server.join().unwrap();
    let error = client.call(&GetStatus {}).unwrap_err();
    assert!(matches!(error, ClientError::Switch(_)), "{error}");
    assert_eq!(error.to_string(), "user 1000 may not control the switch");
}

#[test]
fn answers_that_make_no_sense() {
    for (answer, what) in [
        (&b"hello\n"[..], "no JSON"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1}\n", "neither result nor error"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n", "missing field `config`"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{\"config\":\"\"}}\n", "has the id"),
    ] {
        let directory = Directory::new("nonsense");
        let server = serve(&directory, |_| answer.to_vec());
        let error = connect(&directory).call(&Export {}).unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn a_daemon_that_goes_away() {
    let directory = Directory::new("away");
    let server = serve(&directory, |_| Vec::new());
    let error = connect(&directory).call(&Export {}).unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error}");
    server.join().unwrap();
}

#[test]
fn a_daemon_that_is_silent() {
    let directory = Directory::new("silent");
    let _listener = UnixListener::bind(directory.socket()).unwrap();
    let mut client = Client::connect(&directory.socket(), Duration::from_millis(50)).unwrap();
    let error = client.call(&Export {}).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("did not answer within 50ms"), "{error}");
}

#[test]
fn no_socket_and_nobody_there() {
    let directory = Directory::new("nobody");
    let error = Client::connect(&directory.socket(), Client::TIMEOUT).unwrap_err();
    assert!(matches!(error, ClientError::NoSocket(_)), "{error}");
    assert!(error.to_string().contains("there is no such socket"), "{error}");
    drop(UnixListener::bind(directory.socket()).unwrap());
    let error = Client::connect(&directory.socket(), Client::TIMEOUT).unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)), "{error}");
    assert!(error.to_string().contains("the daemon that made it has ended"), "{error}");
}

#[test]
fn a_request_too_long_is_not_sent() {
    let directory = Directory::new("long");
    let _listener = UnixListener::bind(directory.socket()).unwrap();
    let request = Diff { config: "x".repeat(MAX_REQUEST_BYTES), file: String::new() };
    let error = connect(&directory).call(&request).unwrap_err();
    assert!(matches!(error, ClientError::TooLong(_)), "{error}");
}
