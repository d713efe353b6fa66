//! A vhost-user front end that says and does whatever it is told to, right or wrong.
//!
//! It writes messages byte by byte and knows nothing of the switch's own code, so that a mistake there is not made
//! here as well (vhost-user.rst; Virtual I/O Device 1.2, sections 2.7, 2.8 and 5.1). Its memory is a memfd that it
//! reads and writes by `pread` and `pwrite`: slow, and safe whatever becomes of the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Where the memory begins for the guest.
pub const GUEST: u64 = 1 << 32;
/// Where it begins for the front end.
pub const USER: u64 = 0x7000_0000_0000;
/// Bytes of the memory.
pub const MEMORY: u64 = 8 << 20;
/// Entries of a ring.
pub const SIZE: u16 = 1024;
/// Bytes of a buffer.
pub const BUFFER: u64 = 2048;
/// Bytes of the virtio-net header.
pub const HEADER: usize = 12;

/// The ring into which the switch writes, and the one from which it reads.
pub const RECEIVE: usize = 0;
/// See [`RECEIVE`].
pub const TRANSMIT: usize = 1;

/// Flags of a descriptor (section 2.7.5).
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// A table of descriptors.
pub const INDIRECT: u16 = 4;

/// A packed ring's marks of a descriptor: made available, used (section 2.8.1).
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Messages by the number of their request.
pub mod request {
    #![allow(missing_docs, reason = "the names are those of vhost-user.rst")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

/// `VIRTIO_NET_F_MRG_RXBUF`, `VHOST_USER_F_PROTOCOL_FEATURES`, `VIRTIO_F_VERSION_1`.
pub const FEATURES: u64 = 1 << 15 | 1 << 30 | 1 << 32;

/// `VIRTIO_F_RING_PACKED`.
const RING_PACKED: u64 = 1 << 34;

/// `VHOST_USER_PROTOCOL_F_LOG_SHMFD`, `_INFLIGHT_SHMFD`, `_CONFIGURE_MEM_SLOTS`.
const PROTOCOL_FEATURES: u64 = 1 << 1 | 1 << 12 | 1 << 15;

/// The kinds of ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three tables.
    Split,
    /// One ring that both sides write.
    Packed,
}

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Numbers of 32 bits, as they lie in a message.
pub fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Numbers of 64 bits, as they lie in a message.
pub fn longs(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A table of regions, each with guest address, bytes, address of the front end, and place in its file.
pub fn table(regions: &[[u64; 4]]) -> Vec<u8> {
    let count = u32::try_from(regions.len()).expect("few regions");
    [words(&[count, 0]), longs(regions.as_flattened())].concat()
}

/// One end of a connection, with memory and two rings.
#[derive(Debug)]
pub struct FrontEnd {
    socket: UnixStream,
    /// The kind of its rings.
    pub kind: Kind,
    /// The memory's file.
    pub memory: File,
    /// By which the switch is kicked, for each ring.
    pub kicks: [OwnedFd; 2],
    /// By which it calls.
    pub calls: [OwnedFd; 2],
    /// What was made available, and what has been collected: chains, or entries of a packed ring.
    available: [u16; 2],
    collected: [u16; 2],
    /// Descriptors of a packed ring that were written and not offered, and how many each chain has that was.
    written: [u16; 2],
    chains: [VecDeque<u16>; 2],
}

/// Memory for a front end: `bytes` of a new file.
///
/// # Errors
/// What the kernel said.
pub fn memory(bytes: u64, flags: MemfdFlags) -> io::Result<File> {
    let file = File::from(memfd_create("front end", flags | MemfdFlags::CLOEXEC)?);
    file.set_len(bytes)?;
    Ok(file)
}

impl FrontEnd {
    /// Connects, and says nothing yet.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connect(path: &Path, kind: Kind) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(ANSWER))?;
        let descriptor = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            socket,
            kind,
            memory: memory(MEMORY, MemfdFlags::empty())?,
            kicks: [descriptor()?, descriptor()?],
            calls: [descriptor()?, descriptor()?],
            available: [0; 2],
            collected: [0; 2],
            written: [0; 2],
            chains: Default::default(),
        })
    }

    /// Connects and says all that a decent front end says.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn decent(path: &Path, kind: Kind) -> io::Result<Self> {
        let mut end = Self::connect(path, kind)?;
        end.negotiate()?;
        end.share()?;
        end.post();
        end.settle()?;
        Ok(end)
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn say(&self, request: u32, payload: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let size = u32::try_from(payload.len()).expect("short");
        self.raw(&[words(&[request, 1, size]), payload.to_vec()].concat(), files)
    }

    /// Sends bytes with descriptors.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn raw(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads the answer to a request, past those to others: what follows its header.
    ///
    /// # Errors
    /// The switch hung up, or is silent.
    fn hear(&mut self, request: u32) -> io::Result<Vec<u8>> {
        loop {
            let mut header = [0; 12];
            self.socket.read_exact(&mut header)?;
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
            let mut payload = vec![0; word(8) as usize];
            self.socket.read_exact(&mut payload)?;
            if word(0) == request {
                return Ok(payload);
            }
        }
    }

    /// Waits until all that was said has been followed.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn settle(&mut self) -> io::Result<u64> {
        self.say(request::GET_FEATURES, &[], &[])?;
        let answer = self.hear(request::GET_FEATURES)?;
        let bytes = answer.as_slice().try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Waits until the switch hangs up.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_end(&mut self) -> io::Result<()> {
        match self.socket.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(()),
        }
    }

    /// Owner and features.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn negotiate(&mut self) -> io::Result<()> {
        self.say(request::SET_OWNER, &[], &[])?;
        self.say(request::SET_PROTOCOL_FEATURES, &longs(&[PROTOCOL_FEATURES]), &[])?;
        self.agree(0)
    }

    /// Features, and these besides.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn agree(&self, further: u64) -> io::Result<()> {
        let ring = if self.kind == Kind::Packed { RING_PACKED } else { 0 };
        self.say(request::SET_FEATURES, &longs(&[FEATURES | ring | further]), &[])
    }

    /// Memory and rings.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn share(&self) -> io::Result<()> {
        self.share_memory(&[[GUEST, MEMORY, USER, 0]], &[self.memory.as_fd()])?;
        [RECEIVE, TRANSMIT].into_iter().try_for_each(|ring| self.start(ring))
    }

    /// Memory.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn share_memory(&self, regions: &[[u64; 4]], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.say(request::SET_MEM_TABLE, &table(regions), files)
    }

    /// A ring, from its size to its start.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn start(&self, ring: usize) -> io::Result<()> {
        let index = u32::try_from(ring).expect("small");
        self.say(request::SET_VRING_NUM, &words(&[index, SIZE.into()]), &[])?;
        self.place(ring, [at(ring), used_at(ring), available_at(ring)].map(|offset| USER + offset))?;
        // A packed ring begins with wrap counters of 1, in both halves.
        let base = if self.kind == Kind::Packed { 0x8000_8000 } else { 0 };
        self.say(request::SET_VRING_BASE, &words(&[index, base]), &[])?;
        self.say(request::SET_VRING_CALL, &longs(&[index.into()]), &[self.calls[ring].as_fd()])?;
        self.say(request::SET_VRING_KICK, &longs(&[index.into()]), &[self.kicks[ring].as_fd()])?;
        self.say(request::SET_VRING_ENABLE, &words(&[index, 1]), &[])
    }

    /// Where a ring's descriptors, used and available entries are.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn place(&self, ring: usize, addresses: [u64; 3]) -> io::Result<()> {
        let index = words(&[u32::try_from(ring).expect("small"), 0]);
        self.say(request::SET_VRING_ADDR, &[index, longs(&addresses), longs(&[0])].concat(), &[])
    }

    /// Asks for what is written to a ring's used entries to be noted.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn note_used(&self, ring: usize) -> io::Result<()> {
        let index = u32::try_from(ring).expect("small");
        let addresses = [at(ring), used_at(ring), available_at(ring)].map(|offset| USER + offset);
        let log = longs(&[GUEST + used_at(ring)]);
        self.say(request::SET_VRING_ADDR, &[words(&[index, 1]), longs(&addresses), log].concat(), &[])
    }

    /// Writes into the memory.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, offset).expect("a memfd can be written");
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, offset).expect("a memfd can be read");
        bytes
    }

    /// Writes a descriptor of a ring. In a packed ring its place is the next one, `next` follows from that, and the
    /// first one of a chain is not available before it is [offered](Self::offer).
    pub fn describe(&mut self, ring: usize, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        let descriptor = match self.kind {
            Kind::Split => descriptor(address, bytes, flags, next),
            Kind::Packed => {
                let at = self.available[ring].wrapping_add(self.written[ring]);
                assert_eq!(index, at % SIZE, "a chain lies in the order of the ring");
                let marks = if self.written[ring] == 0 { !marks(at) } else { marks(at) };
                self.written[ring] += 1;
                descriptor(address, bytes, index, flags | marks & (AVAILABLE | USED))
            }
        };
        self.write(at(ring) + 16 * u64::from(index), &descriptor);
    }

    /// Makes the chain that begins at `head` available.
    pub fn offer(&mut self, ring: usize, head: u16) {
        match self.kind {
            Kind::Split => {
                let slot = u64::from(self.available[ring] % SIZE);
                self.write(available_at(ring) + 4 + 2 * slot, &head.to_le_bytes());
                self.available[ring] = self.available[ring].wrapping_add(1);
                self.set_available(ring, self.available[ring]);
            }
            Kind::Packed => {
                let entries = std::mem::take(&mut self.written[ring]);
                let place = at(ring) + 16 * u64::from(head) + 14;
                let flags = u16::from_le_bytes(self.read(place)) & !(AVAILABLE | USED);
                self.write(place, &(flags | marks(self.available[ring])).to_le_bytes());
                self.available[ring] = self.available[ring].wrapping_add(entries);
                self.chains[ring].push_back(entries);
            }
        }
    }

    /// Writes over the descriptors of receive buffers that are with the switch, but for the next `spare`.
    pub fn replace_buffers(&mut self, spare: u16, address: u64, bytes: u32, flags: u16) {
        while self.receive().is_some() {}
        let first = self.collected[RECEIVE].wrapping_add(spare);
        for number in (0..SIZE - spare).map(|number| first.wrapping_add(number)) {
            let index = number % SIZE;
            let descriptor = match self.kind {
                Kind::Split => descriptor(address, bytes, flags, 0),
                Kind::Packed => descriptor(address, bytes, index, flags | marks(number)),
            };
            self.write(at(RECEIVE) + 16 * u64::from(index), &descriptor);
        }
    }

    /// Sets the available index of a split ring.
    pub fn set_available(&self, ring: usize, index: u16) {
        self.write(available_at(ring) + 2, &index.to_le_bytes());
    }

    /// Whether the switch has used the entry of a packed ring that is the `at`th since it began.
    fn is_used(&self, ring: usize, at: u16) -> bool {
        let flags = u16::from_le_bytes(self.read(self::at(ring) + 16 * u64::from(at % SIZE) + 14));
        let used = if is_odd_lap(at) { 0 } else { AVAILABLE | USED };
        flags & (AVAILABLE | USED) == used
    }

    /// How many chains the switch has given back and nobody has collected.
    pub fn given_back(&self, ring: usize) -> u16 {
        let mut at = self.collected[ring];
        match self.kind {
            Kind::Split => u16::from_le_bytes(self.read(used_at(ring) + 2)).wrapping_sub(at),
            Kind::Packed => {
                let used = self.chains[ring].iter().take_while(|entries| {
                    let used = self.is_used(ring, at);
                    at = at.wrapping_add(**entries);
                    used
                });
                used.count() as u16
            }
        }
    }

    /// Whether the switch has given back all that it was given to read.
    pub fn is_idle(&self) -> bool {
        let chains = match self.kind {
            Kind::Split => usize::from(self.available[TRANSMIT].wrapping_sub(self.collected[TRANSMIT])),
            Kind::Packed => self.chains[TRANSMIT].len(),
        };
        usize::from(self.given_back(TRANSMIT)) == chains
    }

    fn is_full(&self, ring: usize) -> bool {
        self.available[ring].wrapping_sub(self.collected[ring]) == SIZE
    }

    fn collect(&mut self, ring: usize) -> (u16, u32) {
        let slot = u64::from(self.collected[ring] % SIZE);
        let (entries, head, bytes) = match self.kind {
            Kind::Split => {
                let entry = u64::from_le_bytes(self.read(used_at(ring) + 4 + 8 * slot));
                (1, entry as u16, (entry >> 32) as u32)
            }
            Kind::Packed => {
                let entry = u64::from_le_bytes(self.read(at(ring) + 16 * slot + 8));
                let entries = self.chains[ring].pop_front().expect("it was given back");
                (entries, (entry >> 32) as u16, entry as u32)
            }
        };
        self.collected[ring] = self.collected[ring].wrapping_add(entries);
        (head, bytes)
    }

    /// Fills a ring that nothing was offered in again and again for `time`: each entry is one descriptor, with address,
    /// bytes and flags.
    pub fn flood(&mut self, ring: usize, time: Duration, chain: impl Fn(u16) -> (u64, u32, u16)) {
        let table = |lap: u16| -> Vec<u8> {
            let entry = |index| {
                let (address, bytes, flags) = chain(index);
                match self.kind {
                    Kind::Split => descriptor(address, bytes, flags, 0),
                    Kind::Packed => descriptor(address, bytes, index, flags | marks(lap * SIZE)),
                }
            };
            (0..SIZE).flat_map(entry).collect()
        };
        let tables = [0, 1].map(table);
        let begun = Instant::now();
        if self.kind == Kind::Split {
            let heads: Vec<u8> = (0..SIZE).flat_map(u16::to_le_bytes).collect();
            self.write(available_at(ring) + 4, &heads);
            self.write(at(ring), &tables[0]);
            while begun.elapsed() < time {
                self.set_available(ring, self.given_back(ring).wrapping_add(SIZE));
                self.kick(ring);
            }
            return;
        }
        for lap in [0, 1].into_iter().cycle() {
            // The kernel copies in no order that the other end may rely on: the flags of the first go last (2.8.6).
            let (first, rest) = tables[usize::from(lap)].split_at(16);
            self.write(at(ring) + 16, rest);
            self.write(at(ring), &first[..14]);
            self.write(at(ring) + 14, &first[14..]);
            self.kick(ring);
            while (0..SIZE).any(|index| !self.is_used(ring, lap * SIZE + index)) {
                if begun.elapsed() >= time {
                    return;
                }
            }
        }
    }

    /// Posts all receive buffers.
    pub fn post(&mut self) {
        for index in 0..SIZE {
            self.describe(RECEIVE, index, GUEST + buffer_at(RECEIVE, index), BUFFER as u32, WRITE, 0);
            self.offer(RECEIVE, index);
        }
    }

    /// Sends a frame, with a header that asks for nothing, and kicks. False if the ring is full.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let given_back = self.given_back(TRANSMIT);
        for _ in 0..given_back {
            self.collect(TRANSMIT);
        }
        if self.is_full(TRANSMIT) {
            return false;
        }
        // Chains come back in order.
        let index = self.available[TRANSMIT] % SIZE;
        let offset = buffer_at(TRANSMIT, index);
        self.write(offset, &[&[0; HEADER], frame].concat());
        let bytes = u32::try_from(HEADER + frame.len()).expect("short");
        self.describe(TRANSMIT, index, GUEST + offset, bytes, 0, 0);
        self.offer(TRANSMIT, index);
        self.kick(TRANSMIT);
        true
    }

    /// Kicks the switch.
    pub fn kick(&self, ring: usize) {
        // A full counter is a kick, too.
        let _ = rustix::io::write(&self.kicks[ring], &1_u64.to_le_bytes());
    }

    /// The next frame. Frames that need several buffers are not for this front end.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        if self.given_back(RECEIVE) == 0 {
            return None;
        }
        let (head, written) = self.collect(RECEIVE);
        let mut frame = vec![0; (written as usize).min(BUFFER as usize)];
        self.memory.read_exact_at(&mut frame, buffer_at(RECEIVE, head)).ok()?;
        // Chains come back in order.
        self.describe(RECEIVE, head, GUEST + buffer_at(RECEIVE, head), BUFFER as u32, WRITE, 0);
        self.offer(RECEIVE, head);
        frame.drain(..HEADER.min(frame.len()));
        Some(frame)
    }
}

