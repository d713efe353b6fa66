//! A vhost-user front end that says and does whatever it is told to, right or wrong.
//!
//! It writes messages byte by byte and knows nothing of the switch's own code, so that a mistake there is not made
//! here as well (vhost-user.rst; Virtual I/O Device 1.2, sections 2.7 and 5.1). Its memory is a memfd that it reads
//! and writes by `pread` and `pwrite`: slow, and safe whatever becomes of the file.

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

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
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const ADD_MEM_REG: u32 = 37;
}

/// `VIRTIO_NET_F_MRG_RXBUF`, `VHOST_USER_F_PROTOCOL_FEATURES`, `VIRTIO_F_VERSION_1`.
pub const FEATURES: u64 = 1 << 15 | 1 << 30 | 1 << 32;

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
    /// The memory's file.
    pub memory: File,
    /// By which the switch is kicked, for each ring.
    pub kicks: [OwnedFd; 2],
    /// By which it calls.
    pub calls: [OwnedFd; 2],
    available: [u16; 2],
    collected: [u16; 2],
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
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(ANSWER))?;
        let descriptor = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            socket,
            memory: memory(MEMORY, MemfdFlags::empty())?,
            kicks: [descriptor()?, descriptor()?],
            calls: [descriptor()?, descriptor()?],
            available: [0; 2],
            collected: [0; 2],
        })
    }

    /// Connects and says all that a decent front end says.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn decent(path: &Path) -> io::Result<Self> {
        let mut end = Self::connect(path)?;
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

    /// Reads an answer: what follows its header.
    ///
    /// # Errors
    /// The switch hung up, or is silent.
    pub fn hear(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; 12];
        self.socket.read_exact(&mut header)?;
        let size = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let mut payload = vec![0; size as usize];
        self.socket.read_exact(&mut payload)?;
        Ok(payload)
    }

    /// Waits until all that was said has been followed.
    ///
    /// # Errors
    /// The switch hung up.
    pub fn settle(&mut self) -> io::Result<u64> {
        self.say(request::GET_FEATURES, &[], &[])?;
        let answer = self.hear()?;
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
        self.say(request::SET_PROTOCOL_FEATURES, &longs(&[0]), &[])?;
        self.say(request::SET_FEATURES, &longs(&[FEATURES]), &[])
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
        self.say(request::SET_VRING_BASE, &words(&[index, 0]), &[])?;
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

    /// Writes into the memory.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, offset).expect("a memfd can be written");
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, offset).expect("a memfd can be read");
        bytes
    }

    /// Writes a descriptor of a ring.
    pub fn describe(&self, ring: usize, index: u16, address: u64, bytes: u32, flags: u16, next: u16) {
        self.write(at(ring) + 16 * u64::from(index), &descriptor(address, bytes, flags, next));
    }

    /// Makes the chain that begins at `head` available.
    pub fn offer(&mut self, ring: usize, head: u16) {
        let slot = u64::from(self.available[ring] % SIZE);
        self.write(available_at(ring) + 4 + 2 * slot, &head.to_le_bytes());
        self.available[ring] = self.available[ring].wrapping_add(1);
        self.set_available(ring, self.available[ring]);
    }

    /// Sets the available index.
    pub fn set_available(&self, ring: usize, index: u16) {
        self.write(available_at(ring) + 2, &index.to_le_bytes());
    }

    /// How many chains the switch has given back and nobody has collected.
    pub fn given_back(&self, ring: usize) -> u16 {
        u16::from_le_bytes(self.read(used_at(ring) + 2)).wrapping_sub(self.collected[ring])
    }

    /// How many chains are with the switch.
    pub fn outstanding(&self, ring: usize) -> u16 {
        self.available[ring].wrapping_sub(self.collected[ring])
    }

    fn collect(&mut self, ring: usize) -> (u16, u32) {
        let slot = u64::from(self.collected[ring] % SIZE);
        let entry = u64::from_le_bytes(self.read(used_at(ring) + 4 + 8 * slot));
        self.collected[ring] = self.collected[ring].wrapping_add(1);
        (entry as u16, (entry >> 32) as u32)
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
        if self.outstanding(TRANSMIT) == SIZE {
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
        self.offer(RECEIVE, head);
        frame.drain(..HEADER.min(frame.len()));
        Some(frame)
    }
}

/// A descriptor as it lies in memory.
pub fn descriptor(address: u64, bytes: u32, flags: u16, next: u16) -> [u8; 16] {
    let words =
        u128::from(address) | u128::from(bytes) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
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
