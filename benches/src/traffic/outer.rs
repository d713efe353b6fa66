//! What stands around the frames at the second port where a tunnel ends there: the outer headers of VTEPs that answer.
//!
//! Nothing of it is configured. [`meet`] sends a frame into the first port until it comes out of the second one inside
//! a tunnel's, answering whoever asks for an Ethernet address meanwhile; the headers around it, turned round, are those
//! of what is sent back. So the VNI, the addresses and the kind of tunnel are the switch's own. That there are more
//! VTEPs than one is said by the caller: they have the addresses that follow, and share the stations.

use std::io;
use std::time::{Duration, Instant};

use pmd::checksum;
use vhost::driver::frontend::End;
use vhost::driver::queue::{HEADER, Queue};

use super::flows::UDP_WORDS;

/// The Ethernet address of all VTEPs, and of who else is asked for at the second port.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0xee, 1];

/// Bytes before the frame inside: over UDP, and of GRE with a key, both over IPv4.
const OVER_UDP: usize = 50;
const OVER_GRE: usize = 42;

/// Words of the headers over UDP, virtio-net header included; the last one has the first two bytes of the frame inside.
const WORDS: usize = 8;

/// Nothing that was sent before comes so much later.
const QUIET: Duration = Duration::from_millis(20);

/// The headers of frames to the second port.
#[derive(Clone, Debug)]
pub struct Outer {
    /// By VTEP: as they lie in memory.
    headers: Vec<[u64; WORDS]>,
    gre: bool,
}

impl Outer {
    /// The headers that answer those around `inner` in `frame`, of so many VTEPs. `None` if it is no such frame.
    fn answering(frame: &[u8], inner: &[u8], vteps: u16) -> Option<Outer> {
        let (head, tail) = frame.split_at_checked(frame.len().checked_sub(inner.len())?)?;
        if tail != inner || ![OVER_UDP, OVER_GRE].contains(&head.len()) || head[12..15] != [8, 0, 0x45] {
            return None;
        }
        let headers = (0..vteps).map(|vtep| {
            let mut bytes = [0; 8 * WORDS];
            let outer = &mut bytes[HEADER..HEADER + head.len()];
            outer.copy_from_slice(head);
            outer[..6].copy_from_slice(&head[6..12]);
            outer[6..12].copy_from_slice(&MAC);
            outer[26..30].copy_from_slice(&head[30..34]);
            outer[30..34].copy_from_slice(&head[26..30]);
            let vtep = u16::from_be_bytes([outer[28], outer[29]]).wrapping_add(vtep);
            outer[28..30].copy_from_slice(&vtep.to_be_bytes());
            outer[24..26].fill(0);
            let sum = checksum::of(&outer[14..34]);
            outer[24..26].copy_from_slice(&sum);
            // The source port is the flow's.
            if head.len() == OVER_UDP {
                outer[34..36].fill(0);
            }
            let (words, _) = bytes.as_chunks::<8>();
            std::array::from_fn(|i| u64::from_le_bytes(words[i]))
        });
        Some(Outer { headers: headers.collect(), gre: head.len() == OVER_GRE })
    }

    /// How many bytes they have.
    #[inline]
    pub fn bytes(&self) -> usize {
        if self.gre { OVER_GRE } else { OVER_UDP }
    }

    /// Sends a frame, virtio-net header included, inside them: that of the pair of addresses `pair` and the flow
    /// `flow`, of which the outer header has so much as routers spread by.
    #[inline]
    pub fn send(&self, queue: &mut Queue, inner: &[u64; UDP_WORDS], pair: u32, flow: u16) -> bool {
        // A division would be the most expensive part of it.
        let vtep = if self.headers.len() == 1 { 0 } else { pair as usize % self.headers.len() };
        let mut header = self.headers[vtep];
        let begins = inner[1] >> 32 << 48;
        let shifted: [u64; UDP_WORDS - 2] = std::array::from_fn(|i| inner[i + 1] >> 48 | inner[i + 2] << 16);
        let ends = ((inner[UDP_WORDS - 1] >> 48) as u16).to_le_bytes();
        if self.gre {
            header[6] |= begins | u64::from(flow as u8) << 40;
            queue.send_words(join::<7, { 7 + UDP_WORDS - 2 }>(&header, &shifted), &ends)
        } else {
            header[5] |= u64::from((flow & 0x3fff | 0xc000).swap_bytes()) << 48;
            header[7] |= begins;
            queue.send_words(join::<8, { 8 + UDP_WORDS - 2 }>(&header, &shifted), &ends)
        }
    }

    /// The frame inside of one that came out of the second port, as words like those of a frame without a tunnel.
    #[inline]
    pub fn inner<const N: usize>(&self, words: &[u64; UDP_WORDS + WORDS]) -> [u64; N] {
        let from = self.bytes() / 8;
        std::array::from_fn(|i| match words.get(i + from..i + from + 2) {
            Some(&[low, high]) => low >> 16 | high << 48,
            _ => 0,
        })
    }
}

