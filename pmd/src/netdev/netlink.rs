//! Netlink messages: built, sent, awaited, taken apart.
//!
//! One small builder serves both families that we speak, rtnetlink (links, addresses, routes) and nfnetlink
//! (the closed host end), and a blocking socket belongs to the namespace of the thread that opens it. Replies
//! are read leniently: attributes that we do not know are stepped over, so a newer kernel is no surprise.
//! Called by the neighbours in `netdev`; knows nothing about links or tables. See netlink(7) and
//! <linux/netlink.h>.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use super::Error;
use super::error::Detail;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Set in an attribute's type when it holds attributes itself.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
/// Kinds of messages that belong to netlink itself.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attribute of an extended acknowledgement that holds a sentence.
const ACK_MESSAGE: u16 = 1;

/// Flags of a request, beside `NLM_F_REQUEST` and `NLM_F_ACK`, which every one carries.
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16 | libc::NLM_F_EXCL as u16;
pub(crate) const CREATE_OR_UPDATE: u16 = libc::NLM_F_CREATE as u16;
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// A message under construction: header, the family's own header, attributes.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of `kind` that starts with the family's fixed header.
    pub(crate) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        let flags = flags | libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16;
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// nfnetlink's numbers are in network order.
    pub(crate) fn network_number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// A string with its closing NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Raw bytes inside an attribute, for a header that is nested (veth's peer).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Takes the wish for an acknowledgement back (the bounds of an nfnetlink batch get none).
    pub(crate) fn without_ack(mut self) -> Self {
        let flags = libc::NLM_F_REQUEST as u16;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn wants_ack(&self) -> bool {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & libc::NLM_F_ACK as u16 != 0
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A reply: its kind and everything behind the netlink header.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// Steps over the attributes in `bytes`; ends at the first that is cut.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An attribute's number; 0 when it is shorter than one.
pub(crate) fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// An attribute's text, without the closing NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A blocking netlink socket in the namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    call: &'static str,
}

impl Netlink {
    /// Opens a socket of the family `protocol`; `call` is how errors name it.
    pub(crate) fn open(protocol: i32, call: &'static str) -> Result<Self, Error> {
        let failed = |cause| Error::call("opening a netlink socket", call, cause);
        let mut socket = Socket::new(protocol as isize).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Sentences beside error numbers are welcome, an old kernel without them is as well.
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, sequence: 0, call })
    }

    /// Sends a request and waits for its acknowledgement. `doing` is said when it is refused.
    pub(crate) fn apply(&mut self, request: Request, doing: impl Fn() -> String) -> Result<(), Error> {
        self.fetch(request, doing).map(|_| ())
    }

    /// Sends a request and gathers its replies, until the acknowledgement or the end of the dump.
    pub(crate) fn fetch(
        &mut self,
        request: Request,
        doing: impl Fn() -> String,
    ) -> Result<Vec<Reply>, Error> {
        self.fetch_all(vec![request], doing)
    }

    /// Sends several requests in one write (nfnetlink's batches want that); the first refusal is the error.
    pub(crate) fn fetch_all(
        &mut self,
        requests: Vec<Request>,
        doing: impl Fn() -> String,
    ) -> Result<Vec<Reply>, Error> {
        let mut bytes = Vec::new();
        let mut awaited = 0;
        for mut request in requests {
            self.sequence += 1;
            awaited += usize::from(request.wants_ack());
            bytes.extend_from_slice(request.finish(self.sequence));
        }
        let failed = |cause| Error::call(doing(), self.call, cause);
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut replies = Vec::new();
        while awaited > 0 {
            let (packet, _) = self.socket.recv_from_full().map_err(failed)?;
            for (kind, message) in messages(&packet) {
                match kind {
                    ERROR | DONE => {
                        awaited -= usize::from(awaited > 0);
                        self.check(message, &doing)?;
                    }
                    _ => {
                        replies.push(Reply { kind, body: message.get(HEADER..).unwrap_or_default().to_vec() })
                    }
                }
            }
        }
        Ok(replies)
    }

    /// Reads an acknowledgement: the number 0, or an error, perhaps with the kernel's own sentence.
    fn check(&self, message: &[u8], doing: &impl Fn() -> String) -> Result<(), Error> {
        let errno = message.get(HEADER..).map_or(0, number) as i32;
        if errno == 0 {
            return Ok(());
        }
        // The refused message's header follows, then (its body being capped or not) the attributes.
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        let echoed = message.get(HEADER + 4..).map_or(0, number) as usize;
        let skip = if flags & 0x100 != 0 { HEADER } else { echoed.next_multiple_of(4) };
        let sentence = message
            .get(HEADER + 4 + skip..)
            .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == ACK_MESSAGE))
            .map_or(String::new(), |(_, value)| text(value));
        Err(Error::Call {
            doing: doing(),
            call: self.call,
            cause: io::Error::from_raw_os_error(-errno),
            detail: Detail(sentence),
        })
    }
}

/// Steps over the messages of one datagram, whole ones only; yields kind and message with its header.
fn messages(packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = number(rest) as usize;
        let message = rest.get(..length).filter(|_| length >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_netlink_wants_it() {
        let mut request = Request::new(16, CREATE, &[1, 2, 3, 4]);
        request.text(3, "ab").nest(18, |inner| {
            inner.number(1, 0x01020304);
        });
        let bytes = request.finish(7).to_vec();
        assert_eq!(number(&bytes), bytes.len() as u32);
        assert_eq!(u16::from_ne_bytes([bytes[4], bytes[5]]), 16);
        assert_eq!(number(&bytes[8..]), 7);
        let found: Vec<_> = attributes(&bytes[HEADER + 4..]).collect();
        assert_eq!(found[0], (3, &b"ab\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(
            attributes(found[1].1).next().map(|(kind, value)| (kind, number(value))),
            Some((1, 0x01020304))
        );
    }

    #[test]
    fn cut_attributes_and_messages_end_the_walk() {
        let mut request = Request::new(16, 0, &[]);
        request.number(1, 5).text(2, "name");
        let bytes = request.finish(1).to_vec();
        for end in 0..bytes.len() {
            assert!(messages(&bytes[..end]).next().is_none());
            assert!(attributes(&bytes[HEADER.min(end)..end]).count() <= 2);
        }
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0, "an attribute shorter than its header");
    }
}
