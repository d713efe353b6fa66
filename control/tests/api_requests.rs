//! Requests as they come over the socket: good ones, wrong ones, and any bytes at all.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read};

use control::api::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn decode(line: &str) -> Result<Request, BadRequest> {
    decode_request(line.as_bytes())
}

#[track_caller]
fn assert_refused(line: &str, code: ErrorCode, id: Option<Id>, message: &str) {
    let bad = decode(line).expect_err(line);
    assert_eq!((bad.error.code, bad.id), (code, id), "{line}");
    let text = bad.error.to_string();
    assert!(text.contains(message), "{line}: {text}");
}

#[test]
fn good_requests() {
    let request = decode(r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#).unwrap();
    assert_eq!(request, Request { id: Some(Id::Number(1)), call: Call::GetStatus(GetStatus {}) });
    let request =
        decode(r#"{"jsonrpc":"2.0","id":"a","method":"worker.rebalance","params":{"dry_run":true}}"#);
    let call = Call::WorkerRebalance(WorkerRebalance { dry_run: true });
    assert_eq!(request, Ok(Request { id: Some(Id::Text("a".into())), call }));
    let request = decode(r#"{"jsonrpc":"2.0","method":"worker.reset","params":null}"#).unwrap();
    assert_eq!((request.id, request.call.name()), (None, "worker.reset"));
}

#[test]
fn a_port_goes_by_the_keys_of_the_document() {
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"port":{"name":"web1","bridge":"blue",
        "type":"tap","netns":"web1","vlan":10,"address":["10.1.0.11/24"],"gateway":"10.1.0.1"}}}"#;
    let Call::PortAdd(add) = decode(line).unwrap().call else { panic!("another call") };
    assert_eq!(add.port.kind.type_name(), "tap");
    assert_eq!(add.port.kind.endpoint().unwrap().gateways.len(), 1);
    let wrong = line.replace("netns", "netsn");
    assert_refused(
        &wrong,
        ErrorCode::InvalidParams,
        Some(Id::Number(1)),
        "port \"web1\": unknown key `netsn`; nearest is `netns`",
    );
}

#[test]
fn wrong_requests() {
    use ErrorCode::*;
    let one = || Some(Id::Number(1));
    assert_refused("", Parse, None, "no JSON");
    assert_refused("{", Parse, None, "no JSON");
    assert_refused("[]", InvalidRequest, None, "batches are not supported");
    assert_refused("7", InvalidRequest, None, "one JSON object");
    assert_refused(r#"{"id":1,"method":"status"}"#, InvalidRequest, one(), "`jsonrpc` must be \"2.0\"");
    assert_refused(r#"{"jsonrpc":"2.0","id":1}"#, InvalidRequest, one(), "`method` must be a string");
    assert_refused(r#"{"jsonrpc":"2.0","id":{},"method":"status"}"#, InvalidRequest, None, "`id` must be");
    assert_refused(r#"{"jsonrpc":"2.0","id":1.5,"method":"status"}"#, InvalidRequest, None, "`id` must be");
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"status","param":{}}"#,
        InvalidRequest,
        one(),
        "no member `param`",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"port.lst"}"#,
        UnknownMethod,
        one(),
        "nearest is \"port.list\"",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"frobnicate"}"#,
        UnknownMethod,
        one(),
        "methods are status, apply",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"status","params":[]}"#,
        InvalidParams,
        one(),
        "by name",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"a":1}}"#,
        InvalidParams,
        one(),
        "unknown field `a`",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"apply"}"#,
        InvalidParams,
        one(),
        "missing field `config`",
    );
    assert_refused(
        r#"{"jsonrpc":"2.0","id":1,"method":"port.del","params":{"name":"a/b"}}"#,
        InvalidParams,
        one(),
        "`a/b` is no name",
    );
}

#[test]
fn bounds() {
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(MAX_REQUEST_BYTES));
    assert_refused(&long, ErrorCode::InvalidRequest, None, "at most 16777216 bytes");
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status","params":{}"#, "[".repeat(100_000));
    assert_refused(&deep, ErrorCode::InvalidRequest, None, "at most 32 levels deep");
    let brackets_in_text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"apply","params":{{"config":"{}\""}}}}"#,
        "[".repeat(99)
    );
    assert!(decode(&brackets_in_text).is_ok());
}

