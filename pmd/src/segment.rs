//! Segmentation: a train becomes frames that fit the wire.
//!
//! The one place where the switch does what a kernel or a NIC calls GSO. A segment is a header of its own
//! (in the burst's [`Prefixes`]) and a range of the train's payload, which is not copied here; its checksum
//! stays partial and is completed where the bytes are copied. Called by the worker for an out port that
//! cannot take the train.
//!
//! A train may lie in a tunnel, or in a tunnel inside a tunnel: ours, of which the metadata tells ([`Outer`]),
//! around that of a container, whose kernel hands 64 KB up with no more said than where the innermost checksum
//! starts. Its headers are then looked for. Each level gets its lengths, identification and
//! checksum written anew; what follows an outer transport header up to the inner network header is copied as it is.

use crate::checksum::{Sum, local, of, pseudo_header};
use crate::encapsulation::network_header;
use crate::gather::{Part, Prefixes, TxItem};
use crate::offload::{Checksum, Features, Gso, GsoKind, Offload, Outer};

/// Why a train cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The headers are not where the metadata says, or not in the frame's private head.
    #[error("the offload metadata contradicts the headers")]
    BadOffload,
    /// A segment would be longer than the length fields of its headers can say.
    #[error("a segment would be longer than an IP packet can be")]
    TooLong,
    /// The burst has no room left for another header.
    #[error("no room for another header in this burst")]
    NoRoom,
}

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// An Ethernet frame, in GRE and Geneve.
const ETHERNET: u16 = 0x6558;

/// Bytes of an IPv6 header without extensions.
const IPV6_HEADER: usize = 40;

/// The longest header that is copied in front of each segment.
const MAX_HEADER: usize = 256;

/// The most segments of one train. Linux goes down to an MSS of 88, which makes 745 of 64 KB.
const MAX_SEGMENTS: usize = 1024;

/// Tunnels that a train may lie in: one of ours around one of a container.
const MAX_OUTER: usize = 2;

/// A train on its way to become segments, one at a time.
///
/// Header fields change as RFC 9293 (TCP) and RFC 768 (UDP) ask: lengths, the IPv4 identification
/// (RFC 791), the sequence number, FIN and PSH on the last segment only, CWR on the first only (RFC 3168,
/// section 6.1.2).
#[derive(Debug)]
pub struct Train {
    header: [u8; MAX_HEADER],
    layout: Layout,
    gso: Gso,
    /// The frame of the batch that it lies in.
    frame: u16,
    /// The train as one outgoing frame.
    train: Part,
    next: usize,
    count: usize,
}

impl Train {
    /// Looks at the train that `train` of frame `frame` is, whose outgoing bytes begin with `head`.
    ///
    /// # Errors
    /// The metadata contradicts the headers, or asks for segments that cannot be.
    pub fn new(head: &[u8], frame: usize, train: Part) -> Result<Train, SegmentError> {
        let (layout, gso) =
            Layout::find(head, train.total(), train.offload.unpack()).ok_or(SegmentError::BadOffload)?;
        let count = (train.total() - layout.payload).div_ceil(gso.size as usize);
        if layout.payload > MAX_HEADER || count > MAX_SEGMENTS {
            return Err(SegmentError::BadOffload);
        }
        let mut header = [0; MAX_HEADER];
        header[..layout.payload].copy_from_slice(&head[..layout.payload]);
        let train = Train { header, layout, gso, frame: frame as u16, train, next: 0, count };
        if !train.layout.can_say(train.longest()) {
            return Err(SegmentError::TooLong);
        }
        Ok(train)
    }

    /// Whether a port with `features` takes the train uncut.
    pub fn passes(&self, features: Features) -> bool {
        let tunnel = match self.layout.outer() {
            [] => true,
            [level] => level.ip.protocol == UDP && features.contains(Features::TUNNEL),
            _ => false,
        };
        tunnel
            && features.contains(Features::of(self.gso).with(Features::CHECKSUM))
            && self.layout.can_say(self.train.total())
    }

