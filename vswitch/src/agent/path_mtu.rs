//! Path MTU discovery: what an error says that quotes a packet of ours, and how small it may make a path.
//!
//! Anybody can send such an error, so it is believed only as far as it must be: it has to quote a packet that we may
//! have sent, which was larger than what it says; and it cannot make a path smaller than what every path takes. So
//! judge the stations of our own networks and, of the host's, who follows its kernel.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The smallest MTU that is believed, by the kind of address: RFC 791, 3.2 (what every host takes) and RFC 8200, 5.
const LEAST: (u32, u32) = (576, 1280);

/// How long it is believed (RFC 1191, 6.3; RFC 8201, 4).
const AGE_NS: u64 = 600 * 1_000_000_000;

/// What paths take, for routers that do not say (RFC 1191, 7.1).
const PLATEAUS: [u32; 7] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006];

pub(crate) const ICMP: u8 = 1;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ICMPV6: u8 = 58;

/// The header of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote<'q> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    /// Bytes that the packet had.
    pub(super) total: u32,
    /// What of it is quoted behind the header.
    pub(crate) payload: &'q [u8],
}

impl<'q> Quote<'q> {
    /// Reads the beginning of a packet. At least eight bytes of what is behind its header are there (RFC 792).
    pub(crate) fn read(bytes: &'q [u8]) -> Option<Quote<'q>> {
        let quote = match bytes.first()? >> 4 {
            4 => {
                let header = bytes.first_chunk::<20>()?;
                let address = |at: usize| -> Option<IpAddr> {
                    Some(Ipv4Addr::from(*header[at..].first_chunk::<4>()?).into())
                };
                Quote {
                    from: address(12)?,
                    to: address(16)?,
                    protocol: header[9],
                    total: u16::from_be_bytes([header[2], header[3]]).into(),
                    payload: bytes.get(usize::from(header[0] & 0xf) * 4..)?,
                }
            }
            6 => {
                let header = bytes.first_chunk::<40>()?;
                let address = |at: usize| -> Option<IpAddr> {
                    Some(Ipv6Addr::from(*header[at..].first_chunk::<16>()?).into())
                };
                Quote {
                    from: address(8)?,
                    to: address(24)?,
                    protocol: header[6],
                    total: u32::from(u16::from_be_bytes([header[4], header[5]])) + 40,
                    payload: &bytes[40..],
                }
            }
            _ => return None,
        };
        (quote.payload.len() >= 8).then_some(quote)
    }

    /// The UDP port that the packet went to; 0 if it is GRE, `None` if it can be no tunnel's.
    pub(crate) fn tunnel_port(&self) -> Option<u16> {
        match (self.protocol, self.payload) {
            (UDP, [_, _, high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            (GRE, _) => Some(0),
            _ => None,
        }
    }

    /// The MTU that an error means which says `mtu` and quotes this packet; `None` if it cannot be true.
    pub(crate) fn path_mtu(&self, mtu: u32) -> Option<u32> {
        let least = if self.to.is_ipv4() { LEAST.0 } else { LEAST.1 };
        let mtu = match mtu {
            // RFC 8201, 4: what says less than any link of IPv6 takes is thrown away.
            mtu if self.to.is_ipv6() && mtu < least => return None,
            // A router from before RFC 1191.
            0 => PLATEAUS.into_iter().find(|plateau| *plateau < self.total).unwrap_or(least),
            mtu => mtu,
        };
        let mtu = mtu.max(least);
        (mtu < self.total).then_some(mtu)
    }
}

/// What errors have said of paths, for as long as it is believed.
#[derive(Debug, Default)]
pub(crate) struct PathMtus(HashMap<IpAddr, (u32, u64)>);

impl PathMtus {
    /// An error says `mtu` of a packet that went to a remote through a link which takes `most`. Gives what gets there
    /// from now on; `None` if it cannot be true.
    pub(crate) fn hear(&mut self, quote: &Quote<'_>, mtu: u32, most: u32, now_ns: u64) -> Option<u32> {
        // No larger one is believed before the old one is forgotten.
        let mtu = quote.path_mtu(mtu)?.min(self.limit(quote.to, most));
        if mtu < most {
            self.0.insert(quote.to, (mtu, now_ns + AGE_NS));
        }
        Some(mtu)
    }

    /// What gets to a remote through a link that takes `most`.
    pub(crate) fn limit(&self, remote: IpAddr, most: u32) -> u32 {
        self.0.get(&remote).map_or(most, |(mtu, _)| (*mtu).min(most))
    }

    /// Forgets what is too old.
    pub(crate) fn age(&mut self, now_ns: u64) {
        self.0.retain(|_, (_, until_ns)| *until_ns > now_ns);
    }

    /// Forgets all remotes but these.
    pub(crate) fn retain(&mut self, keep: impl Fn(&IpAddr) -> bool) {
        self.0.retain(|remote, _| keep(remote));
    }

    /// When each is too old.
    pub(super) fn due_ns(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.values().map(|(_, until_ns)| *until_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(total: u32, to: &str) -> Quote<'static> {
        let to: IpAddr = to.parse().unwrap();
        Quote { from: to, to, protocol: UDP, total, payload: &[0; 8] }
    }

    #[test]
    fn no_error_makes_a_path_too_small_or_larger() {
        let four = quote(1500, "10.0.0.2");
        assert_eq!(four.path_mtu(1400), Some(1400));
        assert_eq!(four.path_mtu(68), Some(576));
        assert_eq!(four.path_mtu(0), Some(1492));
        assert_eq!(quote(900, "10.0.0.2").path_mtu(0), Some(576));
        assert_eq!((four.path_mtu(1500), four.path_mtu(9000)), (None, None), "it was not too big for that");
        assert_eq!(quote(500, "10.0.0.2").path_mtu(68), None, "every path takes that");
        let six = quote(1500, "2001:db8::2");
        assert_eq!((six.path_mtu(1400), six.path_mtu(1280)), (Some(1400), Some(1280)));
        assert_eq!((six.path_mtu(1279), six.path_mtu(0)), (None, None), "no link of IPv6 takes less");
        assert_eq!(quote(1280, "2001:db8::2").path_mtu(0), None);
    }

    #[test]
    fn quotes_are_read_as_far_as_they_go() {
        let mut four = vec![0x45, 0, 5, 220, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(Quote::read(&four), None);
        four.extend([1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Quote::read(&four), None, "RFC 792 wants eight bytes");
        four.push(8);
        let read = Quote::read(&four).unwrap();
        assert_eq!((read.from.to_string(), read.to.to_string()), ("10.0.0.1".into(), "10.0.0.2".into()));
        assert_eq!((read.protocol, read.total, read.payload), (UDP, 1500, &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        four[0] = 0x47;
        assert_eq!(Quote::read(&four), None, "eight of them are options");
        let mut six = vec![0x60, 0, 0, 0, 5, 180, GRE, 64];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend(Ipv6Addr::UNSPECIFIED.octets());
        assert_eq!(Quote::read(&six), None);
        six.extend([0; 8]);
        let read = Quote::read(&six).unwrap();
        assert_eq!((read.protocol, read.total, read.from), (GRE, 1500, Ipv6Addr::LOCALHOST.into()));
        assert_eq!(Quote::read(&[]), None);
        assert_eq!(Quote::read(&[0x50; 60]), None);
    }

    #[test]
    fn what_was_learned_only_shrinks_and_is_forgotten() {
        let (to, second) = (quote(1500, "10.0.0.2"), 1_000_000_000);
        let mut paths = PathMtus::default();
        assert_eq!(paths.hear(&to, 1400, 1500, 0), Some(1400));
        assert_eq!(paths.hear(&to, 1450, 1500, second), Some(1400), "no larger one");
        assert_eq!(paths.hear(&to, 1500, 1500, 0), None);
        assert_eq!((paths.limit(to.to, 1500), paths.limit(to.to, 1300)), (1400, 1300));
        assert_eq!(paths.due_ns().collect::<Vec<_>>(), [AGE_NS + second]);
        paths.age(AGE_NS + second - 1);
        assert_eq!(paths.limit(to.to, 1500), 1400);
        paths.age(AGE_NS + second);
        assert_eq!(paths.limit(to.to, 1500), 1500);
        paths.hear(&to, 1400, 1500, 0);
        paths.retain(|remote| *remote != to.to);
        assert_eq!(paths.limit(to.to, 1500), 1500);
    }

    #[test]
    fn a_tunnel_is_told_by_what_it_quotes() {
        let quote = |protocol, payload| Quote { protocol, payload, ..quote(1500, "10.0.0.2") };
        let vxlan: &[u8] = &[0xc0, 1, 18, 181, 0, 0, 0, 0];
        assert_eq!(quote(UDP, vxlan).tunnel_port(), Some(4789));
        assert_eq!(quote(GRE, vxlan).tunnel_port(), Some(0));
        assert_eq!(quote(6, vxlan).tunnel_port(), None);
    }
}
