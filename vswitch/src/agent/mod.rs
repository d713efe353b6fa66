//! The agent: what the switch itself says on networks, as a machine with addresses of its own.
//!
//! An underlay that we own needs somebody who resolves the next hop of each tunnel, answers who asks for our VTEP's
//! address, and hears that a packet was too big; a bridge with an address wants its pings answered. Each of these is
//! a [`Station`], plugged into the switch by a `local` port, and one control thread plays all of them. None of that
//! is fast and none of it has to be: frames of tunnels never come here.
//!
//! A station at work (`station.rs`) is pure: time and frames go in, frames and [`Event`]s come out. It reads and
//! writes frames by `frame.rs`, finds the next hop by [`routes`], asks for it by `resolver.rs`. The thread carries
//! frames between stations and their ports, and commands to them, and hands events to the switch, in the order in
//! which they came about. All that somebody outside can make it remember is bounded, and so is what it answers.
//!
//! Stations have no smoltcp interface, only its wire formats: an interface keeps neighbours of its own, of a fixed
//! small number, to answer whom it need not know, and says "unreachable" about frames that are not its own.

mod bfd;
mod event;
pub(crate) mod frame;
mod groups;
pub(crate) mod liveness;
pub(crate) mod path_mtu;
pub(crate) mod ping;
mod resolver;
pub mod routes;
mod station;

pub use bfd::{Diagnostic, Packets, State, Timing};
pub use event::{Event, Path, PathChange, PathMtu, Reason};
pub(crate) use frame::CONTROL as BFD_PORTS;
pub use frame::multicast_mac;
pub use liveness::{Ends, Liveness};
pub use ping::PingError;
pub use resolver::Standing;
pub use station::{Counters, Station};

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use pmd::clock::Clock;
use pmd::local::{Bell, LocalEnd};

use ping::Ping;
use station::{Core, Output};

/// Frames of one station before the next has its turn.
const BUDGET: usize = 64;

/// The longest sleep.
const REST: Duration = Duration::from_secs(1);

/// A station, as somebody asks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The station's name.
    pub name: Arc<str>,
    /// The neighbours through whom remotes are reached, by address.
    pub neighbours: Vec<(IpAddr, Standing)>,
    /// Its BFD sessions, by remote.
    pub liveness: Vec<Liveness>,
    /// What it did.
    pub counters: Counters,
}

enum Command {
    Add(Station, LocalEnd),
    Change(Station),
    Remove(Arc<str>),
    Want(Arc<str>, IpAddr),
    Unwant(Arc<str>, IpAddr),
    Watch(Arc<str>, Ends, Option<Timing>),
    Ping { station: Arc<str>, remote: IpAddr, size: usize, timeout: Duration, answer: Sender<Answer> },
    Report(Sender<Vec<Report>>),
    Stop,
}

type Answer = Result<Duration, PingError>;

/// The thread that plays all stations. It ends with this.
pub struct Agent {
    bell: Bell,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// Pings for whoever wants to know, without holding the agent.
pub struct Pinger {
    bell: Bell,
    commands: Sender<Command>,
}

impl Pinger {
    /// Pings `remote` with a packet of `size` bytes, its IP header among them, which nobody on the way may cut; gives
    /// the time until the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ping(
        &self,
        station: &str,
        remote: IpAddr,
        size: usize,
        timeout: Duration,
    ) -> Result<Duration, PingError> {
        let (answer, answers) = bounded(1);
        let ping = Command::Ping { station: station.into(), remote, size, timeout, answer };
        if self.commands.send(ping).is_ok() {
            self.bell.ring();
        }
        // The thread answers in time; what it cannot answer, as it is gone, ends the channel.
        answers.recv().unwrap_or_else(|_| Err("the agent has ended".to_owned().into()))
    }
}

