//! The AF_XDP programs of this crate, and our driver against an AF_XDP application that shares no code with it.
//!
//! Needs root.
#![allow(unsafe_code, clippy::unwrap_used)]

#[path = "../../pmd/tests/lab/mod.rs"]
mod lab;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use lab::{Container, FAR, NEAR, eventually, frame, private_pair};
use pmd::afxdp::{AfxdpConfig, AfxdpPort, Mode, Purpose, open};
use pmd::{Arena, BATCH, Burst, Features, HugePages, Offload, Port, Prefixes, RxMemory, TxItem};

/// A program of this crate, in the namespace of the calling thread; killed when dropped.
struct Tool {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Tool {
    /// Starts it; waits for its first line, "ready".
    fn start(path: &str, arguments: &[&str]) -> Tool {
        let mut child = Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Tool { child, output }
    }

    /// Waits for its end; gives the number that it reports under `name`.
    fn finish(mut self, name: &str) -> u64 {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        let after = text.split(&format!("\"{name}\":")).nth(1).unwrap();
        after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames of all sizes go to the application and come back from it with their addresses exchanged.
#[test]
fn our_port_and_an_independent_application() {
    const COUNT: usize = 2000;
    private_pair(1500);
    let count = COUNT.to_string();
    let peer =
        Tool::start(env!("CARGO_BIN_EXE_xdp_peer"), &[FAR, "echo", "--seconds", "20", "--count", &count]);
    let arena = Arena::new(4096, HugePages::Off).unwrap();
    let config = AfxdpConfig {
        netns: None,
        device: NEAR.into(),
        queues: None,
        mode: Mode::Auto,
        purpose: Purpose::Host { exclusive: false },
    };
    let mut port = AfxdpPort::new(open(&config, &arena).unwrap());
    let (mut rx, mut tx) = (port.take_rx().remove(0), port.take_tx().remove(0));
    let (mut memory, mut pool, prefixes) = (RxMemory::new(), arena.pool(), Prefixes::default());
    let mut sent = Vec::new();
    let mut back = Vec::new();
    while sent.len() < COUNT {
        let (mut batch, mut scratch) = memory.lend();
        for _ in 0..BATCH.min(COUNT - sent.len()) {
            let bytes = frame(sent.len() as u8, 60 + sent.len() % 1455);
            let copy = scratch.take(bytes.len());
            copy.copy_from_slice(&bytes);
            batch.push_private(copy, 0, Offload::NONE);
            sent.push(bytes);
        }
        let items: Vec<TxItem> = (0..batch.len()).map(|i| TxItem::whole(&batch, i, true)).collect();
        let report = tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, Features::NONE), &mut pool);
        assert_eq!(report.sent as usize, items.len());
        batch.recycle(&mut pool);
        // The application's rings are small beside the whole; wait for this burst's echo.
        let echoed = eventually(|| {
            tx.maintain(&mut pool);
            let batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
            back.extend((0..batch.len()).map(|i| batch.head(i).to_vec()));
            batch.recycle(&mut pool);
            (back.len() == sent.len()).then_some(())
        });
        echoed.unwrap();
    }
    for (sent, back) in sent.iter().zip(&back) {
        assert_eq!((&sent[..6], &sent[6..12], &sent[12..]), (&back[6..12], &back[..6], &back[12..]));
    }
    assert_eq!(peer.finish("frames"), COUNT as u64);
}

/// Every frame of the generator reaches the application: none is lost where both keep up.
#[test]
fn the_generator_sends_what_it_says() {
    private_pair(1500);
    let peer =
        Tool::start(env!("CARGO_BIN_EXE_xdp_peer"), &[FAR, "count", "--seconds", "20", "--count", "1500"]);
    let output = Command::new(env!("CARGO_BIN_EXE_xdp_generator"))
        .args([NEAR, "--count", "1500", "--seconds", "10", "--destinations", "100"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("\"frames\":1500,"), "{text}");
    assert_eq!(peer.finish("frames"), 1500);
}

/// Two kernels with default offloads talk TCP through the bare forwarder.
#[test]
fn the_forwarder_completes_checksums() {
    // SAFETY: no pointers; concerns this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    for mtu in [1500, 9000] {
        let (one, two) = (Container::new(1, mtu), Container::new(2, mtu));
        let _forwarder =
            Tool::start(env!("CARGO_BIN_EXE_xdp_forwarder"), &[&one.device, &two.device, "--seconds", "20"]);
        let (ok, text) = one.run(&["ping", "-c", "2", "-i", "0.02", "-W", "2", "10.77.0.2"]);
        assert!(ok, "{text}");
        let listener = two.spawn(|| std::net::TcpListener::bind("10.77.0.2:4711").unwrap()).join().unwrap();
        let sent: Vec<u8> = (0..2 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
        let copy = sent.clone();
        let client = one.spawn(move || {
            use std::io::Write;
            std::net::TcpStream::connect("10.77.0.2:4711").unwrap().write_all(&copy).unwrap();
        });
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        client.join().unwrap();
        assert!(got == sent, "bytes changed on the way");
    }
}
