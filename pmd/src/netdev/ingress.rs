//! Closing a device to the stack of the namespace that it is in.
//!
//! A packet socket or an XDP socket takes nothing away from the kernel: on the host end of a container's device
//! the host would answer the container's ARP, ND, pings and datagrams past the switch. So the device gets an
//! nftables chain on its ingress hook with the policy *drop*. The hook lies behind the packet sockets' tap and
//! in front of every protocol: the switch sees each frame, the stack none. The chain lives in the kernel, also
//! while the switch is down, until it is removed with the port.
//!
//! A device that is ours alone, a veth's host end, gets a second and weaker wall ([`harden`]) for the day on
//! which somebody flushes all nftables rules: no IPv6 on it, no answer to ARP, no traffic accepted that has no
//! route back through it.
//!
//! Every device has a table of its own, `vswitch-DEVICE`, so that nothing is shared between ports or daemons.
//! Called by `veth` and `packet` before the device comes up. See <linux/netfilter/nf_tables.h>.

use std::fs;

use super::netlink::{CREATE_OR_UPDATE, Netlink, Request, attributes, text};
use super::{Error, Netns};

const CALL: &str = "netlink (nfnetlink)";

// <linux/netfilter/nf_tables.h>, what libc lacks.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
/// <linux/netfilter.h>: the first hook of the netdev family.
const NF_NETDEV_INGRESS: u32 = 0;
const NF_DROP: u32 = 0;
/// In front of whatever else hangs on the hook: a dropped frame needs no other opinion.
const PRIORITY: i32 = -500;

const CHAIN: &str = "ingress";

/// The name of the table that closes `device`.
fn table(device: &str) -> String {
    format!("vswitch-{device}")
}

/// Closes devices to the stack of `netns`, in one transaction; closing twice is the same as once.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `EOPNOTSUPP` on a kernel without nf_tables' netdev family; `ENOENT` where a
/// device does not exist (old kernels).
pub fn close(netns: &Netns, devices: &[&str]) -> Result<(), Error> {
    let doing = || format!("closing {devices:?} in {netns} to the kernel's own stack");
    netns.run(|| {
        // A transaction that changes nothing still waits for RCU, 16 ms: adopting a hundred devices would take
        // seconds.
        let mut netlink = Netlink::open(libc::NETLINK_NETFILTER, CALL)?;
        let mut messages = Vec::new();
        for device in devices {
            if !is_closed(&mut netlink, device)? {
                messages.extend([new_table(device), new_chain(device)]);
            }
        }
        transact(messages, doing)
    })
}

/// Whether the device's chain is there, as we would make it.
fn is_closed(netlink: &mut Netlink, device: &str) -> Result<bool, Error> {
    let mut request = message(libc::NFT_MSG_GETCHAIN, 0);
    request.text(NFTA_CHAIN_TABLE, &table(device)).text(NFTA_CHAIN_NAME, CHAIN);
    let replies = match netlink.fetch(request, || format!("looking whether {device:?} is closed")) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(false),
        replies => replies?,
    };
    // The family's header comes first.
    let chain = replies.first().and_then(|reply| reply.body.get(4..)).unwrap_or_default();
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let hook = find(chain, NFTA_CHAIN_HOOK).unwrap_or_default();
    let drops = find(chain, NFTA_CHAIN_POLICY).is_some_and(|policy| policy == NF_DROP.to_be_bytes());
    Ok(drops && find(hook, NFTA_HOOK_DEV).is_some_and(|name| text(name) == device))
}

/// Opens a device again; one that is not closed is fine.
pub fn reopen(netns: &Netns, device: &str) -> Result<(), Error> {
    let doing = || format!("opening {device:?} in {netns} to the kernel's own stack again");
    netns.run(|| match transact(vec![table_message(libc::NFT_MSG_DELTABLE, 0, device)], doing) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    })
}

/// The sysctls of the second wall, below `/proc/sys/net`.
const SYSCTLS: [(&str, &str, &str); 4] = [
    ("ipv6", "disable_ipv6", "1"),
    ("ipv4", "arp_ignore", "8"),
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "forwarding", "0"),
];