    /// The train with its tunnel named, if that was found and not told: a port that takes it wants to know.
    pub fn found(&self) -> Option<Part> {
        let told = self.train.offload.unpack();
        let ([level], None) = (self.layout.outer(), told.outer) else { return None };
        let outer = Outer {
            network: level.ip.at as u16,
            transport: level.ip.end as u16,
            inner: self.layout.inner.at as u16,
            checksum: level.checksum,
        };
        Some(Part { offload: Offload { outer: Some(outer), ..told }.into(), ..self.train })
    }

    /// How many segments it becomes in all.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the headers in front of each segment's payload.
    pub fn header_len(&self) -> usize {
        self.layout.payload
    }

    /// The longest segment in bytes.
    pub fn longest(&self) -> usize {
        self.train.total().min(self.layout.payload + self.gso.size as usize)
    }

    /// The next segment; `None` after the last one.
    ///
    /// # Errors
    /// `prefixes` has no room for its header; make some and ask again.
    pub fn next(&mut self, prefixes: &mut Prefixes) -> Result<Option<TxItem>, SegmentError> {
        if self.next == self.count {
            return Ok(None);
        }
        let size = self.gso.size as usize;
        let from = self.layout.payload + self.next * size;
        let payload = size.min(self.train.total() - from);
        let prefix = prefixes.push(&self.header[..self.layout.payload]).ok_or(SegmentError::NoRoom)?;
        let last = self.next + 1 == self.count;
        rewrite(prefixes.get_mut(prefix), &self.layout, self.gso, self.next, payload, last);
        self.next += 1;
        let offset = if self.gso.kind == GsoKind::Udp { 6 } else { 16 };
        let checksum = Checksum::Partial { start: self.layout.inner.end as u16, offset };
        let from = from as u32 + self.train.from - self.train.prefix.len() as u32;
        let part = Part::new(prefix, from, payload as u32, Offload { checksum, ..Offload::NONE }.into());
        prefixes.add(self.frame, part).ok_or(SegmentError::NoRoom).map(Some)
    }
}

/// An IP header.
#[derive(Clone, Copy, Debug, Default)]
struct Ip {
    at: usize,
    /// Where it and its extension headers end, and a transport header begins.
    end: usize,
    ipv6: bool,
    /// Of the transport header.
    protocol: u8,
}

impl Ip {
    /// The one at `at`. Positions come from the frame's own headers, never from a length that a guest claims.
    fn read(head: &[u8], at: usize) -> Option<Ip> {
        let first = *head.get(at)?;
        match first >> 4 {
            4 => {
                let length = usize::from(first & 0x0f) * 4;
                let protocol = *head.get(at + 9)?;
                (length >= 20).then_some(Ip { at, end: at + length, ipv6: false, protocol })
            }
            6 => {
                let (mut end, mut protocol) = (at + IPV6_HEADER, *head.get(at + 6)?);
                // Hop-by-hop options, routing, destination options (RFC 8200, section 4).
                while matches!(protocol, 0 | 43 | 60) {
                    let extension = head.get(end..end + 2)?;
                    protocol = extension[0];
                    end += (usize::from(extension[1]) + 1) * 8;
                }
                Some(Ip { at, end, ipv6: true, protocol })
            }
            _ => None,
        }
    }

    /// What its length field says, as bytes from its beginning on.
    fn length(&self, head: &[u8]) -> Option<usize> {
        if self.ipv6 {
            Some(IPV6_HEADER + usize::from(word(head, self.at + 4)?))
        } else {
            word(head, self.at + 2).map(usize::from)
        }
    }

    /// Where its length field begins to count: IPv4 counts its own header, IPv6 what follows it.
    fn counted_from(&self) -> usize {
        self.at + if self.ipv6 { IPV6_HEADER } else { 0 }
    }

