//! The ports as the control side has them, and how each type is opened.

use std::path::Path;
use std::sync::Arc;

use control::schema::{self, PortKind, SocketMode, VethDriver, XdpMode};
use pmd::netdev::address::Network;
use pmd::netdev::{Links, Netns, Settings};
use pmd::{Arena, Fate, Link, Port, RxQueue, TxQueue, afxdp, null, packet, pcap, tap, veth};

use super::attempts::Backoff;
use crate::telemetry::counters::PortTotals;
use crate::worker::mailbox::Retired;
use crate::worker::outlet::Tx;
use crate::worker::queue::{Incarnation, QueueLoad};

/// How ports are opened: [`open`], or what a test has in its place.
pub type Opener =
    Arc<dyn Fn(&schema::Port, bool, &Arena, usize) -> Result<Box<dyn Port>, String> + Send + Sync>;

/// How one port is opened, with all that it takes.
pub type Opening = Box<dyn FnOnce(&schema::Port) -> Result<Box<dyn Port>, String> + Send>;

/// A configured port.
pub struct Running {
    /// Its part of the desired state.
    pub config: schema::Port,
    /// Its index in snapshots, tables and counters.
    pub index: u16,
    /// What the index's counters said when the port got it.
    pub base: PortTotals,
    /// Which opening that is.
    pub incarnation: Incarnation,
    /// Open, or why not.
    pub state: PortState,
    /// When it is tried again, if it is down.
    pub backoff: Backoff,
    /// Its rx queues that workers serve.
    pub queues: Vec<Served>,
}

/// Whether a port is open.
pub enum PortState {
    /// The driver has it.
    Open(Box<dyn Port>),
    /// It could not be opened, or failed; the keeper goes on trying.
    Down(String),
}

/// An rx queue and who serves it.
pub struct Served {
    /// The queue's number within the port.
    pub number: u16,
    /// The worker's index.
    pub worker: usize,
    /// Pinned by the configuration.
    pub pinned: bool,
    /// What it costs.
    pub load: Arc<QueueLoad>,
    /// The load when the workers' counters were reset.
    pub base_cycles: u64,
}

impl Running {
    /// The open port.
    pub fn open(&self) -> Option<&dyn Port> {
        match &self.state {
            PortState::Open(port) => Some(port.as_ref()),
            PortState::Down(_) => None,
        }
    }

    /// Why no frame can pass, if none can; `link` is the open port's as it is now.
    pub fn outage(&self, link: &Link) -> Option<String> {
        match &self.state {
            PortState::Down(reason) => Some(reason.clone()),
            PortState::Open(_) => (!link.up).then(|| link.reason.clone()),
        }
    }

    /// Closes the driver's port; its queues must be back already. Of a port that is down there is no driver,
    /// but its interface may be there and has to go with it all the same.
    pub fn close(&mut self, fate: Fate, reason: &str) {
        match std::mem::replace(&mut self.state, PortState::Down(reason.into())) {
            PortState::Open(port) => {
                if let Err(fault) = port.close(fate) {
                    eprintln!("vswitchd: port \"{}\": {fault}", self.config.name);
                }
            }
            PortState::Down(_) if fate == Fate::Remove => remove_interfaces([&self.config]),
            PortState::Down(_) => {}
        }
    }
}

/// Threads that close devices side by side: deleting one waits for the kernel's RCU, and the waits overlap.
const CLOSERS: usize = 32;

/// Closes many ports, side by side.
pub fn close_all<'a>(ports: impl IntoIterator<Item = &'a mut Running>, fate: Fate) {
    in_parallel(ports.into_iter().collect(), |port| port.close(fate, "closed"));
}

/// Drops queues, side by side.
pub fn drop_all(retired: &mut Vec<Retired>) {
    let all: Vec<Option<Retired>> = retired.drain(..).map(Some).collect();
    in_parallel(all, drop);
}

fn in_parallel<T: Send>(mut items: Vec<T>, run: impl Fn(T) + Sync) {
    if items.len() < 2 {
        return items.drain(..).for_each(run);
    }
    let share = items.len().div_ceil(CLOSERS);
    std::thread::scope(|scope| {
        while !items.is_empty() {
            let rest = items.split_off(share.min(items.len()));
            let part = std::mem::replace(&mut items, rest);
            let run = &run;
            scope.spawn(move || part.into_iter().for_each(run));
        }
    });
}