impl Agent {
    /// Starts the thread. It calls `tell` with every event, and waits for it to return: whoever calls
    /// [`ping`](Pinger::ping) or [`report`](Agent::report), which wait for the thread, must hold nothing that `tell`
    /// waits for.
    ///
    /// # Errors
    /// The kernel gives no descriptor or no thread.
    pub fn start(clock: Arc<dyn Clock>, tell: impl FnMut(Event) + Send + 'static) -> io::Result<Agent> {
        let bell = Bell::new()?;
        let (commands, received) = unbounded();
        let thread = Thread {
            clock,
            bell: bell.clone(),
            commands: received,
            tell: Box::new(tell),
            seats: Vec::new(),
            pings: HashMap::new(),
            next_ping: 1 << 16,
            last_session: 0,
            frame: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("agent".into()).spawn(move || thread.run())?;
        Ok(Agent { bell, commands, thread: Some(thread) })
    }

    /// What the thread sleeps on: for opening the `local` ports of its stations.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Plugs a station in. One of the same name gives way to it, and what was wanted of that is wanted of this.
    pub fn add(&self, station: Station, end: LocalEnd) {
        self.command(Command::Add(station, end));
    }

    /// Gives the station of that name other addresses, routes, or whatever else.
    pub fn change(&self, station: Station) {
        self.command(Command::Change(station));
    }

    /// Unplugs a station.
    pub fn remove(&self, name: &str) {
        self.command(Command::Remove(name.into()));
    }

    /// Has a station tell how `remote` is reached, at once and whenever it changes.
    pub fn want(&self, station: &str, remote: IpAddr) {
        self.command(Command::Want(station.into(), remote));
    }

    /// Ends that.
    pub fn unwant(&self, station: &str, remote: IpAddr) {
        self.command(Command::Unwant(station.into(), remote));
    }

    /// Has a station watch by BFD whether a remote is there, and tell when that changes; `None` ends it.
    pub fn watch(&self, station: &str, ends: Ends, timing: Option<Timing>) {
        self.command(Command::Watch(station.into(), ends, timing));
    }

    /// Who pings.
    pub fn pinger(&self) -> Pinger {
        Pinger { bell: self.bell.clone(), commands: self.commands.clone() }
    }

    /// All stations, by name.
    pub fn report(&self) -> Vec<Report> {
        let (answer, answers) = bounded(1);
        self.command(Command::Report(answer));
        answers.recv().unwrap_or_default()
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.bell.ring();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.command(Command::Stop);
        // Whoever drops this from within `tell` is that thread, which ends when `tell` returns.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// A station and its end of the port.
struct Seat {
    name: Arc<str>,
    core: Core,
    end: LocalEnd,
}

struct Thread {
    clock: Arc<dyn Clock>,
    bell: Bell,
    commands: Receiver<Command>,
    tell: Box<dyn FnMut(Event) + Send>,
    seats: Vec<Seat>,
    /// Who waits for the answers to pings.
    pings: HashMap<u32, Sender<Answer>>,
    next_ping: u32,
    /// The discriminator of the last BFD session.
    last_session: u32,
    frame: Vec<u8>,
}

impl Thread {
    fn run(mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.obey(command);
            }
            let mut due_ns = u64::MAX;
            for at in 0..self.seats.len() {
                due_ns = due_ns.min(self.turn(at));
            }
            let wait = Duration::from_nanos(due_ns.saturating_sub(self.clock.now_ns()));
            let (commands, seats) = (&self.commands, &self.seats);
            self.bell.wait(wait.min(REST), || {
                !commands.is_empty() || seats.iter().any(|seat| seat.end.has_frames())
            });
        }
    }

    /// One station's turn; gives when it wants the next one.
    fn turn(&mut self, at: usize) -> u64 {
        let mut out = Output::default();
        let seat = &mut self.seats[at];
        for _ in 0..BUDGET {
            if !seat.end.receive(&mut self.frame) {
                break;
            }
            seat.core.input(&self.frame, self.clock.now_ns(), &mut out);
        }
        let now_ns = self.clock.now_ns();
        if seat.core.due_ns() <= now_ns {
            seat.core.poll(now_ns, &mut out);
        }
        let due_ns = seat.core.due_ns();
        self.put_out(at, out);
        due_ns
    }

    fn obey(&mut self, command: Command) {
        let now_ns = self.clock.now_ns();
        match command {
            Command::Add(station, end) => self.add(station, end, now_ns),
            Command::Change(station) => {
                let name = station.name.clone();
                self.with(&name, |core, out| core.configure(station, now_ns, out));
            }
            Command::Remove(name) => self.remove(&name),
            Command::Want(name, remote) => {
                if !self.with(&name, |core, out| core.want(remote, now_ns, out)) {
                    let path = Err(Reason::NoStation);
                    (self.tell)(Event::Path(PathChange { station: name, remote, path }));
                }
            }
            Command::Unwant(name, remote) => {
                self.with(&name, |core, _| core.unwant(remote, now_ns));
            }
            Command::Watch(name, ends, timing) => {
                self.last_session = self.last_session.wrapping_add(1).max(1);
                let session = (ends, self.last_session);
                self.with(&name, |core, out| core.watch(session, timing, now_ns, out));
            }
            Command::Ping { station, remote, size, timeout, answer } => {
                self.next_ping = self.next_ping.wrapping_add(1);
                let number = self.next_ping;
                let deadline_ns = now_ns.saturating_add(timeout.as_nanos() as u64);
                self.pings.insert(number, answer);
                let ping = Ping { number, remote, size, deadline_ns };
                if !self.with(&station, |core, out| core.ping(ping, now_ns, out)) {
                    self.pong(number, Err(Reason::NoStation.into()));
                }
            }
            Command::Report(answer) => {
                let _ = answer.send(self.report());
            }
            Command::Stop => {}
        }
    }

    fn add(&mut self, station: Station, end: LocalEnd, now_ns: u64) {
        if let Some(at) = self.place(&station.name) {
            self.seats[at].end = end;
            let name = station.name.clone();
            self.with(&name, |core, out| core.configure(station, now_ns, out));
            return;
        }
        let mut out = Output::default();
        let name = station.name.clone();
        let core = Core::new(station, now_ns, &mut out);
        self.seats.push(Seat { name, core, end });
        self.put_out(self.seats.len() - 1, out);
    }

    fn remove(&mut self, name: &str) {
        let Some(at) = self.place(name) else { return };
        let seat = self.seats.remove(at);
        for number in seat.core.unanswered() {
            self.pong(number, Err(Reason::NoStation.into()));
        }
        for remote in seat.core.wanted() {
            let (station, path) = (seat.name.clone(), Err(Reason::NoStation));
            (self.tell)(Event::Path(PathChange { station, remote, path }));
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.seats.iter().position(|seat| &*seat.name == name)
    }

    /// Does something with a station; false if there is none of that name.
    fn with(&mut self, name: &str, act: impl FnOnce(&mut Core, &mut Output)) -> bool {
        let Some(at) = self.place(name) else { return false };
        let mut out = Output::default();
        act(&mut self.seats[at].core, &mut out);
        self.put_out(at, out);
        true
    }

    /// Sends and tells what came of a call.
    fn put_out(&mut self, at: usize, out: Output) {
        let seat = &mut self.seats[at];
        let unsent = out.frames.iter().filter(|frame| !seat.end.send(frame)).count();
        seat.core.count_unsent(unsent as u64);
        for (number, answer) in out.pongs {
            self.pong(number, answer);
        }
        out.events.into_iter().for_each(&mut self.tell);
    }

    fn pong(&mut self, number: u32, answer: Answer) {
        if let Some(waiting) = self.pings.remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    fn report(&self) -> Vec<Report> {
        let mut reports: Vec<_> = (self.seats.iter())
            .map(|Seat { name, core, .. }| Report {
                name: name.clone(),
                neighbours: core.neighbours(),
                liveness: core.liveness(),
                counters: core.counters(),
            })
            .collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use pmd::clock::Monotonic;
    use pmd::local::{self, LocalPort};
    use pmd::{Arena, BATCH, Burst, Features, HugePages, Port, Prefixes, RxMemory, TxItem};

    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    fn plug(agent: &Agent, name: &str, number: u8) -> LocalPort {
        let mac = [2, 0, 0, 0, 0, number];
        let settings = local::Settings { mac, ..local::Settings::default() };
        let (port, end) = local::open(settings, agent.bell()).unwrap();
        let addresses = vec![format!("10.0.0.{number}/24").parse().unwrap()];
        agent.add(
            Station {
                name: name.into(),
                mac,
                mtu: 1500,
                vlan: None,
                addresses,
                routes: Vec::new(),
                groups: Vec::new(),
            },
            end,
        );
        port
    }

    /// Plays the workers: what one port receives the other sends, until told to stop.
    fn cable(ports: [LocalPort; 2], stop: &AtomicBool) {
        let arena = Arena::new(64, HugePages::Off).unwrap();
        let (mut pool, mut memory, prefixes) = (arena.pool(), RxMemory::new(), Prefixes::default());
        let mut queues = ports.map(|mut port| (port.take_rx().remove(0), port.take_tx().remove(0)));
        while !stop.load(Ordering::Relaxed) {
            for (from, to) in [(0, 1), (1, 0)] {
                let (left, right) = queues.split_at_mut(1);
                let (rx, tx) = match (from, to) {
                    (0, _) => (&mut left[0].0, &mut right[0].1),
                    _ => (&mut right[0].0, &mut left[0].1),
                };
                let mut batch = rx.receive(&mut memory, &mut pool, BATCH).unwrap();
                let items: Vec<_> = (0..batch.len()).map(|i| TxItem::whole(&batch, i, true)).collect();
                if !items.is_empty() {
                    let mut burst = Burst::new(&mut batch, &items, &prefixes, Features::NONE);
                    // What goes to a station that is not there any more is lost.
                    tx.transmit(&mut burst, &mut pool);
                }
            }
            thread::yield_now();
        }
    }

    #[test]
    fn stations_of_one_thread_talk_over_their_ports() {
        let (told, events) = mpsc::channel();
        let agent = Agent::start(Arc::new(Monotonic::default()), move |event| {
            let _ = told.send(event);
        })
        .unwrap();
        let ports = [plug(&agent, "a", 1), plug(&agent, "b", 2)];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let workers = thread::spawn(move || cable(ports, &stopped));
        let remote = IpAddr::from([10, 0, 0, 2]);
        let next = || match events.recv_timeout(WAIT).unwrap() {
            Event::Path(change) => (change.station.to_string(), change.remote, change.path),
            other => panic!("{other:?}"),
        };

        agent.want("a", remote);
        assert_eq!(next(), ("a".into(), remote, Err(Reason::Asking(remote))));
        let path = Path {
            next_hop_mac: [2, 0, 0, 0, 0, 2],
            source_mac: [2, 0, 0, 0, 0, 1],
            source: IpAddr::from([10, 0, 0, 1]),
            mtu: 1500,
        };
        assert_eq!(next(), ("a".into(), remote, Ok(path)));
        assert!(agent.pinger().ping("a", remote, 1500, WAIT).unwrap() < WAIT);
        let nobody = IpAddr::from([10, 0, 0, 3]);
        assert_eq!(
            agent.pinger().ping("a", nobody, 100, Duration::from_millis(50)),
            Err(Reason::Asking(nobody).into())
        );
        let reports = agent.report();
        assert_eq!(reports.iter().map(|report| &*report.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(reports[0].neighbours, [(remote, Standing::Usable(path.next_hop_mac))]);
        assert_eq!((reports[1].counters.echoes, reports[1].counters.unsent), (1, 0));

        let with = |remote| Ends { local: None, remote };
        agent.watch("a", with(remote), Some(Timing::default()));
        agent.watch("b", with([10, 0, 0, 1].into()), Some(Timing::default()));
        let mut up = Vec::new();
        while up.len() < 2 {
            let event = events.recv_timeout(WAIT).unwrap();
            let Event::Liveness { station, liveness } = event else { panic!("{event:?}") };
            up.extend(liveness.is_alive.then_some(station));
        }
        agent.remove("b");
        let event = events.recv_timeout(WAIT).unwrap();
        let Event::Liveness { station, liveness } = event else { panic!("{event:?}") };
        let news = (&*station, liveness.state, liveness.diagnostic, liveness.is_alive);
        assert_eq!(news, ("a", State::Down, Diagnostic::Expired, false));
        assert_eq!(agent.report()[0].liveness[0].packets.downs, 1);

        agent.remove("a");
        assert_eq!(next(), ("a".into(), remote, Err(Reason::NoStation)));
        agent.want("a", remote);
        assert_eq!(next(), ("a".into(), remote, Err(Reason::NoStation)));
        assert_eq!(agent.pinger().ping("a", remote, 100, WAIT), Err(Reason::NoStation.into()));
        assert_eq!(agent.report(), []);
        stop.store(true, Ordering::Relaxed);
        workers.join().unwrap();
        drop(agent);
        assert!(events.recv().is_err(), "the thread has ended and nothing else was told");
    }
}
