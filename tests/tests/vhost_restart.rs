//! `kill -9` of the switch, again and again, in the middle of numbered frames between guests, which keep their memory
//! and their rings: nothing is doubled or damaged, and little is lost.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use vhost::driver::frontend::{End, IN_ORDER, Options, PACKED, PLAIN};
use vswitch_tests::cases::scaled;
use vswitch_tests::probe::pattern::Pattern;
use vswitch_tests::wait::{SOON, wait_for};
use vswitch_tests::{Daemon, Lab};

/// Entries of a ring.
const SIZE: u16 = 256;

/// Most guests of a scene.
const GUESTS: usize = 3;

/// Bytes of a frame before its payload: addresses, an EtherType of nobody, its number.
const HEAD: usize = 22;

/// Where a guest is plugged in. One listens for the switch, the other one connects to it.
enum Socket {
    Listening(UnixListener),
    Path(PathBuf),
}

impl Socket {
    fn connection(&self) -> UnixStream {
        match self {
            Socket::Listening(listener) => listener.accept().expect("the switch connects").0,
            Socket::Path(path) => wait_for("the switch listens", SOON, || UnixStream::connect(path).ok()),
        }
    }
}

/// A guest: what it has sent and seen, by the other one.
struct Guest {
    end: End,
    socket: Socket,
    address: u8,
    guests: u8,
    sent: [u64; GUESTS],
    /// The number that comes next, and how many were left out.
    next: [u64; GUESTS],
    lost: u64,
}

/// The frame of this number.
fn frame(from: u8, to: u8, number: u64) -> Vec<u8> {
    let addresses = [2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5];
    let mut frame = [&addresses[..], &number.to_be_bytes()].concat();
    frame.resize(HEAD + 38 + (number as usize * 37) % 1400, (number as u8).wrapping_mul(31) ^ from ^ to << 4);
    frame
}

impl Guest {
    fn new(socket: Socket, [address, guests]: [u8; 2], features: u64, inflight: bool) -> Guest {
        let options =
            Options { sizes: [SIZE; 2], features: PLAIN | features, inflight, ..Options::default() };
        let end = End::open(socket.connection(), options).expect("the switch agrees");
        assert_eq!(end.features() & features, features, "the switch has these features");
        Guest { end, socket, address, guests, sent: [0; GUESTS], next: [0; GUESTS], lost: 0 }
    }

    /// The other ones, by turns.
    fn others(&self) -> impl Iterator<Item = u8> + Clone + use<> {
        let (own, guests) = (self.address, self.guests);
        (1..guests).map(move |by| (own + by) % guests)
    }

    /// Sends what the ring takes and looks at what has come.
    fn turn(&mut self) {
        for to in self.others().cycle().take(32) {
            let sent = &mut self.sent[usize::from(to)];
            if !self.end.send([0; 12], &frame(self.address, to, *sent)) {
                break;
            }
            *sent += 1;
        }
        while let Some((_, got)) = self.end.receive() {
            let number = got.get(14..HEAD).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let number = number.expect("a frame has a number");
            let (to, from) = (got[5], got[11]);
            // A switch that has just begun floods.
            if to != self.address {
                continue;
            }
            let next = &mut self.next[usize::from(from)];
            assert!(number >= *next, "frame {number} of {from} came twice, or after {next}");
            assert!(got == frame(from, to, number), "frame {number} of {from} was damaged");
            self.lost += number - *next;
            *next = number + 1;
        }
        assert_eq!(self.end.fault(), None);
    }
}

/// A switch with its guests.
struct Scene {
    daemon: Daemon,
    guests: Vec<Guest>,
    /// Most frames that one kill lost.
    worst: u64,
    _lab: Lab,
}

impl Scene {
    fn start(workers: &str, guests: u8, features: u64, inflight: bool) -> Scene {
        let lab = Lab::new("restart");
        let path = |name: &str| lab.folder().join(name);
        let port = |name: &str, mode: &str| {
            let socket = path(name);
            format!(
                "[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"vhost-user\"\nmode = \"{mode}\"\nsocket = \"{}\"\n",
                socket.display()
            )
        };
        let configuration = Lab::configuration(workers, &[])
            + &port("0", "client")
            + &(1..guests).map(|at| port(&at.to_string(), "server")).collect::<String>();
        let listener = UnixListener::bind(path("0")).expect("a socket can be made");
        let daemon = lab.start(&configuration);
        let sockets = std::iter::once(Socket::Listening(listener));
        let sockets = sockets.chain((1..guests).map(|at| Socket::Path(path(&at.to_string()))));
        let guests =
            (0..).zip(sockets).map(|(at, socket)| Guest::new(socket, [at, guests], features, inflight));
        Scene { daemon, guests: guests.collect(), worst: 0, _lab: lab }
    }

