//! Coalescing (GRO): segments of a TCP stream become a train again.
//!
//! What was cut to fit a network, and perhaps a tunnel, is given to a kernel or a guest in one piece: it then goes
//! through its stack once, and not forty times. Called by the worker for a port that takes trains, with what it is
//! about to send there. No payload moves: the train is a header of its own and ranges of the frames.
//!
//! Two frames are joined if cutting the result gives both back: the second goes on where the first ends, and their
//! headers differ in nothing else but lengths, checksums and identification. So each had to have a right checksum,
//! and whoever is given the train may believe that. Frames of up to four streams may be mixed; a frame that does not
//! go on with its stream ends what was gathered of it, so no stream changes its order.
//!
//! | has to be | because |
//! | --- | --- |
//! | flags ACK, and PSH on the last only | anything else says something about this one segment |
//! | the same acknowledgement, window and options | they would be lost; timestamps differ once in a millisecond |
//! | the same TOS, TTL, flow label, tags, addresses | they are one header in the train |
//! | IPv4: DF, or identifications that count up | without DF they are those of possible fragments (RFC 6864) |
//! | full segments, a shorter one at the end | they are cut by one size |

use crate::batch::{BATCH, Batch};
use crate::checksum::{of, pseudo_header};
use crate::encapsulation::network_header;
use crate::gather::{Part, Prefixes, Tail, TxItem};
use crate::offload::{Checksum, Features, Gso, GsoKind, Offload};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const TCP: u8 = 6;

/// Streams that are gathered at the same time.
const STREAMS: usize = 4;
/// Items that are looked at, at most; what comes behind them is sent as it is.
const ITEMS: usize = 2 * BATCH;
/// A shorter frame begins no train: it is an acknowledgement, or of a stream that has little to say.
const FIRST_MIN: usize = 256;

/// Joins those of `items` that can be joined, for a port with `features`; gives how many frames fewer they are. The
/// frames that are gone travel inside others: they count as consumed.
#[inline]
pub fn coalesce(
    batch: &Batch<'_>,
    items: &mut Vec<TxItem>,
    prefixes: &mut Prefixes,
    features: Features,
) -> u32 {
    if items.len() < 2 || !features.contains(Features::CHECKSUM) {
        return 0;
    }
    let is_long = |item: &TxItem| batch.frame_len(item.frame()) >= FIRST_MIN;
    match items[..items.len() - 1].iter().position(is_long) {
        Some(first) => join(batch, items, first, prefixes, features),
        None => 0,
    }
}

/// The same, from item `first` on.
#[inline(never)]
fn join(
    batch: &Batch<'_>,
    items: &mut Vec<TxItem>,
    first: usize,
    prefixes: &mut Prefixes,
    features: Features,
) -> u32 {
    let mut pass = Pass { batch, items, prefixes, next: [0; ITEMS], gone: 0 };
    let mut streams = Streams::default();
    for i in first..pass.items.len().min(ITEMS) {
        let item = pass.items[i];
        let (head, len) = (batch.head(item.frame()), batch.frame_len(item.frame()));
        if len < FIRST_MIN && streams.is_empty() {
            continue;
        }
        let segment = match Look::at(head, len) {
            Look::Other => continue,
            Look::Segment(segment) if item.is_whole() => segment,
            // Of what stream it is, nobody knows.
            _ => {
                streams.runs.iter_mut().for_each(|run| pass.end(run));
                continue;
            }
        };
        let tag = segment.tag(head);
        let mut open = streams.runs.iter_mut().filter(|run| run.is_open && run.tag == tag);
        if let Some(run) = open.find(|run| run.is_stream_of(batch, head, &segment)) {
            if run.goes_on_with(batch, item.frame(), &segment) {
                pass.next[run.last] = i as u8;
                if !run.add(i, head, &segment) {
                    pass.end(run);
                }
                continue;
            }
            pass.end(run);
        }
        if len >= FIRST_MIN && segment.may_begin(head) && features.contains(Features::of(segment.gso())) {
            let place = streams.next();
            pass.end(place);
            *place = Run::new(tag, i, item.frame(), head, segment);
        }
    }
    streams.runs.iter_mut().for_each(|run| pass.end(run));
    pass.finish()
}

/// One look at all items.
struct Pass<'p, 'b> {
    batch: &'p Batch<'b>,
    items: &'p mut Vec<TxItem>,
    prefixes: &'p mut Prefixes,
    /// The item that follows in the same run.
    next: [u8; ITEMS],
    /// Items that travel inside others, a bit each.
    gone: u128,
}

impl Pass<'_, '_> {
    /// Ends a run, if it is not over.
    #[inline]
    fn end(&mut self, run: &mut Run) {
        if run.is_open && run.count > 1 {
            self.build(run);
        }
        run.is_open = false;
    }