    /// Writes the header of segment `number`, in front of `behind` bytes.
    fn rewrite(&self, header: &mut [u8], behind: usize, number: usize) {
        let Ip { at, end, ipv6, .. } = *self;
        let length = ((end - self.counted_from() + behind) as u16).to_be_bytes();
        if ipv6 {
            header[at + 4..at + 6].copy_from_slice(&length);
            return;
        }
        header[at + 2..at + 4].copy_from_slice(&length);
        let id = u16::from_be_bytes([header[at + 4], header[at + 5]]).wrapping_add(number as u16);
        header[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
        header[at + 10..at + 12].fill(0);
        let sum = of(&header[at..end]);
        header[at + 10..at + 12].copy_from_slice(&sum);
    }

    /// The pseudo-header's sum in front of `behind` bytes.
    fn pseudo_header(&self, header: &[u8], behind: usize) -> Sum {
        pseudo_header(&header[self.at..], self.protocol, behind as u16).unwrap_or_default()
    }
}

/// The IP header of a tunnel, and the transport header behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    ip: Ip,
    /// The UDP checksum is wanted.
    checksum: bool,
}

impl Level {
    /// The level that `ip` begins; `None` if that carries no tunnel whose header can be copied.
    fn new(head: &[u8], ip: Ip, checksum: Option<bool>) -> Option<Level> {
        match ip.protocol {
            // A checksum of 0 is none (RFC 768).
            UDP => Some(Level { ip, checksum: checksum.unwrap_or(word(head, ip.end + 6)? != 0) }),
            // Neither a checksum nor a sequence number nor another version (RFC 2890, section 2).
            GRE if word(head, ip.end)? & !0x2000 == 0 && checksum != Some(true) => {
                Some(Level { ip, checksum: false })
            }
            _ => None,
        }
    }

    /// Where the network header inside may begin.
    fn carried(&self, head: &[u8]) -> [Option<usize>; 2] {
        let behind = |at: usize, protocol: Option<u16>| match protocol? {
            ETHERNET => Some(at + network_header(head.get(at..)?)?),
            IPV4 | IPV6 => Some(at),
            _ => None,
        };
        let at = self.ip.end;
        match self.ip.protocol {
            GRE => {
                let key = if head.get(at).is_some_and(|flags| flags & 0x20 != 0) { 4 } else { 0 };
                [behind(at + 4 + key, word(head, at + 2)), None]
            }
            // By its port nobody knows which it is: VXLAN (RFC 7348), Geneve (RFC 8926, section 3.4).
            _ => {
                let options = head.get(at + 8).map_or(0, |first| usize::from(first & 0x3f) * 4);
                [behind(at + 16, Some(ETHERNET)), behind(at + 16 + options, word(head, at + 10))]
            }
        }
    }

    /// Writes the headers in front of `behind` bytes, the last of which are covered by an inner checksum that starts
    /// at `start` and is `partial`.
    fn rewrite(&self, header: &mut [u8], behind: usize, number: usize, start: usize, partial: [u8; 2]) {
        self.ip.rewrite(header, behind, number);
        if self.ip.protocol != UDP {
            return;
        }
        let at = self.ip.end;
        header[at + 4..at + 6].copy_from_slice(&(behind as u16).to_be_bytes());
        header[at + 6..at + 8].fill(0);
        if self.checksum {
            let mut sum = self.ip.pseudo_header(header, behind);
            sum.add(&header[at..start]);
            header[at + 6..at + 8].copy_from_slice(&local(sum, partial));
        }
    }
}

/// Where a train's headers lie, in the outgoing frame.
#[derive(Debug)]
struct Layout {
    /// The tunnels around it, outermost first, and how many.
    outer: [Level; MAX_OUTER],
    depth: usize,
    inner: Ip,
    /// The first payload byte.
    payload: usize,
}

