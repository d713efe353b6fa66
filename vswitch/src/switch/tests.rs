//! The switch on ports that a test plays: real workers, and drivers that do what they are told.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, Sender};

use pmd::{
    Arena, BATCH, Batch, Burst, Fault, Features, Link, Pool, Port, RxMemory, RxQueue, Source, TxQueue,
    TxReport, arena::HEADROOM,
};

use super::*;
use crate::worker::mailbox::Mailbox;

/// How long something may take that takes no time.
const SOON: Duration = Duration::from_secs(10);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// What a queue hands up when it is asked.
type Play = Box<dyn FnMut() -> Result<Vec<Vec<u8>>, Fault> + Send>;

/// A port that a test plays.
struct Puppet {
    rx: Option<Rx>,
    tx: Option<Tx>,
    closed: Sender<Fate>,
    adopted: bool,
    mtu: Arc<AtomicU32>,
}

struct Rx(Play);

/// Sends everything, and says when it is dropped.
struct Tx(Box<dyn FnMut() + Send>);

impl Drop for Tx {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Polled
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        _limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        for frame in (self.0)()? {
            let place = scratch.take(HEADROOM + frame.len());
            place[HEADROOM..].copy_from_slice(&frame);
            batch.push_private(place, HEADROOM, pmd::Offload::NONE);
        }
        Ok(batch)
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        TxReport { sent: burst.len() as u32, ..TxReport::default() }
    }
}

impl Port for Puppet {
    fn kind(&self) -> &'static str {
        "puppet"
    }

    fn mode(&self) -> &str {
        ""
    }

    fn mac(&self) -> Option<[u8; 6]> {
        None
    }

    fn mtu(&self) -> u32 {
        1500 + self.mtu.load(Ordering::Relaxed)
    }

    fn features(&self) -> Features {
        Features::NONE
    }

    fn link(&self) -> Link {
        Link::up()
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        self.rx.take().into_iter().map(|rx| Box::new(rx) as Box<dyn RxQueue>).collect()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        self.tx.take().into_iter().map(|tx| Box::new(tx) as Box<dyn TxQueue>).collect()
    }

    fn close(self: Box<Self>, fate: Fate) -> Result<(), Fault> {
        let _ = self.closed.send(fate);
        Ok(())
    }
}

type Cue<T> = Box<dyn Fn() -> T + Send + Sync>;

/// How the ports of a test are opened, by name.
#[derive(Default)]
struct Stage {
    plays: HashMap<&'static str, Cue<Play>>,
    /// What is done when the tx queue is dropped.
    dropped: HashMap<&'static str, Cue<()>>,
    /// What opening a port waits for, and then ends with if that is a failure.
    openings: HashMap<&'static str, Cue<Result<(), String>>>,
    /// The ports whose devices are there already.
    adopted: Vec<&'static str>,
    /// How often each port was opened.
    opened: Mutex<HashMap<String, u32>>,
    closed: Mutex<HashMap<String, Receiver<Fate>>>,
    /// What the MTU of all of them is more than 1500.
    mtu: Arc<AtomicU32>,
}

impl Stage {
    fn open(self: &Arc<Stage>, port: &schema::Port) -> Result<Box<dyn Port>, String> {
        let name = port.name.as_str();
        if let Some(opening) = self.openings.get(name) {
            opening()?;
        }
        *self.opened.lock().unwrap().entry(name.into()).or_default() += 1;
        let (closed, fates) = std::sync::mpsc::channel();
        self.closed.lock().unwrap().insert(name.into(), fates);
        let play = self.plays.get(name).map_or(Box::new(|| Ok(Vec::new())) as Play, |play| play());
        let (stage, owned) = (self.clone(), name.to_owned());
        let dropped = move || {
            if let Some(dropped) = stage.dropped.get(owned.as_str()) {
                dropped();
            }
        };
        let adopted = self.adopted.contains(&name);
        let (rx, tx, mtu) = (Some(Rx(play)), Some(Tx(Box::new(dropped))), self.mtu.clone());
        Ok(Box::new(Puppet { rx, tx, closed, adopted, mtu }))
    }

    fn start(self: &Arc<Stage>, config: Config, at_start: AtStart) -> Arc<Switch> {
        self.try_start(config, at_start, || Ok(())).unwrap()
    }