/// Puts up the second wall on a device that nobody else uses; for good, it goes with the device. The nftables
/// chain is the one that counts, so a read-only `/proc/sys` (in a container) or a kernel without IPv6 is no error.
pub fn harden(netns: &Netns, device: &str) -> Result<(), Error> {
    netns.run(|| {
        for (family, name, value) in SYSCTLS {
            let _ = fs::write(format!("/proc/sys/net/{family}/conf/{device}/{name}"), value);
        }
        Ok(())
    })
}

/// Sends messages as one nf_tables transaction: all of them count, or none.
fn transact(messages: Vec<Request>, doing: impl Fn() -> String) -> Result<(), Error> {
    if messages.is_empty() {
        return Ok(());
    }
    let bound = |kind: i32| {
        let header = header(libc::AF_UNSPEC as u8, libc::NFNL_SUBSYS_NFTABLES as u16);
        Request::new(kind as u16, 0, &header).without_ack()
    };
    let mut batch = vec![bound(libc::NFNL_MSG_BATCH_BEGIN)];
    batch.extend(messages);
    batch.push(bound(libc::NFNL_MSG_BATCH_END));
    Netlink::open(libc::NETLINK_NETFILTER, CALL)?.fetch_all(batch, doing).map(|_| ())
}

/// `struct nfgenmsg`: the resource is in network order.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(kind: i32, flags: u16) -> Request {
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
    Request::new(kind, flags, &header(libc::NFPROTO_NETDEV as u8, 0))
}

fn table_message(kind: i32, flags: u16, device: &str) -> Request {
    let mut request = message(kind, flags);
    request.text(NFTA_TABLE_NAME, &table(device));
    request
}

fn new_table(device: &str) -> Request {
    table_message(libc::NFT_MSG_NEWTABLE, CREATE_OR_UPDATE, device)
}

