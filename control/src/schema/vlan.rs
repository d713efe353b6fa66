//! VLANs: an identifier, a set of them, and what a port does with tags.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A VLAN identifier, 1 to 4094 (0 means "priority tag only" and 4095 is reserved, IEEE 802.1Q-2022 table 9-2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

/// A number that is no VLAN identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a VLAN, which is a number from 1 to 4094")]
pub struct VlanIdError(u64);

impl VlanId {
    /// The lowest and the highest VLAN.
    pub const RANGE: std::ops::RangeInclusive<u16> = 1..=4094;

    /// Checks the number.
    pub fn new(id: u16) -> Result<Self, VlanIdError> {
        if Self::RANGE.contains(&id) { Ok(Self(id)) } else { Err(VlanIdError(id.into())) }
    }

    /// The number, 1 to 4094.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = VlanIdError;
    fn try_from(id: u16) -> Result<Self, VlanIdError> {
        Self::new(id)
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> u16 {
        id.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of VLANs, kept as sorted ranges that neither touch nor overlap: equal sets compare equal.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct VlanSet {
    ranges: Vec<(u16, u16)>,
}

impl VlanSet {
    /// All of 1 to 4094.
    pub fn all() -> Self {
        Self { ranges: vec![(*VlanId::RANGE.start(), *VlanId::RANGE.end())] }
    }

    /// Adds `first` to `last`, both included, in either order.
    pub fn insert(&mut self, first: VlanId, last: VlanId) {
        let (mut low, mut high) = (first.get().min(last.get()), first.get().max(last.get()));
        self.ranges.retain(|&(start, end)| {
            let apart = end + 1 < low || high + 1 < start;
            if !apart {
                low = low.min(start);
                high = high.max(end);
            }
            apart
        });
        let place = self.ranges.partition_point(|&(start, _)| start < low);
        self.ranges.insert(place, (low, high));
    }

    /// True if the set has this VLAN.
    pub fn contains(&self, vlan: VlanId) -> bool {
        self.ranges.iter().any(|&(start, end)| (start..=end).contains(&vlan.get()))
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// True if it has all of 1 to 4094.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// The ranges, first and last included, in rising order.
    pub fn ranges(&self) -> impl Iterator<Item = (VlanId, VlanId)> + '_ {
        self.ranges.iter().map(|&(start, end)| (VlanId(start), VlanId(end)))
    }

    /// Every VLAN of the set, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = VlanId> + '_ {
        self.ranges.iter().flat_map(|&(start, end)| (start..=end).map(VlanId))
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(vlans: I) -> Self {
        let mut set = Self::default();
        for vlan in vlans {
            set.insert(vlan, vlan);
        }
        set
    }
}

/// As the configuration writes it: `all`, or `10,20-29`.
impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (index, &(start, end)) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if start == end {
                write!(f, "{start}")?;
            } else {
                write!(f, "{start}-{end}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VlanSet({self})")
    }
}

/// What a port does with VLAN tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VlanMode {
    /// Neither `vlan` nor `trunk`: every tagged frame passes as it is, untagged and priority-tagged
    /// frames (tag with VLAN 0) are VLAN 0 of the bridge.
    #[default]
    Transparent,
    /// `vlan = 10`: untagged (and priority-tagged) frames belong to this VLAN, tagged ones are dropped,
    /// frames leave untagged.
    Access(VlanId),
    /// `trunk = [...]`: tagged frames of these VLANs pass.
    Trunk {
        /// The VLANs that pass tagged. A native VLAN passes whether it is in here or not.
        vlans: VlanSet,
        /// `native_vlan`: untagged frames belong to it, and its frames leave untagged. None: untagged frames are dropped.
        native: Option<VlanId>,
    },
}

impl VlanMode {
    /// True if frames of this VLAN (None: VLAN 0, untagged) pass the port in either direction.
    pub fn carries(&self, vlan: Option<VlanId>) -> bool {
        match (self, vlan) {
            (VlanMode::Transparent, _) => true,
            (VlanMode::Access(own), Some(vlan)) => *own == vlan,
            (VlanMode::Trunk { vlans, native }, Some(vlan)) => *native == Some(vlan) || vlans.contains(vlan),
            (_, None) => false,
        }
    }
}

/// As people read it: `transparent`, `10`, `trunk 20-29 native 5`.
impl fmt::Display for VlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VlanMode::Transparent => f.write_str("transparent"),
            VlanMode::Access(vlan) => vlan.fmt(f),
            VlanMode::Trunk { vlans, native: None } => write!(f, "trunk {vlans}"),
            VlanMode::Trunk { vlans, native: Some(native) } => write!(f, "trunk {vlans} native {native}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn vlan(id: u16) -> VlanId {
        VlanId::new(id).unwrap()
    }

    #[test]
    fn only_1_to_4094() {
        for id in [0, 4095, u16::MAX] {
            assert_eq!(
                VlanId::new(id).unwrap_err().to_string(),
                format!("{id} is not a VLAN, which is a number from 1 to 4094")
            );
        }
        assert_eq!((vlan(1).get(), vlan(4094).get()), (1, 4094));
    }

    #[test]
    fn what_a_port_carries() {
        let trunk =
            VlanMode::Trunk { vlans: [vlan(20), vlan(21)].into_iter().collect(), native: Some(vlan(5)) };
        assert!(VlanMode::Transparent.carries(None) && VlanMode::Transparent.carries(Some(vlan(7))));
        assert!(VlanMode::Access(vlan(10)).carries(Some(vlan(10))));
        assert!(
            !VlanMode::Access(vlan(10)).carries(Some(vlan(11))) && !VlanMode::Access(vlan(10)).carries(None)
        );
        assert!(trunk.carries(Some(vlan(5))) && trunk.carries(Some(vlan(21))));
        assert!(!trunk.carries(Some(vlan(22))) && !trunk.carries(None));
        assert_eq!(trunk.to_string(), "trunk 20-21 native 5");
        assert_eq!(VlanMode::Trunk { vlans: VlanSet::all(), native: None }.to_string(), "trunk all");
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(ranges in prop::collection::vec((1u16..=4094, 1u16..=4094), 0..20)) {
            let mut set = VlanSet::default();
            let mut model = BTreeSet::new();
            for &(a, b) in &ranges {
                set.insert(vlan(a), vlan(b));
                model.extend(a.min(b)..=a.max(b));
            }
            prop_assert!(set.iter().map(VlanId::get).eq(model.iter().copied()));
            prop_assert_eq!(set.iter().collect::<VlanSet>(), set.clone(), "one shape for one set");
            prop_assert!((1..=4094).all(|id| set.contains(vlan(id)) == model.contains(&id)));
        }
    }
}
