//! What the FDB holds, as its callers name it: keys, kinds, places and listed entries.

/// What the table is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacKey {
    /// Index of the bridge.
    pub bridge: u16,
    /// VLAN ID within the bridge, 12 bits; 0 where the bridge has none.
    pub vlan: u16,
    /// The address, in the order of the wire.
    pub mac: [u8; 6],
}

/// Where an entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From a frame's source address: ages, moves, counts against limits.
    Learned,
    /// From a controller: does not age, and gives way only to a station that turns up at a port of this host.
    Loaded,
    /// From the configuration: stays until removed there.
    Static,
}

/// Something about a station that somebody should know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// Whose station.
    pub key: MacKey,
    /// Index of the port that it is held to be behind.
    pub at: u16,
    /// Index of the port that its frames come by, or came by before.
    pub seen: u16,
    /// It has moved too often, and is held where it is from now on; else it is configured, loaded or held to be
    /// elsewhere than it was seen.
    pub flapping: bool,
}

/// The place of an entry, by which its stamps are found. Valid as long as the witness it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location(pub(super) u32);

impl Location {
    /// The place of no entry: beyond all stamps.
    pub const NOWHERE: Location = Location(u32::MAX);
}

impl Default for Location {
    fn default() -> Location {
        Location::NOWHERE
    }
}

/// An entry as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose entry.
    pub key: MacKey,
    /// Index of the port that the address is behind.
    pub port: u16,
    /// Where it came from.
    pub kind: Kind,
    /// When a frame from it was last seen, in seconds of the caller's clock; 0 for never.
    pub seen_s: u32,
    /// Its place.
    pub location: Location,
}

impl Entry {
    /// Seconds since a frame from it was seen.
    pub fn age_s(&self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.seen_s)
    }
}
