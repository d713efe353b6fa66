//! Neighbours as the kernel knows them: which Ethernet address an IP address has, and the wish to know it always.
//!
//! A *managed* entry (Linux 5.16) is resolved by the kernel and kept fresh, whether or not the host sends anything
//! there; an older kernel resolves it once for each time that it is asked ([`Links::manage_neighbour`] again). Called
//! by whoever sends in the host's name; knows nothing about routes. See rtnetlink(7), <linux/neighbour.h>.

use std::net::IpAddr;

use super::address::{decode, encode};
use super::link::Mac;
use super::netlink::{CREATE_OR_UPDATE, Reply, Request, attributes};
use super::{Error, Link, Links};

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_FLAGS_EXT: u16 = 15;
/// Resolve it now.
const NTF_USE: u8 = 1;
const NTF_EXT_MANAGED: u32 = 1;

const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Its address.
    Known {
        /// The Ethernet address.
        mac: Mac,
        /// Somebody has configured it: the kernel does not ask.
        fixed: bool,
    },
    /// It is being asked, or will be.
    Asked,
    /// It does not answer.
    Silent,
}

impl Links {
    /// What the kernel knows of a neighbour on a device.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn neighbour(&mut self, link: &Link, address: IpAddr) -> Result<Neighbour, Error> {
        let request = request(libc::RTM_GETNEIGH, 0, link, address, 0);
        let netns = &self.netns;
        let doing = || format!("asking for the neighbour {address} on device {:?} in {netns}", link.name);
        match self.netlink.fetch(request, doing) {
            Ok(replies) => {
                Ok(replies.iter().find_map(|reply| parse(reply, address)).unwrap_or(Neighbour::Asked))
            }
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Neighbour::Asked),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel find out a neighbour's address, and keep it known. Not for one that is fixed.
    ///
    /// # Errors
    /// The kernel refuses: the device is down, the table is full.
    pub fn manage_neighbour(&mut self, link: &Link, address: IpAddr) -> Result<(), Error> {
        let mut request = request(libc::RTM_NEWNEIGH, CREATE_OR_UPDATE, link, address, NTF_USE);
        request.number(NDA_FLAGS_EXT, NTF_EXT_MANAGED);
        let netns = &self.netns;
        let doing = || format!("asking for the neighbour {address} on device {:?} in {netns}", link.name);
        self.netlink.apply(request, doing)
    }

    /// Leaves a neighbour to the kernel's own needs again; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn release_neighbour(&mut self, link: &Link, address: IpAddr) -> Result<(), Error> {
        let request = request(libc::RTM_NEWNEIGH, 0, link, address, NTF_USE);
        let netns = &self.netns;
        let doing = || format!("leaving the neighbour {address} on device {:?} in {netns}", link.name);
        match self.netlink.apply(request, doing) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ENETDOWN)) => {
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// `struct ndmsg` and the address.
fn request(kind: u16, flags: u16, link: &Link, address: IpAddr, ntf: u8) -> Request {
    let (family, bytes) = encode(address);
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&link.index.to_ne_bytes());
    header[10] = ntf;
    let mut request = Request::new(kind, flags, &header);
    request.attribute(NDA_DST, &bytes);
    request
}

fn parse(reply: &Reply, address: IpAddr) -> Option<Neighbour> {
    let header = reply.body.get(..12).filter(|_| reply.kind == libc::RTM_NEWNEIGH)?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let (mut of, mut mac) = (None, None);
    for (kind, value) in attributes(&reply.body[12..]) {
        match kind {
            NDA_DST => of = decode(value),
            NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    if of != Some(address) {
        return None;
    }
    Some(match mac {
        _ if state & NUD_FAILED != 0 => Neighbour::Silent,
        Some(mac) if state & NUD_INCOMPLETE == 0 && state != 0 => {
            Neighbour::Known { mac, fixed: state & (NUD_PERMANENT | NUD_NOARP) != 0 }
        }
        _ => Neighbour::Asked,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::netdev::testing::Sandbox;

    #[test]
    fn a_neighbour_is_asked_for_kept_and_left_again() {
        let sandbox = Sandbox::new(2);
        let ip = |i, line: &str| sandbox.ip(i, &line.split_whitespace().collect::<Vec<_>>());
        ip(0, &format!("link add d0 type veth peer name d1 netns {}", sandbox.name(1)));
        ip(0, "addr add 192.0.2.1/24 dev d0");
        ip(1, "addr add 192.0.2.2/24 dev d1");
        ip(0, "link set d0 up");
        ip(1, "link set d1 up");
        ip(0, "neigh add 192.0.2.3 lladdr 02:00:00:00:00:33 dev d0");
        let (mut here, mut there) =
            (Links::open(sandbox.netns(0)).unwrap(), Links::open(sandbox.netns(1)).unwrap());
        let (link, far) = (here.get("d0").unwrap(), there.get("d1").unwrap());
        let [two, three]: [IpAddr; 2] = ["192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        let fixed = Neighbour::Known { mac: [2, 0, 0, 0, 0, 0x33], fixed: true };
        assert_eq!(here.neighbour(&link, three).unwrap(), fixed);
        assert_eq!(here.neighbour(&link, two).unwrap(), Neighbour::Asked);
        here.manage_neighbour(&link, two).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let known = Neighbour::Known { mac: far.mac, fixed: false };
        while here.neighbour(&link, two).unwrap() != known {
            assert!(Instant::now() < deadline, "{}", ip(0, "neigh"));
        }
        assert!(ip(0, "neigh show 192.0.2.2").contains("managed"), "{}", ip(0, "neigh"));
        here.release_neighbour(&link, two).unwrap();
        assert!(!ip(0, "neigh show 192.0.2.2").contains("managed"), "{}", ip(0, "neigh"));
        assert_eq!(here.neighbour(&link, two).unwrap(), known, "the host's own traffic goes on");
        ip(0, "neigh flush dev d0");
        here.release_neighbour(&link, two).unwrap();
    }
}
