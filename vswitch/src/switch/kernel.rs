//! Ways to remotes over a network of the host's kernel.
//!
//! A shared underlay's addresses, routes and neighbours are the kernel's. A thread for each asks it how every remote
//! is reached, asks again whenever anything about the namespace's networking has changed, and tells what is new in the
//! words of the [agent](crate::agent), which does the same on underlays of our own. Next hops are managed neighbours:
//! the kernel finds and refreshes them whether or not the host itself sends there. Errors that say that a packet was
//! too big the kernel forgets, as no socket of it sent the packet: the thread reads and judges them itself. What it
//! holds is sockets; what it is told is a plain value, so that nobody waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pmd::netdev::icmp::IcmpSocket;
use pmd::netdev::neighbour::Neighbour;
use pmd::netdev::watch::Watch;
use pmd::netdev::{Anchor, Error, Link, Links, Netns};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::agent::frame::too_big;
use crate::agent::path_mtu::{PathMtus, Quote};
use crate::agent::{Event, Path, PathChange, Reason};
use crate::bucket::Bucket;

/// How often the kernel is asked at least: what it has learned of a path's MTU it does not tell.
const TICK: Duration = Duration::from_secs(1);

/// News come in crowds: how long after the first the others are waited for.
const GATHER: Duration = Duration::from_millis(2);

/// How often the kernel is reminded of a neighbour that it does not know.
const REMIND: Duration = Duration::from_millis(900);

/// Errors that are read in one turn, and those that are looked at in a second.
const ERRORS: usize = 64;
const ERRORS_PER_S: u64 = 100;

/// Which network of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The namespace of the device, if it is not the daemon's.
    pub(super) netns: Option<String>,
    /// The underlay's device.
    pub(super) device: String,
    /// The network is on this VLAN of it.
    pub(super) vlan: Option<u16>,
}

/// A thread that follows the kernel. Dropping it ends the thread, and leaves the neighbours to the kernel.
pub(super) struct Kernel {
    pub(super) place: Place,
    wanted: Arc<Wanted>,
    thread: Option<JoinHandle<()>>,
}

/// What is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// To whom ways are wanted.
    pub(super) remotes: BTreeSet<IpAddr>,
    /// The UDP ports that tunnels send to; 0 for GRE.
    pub(super) ports: BTreeSet<u16>,
}

/// What the thread shall do.
struct Wanted {
    /// `None`: it shall end.
    wants: Mutex<Option<Wants>>,
    wake: OwnedFd,
}

