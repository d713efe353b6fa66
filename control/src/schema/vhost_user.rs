//! The settings of a `vhost-user` port: its socket, and what the other end is offered.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::endpoint::{Endpoint, decode_mac, decode_mtu};
use super::port::decode_file;
use super::section::Section;
use crate::mac::MacAddress;

/// Settings of a `vhost-user` port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUser {
    /// `socket`: the file of the unix socket.
    pub socket: PathBuf,
    /// `mode`: who connects to whom.
    pub mode: SocketMode,
    /// `socket_mode`: who may connect, where the switch listens.
    pub socket_mode: FileMode,
    /// `socket_group`: the group that the socket belongs to, by name or number; none: the daemon's.
    pub socket_group: Option<String>,
    /// `mac`: the address of the other end's interface; none: one by the port's name.
    pub mac: Option<MacAddress>,
    /// `mtu` in bytes.
    pub mtu: u16,
    /// `offloads`: partial checksums and frames of up to 64 KB pass, both ways.
    pub offloads: bool,
    /// `packed`: the other end may use packed rings.
    pub packed: bool,
}

impl VhostUser {
    /// A port at a socket, with everything else at its default.
    pub fn new(socket: impl Into<PathBuf>) -> VhostUser {
        VhostUser {
            socket: socket.into(),
            mode: SocketMode::default(),
            socket_mode: FileMode::default(),
            socket_group: None,
            mac: None,
            mtu: Endpoint::MTU,
            offloads: true,
            packed: true,
        }
    }
}

/// Which side of a socket the switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SocketMode {
    /// The switch listens.
    #[default]
    Server,
    /// The other end listens; the switch connects, again and again.
    Client,
}

impl SocketMode {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketMode::Server => "server",
            SocketMode::Client => "client",
        }
    }
}

/// Permission bits of a file, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u16);

impl FileMode {
    /// The bits.
    pub fn bits(self) -> u32 {
        self.0.into()
    }
}

impl Default for FileMode {
    fn default() -> Self {
        FileMode(0o660)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// No permission bits.
#[derive(Debug, thiserror::Error)]
#[error("permissions are three octal digits, like \"0660\"")]
pub struct BadFileMode;

impl FromStr for FileMode {
    type Err = BadFileMode;

    fn from_str(text: &str) -> Result<Self, BadFileMode> {
        let digits = text.strip_prefix('0').unwrap_or(text);
        let octal = digits.len() == 3 && digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let bits = octal.then(|| u16::from_str_radix(digits, 8).ok()).flatten();
        bits.map(FileMode).ok_or(BadFileMode)
    }
}

/// The keys that only this type has.
pub(super) const KEYS: &[&str] =
    &["socket", "mode", "socket_mode", "socket_group", "mac", "mtu", "offloads", "packed"];

const MODES: [(&str, SocketMode); 2] = [("server", SocketMode::Server), ("client", SocketMode::Client)];

pub(super) fn decode(section: &mut Section<'_, '_>) -> Option<VhostUser> {
    let socket = decode_file(section, "socket");
    section.require("socket", "\"/run/vswitch/vm1.sock\"");
    // `sun_path` of unix(7), with its final zero.
    if socket.as_ref().is_some_and(|path| path.as_os_str().len() > 107) {
        section.error_at("socket", "`socket`: the name of a socket has at most 107 bytes", None);
    }
    if socket.as_ref().is_some_and(|path| path.is_relative()) {
        let hint =
            "begin it with `/`: where a relative one is depends on where vswitchd was started".to_owned();
        section.error_at("socket", "`socket` is not an absolute path", Some(hint));
    }
    let mode = section.choice("mode", &MODES).unwrap_or_default();
    let socket_mode = section.text("socket_mode").unwrap_or_default();
    let socket_group: Option<String> = section.text("socket_group");
    if socket_group.as_ref().is_some_and(|group| group.is_empty() || group.contains('\0')) {
        section.error_at("socket_group", "`socket_group` is not a group's name or number", None);
    }
    for key in ["socket_mode", "socket_group"] {
        if mode == SocketMode::Client && section.had(key) {
            let hint = "it is for `mode = \"server\"`, where the switch makes the socket".to_owned();
            section.error_at(key, format!("`{key}`: the other end makes the socket"), Some(hint));
        }
    }
    let (mac, mtu) = (decode_mac(section), decode_mtu(section).unwrap_or(Endpoint::MTU));
    let offloads = section.boolean("offloads").unwrap_or(true);
    let packed = section.boolean("packed").unwrap_or(true);
    Some(VhostUser { socket: socket?, mode, socket_mode, socket_group, mac, mtu, offloads, packed })
}

impl VhostUser {
    pub(super) fn fields(&self, fields: &mut Vec<(&'static str, Json)>) {
        fields.push(("socket", json!(self.socket.to_string_lossy())));
        let plain = VhostUser::new("");
        fields.extend((self.mode != plain.mode).then(|| ("mode", json!(self.mode.as_str()))));
        let changed = self.socket_mode != plain.socket_mode;
        fields.extend(changed.then(|| ("socket_mode", json!(self.socket_mode.to_string()))));
        fields.extend(self.socket_group.as_ref().map(|group| ("socket_group", json!(group))));
        fields.extend(self.mac.map(|mac| ("mac", json!(mac))));
        fields.extend((self.mtu != plain.mtu).then_some(("mtu", json!(self.mtu))));
        fields.extend((!self.offloads).then_some(("offloads", json!(false))));
        fields.extend((!self.packed).then_some(("packed", json!(false))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        for (text, bits) in [("0660", 0o660), ("777", 0o777), ("0000", 0), ("600", 0o600)] {
            assert_eq!(text.parse::<FileMode>().unwrap().bits(), bits);
        }
        for text in ["", "0", "660x", "0o660", "1777", "888", "+66", "00660", "06600"] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert_eq!(FileMode::default().to_string(), "0660");
    }
}