    fn try_start(
        self: &Arc<Stage>,
        config: Config,
        at_start: AtStart,
        save: impl FnOnce() -> Result<(), StartError>,
    ) -> Result<Arc<Switch>, StartError> {
        let stage = self.clone();
        let opener = move |port: &schema::Port, _: bool, _: &Arena, _: usize| stage.open(port);
        Switch::start_with(Arc::new(opener), config, at_start, 1, save)
    }

    fn opened(&self, port: &str) -> u32 {
        self.opened.lock().unwrap().get(port).copied().unwrap_or(0)
    }

    /// The fates with which the latest opening of a port was closed.
    fn fates(&self, port: &str) -> Vec<Fate> {
        self.closed.lock().unwrap().get(port).into_iter().flat_map(Receiver::try_iter).collect()
    }
}

/// A configuration of one bridge with these ports, each a name and further keys.
fn config(ports: &[(&str, &str)]) -> Config {
    let keys: Vec<String> = ports.iter().map(|(_, keys)| format!("type = \"null\"\n{keys}")).collect();
    with_kind(&ports.iter().zip(&keys).map(|((name, _), keys)| (*name, keys.as_str())).collect::<Vec<_>>())
}

/// The same, with the ports' types among the keys.
fn with_kind(ports: &[(&str, &str)]) -> Config {
    let head = "[switch]\nworkers = [0]\n[limits]\nframes = 1024\nports = 8\n[[bridge]]\nname = \"blue\"\n";
    let port =
        |(name, keys): &(&str, &str)| format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\n{keys}\n");
    Config::parse(&(head.to_owned() + &ports.iter().map(port).collect::<String>()), "test").unwrap()
}

fn apply(switch: &Switch, config: Config) -> Result<Vec<String>, ApplyError> {
    switch.apply(config, || Ok(()))
}

fn is_up(switch: &Switch, port: &str) -> bool {
    row(switch, port).state == control::api::UpDown::Up
}

fn row(switch: &Switch, port: &str) -> control::api::PortRow {
    switch.ports().into_iter().find(|row| row.name.as_str() == port).unwrap()
}

/// A broadcast frame of station `number`.
fn frame(number: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 60];
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, number, 0x88, 0xb5]);
    frame
}

/// A queue that stops its worker in the middle of a turn, and lets it go with frames.
#[derive(Clone)]
struct Gate(Arc<GateState>);

struct GateState {
    is_shut: AtomicBool,
    entered: AtomicBool,
    frames: Mutex<Option<Vec<Vec<u8>>>>,
}

impl Gate {
    fn new() -> Gate {
        let (is_shut, entered) = (AtomicBool::new(false), AtomicBool::new(false));
        Gate(Arc::new(GateState { is_shut, entered, frames: Mutex::default() }))
    }

    fn play(&self) -> Play {
        let gate = self.0.clone();
        Box::new(move || {
            if !gate.is_shut.load(Ordering::SeqCst) {
                return Ok(Vec::new());
            }
            gate.entered.store(true, Ordering::SeqCst);
            let mut frames = None;
            wait_until("the gate is opened again", || {
                frames = gate.frames.lock().unwrap().take();
                frames.is_some()
            });
            Ok(frames.unwrap_or_default())
        })
    }

    /// Returns when the worker stands before it.
    fn shut(&self) {
        self.0.is_shut.store(true, Ordering::SeqCst);
        wait_until("the worker comes to the gate", || self.0.entered.load(Ordering::SeqCst));
    }

    fn open(&self, frames: Vec<Vec<u8>>) {
        self.0.is_shut.store(false, Ordering::SeqCst);
        *self.0.frames.lock().unwrap() = Some(frames);
    }
}

fn mailbox(switch: &Switch) -> Arc<Mailbox> {
    switch.lock().crew.members()[0].mailbox.clone()
}