/// Whether an entry of a packed ring, counted from the beginning, lies in a lap with a wrap counter of 0.
fn is_odd_lap(at: u16) -> bool {
    !(at / SIZE).is_multiple_of(2)
}

/// The marks of such an entry when it is available.
fn marks(at: u16) -> u16 {
    if is_odd_lap(at) { USED } else { AVAILABLE }
}

/// A descriptor as it lies in memory: address, bytes, and flags and the next one's index; in a packed ring an id and
/// flags.
pub fn descriptor(address: u64, bytes: u32, third: u16, fourth: u16) -> [u8; 16] {
    let words =
        u128::from(address) | u128::from(bytes) << 64 | u128::from(third) << 96 | u128::from(fourth) << 112;
    words.to_le_bytes()
}

/// Where a ring begins: its descriptors.
pub fn at(ring: usize) -> u64 {
    ring as u64 * 0x1_0000
}

/// Where its available ring is.
pub fn available_at(ring: usize) -> u64 {
    at(ring) + 0x5000
}

/// Where its used ring is.
pub fn used_at(ring: usize) -> u64 {
    at(ring) + 0x6000
}

/// Where its buffer of this number is.
pub fn buffer_at(ring: usize, index: u16) -> u64 {
    ((2 + 2 * ring as u64) << 20) + BUFFER * u64::from(index)
}
