//! Opening helpers for kernel devices: namespaces, links, addresses, and the closed host end.
//!
//! The privileged half of every driver on a kernel device (`tap`, `packet`, `veth`, `afxdp`) stands on this
//! folder: it enters namespaces, speaks netlink, and hands back open descriptors and plain values. Nothing here
//! runs while frames move, nothing here knows about workers or frames, and what it makes outlives the daemon:
//!
//! - [`netns`]: a handle on a network namespace, and the one way into it;
//! - [`link`]: devices and our mark on them (rtnetlink);
//! - [`address`]: IP addresses and default routes (rtnetlink);
//! - [`route`], [`neighbour`], [`watch`]: the host's way to somebody else, and that it has changed (rtnetlink);
//! - [`icmp`]: what the host's ICMP says of our packets (raw sockets);
//! - [`settings`]: bringing a container's device to its wanted state, first time and again;
//! - [`ingress`]: closing a device to the host's own stack (nftables, by nfnetlink).

pub mod address;
mod anchor;
mod error;
pub mod icmp;
pub mod ingress;
pub mod link;
pub mod neighbour;
mod netlink;
pub mod netns;
pub mod route;
pub mod settings;
#[cfg(test)]
pub(crate) mod testing;
pub mod watch;

pub use anchor::Anchor;
pub use error::{Detail, Error};
pub use link::{Link, Links, Mac};
pub use netns::Netns;
pub use settings::Settings;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::port;

/// A kernel device that is open, in plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name in its namespace.
    pub name: String,
    /// Interface index in its namespace.
    pub index: u32,
    /// Ethernet address.
    pub mac: Mac,
    /// MTU in bytes, when it was opened.
    pub mtu: u32,
    /// The namespace as the configuration names it; `None` is the daemon's own.
    pub netns: Option<String>,
}

impl Device {
    pub(crate) fn new(link: &Link, netns: Option<&str>) -> Self {
        Self {
            name: link.name.clone(),
            index: link.index,
            mac: link.mac,
            mtu: link.mtu,
            netns: netns.map(str::to_owned),
        }
    }

    /// Looks at the device now; an error says in words that it is gone, or why it cannot be looked at.
    /// `anchor` is its namespace where that is not the daemon's own.
    pub fn look(&self, anchor: Option<&Anchor>) -> Result<Link, String> {
        if let Some(anchor) = anchor.filter(|anchor| !anchor.holds()) {
            return Err(format!("the namespace {} was deleted", anchor.path().display()));
        }
        let found = match anchor {
            Some(anchor) => anchor.find_index(self.index),
            None => Links::open(&Netns::own()).and_then(|mut links| links.find_index(self.index)),
        };
        found.map_err(|error| error.to_string())?.ok_or_else(|| format!("device {:?} was deleted", self.name))
    }

    /// Whether frames can pass by the device, an existing one, now; and how long they can be.
    pub(crate) fn state(&self, anchor: Option<&Anchor>, mtu: &Mtu) -> port::Link {
        match self.look(anchor) {
            Ok(link) if !link.up => port::Link::down(format!("device {:?} is set down", link.name)),
            Ok(link) if !link.carrier => port::Link::down(format!("device {:?} has no carrier", link.name)),
            Ok(link) if link.mtu > mtu.most => port::Link::gone(format!(
                "the MTU of device {:?} is {} now, and it was opened for one of {} at most",
                link.name, link.mtu, mtu.most
            )),
            Ok(link) => {
                mtu.now.store(link.mtu, Ordering::Relaxed);
                port::Link::up()
            }
            Err(reason) => port::Link::gone(reason),
        }
    }
}

/// The MTU of an open device that others may change.
#[derive(Debug)]
pub(crate) struct Mtu {
    now: AtomicU32,
    /// Where more are wanted the device has to be opened again.
    most: u32,
}

impl Mtu {
    pub(crate) fn new(device: &Device, most: u32) -> Self {
        Self { now: device.mtu.into(), most }
    }

    /// What it was when the device was last looked at.
    pub(crate) fn get(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }
}

impl Links {
    /// The device that a port is to take over: one of Ethernet, and, unless the port may have it `exclusive`ly, one
    /// that the host's own traffic does not go through.
    pub(crate) fn claim(&mut self, name: &str, exclusive: bool) -> Result<Link, Error> {
        let link = self.get(name)?;
        if !link.ethernet {
            let why =
                "it is no Ethernet device (the loopback, a TUN, a tunnel of IP); name one that is".into();
            return Err(Error::Invalid { what: format!("device = {:?}", link.name), why });
        }
        if !exclusive {
            self.refuse_used(&link)?;
        }
        Ok(link)
    }

    /// Refuses a device that the host's own traffic goes through.
    fn refuse_used(&mut self, link: &Link) -> Result<(), Error> {
        let used = |reason: String, links: &Links| Error::HostUses {
            device: link.name.clone(),
            netns: links.place().to_owned(),
            reason,
        };
        // Every device that is up has a link-local address of IPv6; that alone is no use of it.
        let addresses: Vec<_> = self.addresses(link)?.into_iter().filter(|a| !a.is_link_local()).collect();
        if !addresses.is_empty() {
            let list: Vec<_> = addresses.iter().map(|address| address.network.to_string()).collect();
            return Err(used(format!("has the host's addresses {}", list.join(", ")), self));
        }
        if let Some(index) = link.controller {
            let name = self.find_index(index)?.map_or_else(|| format!("#{index}"), |link| link.name);
            return Err(used(format!("is a member of the host's {name:?}"), self));
        }
        Ok(())
    }
}

/// Checks a device name as the kernel would (`dev_valid_name`), before anything is made.
pub fn check_name(name: &str) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::Invalid { what: format!("device name {name:?}"), why: why.into() });
    if name.is_empty() || name == "." || name == ".." {
        return bad("it is empty or a path");
    }
    if name.len() > link::NAME_MAX {
        return bad("the kernel takes at most 15 bytes");
    }
    if name
        .bytes()
        .any(|byte| byte == b'/' || byte == b':' || byte == b'%' || byte == 0 || byte.is_ascii_whitespace())
    {
        return bad("it must not have a slash, a colon, a percent sign or white space");
    }
    Ok(())
}
