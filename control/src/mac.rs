//! An Ethernet address as documents and people write it.
//!
//! Six bytes, `02:1a:00:00:00:01`. Upper case and `-` between the bytes are read as well; what is
//! written is always lower case with `:`. The schema, the API and the CLI use it; the data path has
//! its own representation inside frames and takes the bytes by [`MacAddress::octets`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddress([u8; 6]);

/// Text that is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address, which is six hexadecimal bytes like 02:00:00:00:00:01")]
pub struct MacAddressError(String);

impl MacAddress {
    /// No address: all zeros.
    pub const ZERO: MacAddress = MacAddress([0; 6]);

    /// The address that every station listens to.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// An address from its bytes, in the order of the wire.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The bytes, in the order of the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// True for group addresses (multicast and broadcast): the lowest bit of the first byte, IEEE 802-2014 8.2.2.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True if one station may have this address: neither a group address nor all zeros.
    pub fn is_station(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddress> for [u8; 6] {
    fn from(mac: MacAddress) -> Self {
        mac.0
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddressError(text.chars().take(40).collect());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_separators_and_upper_case() {
        let mac = MacAddress::new([0x02, 0xab, 0, 0, 0, 1]);
        assert_eq!("02:ab:00:00:00:01".parse(), Ok(mac));
        assert_eq!("02-AB-00-00-00-01".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "02:ab:00:00:00:01");
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"02:ab:00:00:00:01\"");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:00:01",
            "+2:00:00:00:00:01",
            "2:0:0:0:0:1",
            "02:00-00:00:00:01",
        ] {
            let error = text.parse::<MacAddress>().unwrap_err();
            assert!(error.to_string().contains("is not a MAC address"), "{text}: {error}");
        }
    }

    #[test]
    fn knows_group_addresses() {
        assert!(MacAddress::BROADCAST.is_multicast());
        assert!(MacAddress::new([1, 0, 0x5e, 0, 0, 1]).is_multicast());
        assert!(MacAddress::new([2, 0, 0, 0, 0, 1]).is_station());
        assert!(!MacAddress::default().is_station());
    }

    proptest! {
        #[test]
        fn text_and_back(octets: [u8; 6]) {
            let mac = MacAddress::new(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<MacAddress>();
        }
    }
}
