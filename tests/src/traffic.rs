//! Traffic between namespaces, by the kernel's own stack.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::binaries::binary;
use crate::namespace::{Namespace, run};
use crate::probe::datagram::RoundTrips;
use crate::probe::stream::Exchange;
use crate::service::Service;
use crate::wait::{BACK, SOON, wait_until};

/// How long a file transfer may take at most.
const TRANSFER: Duration = Duration::from_secs(120);

/// Whether one ping is answered within a second.
pub fn pings(from: &Namespace, to: IpAddr) -> bool {
    from.succeeds(&format!("ping -n -q -c 1 -W 1 {to}"))
}

/// Waits until `to` answers a ping from `from`.
///
/// # Panics
/// When it does not.
pub fn await_ping(from: &Namespace, to: IpAddr) {
    wait_until(&format!("{to} answers a ping from {}", from.name()), SOON, || pings(from, to));
}

/// Sends pings, 5 ms apart, and returns how many of the first `count` were answered.
///
/// Without a deadline `ping` waits for the last answer no longer than for two times the slowest one before; with one it
/// goes on sending until it has as many answers as it was told, so that a late one is seen.
pub fn count_pings(from: &Namespace, to: IpAddr, count: u32) -> u32 {
    let mut command = from.command("ping");
    command.args(["-n", "-i", "0.005", "-w", "5", "-c", &count.to_string(), &to.to_string()]);
    let output = command.output().expect("ping starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<u32>().ok();
    let answered: HashSet<u32> =
        text.lines().filter(|line| line.contains(" time=")).filter_map(number).collect();
    answered.into_iter().filter(|number| *number <= count).count() as u32
}

/// Runs `netprobe` in a namespace and returns what it printed.
///
/// # Panics
/// When it fails or prints something else.
pub fn probe<T: DeserializeOwned>(inside: &Namespace, arguments: &[&str]) -> T {
    let text = run(inside.command(binary("netprobe")).args(arguments));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("netprobe {arguments:?}: {error} in {text}"))
}

/// Sends a frame, in hexadecimal digits, `count` times by an interface.
///
/// # Panics
/// When it cannot be sent.
pub fn send_frames(from: &Namespace, interface: &str, frame: &str, count: u64) {
    run(from.command(binary("netprobe")).args(["frame-send", interface, frame, &count.to_string()]));
}

/// Starts a `netprobe` that says `ready` and goes on in the background.
///
/// # Panics
/// When it does not get ready.
pub fn probe_service(inside: &Namespace, arguments: &[&str]) -> Service {
    Service::start(inside.command(binary("netprobe")).args(arguments), "ready")
}

/// Exchanges files of `bytes` bytes, one each way over one TCP connection, and checks every byte of both.
///
/// # Panics
/// When the connection fails or a byte is wrong.
pub fn assert_exchange(
    client: &Namespace,
    server: &Namespace,
    to: IpAddr,
    seed: u64,
    bytes: u64,
) -> Exchange {
    let address = SocketAddr::new(to, 7000);
    let service = probe_service(server, &["stream-serve", &address.to_string()]);
    let seen = assert_exchange_with(client, address, seed, bytes);
    service.finish(TRANSFER);
    seen
}

/// The same with a server that is there already.
///
/// # Panics
/// When the connection fails or a byte is wrong.
pub fn assert_exchange_with(client: &Namespace, server: SocketAddr, seed: u64, bytes: u64) -> Exchange {
    let seen: Exchange =
        probe(client, &["stream-exchange", &server.to_string(), &seed.to_string(), &bytes.to_string()]);
    seen.assert_intact(&format!("{} to {server}", client.name()));
    assert_eq!(seen.bytes, bytes);
    seen
}

/// Measures UDP round trips from one namespace to an echo in another.
///
/// # Panics
/// When the echo cannot be asked at all.
pub fn round_trips(client: &Namespace, server: &Namespace, to: IpAddr, count: u64) -> RoundTrips {
    let address = SocketAddr::new(to, 7001).to_string();
    let _echo = probe_service(server, &["echo", &address]);
    probe(client, &["round-trips", &address, &count.to_string()])
}

/// Starts an iperf3 server for one test.
///
/// # Panics
/// When it does not listen.
pub fn iperf_server(server: &Namespace) -> Service {
    Service::start(server.command("iperf3").args(["-s", "-1", "--forceflush"]), "listening")
}

/// Runs an iperf3 client with further `arguments` against a server that it starts, and returns its JSON report.
///
/// # Panics
/// When iperf3 fails.
pub fn iperf(client: &Namespace, server: &Namespace, to: IpAddr, arguments: &[&str]) -> Value {
    let service = iperf_server(server);
    let text = run(client.command("iperf3").args(["--json", "-c", &to.to_string()]).args(arguments));
    service.finish(SOON);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("iperf3 should print JSON ({error}): {text}"))
}

/// Pings that are sent until this is dropped.
#[derive(Debug)]
pub struct Pings {
    child: Child,
    answers: Arc<Mutex<Vec<Answer>>>,
}

/// An answer to a ping.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The ping's number, from 1.
    pub number: u32,
    /// When it came.
    pub time: SystemTime,
}

impl Pings {
    /// Starts them, one every `interval`.
    ///
    /// # Panics
    /// When ping does not start.
    pub fn start(from: &Namespace, to: IpAddr, interval: Duration) -> Self {
        let mut command = from.command("ping");
        command.args(["-n", "-D", "-i", &interval.as_secs_f64().to_string(), &to.to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ping starts");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let seen = answers.clone();
        thread::spawn(move || {
            for answer in output.lines().map_while(Result::ok).filter_map(|line| answer(&line)) {
                seen.lock().expect("nobody panics with it").push(answer);
            }
        });
        Self { child, answers }
    }

    /// The answers so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().expect("nobody panics with it").clone()
    }

    /// Waits until `count` more are answered.
    ///
    /// # Panics
    /// When they are not.
    pub fn await_answers(&self, count: usize) {
        let before = self.answers().len();
        wait_until("pings are answered", SOON, || self.answers().len() >= before + count);
    }

    /// Waits until five more are answered, which may not take longer than what counts as at once.
    ///
    /// # Panics
    /// When it does.
    pub fn assert_back(&self, what: &str) {
        let start = Instant::now();
        self.await_answers(5);
        let took = start.elapsed();
        println!("{what}, and back: five answers within {took:?}");
        assert!(took < BACK, "{what}: {took:?}");
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `[1700000000.123456] 64 bytes from 10.9.0.1: icmp_seq=1 ttl=64 time=0.045 ms`.
fn answer(line: &str) -> Option<Answer> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (_, rest) = rest.split_once(" bytes from ")?.1.split_once("icmp_seq=")?;
    let number = rest.split(' ').next()?.parse().ok()?;
    Some(Answer { number, time: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(time.parse().ok()?) })
}