#[test]
fn every_method_can_be_asked_by_name() {
    for method in METHODS {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        match decode(&line) {
            Ok(request) => assert_eq!(request.call.name(), *method),
            Err(bad) => assert_eq!(bad.error.code, ErrorCode::InvalidParams, "{method}: {bad}"),
        }
    }
}

#[test]
fn responses() {
    let id = Id::Number(3);
    let line = encode_response(Some(&id), &Ok(Flushed { removed: 2 }));
    assert_eq!(line, b"{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"removed\":2}}\n");
    let response = decode_response::<FdbFlush>(&line[..line.len() - 1]).unwrap();
    assert_eq!(response, Response { id: Some(id), outcome: Ok(Flushed { removed: 2 }) });

    let error = ApiError::not_found("port", "x", []);
    let line = encode_response::<Flushed>(None, &Err(error.clone()));
    assert!(line.starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":2,"));
    let response = decode_response::<FdbFlush>(&line[..line.len() - 1]).unwrap();
    assert_eq!(response, Response { id: None, outcome: Err(error) });
}

#[test]
fn requests_read_back() {
    let id = Id::Text("x".to_owned());
    let params = Trace { port: "p".parse().unwrap(), notation: Some("eth()".to_owned()), hex: None };
    let line = encode_request(&id, &params).unwrap();
    let request = decode_request(line.strip_suffix(b"\n").unwrap()).unwrap();
    assert_eq!(request, Request { id: Some(id), call: Call::Trace(params) });
}

/// A stream that hands out its bytes in given portions.
struct Portions<'b> {
    bytes: &'b [u8],
    sizes: Vec<usize>,
}

impl Read for Portions<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.pop().unwrap_or(usize::MAX).min(buffer.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(size);
        buffer[..size].copy_from_slice(now);
        self.bytes = later;
        Ok(size)
    }
}

#[test]
fn a_line_too_long_ends_the_stream() {
    let mut reader = MessageReader::new(&b"12345\n123456\n"[..], 5);
    assert_eq!(reader.next_line().unwrap().unwrap(), b"12345");
    assert_eq!(reader.next_line().unwrap_err().kind(), io::ErrorKind::InvalidData);
    let mut reader = MessageReader::new(io::repeat(b'x'), 1_000_000);
    assert_eq!(reader.next_line().unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_stream_that_ends_inside_a_line() {
    let mut reader = MessageReader::new(&b"a\nb"[..], 5);
    assert_eq!(reader.next_line().unwrap().unwrap(), b"a");
    assert_eq!(reader.next_line().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode_request(&bytes);
        let _ = decode_response::<GetStatus>(&bytes);
    }

    /// Requests with strange parameters get past the outer checks.
    #[test]
    fn any_parameters_are_decoded_or_refused(
        method in prop::sample::select(METHODS),
        key in "(port|bridge|entry|name|config|dry_run|after|limit|notation|vlan)",
        inner in "(name|bridge|type|vlan|trunk|mac|address|workers|fdb_limit|x)",
        value in "(null|true|-1|1e99|\"tap\"|\"all\"|\"\"|\\[\\]|\\[1,\"a\"\\]|\\{\\}|\"\\\\ud800\"|99999999999999999999)",
    ) {
        let flat = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{key}":{value}}}}}"#);
        let nested = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{key}":{{"{inner}":{value}}}}}}}"#);
        for line in [flat, nested] {
            if let Err(bad) = decode(&line) {
                let answer = encode_response::<Nothing>(bad.id.as_ref(), &Err(bad.error));
                prop_assert_eq!(answer.iter().filter(|&&byte| byte == b'\n').count(), 1);
            }
        }
    }

    #[test]
    fn lines_come_whole_whatever_the_portions(
        lines in vec("[a-z]{0,40}", 0..10),
        sizes in vec(1usize..50, 0..60),
    ) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let mut reader = MessageReader::new(Portions { bytes: &bytes, sizes }, 40);
        for line in &lines {
            prop_assert_eq!(reader.next_line().unwrap().unwrap(), line.as_bytes());
        }
        prop_assert!(reader.next_line().unwrap().is_none());
    }
}
