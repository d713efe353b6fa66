//! Path MTU discovery: what an error says that quotes a packet of ours, and how small it may make a path.
//!
//! Anybody can send such an error, so it is believed only as far as it must be: it has to quote a packet that we may
//! have sent, which was larger than what it says; and it cannot make a path smaller than what every path takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The smallest MTU that is believed, by the kind of address: RFC 791, 3.2 (what every host takes) and RFC 8200, 5.
const LEAST: (u32, u32) = (576, 1280);

/// How long it is believed (RFC 1191, 6.3; RFC 8201, 4).
pub(super) const AGE_NS: u64 = 600 * 1_000_000_000;

/// What paths take, for routers that do not say (RFC 1191, 7.1).
const PLATEAUS: [u32; 7] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006];

pub(super) const ICMP: u8 = 1;
pub(super) const UDP: u8 = 17;
pub(super) const GRE: u8 = 47;
pub(super) const ICMPV6: u8 = 58;

/// The header of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote<'q> {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    /// Bytes that the packet had.
    pub(super) total: u32,
    /// What of it is quoted behind the header.
    pub(super) payload: &'q [u8],
}

impl<'q> Quote<'q> {
    /// Reads the beginning of a packet. At least eight bytes of what is behind its header are there (RFC 792).
    pub(super) fn read(bytes: &'q [u8]) -> Option<Quote<'q>> {
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

    /// The MTU that an error means which says `mtu` and quotes this packet; `None` if it cannot be true.
    pub(super) fn path_mtu(&self, mtu: u32) -> Option<u32> {
        let least = if self.to.is_ipv4() { LEAST.0 } else { LEAST.1 };
        let mtu = match mtu {
            // A router from before RFC 1191.
            0 if self.to.is_ipv4() => {
                PLATEAUS.into_iter().find(|plateau| *plateau < self.total).unwrap_or(least)
            }
            mtu => mtu,
        };
        let mtu = mtu.max(least);
        (mtu < self.total).then_some(mtu)
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
        assert_eq!((six.path_mtu(1400), six.path_mtu(0)), (Some(1400), Some(1280)));
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
}