/// A frame that is under way while the configuration changes is decided by the old one.
#[test]
fn nothing_is_learned_by_a_vlan_that_a_port_has_left() {
    let gate = Gate::new();
    let mut stage = Stage::default();
    let played = gate.clone();
    stage.plays.insert("a", Box::new(move || played.play()));
    let switch = Arc::new(stage).start(config(&[("a", "vlan = 10"), ("b", "vlan = 10")]), AtStart::Refuse);
    let mailbox = mailbox(&switch);
    gate.shut();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| apply(&switch, config(&[("a", "vlan = 20"), ("b", "vlan = 10")])));
        wait_until("the worker is told", || !mailbox.is_empty());
        gate.open(vec![frame(1)]);
        change.join().unwrap().unwrap();
    });
    wait_until("the frame is counted", || row(&switch, "a").rx_frames == 1);
    assert!(switch.fdb().is_empty(), "{:?}", switch.fdb());
}

#[test]
fn a_fault_of_a_port_that_is_gone_is_none_of_the_next_one() {
    let (failing, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut stage = Stage::default();
    for (bit, name) in [(1, "a"), (2, "d")] {
        let (failing, asked) = (failing.clone(), asked.clone());
        let play = move || {
            let (failing, asked) = (failing.clone(), asked.clone());
            Box::new(move || {
                if failing.load(Ordering::SeqCst) & bit == 0 {
                    return Ok(Vec::new());
                }
                asked.fetch_or(bit, Ordering::SeqCst);
                Err(Fault::new("as told"))
            }) as Play
        };
        stage.plays.insert(name, Box::new(play));
    }
    let stage = Arc::new(stage);
    let switch = stage.start(config(&[("a", ""), ("d", "")]), AtStart::Refuse);
    {
        // The keeper hears of the fault when the port is another already.
        let mut state = switch.lock();
        let index = |state: &State, name| {
            state.ports.values().find(|port| port.config.name.as_str() == name).map(|port| port.index)
        };
        let before = index(&state, "a");
        failing.store(1, Ordering::SeqCst);
        wait_until("the worker meets the fault", || asked.load(Ordering::SeqCst) & 1 != 0);
        state.crew.settle();
        let wanted = config(&[("c", ""), ("d", "")]);
        state.apply(wanted, AtStart::Refuse, || Ok::<_, ApplyError>(())).unwrap();
        assert!(before.is_some() && index(&state, "c") == before, "the next owner of the index");
    }
    // Faults come one after the other: with this one the first has been heard.
    failing.store(2, Ordering::SeqCst);
    wait_until("the other port is down", || !is_up(&switch, "d") || stage.opened("d") > 1);
    assert!(is_up(&switch, "c"));
    assert_eq!(stage.opened("c"), 1);
}

#[test]
fn drops_on_the_way_to_a_port_that_goes_are_not_those_of_the_next() {
    let gate = Gate::new();
    let mut stage = Stage::default();
    let played = gate.clone();
    stage.plays.insert("a", Box::new(move || played.play()));
    // What the worker had of the port is dropped when the worker has forgotten the port.
    let shutting = gate.clone();
    stage.dropped.insert("b", Box::new(move || shutting.shut()));
    let switch = Arc::new(stage).start(config(&[("a", ""), ("b", "")]), AtStart::Refuse);
    let mailbox = mailbox(&switch);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| apply(&switch, config(&[("a", ""), ("c", "")])));
        wait_until("the worker comes to the gate", || gate.0.entered.load(Ordering::SeqCst));
        wait_until("the worker is told", || !mailbox.is_empty());
        gate.open(vec![frame(1), frame(1)]);
        change.join().unwrap().unwrap();
    });
    wait_until("the frames are counted", || row(&switch, "a").rx_frames == 2);
    assert_eq!(switch.totals().dropped, 2, "they met a port that was gone");
    assert!(switch.drops(None).is_empty(), "{:?}", switch.drops(None));
}

#[test]
fn a_frame_that_the_driver_loses_is_dropped_by_name() {
    let gate = Gate::new();
    let mut stage = Stage::default();
    let played = gate.clone();
    stage.plays.insert("a", Box::new(move || played.play()));
    let switch = Arc::new(stage).start(config(&[("a", ""), ("b", "")]), AtStart::Refuse);
    gate.shut();
    gate.open(vec![frame(1); BATCH + 2]);
    wait_until("the frames are counted", || row(&switch, "a").rx_frames == BATCH as u64 + 2);
    wait_until("none is held", || switch.totals().held == 0);
    let drops: Vec<_> = switch.drops(None).into_iter().map(|row| (row.reason, row.frames)).collect();
    assert_eq!(drops, [("rx-fault".to_owned(), 2)]);
    let totals = switch.totals();
    assert_eq!((totals.received, totals.sent, totals.dropped), (BATCH as u64 + 2, BATCH as u64, 2));
}

