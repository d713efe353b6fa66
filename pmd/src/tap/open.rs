#![allow(unsafe_code)]
//! Opening a TAP: made inside the container's namespace, or adopted from an earlier run.
//!
//! The device is made where it belongs, since moving one waits for RCU (20 to 60 ms). Until it is marked and
//! set it is not persistent: a crash half way leaves nothing behind. Privileged; knows nothing about frames.
//!
//! A device with one queue is made without IFF_MULTI_QUEUE, because with that flag the kernel reserves 256 queues,
//! each with a queueing discipline: 6.3 MB and more than a millisecond a TAP when it comes up, against 20 KB and a
//! tenth of that. What a device was made as stays: one made for several queues is driven with any number of them,
//! but one made for one queue must be made again to get more.
//!
//! Documentation/networking/tuntap.rst, <linux/if_tun.h>.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::netdev::link::{Change, GROUP, NAME_MAX, mark};
use crate::netdev::{Anchor, Device, Error, Link, Links, Netns, Settings};
use crate::offload::Features;
use crate::virtio::{HEADER, TUNNEL_HEADER};

/// The most queues a TAP can have (MAX_TAP_QUEUES of the kernel).
pub const QUEUES_MAX: u16 = 256;

/// What a `tap` port shall be.
#[derive(Debug, Clone)]
pub struct TapConfig {
    /// The port's name: part of the mark, named in errors.
    pub port: String,
    /// Namespace by name or path; `None` makes a device of the daemon's own namespace.
    pub netns: Option<String>,
    /// Name, addresses, MTU and so on of the device.
    pub settings: Settings,
    /// Queues, 1 to [`QUEUES_MAX`].
    pub queues: u16,
}

/// An open TAP: descriptors and plain values, from which any process can drive it.
#[derive(Debug)]
pub struct OpenTap {
    /// The port's name.
    pub port: String,
    /// The device.
    pub device: Device,
    /// One descriptor a queue, non-blocking, for both directions.
    pub queues: Vec<OwnedFd>,
    /// What it takes.
    pub features: Features,
    /// Its namespace, where that is not the daemon's own.
    pub anchor: Option<Anchor>,
    /// It was there already, made by an earlier run.
    pub adopted: bool,
}

/// Makes or adopts the TAP that `config` describes and brings it up.
///
/// # Errors
/// [`Error::NamespaceMissing`]; [`Error::Foreign`] for a device of that name without the port's mark;
/// [`Error::Busy`] when another process is attached; [`Error::Invalid`] settings; what the kernel refuses. After
/// an error a device that was not there before is gone again.
pub fn open(config: &TapConfig) -> Result<OpenTap, Error> {
    config.settings.check()?;
    if !(1..=QUEUES_MAX).contains(&config.queues) {
        let why = format!("a TAP has 1 to {QUEUES_MAX} queues");
        return Err(Error::Invalid { what: format!("queues = {}", config.queues), why });
    }
    let netns = Netns::open_or_own(config.netns.as_deref())?;
    let anchor = Anchor::new(config.netns.as_deref())?;
    netns.run(|| open_here(config, Links::here(&netns)?, anchor))
}

/// Deletes the TAP `ifname` of `port`; one that is gone (or whose namespace is) is fine, and a device without
/// the port's mark is left alone.
pub fn remove(port: &str, netns: Option<&str>, ifname: &str) -> Result<(), Error> {
    let netns = match Netns::open_or_own(netns) {
        Err(Error::NamespaceMissing { .. }) => return Ok(()),
        other => other?,
    };
    let mut links = Links::open(&netns)?;
    match links.find(ifname)? {
        Some(link) if link.is_marked(port) => links.delete(&link),
        _ => Ok(()),
    }
}

/// The work inside the namespace.
fn open_here(config: &TapConfig, mut links: Links, anchor: Option<Anchor>) -> Result<OpenTap, Error> {
    let name = config.settings.ifname.as_str();
    let found = match links.find(name)? {
        None => None,
        Some(link) => adoptable(config, &mut links, link)?,
    };
    let multi_queue = found.as_ref().map_or(config.queues > 1, |link| link.tap.multi_queue);
    let queues = (0..config.queues)
        .map(|_| attach(name, multi_queue, links.place()))
        .collect::<Result<Vec<_>, _>>()?;
    let features = negotiate(&queues[0], name)?;
    let link = links.get(name)?;
    if link.tap.attached > u32::from(config.queues) {
        return Err(busy(&links, &link));
    }
    if found.is_none() {
        links.change(&link, &[Change::Alias(&mark(&config.port)), Change::Group(GROUP)])?;
    }
    let link = config.settings.apply(&mut links, &link)?;
    request(&queues[0], libc::TUNSETPERSIST, 1)
        .map_err(|cause| Error::call(doing(name), "ioctl(TUNSETPERSIST)", cause))?;
    Ok(OpenTap {
        port: config.port.clone(),
        device: Device::new(&link, config.netns.as_deref()),
        queues,
        features,
        anchor,
        adopted: found.is_some(),
    })
}

