//! `kill -9` of the switch, again and again, in the middle of numbered frames between two guests, which keep their
//! memory and their rings: nothing is doubled or damaged, and little is lost.

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

/// A guest: what it has sent and seen.
struct Guest {
    end: End,
    socket: Socket,
    address: u8,
    sent: u64,
    /// The number that comes next from the other one, and how many were left out.
    next: u64,
    lost: u64,
}

/// The frame of this number.
fn frame(from: u8, number: u64) -> Vec<u8> {
    let addresses = [2, 0, 0, 0, 0, from ^ 1, 2, 0, 0, 0, 0, from, 0x88, 0xb5];
    let mut frame = [&addresses[..], &number.to_be_bytes()].concat();
    frame.resize(HEAD + 38 + (number as usize * 37) % 1400, (number as u8).wrapping_mul(31) ^ from);
    frame
}

impl Guest {
    fn new(socket: Socket, address: u8, features: u64) -> Guest {
        let options =
            Options { sizes: [SIZE; 2], features: PLAIN | features, inflight: true, ..Options::default() };
        let end = End::open(socket.connection(), options).expect("the switch agrees");
        assert_eq!(end.features() & features, features, "the switch has these features");
        Guest { end, socket, address, sent: 0, next: 0, lost: 0 }
    }

    /// Sends what the ring takes and looks at what has come.
    fn turn(&mut self) {
        for _ in 0..32 {
            if !self.end.send([0; 12], &frame(self.address, self.sent)) {
                break;
            }
            self.sent += 1;
        }
        while let Some((_, got)) = self.end.receive() {
            let number = got.get(14..HEAD).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let number = number.expect("a frame has a number");
            assert!(number >= self.next, "frame {number} came twice, or after {}", self.next);
            assert!(got == frame(self.address ^ 1, number), "frame {number} was damaged");
            self.lost += number - self.next;
            self.next = number + 1;
        }
        assert_eq!(self.end.fault(), None);
    }
}

/// A switch with two guests.
struct Scene {
    daemon: Daemon,
    guests: [Guest; 2],
    /// Most frames that one kill lost.
    worst: u64,
    _lab: Lab,
}

impl Scene {
    fn start(features: u64) -> Scene {
        let lab = Lab::new("restart");
        let path = |name: &str| lab.folder().join(name);
        let port = |name: &str, mode: &str| {
            let socket = path(name);
            format!(
                "[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"vhost-user\"\nmode = \"{mode}\"\nsocket = \"{}\"\n",
                socket.display()
            )
        };
        let configuration =
            Lab::configuration("[0]", &[]) + &port("left", "client") + &port("right", "server");
        let listener = UnixListener::bind(path("left")).expect("a socket can be made");
        let daemon = lab.start(&configuration);
        let guests = [
            Guest::new(Socket::Listening(listener), 0, features),
            Guest::new(Socket::Path(path("right")), 1, features),
        ];
        Scene { daemon, guests, worst: 0, _lab: lab }
    }

    /// Frames pass both ways: the first ones that are sent from now on arrive.
    fn await_traffic(&mut self, what: &str) {
        let sent = self.guests.each_ref().map(|guest| guest.sent);
        let begun = Instant::now();
        while self.guests[0].next <= sent[1] || self.guests[1].next <= sent[0] {
            let [left, right] = self.guests.each_ref().map(|guest| (guest.sent, guest.next));
            assert!(
                begun.elapsed() < SOON,
                "{what}: in vain, (sent, seen) {left:?} {right:?}, before {sent:?}"
            );
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
        let before = self.guests.each_ref().map(|guest| guest.lost);
        self.daemon.start_again();
        for guest in &mut self.guests {
            guest.end.connect_again(guest.socket.connection()).expect("the switch agrees again");
        }
        self.await_traffic(&format!("round {round}, killed after {turns} turns"));
        // What came while the other guest was not connected again, or was behind, was dropped and counted.
        let lost: u64 = self.guests.iter().zip(before).map(|(guest, before)| guest.lost - before).sum();
        let dropped = self.dropped();
        assert!(lost <= dropped + u64::from(SIZE), "round {round}: {lost} frames lost, {dropped} dropped");
        self.worst = self.worst.max(lost.saturating_sub(dropped));
    }

    /// Frames that the switch has dropped since its start.
    fn dropped(&self) -> u64 {
        let rows = ["left", "right"].map(|name| self.daemon.ctl().port(name).expect("the port is listed"));
        rows.iter().map(|row| row["drops"].as_u64().expect("a counter")).sum()
    }
}

/// Kills the switch so many times, at moments that the seed draws.
fn kill_again_and_again(features: u64, seed: u64) {
    let mut scene = Scene::start(features);
    scene.await_traffic("the first frames");
    let mut pattern = Pattern::new(seed);
    let rounds = scaled(50, 500);
    for round in 0..rounds {
        scene.kill(pattern.below(60), pattern.below(60_000), round);
    }
    let sent: u64 = scene.guests.iter().map(|guest| guest.sent).sum();
    println!("{rounds} kills under {sent} frames, of which one kill lost {} at most", scene.worst);
}

#[test]
fn guests_with_split_rings_get_through_any_number_of_crashes() {
    kill_again_and_again(0, 1);
}

#[test]
fn guests_with_packed_rings_get_through_any_number_of_crashes() {
    kill_again_and_again(PACKED | IN_ORDER, 2);
}