    /// Makes a train of a run of several frames. One for which there is no room stays as it is.
    fn build(&mut self, run: &Run) {
        let Run { first, count, size, payload, segment, .. } = *run;
        let mut header = [0; HEADER_MAX];
        let header = &mut header[..segment.payload];
        header.copy_from_slice(&self.batch.head(run.frame)[..segment.payload]);
        segment.write(header, payload, run.is_pushed);
        let (mut followers, mut at) = (0u128, first);
        let tails = self.prefixes.push_tails((1..count).map(|_| {
            at = self.next[at].into();
            followers |= 1 << at;
            let frame = self.items[at].frame();
            let len = (self.batch.frame_len(frame) - segment.payload) as u32;
            Tail { frame: frame as u16, from: segment.payload as u32, len }
        }));
        let (Some(tails), Some(prefix)) = (tails, self.prefixes.push(header)) else { return };
        let part = Part {
            prefix,
            from: segment.payload as u32,
            len: size as u32,
            tails,
            offload: Offload {
                checksum: Checksum::Partial { start: segment.transport as u16, offset: 16 },
                gso: Some(Gso { size: size as u16, ..segment.gso() }),
                outer: None,
            }
            .into(),
        };
        if let Some(item) = self.prefixes.add(run.frame as u16, part) {
            self.items[first] = item;
            self.gone |= followers;
        }
    }

    /// Takes out what is gone; gives how many.
    fn finish(self) -> u32 {
        if self.gone != 0 {
            let mut at = 0;
            self.items.retain(|_| {
                at += 1;
                at > ITEMS || self.gone >> (at - 1) & 1 == 0
            });
        }
        self.gone.count_ones()
    }
}

/// The runs that are gathered now.
#[derive(Default)]
struct Streams {
    runs: [Run; STREAMS],
    /// The place of the next one.
    turn: usize,
}

impl Streams {
    fn is_empty(&self) -> bool {
        !self.runs.iter().any(|run| run.is_open)
    }

    /// The place for a new run; what is open there has to be ended first.
    fn next(&mut self) -> &mut Run {
        self.turn = (self.turn + 1) % STREAMS;
        &mut self.runs[self.turn]
    }
}

/// The longest header of a segment: Ethernet, two tags, IPv6, TCP with all its options.
const HEADER_MAX: usize = 14 + 8 + 40 + 60;

/// Where the headers of a TCP segment lie that has no extension headers.
#[derive(Clone, Copy, Default)]
struct Segment {
    network: usize,
    transport: usize,
    payload: usize,
    ipv6: bool,
    /// Bytes of payload.
    len: usize,
}

/// What a frame is.
enum Look {
    Segment(Segment),
    /// Surely of no TCP stream.
    Other,
    /// Nobody knows, or nothing to join.
    Opaque,
}

impl Look {
    #[inline]
    fn at(head: &[u8], len: usize) -> Look {
        Look::closely(head, len).unwrap_or(Look::Opaque)
    }

    #[inline]
    fn closely(head: &[u8], len: usize) -> Option<Look> {
        let network = network_header(head)?;
        let (ipv6, transport, protocol, end) = match word(head, network - 2)? {
            0x0800 => {
                let header = head.get(network..network + 20)?;
                let is_whole = header[0] == 0x45 && word(header, 6)? & 0x3fff == 0;
                if !is_whole {
                    return None;
                }
                (false, network + 20, header[9], network + usize::from(word(header, 2)?))
            }
            0x86dd => {
                let header = head.get(network..network + 40)?;
                (true, network + 40, header[6], network + 40 + usize::from(word(header, 4)?))
            }
            0x0806 => return Some(Look::Other),
            _ => return None,
        };
        match protocol {
            TCP => {}
            // UDP, ICMP, ICMPv6
            17 | 1 | 58 => return Some(Look::Other),
            _ => return None,
        }
        let header = usize::from(*head.get(transport + 12)? >> 4) * 4;
        let payload = transport + header;
        // Padding would become payload.
        let is_right = header >= 20 && payload <= head.len().min(end) && end == len;
        is_right.then_some(Look::Segment(Segment { network, transport, payload, ipv6, len: len - payload }))
    }
}

