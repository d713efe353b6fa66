//! What must hold for any bytes, one function for each thing that reads an outsider's bytes. Each panics if it does
//! not hold. The fuzz targets call these, and so does a test that needs no fuzzer.

use std::io::Cursor;

use control::api::{ApiError, MAX_REQUEST_BYTES, MessageReader, decode_request, encode_response};
use control::schema::Config;
use vswitch::flow::headers::{Depth, Fragment, Headers, Network, Transport, WINDOW, parse, parse_link};
use vswitch::notation;

/// A frame from a port: parsed at both depths, and described.
pub fn frame(bytes: &[u8]) {
    let length = bytes.len();
    let link = parse(bytes, length, Depth::L2);
    let all = parse(bytes, length, Depth::L4);
    assert_eq!(link.map(|headers| headers.link), parse_link(bytes), "L2 is what parse_link reads");
    assert_eq!(
        parse(&bytes[..length.min(WINDOW)], length, Depth::L4),
        all,
        "nothing beyond the window counts"
    );
    match (link, all) {
        (Ok(link), Ok(all)) => {
            assert_eq!(link.link, all.link);
            consistent(&all, length);
        }
        (Err(link), all) => assert_eq!(all, Err(link), "what L2 refuses, L4 refuses"),
        (Ok(_), Err(reason)) => assert!(!reason.name().is_empty()),
    }
    if length <= notation::MAX_FRAME {
        let text = notation::describe(bytes);
        assert_eq!(notation::build(&text).as_deref(), Ok(bytes), "{text}");
    }
}

/// What the fields of `Headers` say of each other.
fn consistent(headers: &Headers, length: usize) {
    let (l3, l4) = (usize::from(headers.link.l3), usize::from(headers.l4));
    assert!(l3 <= length && l4 <= length.min(WINDOW));
    assert_eq!(headers.link.inner.is_present(), l3 == 22);
    assert_eq!(headers.link.outer.is_present(), l3 > 14);
    let ip = matches!(headers.network, Network::Ipv4 | Network::Ipv6);
    assert_eq!(ip, headers.transport != Transport::Absent);
    assert_eq!(ip, l4 != 0);
    if headers.fragment == Fragment::Later {
        assert_eq!(headers.transport, Transport::Hidden);
    }
    let has_ports = matches!(headers.transport, Transport::Tcp | Transport::Udp | Transport::Sctp);
    assert!(has_ports || (headers.src_port, headers.dst_port, headers.tcp_flags) == (0, 0, 0));
    let least = match headers.transport {
        Transport::Tcp => 20,
        Transport::Udp | Transport::Icmp => 8,
        Transport::Sctp => 12,
        Transport::Icmpv6 => 4,
        _ => 0,
    };
    assert!(l4 + least <= length.min(WINDOW), "a transport header lies in the frame");
}

/// A text for `trace`.
pub fn notation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match notation::build(text) {
        Ok(frame) => {
            assert!(frame.len() <= notation::MAX_FRAME);
            let described = notation::describe(&frame);
            assert_eq!(notation::build(&described), Ok(frame), "{described}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(frame) = notation::from_hex(text) {
        assert!(frame.len() <= text.len() / 2);
    }
}

/// A configuration document.
pub fn config(bytes: &[u8]) {
    match Config::parse_bytes(bytes, "fuzz.toml") {
        Ok(config) => {
            assert_eq!(config.check(), Ok(()), "what is read is sound");
            let written = config.to_toml();
            assert_eq!(Config::parse(&written, "written.toml"), Ok(config), "{written}");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// What a client sends to the control socket.
pub fn request(bytes: &[u8]) {
    let mut reader = MessageReader::new(Cursor::new(bytes), MAX_REQUEST_BYTES);
    while let Ok(Some(line)) = reader.next_line() {
        assert!(!line.contains(&b'\n'));
        answer(&line);
    }
    answer(bytes);
}

fn answer(line: &[u8]) {
    let answer = match decode_request(line) {
        Ok(request) => encode_response(request.id.as_ref(), &Ok::<_, ApiError>(request.call.name())),
        Err(bad) => encode_response(bad.id.as_ref(), &Err::<(), _>(bad.error)),
    };
    assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1, "an answer is one line");
    assert_eq!(answer.last(), Some(&b'\n'));
}
