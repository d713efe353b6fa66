//! The scene of an attack: a switch with a port for the attacker, a stream of frames between two others, and what is
//! looked at when it is over.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vswitch_tests::cases::scaled;
use vswitch_tests::frontend::{FrontEnd, Kind};
use vswitch_tests::lab::{assert_conserved, await_up};
use vswitch_tests::wait::SOON;
use vswitch_tests::{Attachment, Container, Daemon, Lab, wait_until};

/// Frames a second of the stream beside the attack, and what of it must arrive.
const RATE: f64 = 5000.0;
const KEPT: f64 = 0.9;

/// Which rings an attack is made over, and how often: a full run makes more of it.
pub type Over = (&'static [Kind], u64);
pub const SPLIT: Over = (&[Kind::Split], 1);
pub const PACKED: Over = (&[Kind::Packed], 1);
pub const BOTH: Over = (&[Kind::Split, Kind::Packed], 2);
/// Both in a full run, for what has nothing to do with rings.
pub const ANY: Over = (BOTH.0, 1);

/// The kind of ring, time after time.
fn rounds((kinds, normal): Over) -> impl Iterator<Item = Kind> {
    kinds.iter().copied().cycle().take(usize::try_from(scaled(normal, 6)).expect("few"))
}

/// By how much the memory of the daemon may differ afterwards: what an allocator keeps.
const SPARE_BYTES: u64 = 8 << 20;

/// The third of the ports, and nobody.
const STATION: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 0xa], [2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xc]];

pub fn frame(from: usize, to: usize) -> Vec<u8> {
    [&STATION[to][..], &STATION[from], &[0x88, 0xb5], &[7; 86]].concat()
}

