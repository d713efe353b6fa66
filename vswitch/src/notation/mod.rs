//! Frames as text: the language of `vswitchctl trace` and of the tests.
//!
//! ```text
//! eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02) vlan(id=10) ipv4(src=10.0.0.1,dst=10.0.0.2) tcp(dport=80)
//! ```
//!
//! [`build`] makes bytes of text, [`describe`] text of bytes, and `build(describe(frame))` is `frame` for all bytes. Who
//! calls it: the API server for `trace`, tests, fuzzers; never the data path.
//!
//! The layers, in the order of the wire: `eth`, `vlan` (any number; the outer one of two is a service tag, 802.1ad,
//! unless `tpid` says otherwise), then `arp`, `ipv4` or `ipv6`, the extension headers `hopbyhop`, `routing`,
//! `fragment`, `destination` and `auth`, then `tcp`, `udp`, `icmp`, `icmpv6` or `sctp`, then `payload`, then `pad`
//! (bytes behind the end of the IP packet). What a field is called, how wide it is and what it is when it is left out
//! stands in one table (`layers.rs`). Left out, addresses and ports get fixed values; lengths, checksums, ethertypes
//! and protocol numbers are computed from what follows. Every field of every header can be set, so malformed
//! frames can be written too: `ipv4(total_length=5)`, `tcp(checksum=0x1234)`, `eth(type=ipv6)`.
//!
//! ```
//! let frame = vswitch::notation::build("eth ipv4 udp(dport=53) payload(text=\"hello\")")?;
//! assert_eq!(frame.len(), 14 + 20 + 8 + 5);
//! # Ok::<(), vswitch::notation::NotationError>(())
//! ```

mod build;
mod describe;
mod error;
mod hex;
mod layers;
pub mod random;
mod text;
mod value;

#[cfg(test)]
mod tests;

pub use build::MAX_FRAME;
pub use error::NotationError;
pub use hex::from_hex;

/// The frame that `text` describes.
///
/// # Errors
/// Says at which column what is wrong, what could stand there, and for a name that is not known the nearest one.
pub fn build(text: &str) -> Result<Vec<u8>, NotationError> {
    build::build(&text::read(text)?)
}

/// A text of which [`build`] makes `frame` again. It takes any bytes: what is not a known header is `payload`.
/// Beyond [`MAX_FRAME`] bytes the text is still a description, but `build` refuses it.
pub fn describe(frame: &[u8]) -> String {
    let mut out = String::new();
    for layer in describe::describe(frame) {
        if !out.is_empty() {
            out.push(' ');
        }
        layer.write(&mut out);
    }
    out
}