fn new_chain(device: &str) -> Request {
    let mut request = message(libc::NFT_MSG_NEWCHAIN, CREATE_OR_UPDATE);
    request.text(NFTA_CHAIN_TABLE, &table(device)).text(NFTA_CHAIN_NAME, CHAIN);
    request.nest(NFTA_CHAIN_HOOK, |hook| {
        hook.network_number(NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS)
            .network_number(NFTA_HOOK_PRIORITY, PRIORITY as u32)
            .text(NFTA_HOOK_DEV, device);
    });
    request.network_number(NFTA_CHAIN_POLICY, NF_DROP).text(NFTA_CHAIN_TYPE, "filter");
    request
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::netdev::link::{Change, Links, VethEnd, mac_text};
    use crate::netdev::testing::Sandbox;

    /// A "host" with an address on `lo` and an unaddressed device, and a container behind it.
    fn host_and_container() -> Sandbox {
        let sandbox = Sandbox::new(2);
        let end = |name| VethEnd { name, mac: None, mtu: 1500 };
        let mut host = Links::open(sandbox.netns(0)).unwrap();
        host.create_veth(end("host0"), end("eth0"), sandbox.netns(1)).unwrap();
        sandbox.ip(0, &["addr", "add", "192.0.2.1/32", "dev", "lo"]);
        sandbox.ip(1, &["link", "set", "eth0", "up"]);
        sandbox.ip(1, &["addr", "add", "192.0.2.2/24", "dev", "eth0"]);
        sandbox
    }

    fn bring_up(sandbox: &Sandbox) {
        let mut host = Links::open(sandbox.netns(0)).unwrap();
        let link = host.get("host0").unwrap();
        host.change(&link, &[Change::Up(true)]).unwrap();
        sandbox.ip(0, &["route", "add", "192.0.2.2/32", "dev", "host0"]);
    }

    const PING: [&str; 7] = ["ping", "-c", "1", "-W", "1", "-n", "192.0.2.1"];

    #[test]
    fn an_open_device_answers_a_closed_one_does_not_and_reopening_restores_it() {
        let sandbox = host_and_container();
        bring_up(&sandbox);
        let (answered, text) = sandbox.exec(1, &PING);
        assert!(answered, "the test's own premise: an open host end answers: {text}");

        close(sandbox.netns(0), &["host0"]).unwrap();
        close(sandbox.netns(0), &["host0"]).unwrap();
        sandbox.ip(1, &["neigh", "flush", "all"]);
        assert!(!sandbox.exec(1, &PING).0, "a closed host end answered");

        reopen(sandbox.netns(0), "host0").unwrap();
        reopen(sandbox.netns(0), "host0").unwrap();
        let (answered, text) = sandbox.exec(1, &PING);
        assert!(answered, "a reopened host end does not answer: {text}");
    }

    /// Whether a datagram from the container reaches a socket of the host, ARP left aside.
    fn datagram_arrives(sandbox: &Sandbox) -> bool {
        let host = Links::open(sandbox.netns(0)).unwrap().get("host0").unwrap();
        let mac = mac_text(host.mac);
        sandbox.ip(1, &["neigh", "replace", "192.0.2.1", "lladdr", &mac, "dev", "eth0", "nud", "permanent"]);
        let bind = |address: &str| Ok(UdpSocket::bind(address).unwrap());
        let receiver = sandbox.netns(0).run(|| bind("192.0.2.1:0")).unwrap();
        let sender = sandbox.netns(1).run(|| bind("192.0.2.2:0")).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        sender.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
        receiver.recv(&mut [0; 16]).is_ok()
    }

    #[test]
    fn no_datagram_passes_either_wall() {
        let sandbox = host_and_container();
        bring_up(&sandbox);
        assert!(datagram_arrives(&sandbox), "the test's own premise: an open host end takes datagrams");
        close(sandbox.netns(0), &["host0"]).unwrap();
        assert!(!datagram_arrives(&sandbox), "past the chain");
        reopen(sandbox.netns(0), "host0").unwrap();
        // The premise's route back would let datagrams in; a host end of ours has none.
        sandbox.ip(0, &["route", "del", "192.0.2.2/32", "dev", "host0"]);
        harden(sandbox.netns(0), "host0").unwrap();
        assert!(!datagram_arrives(&sandbox), "past the second wall");
    }

    #[test]
    fn the_second_wall_holds_when_all_rules_are_flushed() {
        let sandbox = host_and_container();
        close(sandbox.netns(0), &["host0"]).unwrap();
        harden(sandbox.netns(0), "host0").unwrap();
        bring_up(&sandbox);
        let (done, text) = sandbox.exec(0, &["nft", "flush", "ruleset"]);
        assert!(done, "{text}");
        assert!(!sandbox.exec(1, &PING).0, "ARP was answered");
        let shown = sandbox.ip(0, &["addr", "show", "dev", "host0"]);
        assert!(!shown.contains("inet6"), "{shown}");
    }

    #[test]
    fn many_devices_are_closed_in_one_transaction_and_leave_nothing_behind() {
        let sandbox = host_and_container();
        sandbox.ip(0, &["link", "add", "other0", "type", "veth"]);
        close(sandbox.netns(0), &["host0", "other0"]).unwrap();
        let (_, rules) = sandbox.exec(0, &["nft", "list", "ruleset"]);
        assert!(rules.contains("vswitch-host0") && rules.contains("device \"other0\""), "{rules}");
        assert_eq!(rules.matches("policy drop").count(), 2, "{rules}");
        let mut netlink = sandbox.netns(0).run(|| Netlink::open(libc::NETLINK_NETFILTER, CALL)).unwrap();
        assert!(is_closed(&mut netlink, "host0").unwrap());
        assert!(!is_closed(&mut netlink, "another").unwrap());
        let accept = ["chain", "netdev", "vswitch-host0", "ingress", "{ policy accept; }"];
        let (done, text) = sandbox.exec(0, &[&["nft", "add"], &accept[..]].concat());
        assert!(done, "{text}");
        assert!(!is_closed(&mut netlink, "host0").unwrap());
        close(sandbox.netns(0), &["host0"]).unwrap();
        assert!(is_closed(&mut netlink, "host0").unwrap());
        for device in ["host0", "other0"] {
            reopen(sandbox.netns(0), device).unwrap();
        }
        assert_eq!(sandbox.exec(0, &["nft", "list", "ruleset"]).1, "");
    }
}