/// A port whose opening fails at first, then hangs until it is told to end, and works from then on.
fn hanging() -> (Arc<Stage>, Receiver<()>, Sender<Result<(), String>>) {
    let (entered, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel();
    let (ended, tries) = (Mutex::new(ended), AtomicU32::new(0));
    let mut stage = Stage::default();
    let opening = move || {
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => return Err("not yet".into()),
            1 => {}
            _ => return Ok(()),
        }
        let _ = entered.send(());
        ended.lock().unwrap().recv_timeout(2 * SOON).unwrap_or(Err("nobody ended it".into()))
    };
    stage.openings.insert("b", Box::new(opening));
    (Arc::new(stage), begun, end)
}

#[test]
fn a_port_that_hangs_in_opening_keeps_nobody_waiting() {
    let (stage, begun, end) = hanging();
    let switch = stage.start(config(&[("a", ""), ("b", "")]), AtStart::Retry);
    begun.recv_timeout(SOON).unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    let asked = switch.clone();
    let asking = std::thread::spawn(move || {
        assert!(is_up(&asked, "a") && !is_up(&asked, "b"));
        apply(&asked, config(&[("a", ""), ("b", ""), ("c", "")])).unwrap();
        answer.send(()).unwrap();
    });
    let heard = answered.recv_timeout(SOON);
    end.send(Ok(())).unwrap();
    asking.join().unwrap();
    heard.unwrap();
    wait_until("the port is up", || is_up(&switch, "b"));
    assert_eq!(stage.opened("b"), 1);
    assert!(stage.fates("b").is_empty());
}

#[test]
fn a_port_that_was_deleted_while_it_was_opened_is_removed() {
    let (stage, begun, end) = hanging();
    let switch = stage.start(config(&[("a", ""), ("b", "")]), AtStart::Retry);
    begun.recv_timeout(SOON).unwrap();
    apply(&switch, config(&[("a", "")])).unwrap();
    end.send(Ok(())).unwrap();
    wait_until("the port is opened", || stage.opened("b") == 1);
    let mut fates = Vec::new();
    wait_until("the port is closed", || {
        fates.extend(stage.fates("b"));
        !fates.is_empty()
    });
    assert_eq!(fates, [Fate::Remove]);
    assert_eq!(switch.ports().len(), 1);
}