/// A steady stream from one port to another, and how much of it arrives.
struct Stream {
    end: Arc<AtomicBool>,
    /// Frames of the stream, and of others, that arrived.
    arrived: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    fn start(mut from: FrontEnd, mut to: FrontEnd) -> Self {
        let (end, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; 2]));
        let (ends, counts) = (end.clone(), arrived.clone());
        let thread = thread::spawn(move || {
            assert!(to.send(&frame(1, 0)), "the ring is empty");
            let (begun, mut sent) = (Instant::now(), 0);
            let everybody = [&[0xff; 6], &frame(1, 0)[6..]].concat();
            while !ends.load(Ordering::Relaxed) {
                // The attacker gets something to receive.
                let _ = to.send(&everybody);
                while from.receive().is_some() {}
                let due = (begun.elapsed().as_secs_f64() * RATE) as u64;
                while sent < due && from.send(&frame(0, 1)) {
                    sent += 1;
                }
                while let Some(frame) = to.receive() {
                    let other = usize::from(frame[6..12] != STATION[0]);
                    counts[other].fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self { end, arrived, thread: Some(thread) }
    }

    fn arrived(&self, other: bool) -> u64 {
        self.arrived[usize::from(other)].load(Ordering::Relaxed)
    }

    /// Which part of what was due arrived while `work` was done.
    fn kept(&self, work: impl FnOnce()) -> f64 {
        let (begun, before) = (Instant::now(), self.arrived(false));
        work();
        (self.arrived(false) - before) as f64 / (begun.elapsed().as_secs_f64() * RATE)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A switch with a port `vm` for the attacker and two others with a stream between them.
pub struct Scene {
    stream: Stream,
    pub container: Container,
    pub daemon: Daemon,
    pub lab: Lab,
    pub configuration: String,
    _alone: File,
}

/// The scene, between two tests of this process, and how many of them wait for it.
static SCENE: Mutex<Option<Scene>> = Mutex::new(None);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Does `work` with a scene, one test at a time. Who waits gets the same one, which takes a while to set up, unless a
/// test failed in it.
pub fn with_scene(work: impl FnOnce(&Scene)) {
    WAITING.fetch_add(1, Ordering::SeqCst);
    let mut place = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
    WAITING.fetch_sub(1, Ordering::SeqCst);
    let scene = place.take().unwrap_or_else(Scene::start);
    work(&scene);
    if WAITING.load(Ordering::SeqCst) > 0 {
        *place = Some(scene);
    }
}

/// A `vhost-user` port, whose socket has its name.
pub fn port(lab: &Lab, name: &str) -> String {
    let socket = lab.folder().join(name);
    let keys = format!("type = \"vhost-user\"\nsocket = \"{}\"\n", socket.display());
    format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\n{keys}")
}

impl Scene {
    fn start() -> Self {
        // One at a time, also where each test is a process: the stream wants a core, and the worker the other.
        let alone = File::create(std::env::temp_dir().join("vswitch-hostile.lock")).expect("a file");
        alone.lock().expect("a lock");
        let lab = Lab::new("hostile");
        let container = lab.container("tap", Attachment::Tap, 1500);
        let ports = ["a", "b", "vm"].map(|name| port(&lab, name)).concat();
        let configuration = Lab::configuration("[1]", &[&container]) + &ports;
        let daemon = lab.start(&configuration);
        await_up(&daemon.ctl(), &["tap", "a", "b", "vm"]);
        let [from, to] =
            ["a", "b"].map(|name| FrontEnd::decent(&lab.folder().join(name), Kind::Split).expect("a port"));
        let stream = Stream::start(from, to);
        let scene = Self { stream, container, daemon, lab, configuration, _alone: alone };
        wait_until("the stream flows", SOON, || scene.stream.arrived(false) > 100);
        BOTH.0.iter().for_each(|kind| scene.behave(*kind));
        scene
    }

    pub fn socket(&self) -> PathBuf {
        self.lab.folder().join("vm")
    }

    pub fn decent(&self, kind: Kind) -> FrontEnd {
        let end = FrontEnd::decent(&self.socket(), kind).expect("the port takes a decent front end");
        self.await_link("up", "");
        end
    }

    pub fn await_link(&self, link: &str, reason: &str) {
        self.await_link_of("vm", link, reason);
    }

    pub fn await_link_of(&self, name: &str, link: &str, reason: &str) {
        let mut last = (String::new(), String::new());
        let ctl = self.daemon.ctl();
        let begun = Instant::now();
        while last.0 != link || !last.1.starts_with(reason) {
            let row = ctl.port(name).expect("the port is listed");
            last = ["link", "reason"].map(|field| row[field].as_str().unwrap_or("").to_owned()).into();
            assert!(
                begun.elapsed() < SOON,
                "the link of {name} should be {link}, {reason:?}; it is {last:?}"
            );
        }
    }

    /// A decent front end is served, and goes.
    pub fn behave(&self, kind: Kind) {
        let mut end = self.decent(kind);
        let before = self.stream.arrived(true);
        assert!(end.send(&frame(2, 1)));
        wait_until("a frame of a decent front end arrives", SOON, || self.stream.arrived(true) > before);
        drop(end);
        self.await_link("down", "disconnected");
    }

    pub fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.daemon.pid().to_string()).join(file)
    }

    /// Its descriptors, and its mappings of memory that front ends share.
    pub fn belongings(&self) -> [usize; 2] {
        let sample = || {
            let maps = fs::read_to_string(self.proc("maps")).expect("maps");
            let shared = maps.lines().filter(|line| line.contains("front end")).count();
            [fs::read_dir(self.proc("fd")).expect("descriptors").count(), shared]
        };
        // The connection of the last command may still be there.
        let samples: Vec<_> = (0..20).map(|_| sample()).collect();
        [0, 1].map(|which| samples.iter().map(|sample| sample[which]).min().expect("a sample"))
    }

    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Does `work`, which is to leave nothing behind and to cost the stream nothing.
    pub fn unharmed(&self, work: impl FnOnce()) {
        let (before, resident) = (self.belongings(), self.resident());
        let kept = self.stream.kept(work);
        assert!(kept >= KEPT, "of the others' stream {:.0}% arrived", 100.0 * kept);
        wait_until("descriptors and mappings are given back", SOON, || {
            self.belongings().iter().zip(&before).all(|(now, before)| now <= before)
        });
        let now = self.resident();
        assert!(now < resident + SPARE_BYTES, "{resident} bytes have become {now}");
        assert_conserved(&self.daemon.ctl());
    }
}

/// An attack that takes the port down with a reason that begins with `word`.
pub fn faults(word: &str, over: Over, attack: impl Fn(&mut FrontEnd)) {
    with_scene(|scene| {
        scene.unharmed(|| {
            for kind in rounds(over) {
                let mut end = scene.decent(kind);
                attack(&mut end);
                scene.await_link("down", word);
                drop(end);
                scene.behave(kind);
            }
        });
    });
}

/// An attack that the port bears.
pub fn bears(over: Over, attack: impl Fn(&mut FrontEnd)) {
    with_scene(|scene| {
        scene.unharmed(|| {
            for kind in rounds(over) {
                let mut end = scene.decent(kind);
                attack(&mut end);
                if let Err(error) = end.settle() {
                    panic!(
                        "the port is not served any more: {error}; it is {:?}",
                        scene.daemon.ctl().port("vm").map(|row| row["reason"].clone())
                    );
                }
                scene.await_link("up", "");
                drop(end);
                scene.await_link("down", "disconnected");
                scene.behave(kind);
            }
        });
    });
}