/// Whether the device that is there is ours to attach to; deletes ours if it cannot have so many queues.
fn adoptable(config: &TapConfig, links: &mut Links, link: Link) -> Result<Option<Link>, Error> {
    if link.kind != "tun" || !link.is_marked(&config.port) {
        let (device, netns) = (link.name.clone(), links.place().to_owned());
        return Err(Error::Foreign { device, netns, what: link.describe() });
    }
    if link.tap.attached > 0 {
        return Err(busy(links, &link));
    }
    if config.queues > 1 && !link.tap.multi_queue {
        // Attaching proves that nobody else is; of a device with one queue the kernel tells no number.
        drop(attach(&link.name, false, links.place())?);
        links.delete(&link)?;
        return Ok(None);
    }
    Ok(Some(link))
}

fn busy(links: &Links, link: &Link) -> Error {
    Error::Busy {
        device: link.name.clone(),
        netns: links.place().to_owned(),
        holder: format!("{} queues are attached by another process", link.tap.attached),
    }
}

fn doing(name: &str) -> String {
    format!("opening the TAP {name:?}")
}

/// Opens one queue of the TAP `name`, which the first one makes if need be.
fn attach(name: &str, multi_queue: bool, netns: &str) -> Result<OwnedFd, Error> {
    let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let tun = tun.map_err(|cause| Error::call(doing(name), "open(/dev/net/tun)", cause))?;
    // SAFETY: all zeros is a valid `ifreq`.
    let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes().take(NAME_MAX)) {
        *to = from as libc::c_char;
    }
    let multi_queue = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | multi_queue;
    interface.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request reads and writes the `ifreq`, which outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &mut interface) } == 0 {
        return Ok(tun.into());
    }
    let cause = std::io::Error::last_os_error();
    match cause.raw_os_error() {
        Some(libc::EBUSY) => Err(Error::Busy {
            device: name.into(),
            netns: netns.into(),
            holder: "its only queue is attached by another process".into(),
        }),
        _ => Err(Error::call(doing(name), "ioctl(/dev/net/tun, TUNSETIFF)", cause)),
    }
}

/// UDP tunnels, and their checksums: of Linux 6.17, for both directions at once (<linux/if_tun.h>).
const TUN_F_UDP_TUNNEL_GSO: libc::c_uint = 0x80;
const TUN_F_UDP_TUNNEL_GSO_CSUM: libc::c_uint = 0x100;

/// Bytes of the virtio-net headers of a TAP with `features`.
pub(super) fn header(features: Features) -> usize {
    if features.contains(Features::TUNNEL) { TUNNEL_HEADER } else { HEADER }
}

/// Sets the header's size and what we take from the container; gives what the TAP takes from us.
fn negotiate(queue: &OwnedFd, name: &str) -> Result<Features, Error> {
    let most = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // UDP segmentation came with Linux 6.2, for both directions at once.
    let udp = most | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let tunnel = udp | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM;
    let tries = [
        (tunnel, Features::VIRTIO.with(Features::TUNNEL)),
        (udp, Features::VIRTIO),
        (most, Features::VIRTIO.without(Features::USO)),
    ];
    let mut refused = None;
    for (offload, features) in tries {
        let size = header(features) as libc::c_int;
        // SAFETY: the request reads an int, which outlives the call.
        if unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ as libc::Ioctl, &size) } != 0 {
            return Err(Error::last(doing(name), "ioctl(TUNSETVNETHDRSZ)"));
        }
        match request(queue, libc::TUNSETOFFLOAD, offload.into()) {
            Ok(()) => return Ok(features),
            Err(cause) => refused = Some(cause),
        }
    }
    let cause = refused.unwrap_or_else(std::io::Error::last_os_error);
    Err(Error::call(doing(name), "ioctl(TUNSETOFFLOAD)", cause))
}