#[inline]
fn join<const HEAD: usize, const ALL: usize>(head: &[u64; WORDS], rest: &[u64; UDP_WORDS - 2]) -> [u64; ALL] {
    std::array::from_fn(|i| if i < HEAD { head[i] } else { rest[i - HEAD] })
}

/// Sends `inner` into the first of the ends until it comes out of the second inside a tunnel's frame.
///
/// # Errors
/// It does not for `patience`.
pub fn meet([near, far]: [&mut End; 2], inner: &[u8], vteps: u16, patience: Duration) -> io::Result<Outer> {
    let (begun, mut sent, mut outer) = (Instant::now(), None::<Instant>, None);
    while begun.elapsed() < patience {
        if outer.is_none() && sent.is_none_or(|sent| sent.elapsed() > Duration::from_millis(1)) {
            near.send([0; HEADER], inner);
            sent = Some(Instant::now());
        }
        while near.receive().is_some() {}
        while let Some((_, frame)) = far.receive() {
            if let Some(answer) = answer(&frame) {
                far.send([0; HEADER], &answer);
            } else {
                outer = outer.or_else(|| Outer::answering(&frame, inner, vteps));
            }
        }
        if outer.is_some() && sent.is_none_or(|sent| sent.elapsed() > QUIET) {
            return outer.ok_or_else(|| io::Error::other("no tunnel"));
        }
        std::hint::spin_loop();
    }
    Err(io::Error::other("nothing comes out of the second port inside a tunnel's frame"))
}

/// The answer to a question for an Ethernet address (RFC 826).
fn answer(frame: &[u8]) -> Option<[u8; 42]> {
    let question: &[u8; 42] = frame.first_chunk()?;
    if question[12..22] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] {
        return None;
    }
    let mut answer = *question;
    answer[..6].copy_from_slice(&question[6..12]);
    answer[6..12].copy_from_slice(&MAC);
    answer[21] = 2;
    answer[22..28].copy_from_slice(&MAC);
    answer[28..32].copy_from_slice(&question[38..42]);
    answer[32..42].copy_from_slice(&question[22..32]);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::super::flows::{Flows, Seen, Side};
    use super::*;

    /// A frame of `overhead` bytes around `inner`, of VNI 7 from 192.0.2.1 to 192.0.2.2.
    fn around(inner: &[u8], overhead: usize) -> Vec<u8> {
        let mut frame = vec![0; overhead];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        frame[14..34]
            .copy_from_slice(&[0x45, 0, 0, 96, 0, 0, 64, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame[overhead - 4..].copy_from_slice(&[0, 0, 7, 0]);
        [&frame, inner].concat()
    }

    #[test]
    fn answers_carry_a_frame_back_from_each_vtep() {
        let mut flows = Flows::<UDP_WORDS>::new(Side::B, 1, 1, 64);
        let words = flows.next(3, 0x1234_5678_9abc_def0);
        let inner: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).skip(HEADER).collect();
        for overhead in [OVER_UDP, OVER_GRE] {
            let outer = Outer::answering(&around(&inner, overhead), &inner, 300).unwrap();
            assert_eq!(outer.bytes(), overhead);
            let header: Vec<u8> = outer.headers[258].iter().flat_map(|word| word.to_le_bytes()).collect();
            let header = &header[HEADER..];
            assert_eq!(header[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0xee, 1, 8, 0]);
            assert_eq!(header[26..34], [192, 0, 3, 4, 192, 0, 2, 1]);
            assert_eq!(checksum::of(&header[14..34]), [0, 0]);
            let mut frame = around(&inner, overhead);
            frame.splice(0..0, [0; HEADER]);
            frame.resize(8 * (UDP_WORDS + WORDS), 0);
            let (frame, _) = frame.as_chunks::<8>();
            let read = outer.inner::<UDP_WORDS>(&std::array::from_fn(|i| u64::from_le_bytes(frame[i])));
            assert_eq!(flows.read(&read), Some(Seen { number: 3, due: 0x1234_5678_9abc_def0 }));
        }
        assert!(Outer::answering(&inner, &inner, 1).is_none());
    }

    #[test]
    fn who_asks_for_an_address_is_answered() {
        let mut question = [0; 60];
        question[..12].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1]);
        question[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        question[22..42].copy_from_slice(&[2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
        let answer = answer(&question).unwrap();
        assert_eq!(answer[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0xee, 1]);
        assert_eq!(answer[20..42], [0, 2, 2, 0, 0, 0, 0xee, 1, 192, 0, 2, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
        question[21] = 2;
        assert_eq!(super::answer(&question), None);
    }
}