impl Layout {
    /// Finds the headers and checks that they say what the metadata says.
    fn find(head: &[u8], len: usize, offload: Offload) -> Option<(Layout, Gso)> {
        let (Some(gso), Checksum::Partial { start, .. }) = (offload.gso, offload.checksum) else {
            return None;
        };
        let start = start as usize;
        let (mut outer, mut depth) = ([Level::default(); MAX_OUTER], 0);
        let mut ip = Ip::behind_ethernet(head)?;
        if let Some(told) = offload.outer {
            if (ip.at, ip.end) != (told.network.into(), told.transport.into()) {
                return None;
            }
            let level = Level::new(head, ip, Some(told.checksum))?;
            if usize::from(told.inner) < ip.end + 8 {
                return None;
            }
            (outer[depth], depth) = (level, depth + 1);
            ip = Ip::read(head, told.inner.into())?;
        }
        if ip.end != start {
            let level = Level::new(head, ip, None)?;
            (outer[depth], depth) = (level, depth + 1);
            // What looks like an IP header there, and says how far it is to the frame's end, is one.
            ip = level.carried(head).into_iter().flatten().find_map(|at| {
                let ip = Ip::read(head, at)?;
                (ip.end == start && ip.length(head)? == len.checked_sub(at)?).then_some(ip)
            })?;
        }
        let (protocol, right_version) = match gso.kind {
            GsoKind::Tcp4 => (TCP, !ip.ipv6),
            GsoKind::Tcp6 => (TCP, ip.ipv6),
            GsoKind::Udp => (UDP, true),
        };
        let header = match gso.kind {
            GsoKind::Udp => 8,
            GsoKind::Tcp4 | GsoKind::Tcp6 => usize::from(*head.get(start + 12)? >> 4) * 4,
        };
        let payload = start + header;
        let is_whole =
            header >= if protocol == UDP { 8 } else { 20 } && payload <= head.len() && payload < len;
        // An outer checksum is put together from words.
        let is_even = outer[..depth].iter().all(|level| (start - level.ip.end).is_multiple_of(2));
        (gso.size > 0 && ip.protocol == protocol && right_version && is_whole && is_even)
            .then_some((Layout { outer, depth, inner: ip, payload }, gso))
    }

    fn outer(&self) -> &[Level] {
        &self.outer[..self.depth]
    }

    /// Whether the length fields can say how long a frame of `total` bytes is. The outermost says most.
    fn can_say(&self, total: usize) -> bool {
        let outermost = self.outer().first().map_or(self.inner, |level| level.ip);
        total - outermost.counted_from() <= u16::MAX as usize
    }
}

impl Ip {
    /// The one behind an Ethernet header and its tags.
    fn behind_ethernet(head: &[u8]) -> Option<Ip> {
        let at = network_header(head)?;
        let ip = Ip::read(head, at)?;
        (word(head, at - 2)? == if ip.ipv6 { IPV6 } else { IPV4 }).then_some(ip)
    }
}

/// Writes the headers of a segment, whose lengths [`Train::new`] found to fit.
fn rewrite(header: &mut [u8], layout: &Layout, gso: Gso, number: usize, payload: usize, last: bool) {
    let start = layout.inner.end;
    let total = layout.payload + payload;
    layout.inner.rewrite(header, total - start, number);
    let partial = layout.inner.pseudo_header(header, total - start).partial();
    if gso.kind == GsoKind::Udp {
        header[start + 4..start + 6].copy_from_slice(&((total - start) as u16).to_be_bytes());
        header[start + 6..start + 8].copy_from_slice(&partial);
    } else {
        let sequence = u32::from_be_bytes(header[start + 4..start + 8].try_into().unwrap_or_default());
        let sequence = sequence.wrapping_add((number * gso.size as usize) as u32);
        header[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
        if !last {
            header[start + 13] &= !(FIN | PSH);
        }
        if number > 0 {
            header[start + 13] &= !CWR;
        }
        header[start + 16..start + 18].copy_from_slice(&partial);
    }
    // From the inside out: an outer checksum covers the inner headers.
    for level in layout.outer().iter().rev() {
        level.rewrite(header, total - level.ip.end, number, start, partial);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests;