/// A request of the TUN driver whose argument is a number.
fn request(
    queue: &OwnedFd,
    request: impl TryInto<libc::Ioctl>,
    argument: libc::c_ulong,
) -> std::io::Result<()> {
    let request = request.try_into().map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the argument is a number, no memory is read or written.
    match unsafe { libc::ioctl(queue.as_raw_fd(), request, argument) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    fn config(sandbox: &Sandbox, port: &str) -> TapConfig {
        TapConfig {
            port: port.into(),
            netns: Some(sandbox.name(0).into()),
            settings: Settings {
                mac: Some([2, 0, 0, 0, 0, 0x11]),
                mtu: 9000,
                addresses: vec!["10.1.0.11/24".parse().unwrap(), "fd00:1::11/64".parse().unwrap()],
                gateways: vec!["10.1.0.1".parse().unwrap()],
                ..Settings::default()
            },
            queues: 1,
        }
    }

    #[test]
    fn a_tap_is_made_with_its_settings_outlives_its_descriptors_and_is_adopted() {
        let sandbox = Sandbox::new(1);
        let mut config = config(&sandbox, "web1");
        let first = open(&config).unwrap();
        assert!(!first.adopted && first.features.contains(Features::VIRTIO) && first.queues.len() == 1);
        assert_eq!((first.device.mtu, first.device.mac), (9000, [2, 0, 0, 0, 0, 0x11]));
        let text = open(&config).unwrap_err().to_string();
        assert!(text.contains("in use: its only queue is attached by another process"), "{text}");
        let index = first.device.index;
        drop(first);

        sandbox.ip(0, &["addr", "add", "10.7.0.1/24", "dev", "eth0"]);
        config.settings.mtu = 1500;
        let second = open(&config).unwrap();
        assert!(second.adopted && second.device.index == index && second.device.mtu == 1500);
        let shown = sandbox.ip(0, &["addr", "show", "dev", "eth0"]);
        assert!(shown.contains("10.7.0.1/24") && shown.contains("10.1.0.11/24"), "{shown}");
        assert!(!shown.contains("fd00:1::11/64 scope global tentative"), "{shown}");
        assert!(sandbox.ip(0, &["route"]).contains("default via 10.1.0.1"));

        remove("other", config.netns.as_deref(), "eth0").unwrap();
        assert!(sandbox.ip(0, &["link"]).contains("eth0"), "another port's name removed the device");
        remove("web1", config.netns.as_deref(), "eth0").unwrap();
        remove("web1", config.netns.as_deref(), "eth0").unwrap();
        assert!(!sandbox.ip(0, &["link"]).contains("eth0"));
    }

    #[test]
    fn several_queues_come_and_change_in_number() {
        let sandbox = Sandbox::new(1);
        let mut config = TapConfig { queues: 4, ..config(&sandbox, "web1") };
        assert_eq!(open(&config).unwrap().queues.len(), 4);
        let text = {
            let _held = open(&config).unwrap();
            open(&config).unwrap_err().to_string()
        };
        assert!(text.contains("4 queues are attached"), "{text}");
        config.queues = 2;
        let two = open(&config).unwrap();
        assert!(two.adopted && two.queues.len() == 2);
        drop(two);
        config.queues = 1;
        let text = {
            let _held = open(&TapConfig { queues: 2, ..config.clone() }).unwrap();
            open(&config).unwrap_err().to_string()
        };
        assert!(text.contains("2 queues are attached"), "{text}");
        let one = open(&config).unwrap();
        assert!(one.adopted && one.queues.len() == 1, "a device for several queues serves with one");
        let text = open(&config).unwrap_err().to_string();
        assert!(text.contains("1 queues are attached"), "{text}");
    }

    #[test]
    fn a_device_for_one_queue_is_made_again_for_more() {
        let sandbox = Sandbox::new(1);
        let mut config = config(&sandbox, "web1");
        drop(open(&config).unwrap());
        config.queues = 2;
        let two = open(&config).unwrap();
        assert!(!two.adopted && two.queues.len() == 2);
        let shown = sandbox.ip(0, &["addr", "show", "dev", "eth0"]);
        assert!(shown.contains("10.1.0.11/24"), "{shown}");
    }

    #[test]
    fn strangers_and_mistakes_are_refused_and_nothing_is_left() {
        let sandbox = Sandbox::new(1);
        let good = config(&sandbox, "web1");
        sandbox.ip(0, &["tuntap", "add", "eth0", "mode", "tap"]);
        let text = open(&good).unwrap_err().to_string();
        assert!(
            text.contains("not ours (a tun without a mark of ours)") && text.contains("ifname"),
            "{text}"
        );
        sandbox.ip(0, &["link", "set", "eth0", "alias", "vswitch:web2"]);
        let text = open(&good).unwrap_err().to_string();
        assert!(text.contains("\"vswitch:web2\""), "{text}");
        sandbox.ip(0, &["link", "del", "eth0"]);

        let mut bad = good.clone();
        bad.settings.gateways = vec!["172.16.0.1".parse().unwrap()];
        let text = open(&bad).unwrap_err().to_string();
        assert!(text.contains("172.16.0.1"), "{text}");
        assert!(!sandbox.ip(0, &["link"]).contains("eth0"), "a half made device stayed");
        assert!(open(&TapConfig { queues: 0, ..good.clone() }).is_err());
        assert!(open(&TapConfig { queues: 257, ..good.clone() }).is_err());
        let missing = TapConfig { netns: Some("vs-no-such".into()), ..good };
        assert!(matches!(open(&missing).unwrap_err(), Error::NamespaceMissing { .. }));
        remove("web1", Some("vs-no-such"), "eth0").unwrap();
    }
}
