//! A vhost-user front end with one queue pair: an end of traffic.
//!
//! Plain on purpose: one buffer of [`BUFFER`] bytes a descriptor, one frame a buffer, polled.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost_protocol::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost_protocol::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::memory::{SharedMemory, USER};
use super::ring::{SplitDriver, WRITE};

/// Bytes of a buffer.
pub const BUFFER: u32 = 2048;

/// Bytes of the virtio-net header.
const HEADER: usize = 12;

/// Rings that messages may name; more than there are, for those who try.
const RINGS: u64 = 8;

const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VIRTIO_F_VERSION_1` and `VIRTIO_NET_F_MRG_RXBUF`.
pub const PLAIN: u64 = 1 << 32 | 1 << 15;

/// One of the two rings: buffers follow it in memory, one for each entry.
struct Queue {
    ring: SplitDriver,
    buffers: u64,
    free: Vec<u16>,
    kick: EventFd,
    call: EventFd,
}

/// A connected front end.
pub struct End {
    memory: Arc<SharedMemory>,
    /// Receive and transmit.
    queues: [Queue; 2],
    /// Messages go here; the port sees the end of it when it is dropped.
    frontend: Frontend,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl End {
    /// Offers memory and rings of `size` entries over a connected socket. Of `features` those are used that the
    /// device has.
    ///
    /// # Errors
    /// What the device or the kernel refused.
    pub fn new(stream: UnixStream, size: u16, features: u64) -> io::Result<End> {
        let room = SplitDriver::bytes(size).next_multiple_of(4096) + u64::from(size) * u64::from(BUFFER);
        let memory = Arc::new(SharedMemory::new(2 * room)?);
        let queue = |at| {
            let flags = EFD_NONBLOCK;
            Ok::<_, io::Error>(Queue {
                ring: SplitDriver::new(memory.clone(), at, size),
                buffers: at + SplitDriver::bytes(size).next_multiple_of(4096),
                free: (0..size).rev().collect(),
                kick: EventFd::new(flags)?,
                call: EventFd::new(flags)?,
            })
        };
        let queues = [queue(0)?, queue(room)?];
        let mut end = End { memory, queues, frontend: Frontend::from_stream(stream, RINGS) };
        end.post();
        end.negotiate(features)?;
        end.share()?;
        Ok(end)
    }

    fn negotiate(&mut self, features: u64) -> io::Result<()> {
        self.frontend.set_owner().map_err(failed)?;
        let offered = self.frontend.get_features().map_err(failed)?;
        let protocol = self.frontend.get_protocol_features().map_err(failed)?;
        let wanted = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::MQ;
        self.frontend.set_protocol_features(protocol & wanted).map_err(failed)?;
        self.frontend.set_hdr_flags(vhost_protocol::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        self.frontend.set_features(offered & (features | PROTOCOL_FEATURES)).map_err(failed)
    }

    /// Shares memory and rings: from here on frames pass.
    ///
    /// # Errors
    /// What the device refused.
    pub fn share(&mut self) -> io::Result<()> {
        let (file, spec) = self.memory.region();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: spec.guest,
            memory_size: spec.bytes,
            userspace_addr: USER,
            mmap_offset: spec.offset,
            mmap_handle: file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).map_err(failed)?;
        for (index, queue) in self.queues.iter().enumerate() {
            let layout = queue.ring.layout();
            let size = layout.size as u16;
            let addresses = VringConfigData {
                queue_max_size: size,
                queue_size: size,
                flags: 0,
                desc_table_addr: layout.descriptors,
                used_ring_addr: layout.used,
                avail_ring_addr: layout.available,
                log_addr: None,
            };
            self.frontend.set_vring_num(index, size).map_err(failed)?;
            self.frontend.set_vring_addr(index, &addresses).map_err(failed)?;
            self.frontend.set_vring_base(index, 0).map_err(failed)?;
            self.frontend.set_vring_call(index, &queue.call).map_err(failed)?;
            self.frontend.set_vring_kick(index, &queue.kick).map_err(failed)?;
            self.frontend.set_vring_enable(index, true).map_err(failed)?;
        }
        Ok(())
    }

    /// Posts all free receive buffers.
    fn post(&mut self) {
        let [queue, _] = &mut self.queues;
        while let Some(index) = queue.free.pop() {
            let offset = queue.buffers + u64::from(index) * u64::from(BUFFER);
            queue.ring.chain(index, &[(offset, BUFFER)], WRITE);
            queue.ring.offer(index);
        }
    }

    /// Sends a frame of at most a buffer, with its header. False if the ring is full.
    pub fn send(&mut self, header: [u8; HEADER], frame: &[u8]) -> bool {
        let [_, queue] = &mut self.queues;
        while let Some((head, _)) = queue.ring.collect() {
            queue.free.push(head);
        }
        let Some(index) = queue.free.pop() else { return false };
        let offset = queue.buffers + u64::from(index) * u64::from(BUFFER);
        self.memory.write(offset, &header);
        self.memory.write(offset + HEADER as u64, frame);
        queue.ring.chain(index, &[(offset, (HEADER + frame.len()) as u32)], 0);
        queue.ring.offer(index);
        if queue.ring.wants_kick() {
            // A full counter is a kick, too.
            let _ = queue.kick.write(1);
        }
        true
    }

    /// The next frame, with its header.
    pub fn receive(&mut self) -> Option<([u8; HEADER], Vec<u8>)> {
        let [queue, _] = &mut self.queues;
        let (mut header, mut frame) = ([0; HEADER], Vec::new());
        let mut buffers = 1;
        let mut at = 0;
        while at < buffers {
            let Some((head, written)) = queue.ring.collect() else {
                // The device shows all buffers of a frame at once.
                return None;
            };
            let mut bytes = vec![0; written as usize];
            self.memory.read(queue.buffers + u64::from(head) * u64::from(BUFFER), &mut bytes);
            if at == 0 {
                header.copy_from_slice(&bytes[..HEADER]);
                buffers = u16::from_le_bytes([header[10], header[11]]);
                bytes.drain(..HEADER);
            }
            frame.extend_from_slice(&bytes);
            queue.free.push(head);
            at += 1;
        }
        self.post();
        Some((header, frame))
    }

    /// The rings, to do with them what one likes: receive and transmit.
    pub fn rings(&mut self) -> [&mut SplitDriver; 2] {
        let [receive, transmit] = &mut self.queues;
        [&mut receive.ring, &mut transmit.ring]
    }

    /// The front end's side of the messages.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }
}