impl Segment {
    fn gso(&self) -> Gso {
        let kind = if self.ipv6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 };
        Gso { kind, size: 0, ecn: false }
    }

    fn sequence(&self, head: &[u8]) -> u32 {
        head[self.transport + 4..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    fn flags(&self, head: &[u8]) -> u8 {
        head[self.transport + 13]
    }

    fn id(&self, head: &[u8]) -> u16 {
        word(head, self.network + 4).unwrap_or(0)
    }

    /// What segments of one stream have in common, and others seldom.
    #[inline]
    fn tag(&self, head: &[u8]) -> u64 {
        // The ports, and what is right in front of them: the end of the destination address.
        let near = head[self.transport - 4..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let source = self.network + if self.ipv6 { 20 } else { 12 };
        let source = head[source..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        near ^ u64::from(source).rotate_left(16)
    }

    /// Both addresses, and both ports.
    fn stream<'h>(&self, head: &'h [u8]) -> (&'h [u8], &'h [u8]) {
        let addresses = self.network + if self.ipv6 { 8 } else { 12 };
        (&head[addresses..self.transport], &head[self.transport..self.transport + 4])
    }

    /// Whether others may follow it in a train.
    fn may_begin(&self, head: &[u8]) -> bool {
        self.flags(head) == ACK && self.len > 0
    }

    /// Whether the transport checksum is right, or will be made right. Lent bytes are not read to find out.
    fn is_right(&self, batch: &Batch<'_>, frame: usize) -> bool {
        let offload = batch.offload(frame);
        if offload.gso.is_some() || offload.outer.is_some() {
            return false;
        }
        match offload.checksum {
            Checksum::Verified => true,
            Checksum::Partial { start, offset } => usize::from(start) == self.transport && offset == 16,
            Checksum::None => {
                let head = batch.head(frame);
                let covered = &head[self.transport..];
                let sum = pseudo_header(&head[self.network..], TCP, covered.len() as u16);
                head.len() == self.payload + self.len
                    && sum.is_some_and(|mut sum| {
                        sum.add(covered);
                        sum.finish() == [0, 0]
                    })
            }
        }
    }

    /// Whether two headers differ only in what may differ.
    fn is_like(&self, head: &[u8], other: &Segment, theirs: &[u8]) -> bool {
        let same = |from: usize, to: usize| head[from..to] == theirs[from..to];
        let Segment { network, transport, payload, ipv6, .. } = *self;
        let ip = if ipv6 {
            same(network, network + 4) && same(network + 6, transport)
        } else {
            same(network, network + 2) && same(network + 6, network + 10) && same(network + 12, transport)
        };
        (network, payload, ipv6) == (other.network, other.payload, other.ipv6)
            && same(0, network)
            && ip
            && same(transport, transport + 4)
            && same(transport + 8, transport + 13)
            && self.flags(head) == other.flags(theirs) & !PSH
            && same(transport + 14, transport + 16)
            && same(transport + 18, payload)
    }

    /// Writes the header of a train of `payload` bytes that begins with this segment.
    fn write(&self, header: &mut [u8], payload: usize, is_pushed: bool) {
        let Segment { network, transport, ipv6, .. } = *self;
        let behind = self.payload - transport + payload;
        if ipv6 {
            header[network + 4..network + 6].copy_from_slice(&(behind as u16).to_be_bytes());
        } else {
            let length = (transport - network + behind) as u16;
            header[network + 2..network + 4].copy_from_slice(&length.to_be_bytes());
            header[network + 10..network + 12].fill(0);
            let sum = of(&header[network..transport]);
            header[network + 10..network + 12].copy_from_slice(&sum);
        }
        if is_pushed {
            header[transport + 13] |= PSH;
        }
        let partial = pseudo_header(&header[network..], TCP, behind as u16).unwrap_or_default().partial();
        header[transport + 16..transport + 18].copy_from_slice(&partial);
    }
}

/// Segments of one stream, one behind the other.
#[derive(Default)]
struct Run {
    /// Others may follow.
    is_open: bool,
    /// [`Segment::tag`] of each.
    tag: u64,
    /// Places in the items.
    first: usize,
    last: usize,
    count: usize,
    /// The first one's, and where its headers lie.
    frame: usize,
    segment: Segment,
    /// Whether the first one's checksum is known to be right.
    is_right: bool,
    /// Payload bytes of each but the last, and of all.
    size: usize,
    payload: usize,
    /// What the next one has to have.
    sequence: u32,
    id: u16,
    is_pushed: bool,
}

impl Run {
    fn new(tag: u64, item: usize, frame: usize, head: &[u8], segment: Segment) -> Run {
        Run {
            is_open: true,
            tag,
            first: item,
            last: item,
            count: 1,
            frame,
            segment,
            is_right: false,
            size: segment.len,
            payload: segment.len,
            sequence: segment.sequence(head).wrapping_add(segment.len as u32),
            id: segment.id(head).wrapping_add(1),
            is_pushed: false,
        }
    }

    fn is_stream_of(&self, batch: &Batch<'_>, head: &[u8], segment: &Segment) -> bool {
        self.segment.stream(batch.head(self.frame)) == segment.stream(head)
    }

    /// Whether `segment`, of frame `frame`, can be joined to it.
    fn goes_on_with(&mut self, batch: &Batch<'_>, frame: usize, segment: &Segment) -> bool {
        let (head, first) = (batch.head(frame), batch.head(self.frame));
        let has_order = segment.ipv6 || first[segment.network + 6] & 0x40 != 0 || segment.id(head) == self.id;
        let is_next = (1..=self.size).contains(&segment.len)
            && segment.sequence(head) == self.sequence
            && self.segment.payload + self.payload + segment.len - self.segment.network <= u16::MAX.into()
            && self.segment.is_like(first, segment, head)
            && has_order;
        self.is_right = is_next && (self.is_right || self.segment.is_right(batch, self.frame));
        self.is_right && segment.is_right(batch, frame)
    }

    /// Joins it, which is item `item`. False if nothing may follow.
    fn add(&mut self, item: usize, head: &[u8], segment: &Segment) -> bool {
        self.last = item;
        self.count += 1;
        self.payload += segment.len;
        self.sequence = self.sequence.wrapping_add(segment.len as u32);
        self.id = self.id.wrapping_add(1);
        self.is_pushed = segment.flags(head) & PSH != 0;
        segment.len == self.size && !self.is_pushed
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests;
