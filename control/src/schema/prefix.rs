//! An IP address with the length of its prefix, as an interface has it: `10.1.0.11/24`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An interface's address: host bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    address: IpAddr,
    length: u8,
}

/// Text that is no address with prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpPrefixError {
    /// An address alone.
    #[error("`{0}` has no prefix length; write `{0}/{1}`")]
    NoLength(IpAddr, u8),
    /// Anything else.
    #[error("`{0}` is not an address with prefix length like 10.1.0.11/24 or fd00::11/64")]
    Malformed(String),
}

impl IpPrefix {
    /// An address with prefix; None if `length` is more than the address has bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(address)).then_some(Self { address, length })
    }

    /// The address, host bits included.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The prefix alone, its host bits zero: 10.1.0.0/24 of 10.1.0.11/24.
    pub fn network(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Self { address, length: self.length }
    }

    /// True if `other` lies in the prefix.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let difference = a.to_bits() ^ b.to_bits();
                difference.checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let difference = a.to_bits() ^ b.to_bits();
                difference.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// True if one station can have the address: it is no group, no broadcast, not loopback, not "unspecified".
pub fn is_station(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for IpPrefix {
    type Err = IpPrefixError;

    fn from_str(text: &str) -> Result<Self, IpPrefixError> {
        let malformed = || IpPrefixError::Malformed(text.chars().take(80).collect());
        let Some((address, length)) = text.split_once('/') else {
            let address: IpAddr = text.parse().map_err(|_| malformed())?;
            return Err(IpPrefixError::NoLength(address, if address.is_ipv4() { 24 } else { 64 }));
        };
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let address = address.parse().map_err(|_| malformed())?;
        let length = length.parse().map_err(|_| malformed())?;
        Self::new(address, length).ok_or_else(malformed)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for IpPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_by_prefix() {
        let net: IpPrefix = "10.1.0.11/24".parse().unwrap();
        assert!(net.contains("10.1.0.254".parse().unwrap()));
        assert!(!net.contains("10.1.1.1".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
        let everything: IpPrefix = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("255.1.2.3".parse().unwrap()));
        let everything: IpPrefix = "::/0".parse().unwrap();
        assert!(everything.contains("fd00::1".parse().unwrap()));
        let host: IpPrefix = "fd00::1/128".parse().unwrap();
        assert!(host.contains("fd00::1".parse().unwrap()) && !host.contains("fd00::2".parse().unwrap()));
    }

    #[test]
    fn a_network_has_no_host_bits() {
        for (text, network) in [
            ("10.1.0.11/24", "10.1.0.0/24"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("fd00::1:2/64", "fd00::/64"),
            ("fd00::1/0", "::/0"),
            ("fd00::1/128", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<IpPrefix>().unwrap().network().to_string(), network);
        }
    }

    #[test]
    fn what_a_station_can_have() {
        for (text, can) in [
            ("10.0.0.1", true),
            ("fe80::1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("127.0.0.1", false),
            ("::", false),
            ("::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_station(text.parse().unwrap()), can, "{text}");
        }
    }

    #[test]
    fn says_what_is_missing() {
        let error = "10.1.0.11".parse::<IpPrefix>().unwrap_err();
        assert_eq!(error.to_string(), "`10.1.0.11` has no prefix length; write `10.1.0.11/24`");
        for bad in ["", "/", "10.1.0.1/33", "fd00::1/129", "10.1.0.1/+8", "10.1.0/24", "10.1.0.1/24/1"] {
            assert!(bad.parse::<IpPrefix>().is_err(), "{bad}");
        }
    }
}
