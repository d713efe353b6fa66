//! For tests of drivers on kernel devices: namespaces that are removed when the test ends, also when it fails;
//! a wire between two ports; and real TCP over it.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Netns;
use crate::arena::{Arena, HugePages};
use crate::batch::{BATCH, RxMemory};
use crate::gather::{Burst, Part, Prefixes, TxItem};
use crate::port::{Fault, Port, RxQueue, Source, TxQueue, TxReport};
use crate::segment::Train;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Named namespaces of one test.
pub(crate) struct Sandbox {
    names: Vec<String>,
    handles: Vec<Netns>,
}

impl Sandbox {
    /// Makes `count` namespaces, each with `lo` up.
    pub(crate) fn new(count: usize) -> Self {
        let run = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut sandbox = Self { names: Vec::new(), handles: Vec::new() };
        for i in 0..count {
            let name = format!("vsnet-{}-{run}-{i}", std::process::id());
            ip(&["netns", "add", &name]);
            sandbox.names.push(name.clone());
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            sandbox.handles.push(Netns::open(&name).unwrap());
        }
        sandbox
    }

    pub(crate) fn netns(&self, i: usize) -> &Netns {
        &self.handles[i]
    }

    pub(crate) fn name(&self, i: usize) -> &str {
        &self.names[i]
    }

    /// Runs iproute2 inside; returns what it printed.
    pub(crate) fn ip(&self, i: usize, arguments: &[&str]) -> String {
        ip(&[&["-n", self.names[i].as_str()], arguments].concat())
    }

    /// Runs a program inside; returns whether it succeeded, and what it printed.
    pub(crate) fn exec(&self, i: usize, command: &[&str]) -> (bool, String) {
        let all = [&["netns", "exec", self.names[i].as_str()], command].concat();
        let output = Command::new("ip").args(all).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a [`Wire`] saw in one direction.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) frames: u32,
    pub(crate) longest: usize,
    pub(crate) tagged: u32,
    pub(crate) refused: u32,
    /// Segments, less the trains that they were.
    pub(crate) made: u32,
    pub(crate) report: TxReport,
    pub(crate) fault: Option<Fault>,
}

/// A thread that carries every frame from one port to another and back.
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[Seen; 2]>,
}

impl Wire {
    pub(crate) fn new(ports: [&mut dyn Port; 2]) -> Self {
        Self::start(ports, false)
    }

    /// A wire that tags every frame for VLAN 7 towards the second port, and takes the tags out on the way back.
    pub(crate) fn tagging(ports: [&mut dyn Port; 2]) -> Self {
        Self::start(ports, true)
    }

