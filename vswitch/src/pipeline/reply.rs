//! A frame that the switch writes itself, back to the port that another one came from.
//!
//! Put together in private memory and sent as a prefix with nothing of the received frame behind it. How often, the
//! [`Sink`] says, so that nobody can have the switch flood somebody.

use pmd::{Batch, Packed, Part};

use super::execute::{Sink, output};
use crate::flow::numbers::ethertype;
use crate::snapshot::{PortView, Snapshot};

/// The longest: Ethernet with a tag, IPv6, ICMPv6, and 128 bytes of what it is about.
const LONGEST: usize = 18 + 40 + 8 + 128;

/// Bytes of the shortest frame that Ethernet knows, FCS not counted (IEEE 802.3).
const SHORTEST: usize = 60;

/// The frame, as it grows.
pub(super) struct Reply {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Reply {
    /// One that begins with an Ethernet header, tagged as `port` has frames of `vlan`.
    pub(super) fn new(to: &[u8; 6], from: &[u8; 6], port: &PortView, vlan: u16, kind: u16) -> Reply {
        let mut reply = Reply { bytes: [0; LONGEST], len: 0 };
        reply.put(to);
        reply.put(from);
        if vlan != 0 && port.vlans.untagged != Some(vlan) {
            reply.put(&ethertype::VLAN.to_be_bytes());
            reply.put(&vlan.to_be_bytes());
        }
        reply.put(&kind.to_be_bytes());
        reply
    }

    /// How long it is.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is behind the first `from` bytes, to write.
    pub(super) fn behind(&mut self, from: usize) -> &mut [u8] {
        &mut self.bytes[from..self.len]
    }

    /// Adds bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds bytes, to be written.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let at = self.len;
        self.len += len;
        &mut self.bytes[at..at + len]
    }

    /// Sends it by `port`, from which frame `i` came, if the switch may write there now; whether it did.
    pub(super) fn send<S: Sink>(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch<'_>,
        i: usize,
        port: u16,
        sink: &mut S,
    ) -> bool {
        let bytes = &self.bytes[..self.len.max(SHORTEST)];
        if !sink.may_write(port) {
            return false;
        }
        let item = sink.prefixes(batch, bytes.len()).and_then(|prefixes| {
            let prefix = prefixes.push(bytes)?;
            prefixes.add(i as u16, Part::new(prefix, 0, 0, Packed::NONE))
        });
        let Some(item) = item else { return false };
        sink.made(port, 1);
        output(snapshot, batch, port, item, sink);
        true
    }
}
