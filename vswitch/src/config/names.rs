//! The objects of a configuration by their name, which each carries itself.
//!
//! For whoever compares two desired states ([`diff`](mod@super::diff)) or brings a table in line with one; knows names
//! and nothing else of the objects.

use std::fmt;
use std::hash::BuildHasher;

use control::schema::{Bridge, Place, Port, Tunnel, Underlay};
use hashbrown::{DefaultHashBuilder, HashTable};

/// What has a name of its own among its kind.
pub trait Named {
    /// The name.
    fn name(&self) -> &str;
}

impl Named for Port {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Bridge {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Underlay {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for Tunnel {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// Where a MAC address is bound, in words: `to port "web1"`.
pub struct PlaceName<'p>(pub &'p Place);

impl fmt::Display for PlaceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Port(port) => write!(f, "to port \"{port}\""),
            Place::Remote { tunnel, remote } => write!(f, "to {remote} of tunnel \"{tunnel}\""),
        }
    }
}

/// Objects to be found by name. The table holds them alone: the name is read in the object.
pub struct Names<'c, T> {
    table: HashTable<&'c T>,
    hasher: DefaultHashBuilder,
}

impl<'c, T: Named> Names<'c, T> {
    /// The names of `objects`, of which no two have the same.
    pub fn of(objects: &'c [T]) -> Names<'c, T> {
        let (mut table, hasher) = (HashTable::with_capacity(objects.len()), DefaultHashBuilder::default());
        let hash = |object: &&'c T| hasher.hash_one(object.name());
        for object in objects {
            table.insert_unique(hash(&object), object, hash);
        }
        Names { table, hasher }
    }

    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<&'c T> {
        self.table.find(self.hasher.hash_one(name), |object| object.name() == name).copied()
    }
}

#[cfg(test)]
mod tests {
    use control::schema::Config;

    use super::*;

    #[test]
    fn every_object_is_found_by_its_own_name_only() {
        let text: String = (0..100).map(|number| format!("[[bridge]]\nname = \"b{number}\"\n")).collect();
        let config = Config::parse(&text, "test.toml").unwrap();
        let names = Names::of(&config.bridges);
        assert!(config.bridges.iter().all(|bridge| names.get(bridge.name.as_str()) == Some(bridge)));
        assert_eq!((names.get("b100"), names.get("")), (None, None));
    }
}
