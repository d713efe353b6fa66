//! A virtual network's number on the wire, and a set of them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::document::{Node, Value};
use super::section::Section;

/// A VXLAN or Geneve network identifier, or NVGRE's virtual subnet: 24 bits, and 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number that is no VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VNI, which is a number from 1 to 16777215")]
pub struct VniError(u32);

impl Vni {
    /// The lowest and the highest VNI.
    pub const RANGE: std::ops::RangeInclusive<u32> = 1..=0xff_ffff;

    /// Checks the number.
    pub fn new(vni: u32) -> Result<Self, VniError> {
        if Self::RANGE.contains(&vni) { Ok(Self(vni)) } else { Err(VniError(vni)) }
    }

    /// The number, 1 to 16777215.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(super) fn decode(section: &mut Section<'_, '_>, key: &str, node: &Node) -> Option<Self> {
        let range = i128::from(*Self::RANGE.start())..=i128::from(*Self::RANGE.end());
        section.integer_of(key, node, range, "").map(Self)
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(vni: u32) -> Result<Self, VniError> {
        Self::new(vni)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The VNIs that a tunnel carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Vnis {
    /// Every one.
    #[default]
    All,
    /// These.
    Set(BTreeSet<Vni>),
}

impl Vnis {
    /// True if this one is carried.
    pub fn contains(&self, vni: Vni) -> bool {
        match self {
            Vnis::All => true,
            Vnis::Set(set) => set.contains(&vni),
        }
    }

    /// The lowest VNI that both have.
    pub fn common(&self, other: &Vnis) -> Option<Vni> {
        match (self, other) {
            (Vnis::All, Vnis::All) => Some(Vni(*Vni::RANGE.start())),
            (Vnis::All, Vnis::Set(set)) | (Vnis::Set(set), Vnis::All) => set.first().copied(),
            (Vnis::Set(a), Vnis::Set(b)) => a.intersection(b).next().copied(),
        }
    }

    /// `"all"`, or a list of numbers.
    pub(super) fn decode(section: &mut Section<'_, '_>, key: &'static str) -> Option<Self> {
        let hint = || Some(format!("write `{key} = \"all\"` or a list like `{key} = [5001, 5002]`"));
        let node = section.take(key)?;
        match &node.value {
            Value::String(word) if word == "all" => Some(Vnis::All),
            Value::Array(items) if items.is_empty() => {
                section.error(&node.span, format!("`{key}` is empty, so nothing would be carried"), hint());
                None
            }
            Value::Array(items) => {
                Some(Vnis::Set(items.iter().filter_map(|item| Vni::decode(section, key, item)).collect()))
            }
            other => {
                let message = format!("`{key}` must be \"all\" or a list, but is {}", other.kind());
                section.error(&node.span, message, hint());
                None
            }
        }
    }

    /// As the configuration writes it, unless it is the default.
    pub(super) fn json(&self) -> Option<Json> {
        match self {
            Vnis::All => None,
            Vnis::Set(set) => Some(json!(set)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(vnis: &[u32]) -> Vnis {
        Vnis::Set(vnis.iter().map(|&vni| Vni::new(vni).unwrap()).collect())
    }

    #[test]
    fn twenty_four_bits_without_zero() {
        assert_eq!((Vni::new(1).unwrap().get(), Vni::new(0xff_ffff).unwrap().get()), (1, 0xff_ffff));
        for number in [0, 0x100_0000, u32::MAX] {
            let text = Vni::new(number).unwrap_err().to_string();
            assert_eq!(text, format!("{number} is not a VNI, which is a number from 1 to 16777215"));
        }
    }

    #[test]
    fn what_two_sets_have_in_common() {
        let common = |a: &Vnis, b: &Vnis| {
            assert_eq!(a.common(b), b.common(a));
            a.common(b).map(Vni::get)
        };
        assert_eq!(common(&Vnis::All, &Vnis::All), Some(1));
        assert_eq!(common(&Vnis::All, &set(&[7, 9])), Some(7));
        assert_eq!(common(&set(&[7, 9]), &set(&[8, 9])), Some(9));
        assert_eq!(common(&set(&[7]), &set(&[8])), None);
        assert!(set(&[7]).contains(Vni(7)) && !set(&[7]).contains(Vni(8)) && Vnis::All.contains(Vni(8)));
    }
}