    /// Frames pass all ways: the first ones that are sent from now on arrive.
    fn await_traffic(&mut self, what: &str) {
        let sent: Vec<_> = self.guests.iter().map(|guest| guest.sent).collect();
        let arrives = |to: &Guest| {
            to.others().all(|from| {
                let [from, to_] = [from, to.address].map(usize::from);
                to.next[from] > sent[from][to_]
            })
        };
        let begun = Instant::now();
        while !self.guests.iter().all(arrives) {
            let now: Vec<_> = self.guests.iter().map(|guest| (guest.sent, guest.next)).collect();
            assert!(begun.elapsed() < SOON, "{what}: in vain, (sent, seen) {now:?}, before {sent:?}");
            self.guests.iter_mut().for_each(Guest::turn);
        }
    }

    /// Kills the switch after some turns of traffic and some nanoseconds, starts it again, and waits until frames
    /// pass both ways.
    fn kill(&mut self, turns: u64, nanoseconds: u64, round: u64) {
        for _ in 0..turns {
            self.guests.iter_mut().for_each(Guest::turn);
        }
        // It is in the middle of what was sent last.
        let sent = Instant::now();
        while sent.elapsed().as_nanos() < nanoseconds.into() {
            std::hint::spin_loop();
        }
        self.daemon.kill();
        // The guests live on: they use what came, offer their buffers again, and send.
        self.guests.iter_mut().for_each(Guest::turn);
        let before: u64 = self.guests.iter().map(|guest| guest.lost).sum();
        self.daemon.start_again();
        for guest in &mut self.guests {
            guest.end.connect_again(guest.socket.connection()).expect("the switch agrees again");
        }
        self.await_traffic(&format!("round {round}, killed after {turns} turns"));
        // What came while the other guest was not connected again, or was behind, was dropped and counted.
        let lost: u64 = self.guests.iter().map(|guest| guest.lost).sum::<u64>() - before;
        let dropped = self.dropped();
        let ring = u64::from(SIZE) * (self.guests.len() as u64 - 1);
        assert!(lost <= dropped + ring, "round {round}: {lost} frames lost, {dropped} dropped");
        self.worst = self.worst.max(lost.saturating_sub(dropped));
    }

    /// Frames that the switch has dropped since its start.
    fn dropped(&self) -> u64 {
        let ctl = self.daemon.ctl();
        let rows = (0..self.guests.len()).map(|at| ctl.port(&at.to_string()).expect("the port is listed"));
        rows.map(|row| row["drops"].as_u64().expect("a counter")).sum()
    }
}

/// Kills the switch so many times, at moments that the seed draws.
fn kill_again_and_again(mut scene: Scene, seed: u64) {
    scene.await_traffic("the first frames");
    let mut pattern = Pattern::new(seed);
    let rounds = scaled(50, 500);
    for round in 0..rounds {
        scene.kill(pattern.below(60), pattern.below(60_000), round);
    }
    let sent: u64 = scene.guests.iter().flat_map(|guest| guest.sent).sum();
    println!("{rounds} kills under {sent} frames, of which one kill lost {} at most", scene.worst);
}

#[test]
fn guests_with_split_rings_get_through_any_number_of_crashes() {
    kill_again_and_again(Scene::start("[0]", 2, 0, true), 1);
}

#[test]
fn guests_with_packed_rings_get_through_any_number_of_crashes() {
    kill_again_and_again(Scene::start("[0]", 2, PACKED | IN_ORDER, true), 2);
}

#[test]
fn so_do_guests_that_keep_nothing_for_the_switch() {
    kill_again_and_again(Scene::start("[0]", 2, PACKED, false), 3);
}

#[test]
fn so_do_guests_that_several_workers_send_to() {
    kill_again_and_again(Scene::start("[0, 1]", 3, 0, true), 4);
    kill_again_and_again(Scene::start("[0, 1]", 3, PACKED, false), 5);
}