/// An address that stays the same for this port (or whatever has such a name) on this machine: locally administered,
/// by a hash of both.
pub(super) fn stable_mac(port: &str) -> [u8; 6] {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    // FNV-1a, 64 bits: spreads well, and secrets are not at stake.
    let hash =
        machine.trim().bytes().chain(port.bytes()).fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [a, b, c, d, e, _, _, _] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

fn settings(port: &schema::Port, endpoint: &schema::Endpoint) -> Settings {
    let mac = endpoint.mac.map_or_else(|| stable_mac(port.name.as_str()), Into::into);
    Settings {
        ifname: endpoint.ifname.to_string(),
        mac: Some(mac),
        mtu: endpoint.mtu.unwrap_or(schema::Endpoint::MTU).into(),
        addresses: endpoint
            .addresses
            .iter()
            .map(|prefix| Network { ip: prefix.address(), prefix: prefix.length() })
            .collect(),
        gateways: endpoint.gateways.clone(),
    }
}

/// Looks whether the namespace and the device that a port needs are there; touches nothing.
///
/// # Errors
/// As [`open`].
pub fn check(port: &schema::Port) -> Result<(), String> {
    let Some((netns, device)) = port.kind.interface() else { return Ok(()) };
    let netns = netns.map(|netns| netns.path().display().to_string());
    let look = || {
        let netns = Netns::open_or_own(netns.as_deref())?;
        if matches!(port.kind, PortKind::Packet(_) | PortKind::Afxdp(_)) {
            Links::open(&netns)?.get(device.as_str())?;
        }
        Ok(())
    };
    look().map_err(|error: pmd::netdev::Error| error.to_string())
}

/// Opens a port as its configuration says, `shared` with the host's kernel or not, with a tx queue for each of `workers` where the type can. What shared rings
/// leave for the next switch is put into the folder `rings`.
///
/// # Errors
/// What failed, why, and what to do, for people.
pub fn open(
    port: &schema::Port,
    shared: bool,
    arena: &Arena,
    workers: usize,
    rings: &Path,
) -> Result<Box<dyn Port>, String> {
    let name = port.name.to_string();
    let netns =
        |netns: &Option<schema::Netns>| netns.as_ref().map(|netns| netns.path().display().to_string());
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match &port.kind {
        PortKind::Tap(tap) => {
            let config = tap::TapConfig {
                port: name,
                netns: netns(&tap.endpoint.netns),
                settings: settings(port, &tap.endpoint),
                queues: port.queues.unwrap_or(1),
            };
            let open = tap::open(&config).map_err(|error| text(&error))?;
            Ok(Box::new(tap::TapPort::new(open)))
        }
        PortKind::Pcap(pcap) => {
            let settings =
                pcap::Settings { read: pcap.read.clone(), write: pcap.write.clone(), repeat: pcap.repeat };
            Ok(Box::new(pcap::open(&settings).map_err(|error| text(&error))?))
        }
        PortKind::Null(null) => {
            let settings = null::Settings {
                rate: null.rate,
                size: null.size.into(),
                mac: stable_mac(&name),
                tx_queues: workers,
            };
            Ok(Box::new(null::open(settings).map_err(|error| text(&error))?))
        }
        PortKind::Afxdp(device) => {
            let mode = match device.mode {
                XdpMode::Auto => afxdp::Mode::Auto,
                XdpMode::ZeroCopy => afxdp::Mode::ZeroCopy,
                XdpMode::Copy => afxdp::Mode::Copy,
            };
            let config = afxdp::AfxdpConfig {
                netns: netns(&device.netns),
                device: device.device.to_string(),
                queues: port.queues.map(Into::into),
                mode,
                purpose: match shared {
                    true => afxdp::Purpose::Shared,
                    false => afxdp::Purpose::Host { exclusive: device.exclusive },
                },
            };
            let open = afxdp::open(&config, arena).map_err(|error| text(&error))?;
            Ok(Box::new(afxdp::AfxdpPort::new(open)))
        }
        PortKind::Veth(veth) => {
            let config = veth::VethConfig {
                port: name,
                netns: netns(&veth.endpoint.netns),
                settings: settings(port, &veth.endpoint),
            };
            let pair = veth::open(&config).map_err(|error| text(&error))?;
            match open_host_end(&pair, veth.driver, port.queues.unwrap_or(1), arena) {
                Ok(driver) => Ok(Box::new(veth::VethPort::new(pair, driver))),
                Err(error) => {
                    if !pair.adopted {
                        // The first error is the one to tell.
                        let ifname = &config.settings.ifname;
                        let _ = veth::remove(&config.port, config.netns.as_deref(), ifname);
                    }
                    Err(error)
                }
            }
        }
        PortKind::Packet(device) => {
            let config = packet::PacketConfig {
                device: device.device.to_string(),
                netns: netns(&device.netns),
                queues: port.queues.unwrap_or(1),
                exclusive: device.exclusive,
            };
            let open = packet::open(&config).map_err(|error| text(&error))?;
            Ok(Box::new(packet::PacketPort::new(open)))
        }
        PortKind::VhostUser(user) => {
            let settings = vhost::Settings {
                socket: user.socket.clone(),
                mode: match user.mode {
                    SocketMode::Server => vhost::Mode::Server,
                    SocketMode::Client => vhost::Mode::Client,
                },
                mac: user.mac.map_or_else(|| stable_mac(&name), Into::into),
                mtu: user.mtu.into(),
                queues: port.queues.unwrap_or(1),
                workers,
                offloads: user.offloads,
                packed: user.packed,
                pages: Some(rings.join(&name)),
                socket_mode: user.socket_mode.bits(),
                socket_group: user.socket_group.clone(),
            };
            let port = vhost::open(settings).and_then(vhost::VhostUserPort::new);
            Ok(Box::new(port.map_err(|error| text(&error))?))
        }
    }
}

/// Removes the interfaces that these ports had when a switch before this one ran, where they are still there and
/// still marked as theirs; gives the host's devices back that it held when it was killed.
pub fn remove_interfaces<'a>(ports: impl IntoIterator<Item = &'a schema::Port>) {
    let remove = |port: &schema::Port| {
        let name = port.name.as_str();
        let path =
            |netns: &Option<schema::Netns>| netns.as_ref().map(|netns| netns.path().display().to_string());
        let outcome = match &port.kind {
            PortKind::Tap(tap) => {
                tap::remove(name, path(&tap.endpoint.netns).as_deref(), tap.endpoint.ifname.as_str())
            }
            PortKind::Veth(veth) => {
                veth::remove(name, path(&veth.endpoint.netns).as_deref(), veth.endpoint.ifname.as_str())
            }
            PortKind::Packet(packet) => {
                packet::release(path(&packet.netns).as_deref(), packet.device.as_str())
            }
            PortKind::Afxdp(_) | PortKind::Pcap(_) | PortKind::Null(_) | PortKind::VhostUser(_) => Ok(()),
        };
        if let Err(error) = outcome {
            eprintln!("vswitchd: port \"{name}\" is no longer configured, but its interface stays: {error}");
        }
    };
    in_parallel(ports.into_iter().collect(), remove);
}