impl Wanted {
    fn set(&self, wants: Option<Wants>) {
        *self.wants.lock().unwrap_or_else(PoisonError::into_inner) = wants;
        // It can only be full, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn get(&self) -> Option<Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Kernel {
    /// Starts to follow the kernel for the underlay that is called `station`.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub(super) fn start(station: Arc<str>, place: Place, tell: Sender<Event>) -> io::Result<Kernel> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wanted = Arc::new(Wanted { wants: Mutex::new(Some(Wants::default())), wake });
        let mut follower = Follower {
            station,
            place: place.clone(),
            wanted: wanted.clone(),
            tell,
            host: None,
            told: HashMap::new(),
            path_mtus: PathMtus::default(),
            errors: Bucket::new(ERRORS_PER_S, ERRORS_PER_S / 8),
            start: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("kernel".into()).spawn(move || follower.run())?;
        Ok(Kernel { place, wanted, thread: Some(thread) })
    }

    /// What is wanted from now on.
    pub(super) fn want(&self, wants: Wants) {
        if self.wanted.get().as_ref() != Some(&wants) {
            self.wanted.set(Some(wants));
        }
    }

    /// Whether a way to this remote is wanted.
    pub(super) fn wants(&self, remote: IpAddr) -> bool {
        let wants = self.wanted.wants.lock().unwrap_or_else(PoisonError::into_inner);
        wants.as_ref().is_some_and(|wants| wants.remotes.contains(&remote))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.wanted.set(None);
        if let Some(thread) = self.thread.take() {
            // It has panicked at most, and said so.
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Follower {
    station: Arc<str>,
    place: Place,
    wanted: Arc<Wanted>,
    tell: Sender<Event>,
    host: Option<Host>,
    told: HashMap<IpAddr, Result<Path, Reason>>,
    path_mtus: PathMtus,
    errors: Bucket,
    start: Instant,
}

/// An open namespace.
struct Host {
    links: Links,
    watch: Watch,
    /// Where errors about packets that were too big are heard: of IPv4, and of IPv6 where there is any.
    ears: Vec<IcmpSocket>,
    anchor: Option<Anchor>,
    /// The device that neighbours are managed on, and when the kernel was asked for each.
    managed: (Link, BTreeMap<IpAddr, Instant>),
}

impl Follower {
    fn run(&mut self) {
        let mut asked: Option<(Instant, Wants)> = None;
        while let Some(wants) = self.wanted.get() {
            // What has changed before it is asked is no news any more.
            let news = self.host.as_ref().is_none_or(|host| host.watch.has_news());
            let learned = self.hear_errors(&wants);
            let is_due = asked.as_ref().is_none_or(|(at, of)| *of != wants || at.elapsed() >= TICK);
            if news || learned || is_due {
                self.tell(&wants.remotes);
                asked = Some((Instant::now(), wants));
            }
            self.sleep();
        }
        if let Some(host) = &mut self.host {
            host.release(&BTreeSet::new());
        }
    }

    /// Tells of the ways that are others than those told last.
    fn tell(&mut self, remotes: &BTreeSet<IpAddr>) {
        let paths = self.find(remotes);
        self.told.retain(|remote, _| remotes.contains(remote));
        for (remote, path) in paths {
            if self.told.insert(remote, path) != Some(path) {
                let change = PathChange { station: self.station.clone(), remote, path };
                // Nobody listens only when the switch is going down.
                let _ = self.tell.send(Event::Path(change));
            }
        }
    }

    /// Until the kernel or the switch has something new, or for a while.
    fn sleep(&self) {
        let mut wake = vec![PollFd::new(&self.wanted.wake, PollFlags::IN)];
        if let Some(host) = &self.host {
            wake.push(PollFd::new(&host.watch, PollFlags::IN));
            wake.extend(host.ears.iter().map(|ear| PollFd::new(ear, PollFlags::IN)));
        }
        let tick = Timespec { tv_sec: TICK.as_secs() as i64, tv_nsec: 0 };
        // Whatever it returns, the thread looks for itself.
        let _ = poll(&mut wake, Some(&tick));
        let _ = rustix::io::read(&self.wanted.wake, &mut [0; 8]);
        std::thread::sleep(GATHER);
    }

    /// Takes in what errors say of packets that were too big; true if one is believed. What one turn does not take is
    /// there in the next.
    fn hear_errors(&mut self, wants: &Wants) -> bool {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        self.path_mtus.age(now_ns);
        self.path_mtus.retain(|remote| wants.remotes.contains(remote));
        let Some(Host { ears, links, managed: (link, _), .. }) = &mut self.host else { return false };
        // More than routers quote (RFC 1812, 4.3.2.3; RFC 4443, 3.2).
        let (mut learned, mut bytes) = (false, [0; 2048]);
        for ear in ears {
            for _ in 0..ERRORS {
                let Ok(Some((_, message))) = ear.receive(&mut bytes) else { break };
                let Some((mtu, quoted)) = too_big(message, ear.is_ipv4()) else { continue };
                let Some(quote) = Quote::read(quoted).filter(|quote| is_of(quote, wants)) else { continue };
                // Only what we sent ourselves, from an address of this host.
                let is_ours = self.errors.take(now_ns)
                    && links.route(quote.from).is_ok_and(|to| to.is_some_and(|to| to.is_local));
                learned |= is_ours && self.path_mtus.hear(&quote, mtu, link.mtu, now_ns).is_some();
            }
        }
        learned
    }

    /// The ways to all remotes.
    fn find(&mut self, remotes: &BTreeSet<IpAddr>) -> Vec<(IpAddr, Result<Path, Reason>)> {
        if self.host.as_ref().and_then(|host| host.anchor.as_ref()).is_some_and(|anchor| !anchor.holds()) {
            self.host = None;
        }
        if self.host.is_none() {
            self.host = Host::open(&self.place).ok();
        }
        let none = |reason| remotes.iter().map(|remote| (*remote, Err(reason))).collect();
        let Some(host) = &mut self.host else { return none(Reason::NoStation) };
        let link = match host.device(&self.place) {
            Ok(link) => link,
            Err(reason) => return none(reason),
        };
        if host.managed.0.index != link.index {
            // Its neighbours are gone with the former device.
            host.managed.1.clear();
        }
        host.managed.0 = link.clone();
        let mut hops = BTreeSet::new();
        let path_mtus = &self.path_mtus;
        let path = |remote: &IpAddr| {
            let mut path = host.path(&link, *remote, &mut hops);
            if let Ok(path) = &mut path {
                path.mtu = path_mtus.limit(*remote, path.mtu);
            }
            (*remote, path)
        };
        let paths = remotes.iter().map(path).collect();
        host.release(&hops);
        paths
    }
}

/// Whether a quoted packet is one of a tunnel to one of the remotes.
fn is_of(quote: &Quote<'_>, wants: &Wants) -> bool {
    wants.remotes.contains(&quote.to) && quote.tunnel_port().is_some_and(|port| wants.ports.contains(&port))
}

impl Host {
    fn open(place: &Place) -> Result<Host, Error> {
        let netns = Netns::open_or_own(place.netns.as_deref())?;
        let ear = |is_ipv4: bool| match IcmpSocket::for_errors(&netns, is_ipv4) {
            // No IPv6, no tunnels over it.
            Err(_) if !is_ipv4 => None,
            ear => Some(ear),
        };
        Ok(Host {
            // First: what changes from here on is heard.
            watch: Watch::open(&netns)?,
            ears: [true, false].into_iter().filter_map(ear).collect::<Result<_, _>>()?,
            links: Links::open(&netns)?,
            anchor: Anchor::new(place.netns.as_deref())?,
            managed: Default::default(),
        })
    }

    /// The device that has the addresses: that of the port, or the one for a VLAN on top of it.
    fn device(&mut self, place: &Place) -> Result<Link, Reason> {
        let link = self.links.find(&place.device).ok().flatten().ok_or(Reason::NoStation)?;
        let link = match place.vlan {
            None => link,
            Some(vlan) => {
                let is_on_top = |on: &Link| on.vlan == Some(vlan) && on.peer == Some(link.index);
                let all = self.links.all().map_err(|_| Reason::NoStation)?;
                all.into_iter().find(is_on_top).ok_or(Reason::NoVlan(vlan))?
            }
        };
        if link.up && link.carrier { Ok(link) } else { Err(Reason::LinkDown) }
    }

    fn path(&mut self, link: &Link, remote: IpAddr, hops: &mut BTreeSet<IpAddr>) -> Result<Path, Reason> {
        let route = self.links.route(remote).map_err(|_| Reason::NoStation)?;
        let route = route.ok_or(Reason::NoRoute(remote))?;
        if route.is_local {
            return Err(Reason::Own(remote));
        }
        if route.device != link.index {
            return Err(Reason::Elsewhere(remote));
        }
        let source = route.source.ok_or(Reason::NoRoute(remote))?;
        let hop = route.gateway.unwrap_or(remote);
        hops.insert(hop);
        let next_hop_mac = self.neighbour(link, hop)?;
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Ok(Path { next_hop_mac, source_mac: link.mac, source, mtu })
    }

    fn neighbour(&mut self, link: &Link, hop: IpAddr) -> Result<[u8; 6], Reason> {
        let known = self.links.neighbour(link, hop).map_err(|_| Reason::NoStation)?;
        let asked = self.managed.1.get(&hop);
        let is_due = match known {
            // What somebody has configured stays as it is.
            Neighbour::Known { fixed: true, .. } => false,
            Neighbour::Known { .. } => asked.is_none(),
            Neighbour::Asked | Neighbour::Silent => asked.is_none_or(|asked| asked.elapsed() >= REMIND),
        };
        if is_due && self.links.manage_neighbour(link, hop).is_ok() {
            self.managed.1.insert(hop, Instant::now());
        }
        match known {
            Neighbour::Known { mac, .. } => Ok(mac),
            Neighbour::Asked => Err(Reason::Asking(hop)),
            Neighbour::Silent => Err(Reason::Silent(hop)),
        }
    }

    /// Leaves all neighbours but these to the kernel.
    fn release(&mut self, but: &BTreeSet<IpAddr>) {
        let (link, managed) = &mut self.managed;
        for (hop, _) in managed.extract_if(.., |hop, _| !but.contains(hop)) {
            // It stays managed, and is asked for in vain now and then: no harm is done.
            let _ = self.links.release_neighbour(link, hop);
        }
    }
}

/// A UDP port that is ours in a namespace.
pub(super) struct BoundPort {
    _socket: UdpSocket,
    anchor: Option<Anchor>,
}

impl BoundPort {
    /// Whether the namespace of that name is still the one that it is bound in.
    pub(super) fn holds(&self) -> bool {
        self.anchor.as_ref().is_none_or(Anchor::holds)
    }
}

/// Takes a UDP port in a namespace: nobody else gets it, and the kernel answers nobody that it is closed.
///
/// # Errors
/// Who has it, and what to do.
pub(super) fn bind(netns: Option<&str>, port: u16) -> Result<BoundPort, String> {
    let open = || -> Result<_, Error> {
        let anchor = Anchor::new(netns)?;
        let netns = Netns::open_or_own(netns)?;
        let bound = netns.run(|| Ok(bind_here(port)))?;
        let holder = match &bound {
            Ok(_) => None,
            Err(_) => {
                Links::open(&netns)?.all()?.into_iter().find(|link| link.up && link.udp_port == Some(port))
            }
        };
        let bound = bound.map(|socket| BoundPort { _socket: socket, anchor });
        Ok((bound, holder))
    };
    match open().map_err(|error| error.to_string())? {
        (Ok(bound), _) => Ok(bound),
        (Err(_), Some(Link { kind, name, .. })) => Err(format!(
            "UDP port {port} is that of the kernel's {kind} device {name:?}: delete it (`ip link delete {name}`), or \
             give the tunnel another `port`"
        )),
        (Err(cause), None) => Err(format!(
            "UDP port {port} cannot be had: {cause}; end the program that has it (`ss -ulpn 'sport = {port}'`), or \
             give the tunnel another `port`"
        )),
    }
}

fn bind_here(port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(cause) if cause.kind() != io::ErrorKind::AddrInUse => {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        bound => bound,
    }
}
