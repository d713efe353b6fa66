//! Names: of ports, bridges, underlays, tunnels, interfaces and network namespaces.
//!
//! Each is a type of its own, so that a bridge's name cannot be passed where a port's is meant, and
//! a value that exists is a value that was checked.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that breaks the rules of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` {rule}")]
pub struct NameError {
    name: String,
    rule: &'static str,
}

impl NameError {
    fn new(name: &str, rule: &'static str) -> Self {
        Self { name: name.chars().take(80).flat_map(char::escape_debug).collect(), rule }
    }
}

/// Rules that the names of all objects share: they stand in file names, logs, tables and shell lines.
fn check_object_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > 64 {
        return Err(NameError::new(name, "is no name: it must have 1 to 64 characters"));
    }
    if !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'"' | b'\\')) {
        let rule = "is no name: letters, digits and punctuation of ASCII are allowed, \
                    but no space, `/`, `\\` or `\"`";
        return Err(NameError::new(name, rule));
    }
    if name.starts_with('-') {
        return Err(NameError::new(name, "is no name: it must not start with `-`"));
    }
    Ok(())
}

/// The kernel's rules (dev_valid_name), and no `%`, which the kernel takes for a pattern when it makes a device.
fn check_interface_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > 15 {
        return Err(NameError::new(name, "is no interface name: the kernel allows 1 to 15 bytes"));
    }
    if matches!(name, "." | "..")
        || !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
    {
        let rule = "is no interface name: no space, `/`, `:` or `%` is allowed";
        return Err(NameError::new(name, rule));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and makes it a name.
            pub fn new(name: &str) -> Result<Self, NameError> {
                $check(name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// The name of a port: 1 to 64 printable ASCII characters without space, `/`, `\` and `"`, not starting with `-`.
    PortName,
    check_object_name
);
name_type!(
    /// The name of a bridge, by the rules of [`PortName`].
    BridgeName,
    check_object_name
);
name_type!(
    /// The name of an underlay, by the rules of [`PortName`].
    UnderlayName,
    check_object_name
);
name_type!(
    /// The name of a tunnel, by the rules of [`PortName`].
    TunnelName,
    check_object_name
);
name_type!(
    /// The name of whoever loads entries into the switch's tables, by the rules of [`PortName`].
    OriginName,
    check_object_name
);
name_type!(
    /// The name of a kernel network interface: 1 to 15 bytes, by the kernel's rules.
    InterfaceName,
    check_interface_name
);

impl InterfaceName {
    /// The name that a container's first interface has by custom.
    pub fn eth0() -> Self {
        Self("eth0".into())
    }
}

/// A network namespace, by the name that `ip netns` knows it by or by a path (`/proc/123/ns/net`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// A name under `/run/netns`.
    Name(Arc<str>),
    /// An absolute path of a namespace file.
    Path(PathBuf),
}

impl Netns {
    /// The file to open.
    pub fn path(&self) -> PathBuf {
        match self {
            Netns::Name(name) => Path::new("/run/netns").join(&**name),
            // The usual alias of /run, so that one namespace under two spellings is seen as one.
            Netns::Path(path) => match path.strip_prefix("/var/run") {
                Ok(rest) => Path::new("/run").join(rest),
                Err(_) => path.clone(),
            },
        }
    }
}

impl FromStr for Netns {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > 4096 || text.contains('\0') {
            return Err(NameError::new(text, "is no network namespace: too long, or a NUL byte in it"));
        }
        if text.starts_with('/') {
            return Ok(Netns::Path(PathBuf::from(text)));
        }
        if text.contains('/') {
            return Err(NameError::new(text, "is no network namespace: a path must be absolute"));
        }
        let printable = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
        if text.is_empty() || text.len() > 255 || !printable || matches!(text, "." | "..") {
            let rule = "is no network namespace: write a name of `ip netns list` or an absolute path";
            return Err(NameError::new(text, rule));
        }
        Ok(Netns::Name(text.into()))
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Netns::Name(name) => f.pad(name),
            Netns::Path(path) => f.pad(&path.to_string_lossy()),
        }
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names() {
        for good in ["web1", "a", "x".repeat(64).as_str(), "eth0.100", "vm:1", "up@link"] {
            assert_eq!(PortName::new(good).unwrap(), *good);
        }
        for bad in ["", "x".repeat(65).as_str(), "a b", "a/b", "-x", "a\"b", "tab\t", "grün", "a\\b"] {
            assert!(PortName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names() {
        assert!(InterfaceName::new("eth0").is_ok());
        assert!(InterfaceName::new("abcdefghijklmno").is_ok());
        for bad in ["", ".", "..", "abcdefghijklmnop", "a:1", "tap%d", "a/b", "a b"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn namespaces_by_name_and_path() {
        let by_name: Netns = "web1".parse().unwrap();
        assert_eq!(by_name.path(), Path::new("/run/netns/web1"));
        let by_path: Netns = "/var/run/netns/web1".parse().unwrap();
        assert_eq!(by_path.path(), by_name.path());
        assert_eq!(by_path.to_string(), "/var/run/netns/web1");
        for bad in ["", "a/b", "..", "a b", "a\0b"] {
            assert!(bad.parse::<Netns>().is_err(), "{bad:?}");
        }
    }
}
