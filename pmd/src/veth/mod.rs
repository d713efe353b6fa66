//! `veth`: a container's interface is one end of a pair that we make; the other end is ours.
//!
//! The pair is made, set, marked and closed to the host's stack here ([`open`]); the host end is then driven by
//! `packet` or `afxdp`, whose port is wrapped in a [`VethPort`]. The pair outlives the daemon, and so does the
//! closed host end.

mod open;

pub use open::{OpenVeth, VethConfig, host_name, open, remove};

use crate::netdev::Device;
use crate::offload::Features;
use crate::port::{Fate, Fault, Link, Port, RxQueue, TxQueue};

/// A veth pair as a port, over the driver of its host end.
pub struct VethPort {
    port: String,
    container: Device,
    adopted: bool,
    driver: Box<dyn Port>,
}

impl VethPort {
    /// A port over the pair that [`open`] opened; `driver` is the open host end.
    pub fn new(open: OpenVeth, driver: Box<dyn Port>) -> VethPort {
        VethPort { port: open.port, container: open.container, adopted: open.adopted, driver }
    }
}

impl Port for VethPort {
    fn kind(&self) -> &'static str {
        "veth"
    }

    fn mode(&self) -> &str {
        self.driver.mode()
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.container.mac)
    }

    fn mtu(&self) -> u32 {
        self.container.mtu
    }

    fn features(&self) -> Features {
        self.driver.features()
    }

    fn link(&self) -> Link {
        self.driver.link()
    }

    fn is_adopted(&self) -> bool {
        self.adopted
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        self.driver.take_rx()
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        self.driver.take_tx()
    }

    fn close(self: Box<Self>, fate: Fate) -> Result<(), Fault> {
        let driver = self.driver.close(fate);
        match fate {
            Fate::Leave => driver,
            // The pair goes even if its driver could not let go of it in order.
            Fate::Remove => remove(&self.port, self.container.netns.as_deref(), &self.container.name)
                .map_err(|error| Fault::new(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::{Sandbox, Wire, tcp, wait_until};
    use crate::netdev::{Netns, Settings};
    use crate::offload::Features;
    use crate::packet::{PacketPort, open_device};
    use crate::tap::{self, TapConfig, TapPort};

    fn port(sandbox: &Sandbox, i: usize, mtu: u32, queues: u16) -> VethPort {
        let addresses =
            vec![format!("10.1.0.1{i}/24").parse().unwrap(), format!("fd00:1::1{i}/64").parse().unwrap()];
        let config = VethConfig {
            port: format!("v-{}", sandbox.name(i)),
            netns: Some(sandbox.name(i).into()),
            settings: Settings { mtu, addresses, ..Settings::default() },
        };
        let pair = open(&config).unwrap();
        let sockets = open_device(&Netns::own(), pair.host.clone(), queues).unwrap();
        VethPort::new(pair, Box::new(PacketPort::new(sockets)))
    }

    fn tap(sandbox: &Sandbox, i: usize) -> TapPort {
        let addresses =
            vec![format!("10.1.0.1{i}/24").parse().unwrap(), format!("fd00:1::1{i}/64").parse().unwrap()];
        let settings = Settings { addresses, ..Settings::default() };
        let netns = Some(sandbox.name(i).into());
        TapPort::new(tap::open(&TapConfig { port: format!("t{i}"), netns, settings, queues: 1 }).unwrap())
    }

    /// VXLAN between the kernels of two containers, over both families, with and without outer checksums. A packet
    /// socket hands trains up without a word about the tunnel, and takes none; a TAP does both by the book.
    #[test]
    fn trains_in_tunnels_of_two_kernels_are_cut_or_pass() {
        for uncut in [true, false] {
            let sandbox = Sandbox::new(2);
            let mut two = tap(&sandbox, 1);
            let mut one: Box<dyn Port> =
                if uncut { Box::new(tap(&sandbox, 0)) } else { Box::new(port(&sandbox, 0, 1500, 1)) };
            // A TAP of an older kernel has its trains cut by us, too.
            let passes = [one.features(), two.features()].map(|all| all.contains(Features::TUNNEL));
            for i in 0..2 {
                for (vni, (net, checksum)) in
                    [("10.1.0.1", "noudpcsum"), ("10.1.0.1", "udpcsum"), ("fd00:1::1", "udpcsum")]
                        .iter()
                        .enumerate()
                {
                    let (device, id) = (format!("vx{vni}"), (vni + 5).to_string());
                    let (local, remote) = (format!("{net}{i}"), format!("{net}{}", 1 - i));
                    let mut link =
                        vec!["link", "add", &device, "type", "vxlan", "id", &id, "dstport", "4789"];
                    link.extend(["local", &local, "remote", &remote]);
                    // IPv6 has outer checksums by itself.
                    link.extend((vni < 2).then_some(*checksum));
                    sandbox.ip(i, &link);
                    sandbox.ip(i, &["addr", "add", &format!("10.{}.0.{i}/24", vni + 5), "dev", &device]);
                    sandbox.ip(i, &["link", "set", &device, "up"]);
                }
            }
            let wire = Wire::new([one.as_mut(), &mut two]);
            for vni in 5..8 {
                for (from, to) in [(0, 1), (1, 0)] {
                    let address = format!("10.{vni}.0.{to}").parse().unwrap();
                    tcp(sandbox.netns(from), sandbox.netns(to), address, 4 << 20);
                }
            }
            let seen = wire.stop();
            for (direction, passes) in seen.iter().zip([passes[1], passes[0]]) {
                assert!(direction.longest > 30_000, "no large frames: {seen:?}");
                assert_eq!((direction.refused, direction.report.refused, direction.report.full), (0, 0, 0));
                assert_eq!(direction.made == 0, passes, "{seen:?}");
            }
            for i in 0..2 {
                let (_, counters) = sandbox.exec(i, &["nstat", "-az", "TcpInCsumErrors", "UdpInCsumErrors"]);
                for line in counters.lines().filter(|line| line.contains("CsumErrors")) {
                    assert_eq!(line.split_whitespace().nth(1), Some("0"), "{counters}");
                }
            }
        }
    }

    #[test]
    fn tcp_crosses_whole_in_large_frames_over_both_families() {
        for (mtu, queues) in [(1500, 1), (9000, 2)] {
            let sandbox = Sandbox::new(2);
            let (mut one, mut two) = (port(&sandbox, 0, mtu, queues), port(&sandbox, 1, mtu, queues));
            let wire = Wire::new([&mut one, &mut two]);
            tcp(sandbox.netns(0), sandbox.netns(1), "10.1.0.11".parse().unwrap(), 20 << 20);
            tcp(sandbox.netns(1), sandbox.netns(0), "fd00:1::10".parse().unwrap(), 20 << 20);
            let seen = wire.stop();
            for direction in &seen {
                assert!(direction.longest > 30_000, "no large frames: {seen:?}");
                assert_eq!((direction.refused, direction.report.refused, direction.report.down), (0, 0, 0));
            }
            for port in [one, two] {
                assert!(port.link().up);
                Box::new(port).close(Fate::Remove).unwrap();
            }
            assert!(!sandbox.ip(0, &["link"]).contains("eth0"));
        }
    }

    #[test]
    fn a_deleted_namespace_shows_and_removing_is_fine() {
        let sandbox = Sandbox::new(1);
        let one = port(&sandbox, 0, 1500, 1);
        drop(sandbox);
        // The kernel takes a namespace down in its own time.
        wait_until("the pair's end", || one.link().gone);
        assert!(one.link().reason.contains("deleted"), "{:?}", one.link());
        Box::new(one).close(Fate::Remove).unwrap();
    }

    #[test]
    fn a_pair_left_open_is_adopted_with_its_connections() {
        let sandbox = Sandbox::new(2);
        for _ in 0..2 {
            let (mut one, mut two) = (port(&sandbox, 0, 1500, 1), port(&sandbox, 1, 1500, 1));
            let wire = Wire::new([&mut one, &mut two]);
            tcp(sandbox.netns(0), sandbox.netns(1), "10.1.0.11".parse().unwrap(), 1 << 20);
            wire.stop();
            for port in [one, two] {
                Box::new(port).close(Fate::Leave).unwrap();
            }
        }
        for i in 0..2 {
            remove(&format!("v-{}", sandbox.name(i)), Some(sandbox.name(i)), "eth0").unwrap();
        }
    }
}
