//! Links over rtnetlink: look at them, make veth pairs, set, delete.
//!
//! A [`Links`] is bound to the namespace it was opened in and keeps working from any thread. Devices that we
//! make carry a mark, the alias `vswitch:PORT`, which lives as long as the device: that is how a daemon that
//! comes back after a crash knows its own from a stranger's of the same name. Called by the `open.rs` of the
//! drivers on kernel devices; knows nothing about frames or queues. See rtnetlink(7), <linux/if_link.h>.

use std::os::fd::AsRawFd;

use super::netlink::{CREATE, DUMP, Netlink, Request, attributes, number, text};
use super::{Error, Netns};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// How errors name our requests.
pub(super) const CALL: &str = "netlink (rtnetlink)";

// <linux/if_link.h>, what libc lacks.
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_GENEVE_PORT: u16 = 5;
/// Asks for a link without its statistics.
const SKIP_STATISTICS: u32 = 1 << 3;

/// The longest name the kernel takes, in bytes (IFNAMSIZ less the NUL).
pub const NAME_MAX: usize = 15;

/// Group of every device that we make with netlink, set in the very message that makes it: the mark of the
/// moment between a veth's birth and its alias ("vsw" in ASCII).
pub const GROUP: u32 = 0x0076_7377;

/// An Ethernet address as people write it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The alias of a device that belongs to `port`.
pub fn mark(port: &str) -> String {
    format!("vswitch:{port}")
}

/// What the kernel tells about one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index, valid in its namespace.
    pub index: u32,
    /// Name, up to [`NAME_MAX`] bytes.
    pub name: String,
    /// Ethernet address; zeros where the device has none of six bytes.
    pub mac: Mac,
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// Largest MTU that the device takes; 0 when the kernel does not say.
    pub mtu_max: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Up, and the other side is there (IFF_LOWER_UP).
    pub carrier: bool,
    /// Its frames are Ethernet's (ARPHRD_ETHER), and it is not the loopback device.
    pub ethernet: bool,
    /// `veth`, `tun`, `bridge`, …; empty for hardware.
    pub kind: String,
    /// IFLA_IFALIAS: our mark is kept here.
    pub alias: String,
    /// Group, see [`GROUP`].
    pub group: u32,
    /// Index of the bridge or bond that it is a member of.
    pub controller: Option<u32>,
    /// Index of the peer (veth) or parent, in the namespace that it lives in.
    pub peer: Option<u32>,
    /// VLAN of a device of that kind.
    pub vlan: Option<u16>,
    /// UDP port that a VXLAN or Geneve device listens at while it is up.
    pub udp_port: Option<u16>,
    /// Queues of a TAP; zeros for others.
    pub tap: TapQueues,
}

/// What the kernel tells about a TAP alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapQueues {
    /// Lives on without an open descriptor.
    pub persistent: bool,
    /// Made with IFF_MULTI_QUEUE.
    pub multi_queue: bool,
    /// Descriptors attached now, by any process, disabled ones included.
    pub attached: u32,
}

impl Link {
    /// Whether it carries the mark of `port`.
    pub fn is_marked(&self, port: &str) -> bool {
        self.alias == mark(port)
    }

    /// In words, for errors: kind and mark.
    pub fn describe(&self) -> String {
        let kind = if self.kind.is_empty() { "a hardware device" } else { &format!("a {}", self.kind) };
        if self.alias.is_empty() {
            format!("{kind} without a mark of ours")
        } else {
            format!("{kind} with the alias {:?}", self.alias)
        }
    }
}