    fn start(ports: [&mut dyn Port; 2], tag: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let [one, two] = ports;
        let features = [one.features(), two.features()];
        let mut rx = [one.take_rx(), two.take_rx()];
        let mut tx = [one.take_tx(), two.take_tx()];
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let arena = Arena::new(256, HugePages::Off).unwrap();
            let (mut pool, mut memory, mut prefixes) = (arena.pool(), RxMemory::new(), Prefixes::default());
            let mut seen = [Seen::default(), Seen::default()];
            while !stopped.load(Ordering::Relaxed) {
                wait(&rx);
                for from in 0..2 {
                    let out = &mut tx[1 - from][0];
                    for queue in &mut rx[from] {
                        let mut batch = match queue.receive(&mut memory, &mut pool, BATCH) {
                            Ok(batch) => batch,
                            Err(fault) => {
                                seen[from].fault = Some(fault);
                                return seen;
                            }
                        };
                        if tag {
                            seen[from].tagged += retag(&mut batch, from == 0);
                        }
                        carry(
                            batch,
                            out.as_mut(),
                            &mut prefixes,
                            features[1 - from],
                            &mut pool,
                            &mut seen[from],
                        );
                    }
                }
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the wire; what it saw, by direction.
    pub(crate) fn stop(self) -> [Seen; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }

    /// Waits for a queue's fault.
    pub(crate) fn fault(self) -> Fault {
        wait_until("a fault", || self.thread.is_finished());
        self.thread.join().unwrap().into_iter().find_map(|seen| seen.fault).unwrap()
    }
}

/// Puts tags in or takes them out; how many.
fn retag(batch: &mut crate::Batch<'_>, put: bool) -> u32 {
    let mut tagged = 0;
    for i in 0..batch.len() {
        if put {
            batch.insert(i, 12, 4).unwrap().copy_from_slice(&[0x81, 0, 0, 7]);
            tagged += 1;
        } else if batch.head(i)[12..16] == [0x81, 0, 0, 7] {
            assert!(batch.remove(i, 12, 4));
            tagged += 1;
        }
    }
    tagged
}

fn carry(
    mut batch: crate::Batch<'_>,
    out: &mut dyn TxQueue,
    prefixes: &mut Prefixes,
    features: crate::Features,
    pool: &mut crate::Pool,
    seen: &mut Seen,
) {
    seen.refused += batch.refused().total();
    let mut items = Vec::new();
    prefixes.clear();
    for i in 0..batch.len() {
        seen.made += outgoing(&batch, i, prefixes, features, &mut items);
        seen.frames += 1;
        seen.longest = seen.longest.max(batch.frame_len(i));
    }
    let report = out.transmit(&mut Burst::new(&mut batch, &items, prefixes, features), pool);
    assert_eq!(report.total() as usize, items.len());
    seen.report.sent += report.sent;
    seen.report.bytes += report.bytes;
    seen.report.full += report.full;
    seen.report.refused += report.refused;
    seen.report.down += report.down;
    batch.recycle(pool);
}

/// What leaves of frame `i`: itself, or, if it is a train that the port does not take, its segments; how many more
/// than one.
fn outgoing(
    batch: &crate::Batch<'_>,
    i: usize,
    prefixes: &mut Prefixes,
    features: crate::Features,
    items: &mut Vec<TxItem>,
) -> u32 {
    let whole = TxItem::whole(batch, i, true);
    if !batch.packed_offload(i).has_gso() {
        items.push(whole);
        return 0;
    }
    let mut train = Train::new(batch.head(i), i, Part::whole(batch, i)).unwrap();
    if train.passes(features) {
        items.push(train.found().map_or(whole, |part| prefixes.add(i as u16, part).unwrap()));
        return 0;
    }
    while let Some(segment) = train.next(prefixes).unwrap() {
        items.push(segment);
    }
    train.count() as u32 - 1
}

/// Looks every few milliseconds whether `condition` holds, for at most twenty seconds: the kernel takes its time to
/// end a namespace when many end at once.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sleeps until a queue is readable, at most 20 ms.
fn wait(rx: &[Vec<Box<dyn RxQueue>>; 2]) {
    let mut fds: Vec<_> = rx
        .iter()
        .flatten()
        .filter_map(|queue| match queue.source() {
            Source::Descriptor(fd) | Source::Ring(fd) => Some(fd.as_raw_fd()),
            Source::Polled => None,
        })
        .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: `fds` is an array of so many entries and outlives the call.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 20) };
}

/// An open TCP connection between two namespaces: its client's end and its server's.
pub(crate) fn connection(from: &Netns, to: &Netns, address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = to.run(|| Ok(TcpListener::bind(SocketAddr::new(address, 0)).unwrap())).unwrap();
    let target = listener.local_addr().unwrap();
    let connect = || Ok(TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap());
    let client = from.run(connect).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (client, server)
}

/// Sends a message over a connection and back.
pub(crate) fn exchange((client, server): &mut (TcpStream, TcpStream), message: &[u8]) {
    let mut buffer = vec![0; message.len()];
    client.write_all(message).unwrap();
    server.read_exact(&mut buffer).unwrap();
    server.write_all(&buffer).unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, message);
}

/// Sends `bytes` bytes of a known pattern from one namespace to an address in another, over TCP, and checks
/// every one.
pub(crate) fn tcp(from: &Netns, to: &Netns, address: IpAddr, bytes: usize) {
    let listener = to.run(|| Ok(TcpListener::bind(SocketAddr::new(address, 0)).unwrap())).unwrap();
    let target = listener.local_addr().unwrap();
    let pattern = |i: usize| (i * 31 + i / 4093) as u8;
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (mut at, mut chunk) = (0, vec![0; 1 << 20]);
        loop {
            match stream.read(&mut chunk).unwrap() {
                0 => return at,
                read => {
                    for (i, byte) in chunk[..read].iter().enumerate() {
                        assert_eq!(*byte, pattern(at + i), "byte {}", at + i);
                    }
                    at += read;
                }
            }
        }
    });
    let connect = || Ok(TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap());
    let mut stream = from.run(connect).unwrap();
    let data: Vec<u8> = (0..bytes).map(pattern).collect();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&data).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap(), bytes);
}