#[test]
fn a_change_that_cannot_be_saved_is_not_made() {
    let stage = Arc::new(Stage::default());
    let before = config(&[("a", ""), ("b", ""), ("c", "vlan = 10")]);
    let switch = stage.start(before.clone(), AtStart::Refuse);
    let generation = switch.totals().generation;
    let wanted = config(&[("b", "queues = 2"), ("c", "vlan = 20"), ("d", "")]);
    let refusal = switch
        .apply(wanted.clone(), || {
            Err(ApplyError { object: "state".into(), cause: Cause::Open("the disk is full".into()) })
        })
        .unwrap_err();
    assert_eq!(refusal.to_string(), "state: the disk is full");
    assert_eq!(switch.config(), before);
    assert!(switch.previous().is_none() && switch.totals().generation >= generation);
    let names: Vec<_> = switch.ports().into_iter().map(|row| (row.name.to_string(), row.vlan)).collect();
    assert_eq!(names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(["a", "b", "c"].iter().all(|port| is_up(&switch, port)));
    assert!(names[2].1.contains("10"), "{names:?}");
    assert_eq!((stage.fates("a"), stage.fates("d")), (vec![], vec![Fate::Remove]));
    let mut saved = false;
    switch
        .apply(wanted, || {
            saved = true;
            Ok::<_, ApplyError>(())
        })
        .unwrap();
    assert!(saved && is_up(&switch, "d"));
    assert_eq!(stage.fates("a"), [Fate::Remove]);
}

/// A stage on which a port can be opened so many `times` and no more.
fn refusing(name: &'static str, times: u32) -> Stage {
    let tries = AtomicU32::new(0);
    let opening = move || match tries.fetch_add(1, Ordering::SeqCst) < times {
        true => Ok(()),
        false => Err("as told".to_owned()),
    };
    let mut stage = Stage::default();
    stage.openings.insert(name, Box::new(opening));
    stage
}

#[test]
fn a_refused_start_removes_what_it_made_and_leaves_what_was_there() {
    let stage = Arc::new(Stage { adopted: vec!["a"], ..refusing("c", 0) });
    let wanted = config(&[("a", ""), ("b", ""), ("c", "")]);
    let refusal = stage.try_start(wanted, AtStart::Refuse, || Ok(())).err().unwrap();
    assert_eq!(refusal.to_string(), "port \"c\": as told");
    assert_eq!((stage.fates("a"), stage.fates("b")), (vec![Fate::Leave], vec![Fate::Remove]));
}

#[test]
fn a_start_that_cannot_be_saved_removes_what_it_made_and_leaves_what_was_there() {
    let stage = Arc::new(Stage { adopted: vec!["a"], ..Stage::default() });
    let save = || {
        let (object, cause) = ("state".into(), Cause::Open("the disk is full".into()));
        Err(StartError::Apply(ApplyError { object, cause }))
    };
    let refusal = stage.try_start(config(&[("a", ""), ("b", "")]), AtStart::Retry, save).err().unwrap();
    assert_eq!(refusal.to_string(), "state: the disk is full");
    assert_eq!((stage.fates("a"), stage.fates("b")), (vec![Fate::Leave], vec![Fate::Remove]));
}

#[test]
fn no_device_is_removed_for_a_change_while_another_port_can_still_refuse_it() {
    let stage = Arc::new(refusing("b", 1));
    let switch = stage.start(config(&[("a", ""), ("b", "")]), AtStart::Refuse);
    // The one is another device from now on, the other only opened again.
    let refusal = apply(&switch, config(&[("a", "rate = 5"), ("b", "queues = 2")])).unwrap_err();
    assert_eq!(refusal.to_string(), "port \"b\": as told");
    assert_eq!((stage.opened("a"), stage.fates("a")), (1, vec![]));
    assert!(is_up(&switch, "a"));
}

#[test]
fn no_port_is_closed_for_one_whose_namespace_is_missing() {
    let stage = Arc::new(Stage::default());
    let switch = stage.start(config(&[("a", "")]), AtStart::Refuse);
    let tap = "type = \"tap\"\nnetns = \"no-such-namespace\"";
    let refusal = apply(&switch, with_kind(&[("a", tap)])).unwrap_err();
    assert!(refusal.to_string().contains("no-such-namespace"), "{refusal}");
    assert_eq!((stage.opened("a"), stage.fates("a")), (1, vec![]));
    assert!(is_up(&switch, "a"));
}

#[test]
fn a_port_that_is_another_device_when_it_comes_back_leaves_nothing() {
    let (stage, begun, end) = hanging();
    let tap = |ifname: &str| format!("type = \"tap\"\nifname = \"{ifname}\"");
    let switch = stage.start(with_kind(&[("b", &tap("one"))]), AtStart::Retry);
    begun.recv_timeout(SOON).unwrap();
    apply(&switch, with_kind(&[("b", &tap("two"))])).unwrap();
    assert!(is_up(&switch, "b"));
    end.send(Ok(())).unwrap();
    wait_until("the late one is opened", || stage.opened("b") == 2);
    let mut fates = Vec::new();
    wait_until("the late one is closed", || {
        fates.extend(stage.fates("b"));
        !fates.is_empty()
    });
    assert_eq!(fates, [Fate::Remove]);
    assert!(is_up(&switch, "b"));
}

#[test]
fn a_station_takes_what_its_network_takes() {
    let text = "[switch]\nworkers = [0]\n[limits]\nframes = 1024\nports = 8\n\
                [[port]]\nname = \"up\"\ntype = \"null\"\n\
                [[underlay]]\nname = \"core\"\nport = \"up\"\naddress = \"192.0.2.1/24\"\n";
    let stage = Arc::new(Stage::default());
    let switch = stage.start(Config::parse(text, "test").unwrap(), AtStart::Refuse);
    let station = || {
        let state = switch.lock();
        let plugged = state.reach.underlay(&"core".parse().unwrap()).unwrap();
        let view = state.snapshot.port(plugged.index).unwrap();
        (plugged.index, plugged.station.mtu, plugged.port.mtu(), view.mtu)
    };
    let (index, ..) = station();
    assert_eq!(station(), (index, 1500, 1500, 1504));
    stage.mtu.store(7500, Ordering::Relaxed);
    // Its frames have room for a tag more.
    wait_until("the station is plugged in anew", || station() == (index, 9000, 9000, 9004));
}

#[test]
fn ports_take_the_places_of_stations_that_go_with_the_same_change() {
    let text = |addresses: &str, ports: &[&str]| {
        let port = |name: &&str| format!("[[port]]\nname = \"{name}\"\nbridge = \"blue\"\ntype = \"null\"\n");
        let head = "[switch]\nworkers = [0]\n[limits]\nframes = 1024\nports = 3\n";
        let ports: String = ports.iter().map(port).collect();
        Config::parse(&format!("{head}[[bridge]]\nname = \"blue\"\n{addresses}{ports}"), "test")
    };
    let address = "address = \"10.0.0.1/24\"\n";
    let stage = Arc::new(Stage::default());
    let switch = stage.start(text(address, &["a", "b"]).unwrap(), AtStart::Refuse);
    assert!(text(address, &["a", "b", "c"]).is_err(), "the station counts");
    apply(&switch, text("", &["a", "b", "c"]).unwrap()).unwrap();
    assert!(["a", "b", "c"].iter().all(|port| is_up(&switch, port)));
    let indices = |state: &State| state.ports.values().map(|port| port.index).collect::<Vec<_>>();
    let mut taken = indices(&switch.lock());
    taken.sort_unstable();
    assert_eq!(taken, [0, 1, 2]);
}

#[test]
fn a_host_that_two_tunnels_reach_gets_one_copy_of_a_flood() {
    let tunnel = |name: &str, kind: &str, remotes: &str| {
        format!("[[tunnel]]\nname = \"{name}\"\ntype = \"{kind}\"\nunderlay = \"core\"\nremote = {remotes}\n")
    };
    let text = "[switch]\nworkers = [0]\n[limits]\nframes = 1024\nports = 8\n[[bridge]]\nname = \"blue\"\nvni = 5001\n\
                [[port]]\nname = \"up\"\ntype = \"null\"\n\
                [[underlay]]\nname = \"core\"\nport = \"up\"\naddress = \"192.0.2.1/24\"\n"
        .to_owned()
        + &tunnel("one", "vxlan", "[\"192.0.2.2\", \"192.0.2.3\"]")
        + &tunnel("two", "nvgre", "[\"192.0.2.3\", \"192.0.2.4\"]");
    let switch = Arc::new(Stage::default()).start(Config::parse(&text, "test").unwrap(), AtStart::Refuse);
    let state = switch.lock();
    let remote = |tunnel: &str, ip: &str| state.reach.remote(&tunnel.parse().unwrap(), ip.parse().unwrap());
    let once = [("one", "192.0.2.2"), ("one", "192.0.2.3"), ("two", "192.0.2.4")];
    let mut once: Vec<u16> = once.into_iter().filter_map(|(tunnel, ip)| remote(tunnel, ip)).collect();
    once.sort_unstable();
    assert_eq!(*state.snapshot.overlays.overlay(0).unwrap().flood, once[..]);
    assert!(remote("two", "192.0.2.3").is_some(), "what comes by it is let in all the same");
}

#[test]
fn a_change_that_hangs_does_not_hang_the_end() {
    let (entered, begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    let mut stage = Stage::default();
    let opening = move || {
        let _ = entered.send(());
        let _ = ended.lock().unwrap().recv_timeout(4 * PATIENCE);
        Err("too late".to_owned())
    };
    stage.openings.insert("b", Box::new(opening));
    let switch = Arc::new(stage).start(config(&[("a", "")]), AtStart::Refuse);
    let changed = switch.clone();
    let change = std::thread::spawn(move || apply(&changed, config(&[("a", ""), ("b", "")])));
    begun.recv_timeout(SOON).unwrap();
    let asked = Instant::now();
    switch.stop();
    assert!(asked.elapsed() < 2 * PATIENCE, "{:?}", asked.elapsed());
    end.send(()).unwrap();
    change.join().unwrap().unwrap_err();
}