/// Opens our end of a veth pair with the driver that the configuration names.
fn open_host_end(
    pair: &veth::OpenVeth,
    driver: VethDriver,
    queues: u16,
    arena: &Arena,
) -> Result<Box<dyn Port>, String> {
    match driver {
        VethDriver::Packet => {
            let open = packet::open_device(&Netns::own(), pair.host.clone(), queues)
                .map_err(|error| error.to_string())?;
            Ok(Box::new(packet::PacketPort::new(open)))
        }
        VethDriver::Afxdp => {
            let open = afxdp::open_host_end(pair, queues.into(), afxdp::Mode::Auto, arena)
                .map_err(|error| error.to_string())?;
            Ok(Box::new(afxdp::AfxdpPort::new(open)))
        }
    }
}

/// How the workers of a switch reach a port: each by a queue of its own if there are enough, else by turns
/// behind locks.
pub fn outlets(queues: Vec<Box<dyn TxQueue>>, workers: usize) -> Vec<Tx> {
    if queues.len() >= workers {
        return queues.into_iter().take(workers).map(Tx::Own).collect();
    }
    let shared: Vec<_> = queues.into_iter().map(|queue| Arc::new(std::sync::Mutex::new(queue))).collect();
    if shared.is_empty() {
        return Vec::new();
    }
    (0..workers).map(|worker| Tx::Shared(shared[worker % shared.len()].clone())).collect()
}

/// The rx queues of a port, numbered.
pub fn numbered(queues: Vec<Box<dyn RxQueue>>) -> impl Iterator<Item = (u16, Box<dyn RxQueue>)> {
    queues.into_iter().enumerate().map(|(number, queue)| (number as u16, queue))
}

/// Gives the interface of an open port other addresses and gateways.
///
/// # Errors
/// What the kernel refused.
pub fn readdress(from: &schema::Port, to: &schema::Port) -> Result<(), String> {
    let (Some(before), Some(after)) = (endpoint(from), endpoint(to)) else { return Ok(()) };
    if (&before.addresses, &before.gateways) == (&after.addresses, &after.gateways) {
        return Ok(());
    }
    let netns = after.netns.as_ref().map(|netns| netns.path().display().to_string());
    let change = || {
        let mut links = Links::open(&Netns::open_or_own(netns.as_deref())?)?;
        let link = links.get(after.ifname.as_str())?;
        settings(to, after).apply(&mut links, &link)
    };
    change().map(drop).map_err(|error: pmd::netdev::Error| error.to_string())
}

fn endpoint(port: &schema::Port) -> Option<&schema::Endpoint> {
    match &port.kind {
        PortKind::Tap(tap) => Some(&tap.endpoint),
        PortKind::Veth(veth) => Some(&veth.endpoint),
        _ => None,
    }
}