/// One thing to change about a device.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A new name; the device must be down on kernels before 6.2.
    Name(&'a str),
    /// Ethernet address.
    Mac(Mac),
    /// MTU in bytes.
    Mtu(u32),
    /// Up or down.
    Up(bool),
    /// Alias, where our mark goes.
    Alias(&'a str),
    /// Length of the kernel's transmit queue, in frames; of a TAP, how many wait for us.
    QueueLength(u32),
    /// Group number.
    Group(u32),
    /// No IPv6 address by itself, also not a link-local one, when the device comes up.
    NoIpv6Addresses,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name in its namespace.
    pub name: &'a str,
    /// Ethernet address; the kernel draws one without.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
}

/// The links of one namespace.
pub struct Links {
    pub(super) netlink: Netlink,
    pub(super) netns: String,
}

impl Links {
    /// Opens a socket inside `netns`.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        netns.run(|| Self::here(netns))
    }

    /// Opens a socket in the namespace of this thread, which is `netns`.
    pub(crate) fn here(netns: &Netns) -> Result<Self, Error> {
        let netlink = Netlink::open(libc::NETLINK_ROUTE, CALL)?;
        Ok(Self { netlink, netns: netns.to_string() })
    }

    /// The namespace, in words.
    pub fn place(&self) -> &str {
        &self.netns
    }

    /// The device of this name (or alternative name), if there is one.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = Request::new(libc::RTM_GETLINK, 0, &header(0, 0, 0));
        request.number(libc::IFLA_EXT_MASK, SKIP_STATISTICS);
        if name.len() > NAME_MAX {
            request.text(libc::IFLA_ALT_IFNAME, name);
        } else {
            request.text(libc::IFLA_IFNAME, name);
        }
        self.read_one(request, name)
    }

    /// The device of this index, if there is one.
    pub fn find_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut request = Request::new(libc::RTM_GETLINK, 0, &header(index, 0, 0));
        request.number(libc::IFLA_EXT_MASK, SKIP_STATISTICS);
        self.read_one(request, &format!("#{index}"))
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`Error::DeviceMissing`] lists what is there instead.
    pub fn get(&mut self, name: &str) -> Result<Link, Error> {
        if let Some(link) = self.find(name)? {
            return Ok(link);
        }
        let names: Vec<_> = self.all()?.into_iter().map(|link| link.name).collect();
        let present = if names.len() > 12 { format!("{} of them", names.len()) } else { names.join(", ") };
        Err(Error::DeviceMissing { device: name.into(), netns: self.netns.clone(), present })
    }

    /// All devices.
    pub fn all(&mut self) -> Result<Vec<Link>, Error> {
        let mut request = Request::new(libc::RTM_GETLINK, DUMP, &header(0, 0, 0));
        request.number(libc::IFLA_EXT_MASK, SKIP_STATISTICS);
        let netns = &self.netns;
        let replies = self.netlink.fetch(request, || format!("listing the devices of {netns}"))?;
        Ok(replies.iter().filter(|r| r.kind == libc::RTM_NEWLINK).map(|r| parse(&r.body)).collect())
    }

    /// Makes a pair: `near` in this namespace, `far` directly in `elsewhere`, both down, both in [`GROUP`].
    ///
    /// # Errors
    /// `EEXIST` when a name is taken in either namespace.
    pub fn create_veth(
        &mut self,
        near: VethEnd<'_>,
        far: VethEnd<'_>,
        elsewhere: &Netns,
    ) -> Result<(), Error> {
        let target = elsewhere.descriptor()?;
        let mut request = Request::new(libc::RTM_NEWLINK, CREATE, &header(0, 0, 0));
        fill_end(&mut request, near);
        request.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&header(0, 0, 0));
                    fill_end(peer, far);
                    peer.number(libc::IFLA_NET_NS_FD, target.as_raw_fd() as u32);
                });
            });
        });
        let netns = &self.netns;
        self.netlink.apply(request, || {
            format!("making the veth pair {:?} in {netns} and {:?} in {elsewhere}", near.name, far.name)
        })
    }

    /// Applies several changes to a device in one message, in the kernel's order (not the list's).
    pub fn change(&mut self, link: &Link, changes: &[Change<'_>]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let (mut flags, mut mask) = (0, 0);
        for change in changes {
            if let Change::Up(up) = change {
                mask = libc::IFF_UP as u32;
                flags = if *up { mask } else { 0 };
            }
        }
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &header(link.index, flags, mask));
        for change in changes {
            fill_change(&mut request, *change);
        }
        let netns = &self.netns;
        self.netlink.apply(request, || format!("setting {changes:?} on device {:?} in {netns}", link.name))
    }

    /// Deletes a device; one that is gone already is fine. Of a veth, the peer goes as well.
    pub fn delete(&mut self, link: &Link) -> Result<(), Error> {
        let request = Request::new(libc::RTM_DELLINK, 0, &header(link.index, 0, 0));
        let netns = &self.netns;
        match self.netlink.apply(request, || format!("deleting device {:?} in {netns}", link.name)) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }

    fn read_one(&mut self, request: Request, name: &str) -> Result<Option<Link>, Error> {
        let netns = &self.netns;
        match self.netlink.fetch(request, || format!("looking at device {name:?} in {netns}")) {
            Ok(replies) => Ok(replies.first().map(|reply| parse(&reply.body))),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn fill_end(request: &mut Request, end: VethEnd<'_>) {
    request.text(libc::IFLA_IFNAME, end.name).number(libc::IFLA_MTU, end.mtu).number(libc::IFLA_GROUP, GROUP);
    if let Some(mac) = end.mac {
        request.attribute(libc::IFLA_ADDRESS, &mac);
    }
}

fn fill_change(request: &mut Request, change: Change<'_>) {
    match change {
        Change::Name(name) => request.text(libc::IFLA_IFNAME, name),
        Change::Mac(mac) => request.attribute(libc::IFLA_ADDRESS, &mac),
        Change::Mtu(mtu) => request.number(libc::IFLA_MTU, mtu),
        Change::Up(_) => request,
        Change::Alias(alias) => request.attribute(libc::IFLA_IFALIAS, alias.as_bytes()),
        Change::QueueLength(frames) => request.number(libc::IFLA_TXQLEN, frames),
        Change::Group(group) => request.number(libc::IFLA_GROUP, group),
        Change::NoIpv6Addresses => request.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET6 as u16, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        }),
    };
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

/// Reads an `RTM_NEWLINK`.
pub(super) fn parse(body: &[u8]) -> Link {
    let field = |at: usize| body.get(at..).map_or(0, number);
    let flags = field(8);
    let mut link = Link {
        index: field(4),
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        ethernet: body.get(2..4) == Some(&libc::ARPHRD_ETHER.to_ne_bytes()[..])
            && flags & libc::IFF_LOOPBACK as u32 == 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(16..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            libc::IFLA_MTU => link.mtu = number(value),
            libc::IFLA_MAX_MTU => link.mtu_max = number(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_GROUP => link.group = number(value),
            libc::IFLA_MASTER => link.controller = Some(number(value)),
            libc::IFLA_LINK => link.peer = Some(number(value)),
            libc::IFLA_LINKINFO => parse_info(value, &mut link),
            _ => {}
        }
    }
    link
}

fn parse_info(info: &[u8], link: &mut Link) {
    for (kind, value) in attributes(info) {
        match kind {
            libc::IFLA_INFO_KIND => link.kind = text(value),
            libc::IFLA_INFO_DATA if link.kind == "tun" => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_TUN_PERSIST => link.tap.persistent = value.first() == Some(&1),
                        IFLA_TUN_MULTI_QUEUE => link.tap.multi_queue = value.first() == Some(&1),
                        IFLA_TUN_NUM_QUEUES | IFLA_TUN_NUM_DISABLED_QUEUES => {
                            link.tap.attached += number(value)
                        }
                        _ => {}
                    }
                }
            }
            libc::IFLA_INFO_DATA => {
                let find =
                    |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                let pair = |value: &[u8]| value.first_chunk().copied();
                match link.kind.as_str() {
                    "vlan" => link.vlan = find(IFLA_VLAN_ID).and_then(pair).map(u16::from_ne_bytes),
                    "vxlan" => link.udp_port = find(IFLA_VXLAN_PORT).and_then(pair).map(u16::from_be_bytes),
                    "geneve" => link.udp_port = find(IFLA_GENEVE_PORT).and_then(pair).map(u16::from_be_bytes),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    fn end(name: &str) -> VethEnd<'_> {
        VethEnd { name, mac: None, mtu: 1500 }
    }

    #[test]
    fn a_veth_pair_is_made_over_two_namespaces_changed_and_deleted() {
        let sandbox = Sandbox::new(2);
        let (mut near, mut far) =
            (Links::open(sandbox.netns(0)).unwrap(), Links::open(sandbox.netns(1)).unwrap());
        let mac = [2, 0, 0, 0, 0, 7];
        near.create_veth(end("a0"), VethEnd { mac: Some(mac), ..end("b0") }, sandbox.netns(1)).unwrap();
        let (a, b) = (near.get("a0").unwrap(), far.get("b0").unwrap());
        assert_eq!((a.kind.as_str(), a.group, a.up, a.mtu), ("veth", GROUP, false, 1500));
        assert_eq!((b.mac, a.peer), (mac, Some(b.index)));

        near.change(&a, &[Change::Up(true), Change::Mtu(9000), Change::Alias(&mark("web1"))]).unwrap();
        near.change(&a, &[Change::NoIpv6Addresses]).unwrap();
        far.change(&b, &[Change::Up(true), Change::Name("eth0")]).unwrap();
        let a = near.get("a0").unwrap();
        assert!(a.up && a.carrier && a.is_marked("web1") && a.mtu == 9000, "{a:?}");
        assert!(!a.is_marked("web"));
        assert!(far.find("b0").unwrap().is_none());

        let error = near.create_veth(end("a0"), end("x"), sandbox.netns(1)).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EEXIST), "{error}");
        near.delete(&a).unwrap();
        near.delete(&a).unwrap();
        assert!(far.find("eth0").unwrap().is_none());
    }

    #[test]
    fn a_missing_device_lists_what_is_there() {
        let sandbox = Sandbox::new(1);
        let mut links = Links::open(sandbox.netns(0)).unwrap();
        let text = links.get("eth9").unwrap_err().to_string();
        assert!(text.contains("\"eth9\"") && text.contains("devices there: lo"), "{text}");
        assert!(links.find("a-name-longer-than-the-kernel-keeps").unwrap().is_none());
        assert_eq!(links.find_index(1).unwrap().unwrap().name, "lo");
    }

    #[test]
    fn hostile_or_cut_replies_are_read_without_harm() {
        let mut request = Request::new(0, 0, &header(3, 0, 0));
        request.text(libc::IFLA_IFNAME, "eth0").nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "tun");
        });
        for end in 0..64 {
            let _ = parse(&vec![end as u8; end]);
        }
        assert_eq!(parse(&[]), Link::default());
    }
}
