//! A vhost-user front end: an end of traffic. Polled; the device is kicked if it wants to be and never calls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost_protocol::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight};
use vhost_protocol::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost_protocol::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::memory::{SharedMemory, USER};
use super::queue::{DeviceFault, HEADER, Queue, Role, Shape};
use super::ring::Ring;
use super::split::SplitDriver;

/// Bytes of a buffer unless said otherwise.
pub const BUFFER: u32 = 2048;

/// Rings that messages may name; more than there are, for those who try.
const RINGS: u64 = 18;

const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VIRTIO_NET_F_MRG_RXBUF`.
pub const MERGEABLE: u64 = 1 << 15;
/// `VIRTIO_F_INDIRECT_DESC`.
pub const INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const EVENT_INDEX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_RING_PACKED`.
pub const PACKED: u64 = 1 << 34;
/// `VIRTIO_F_IN_ORDER`.
pub const IN_ORDER: u64 = 1 << 35;
/// Partial checksums and frames that are to be cut are taken and given: `VIRTIO_NET_F_CSUM`, `_GUEST_CSUM`,
/// `_GUEST_TSO4`, `_GUEST_TSO6`, `_HOST_TSO4`, `_HOST_TSO6`.
pub const OFFLOADS: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;
/// What every end uses.
pub const PLAIN: u64 = VERSION_1 | MERGEABLE;

/// What an end offers.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Entries of a ring, powers of two: of the receive queues, and of the transmit queues.
    pub sizes: [u16; 2],
    /// Pairs of a receive and a transmit queue.
    pub pairs: u16,
    /// Of these features those are used that the device has.
    pub features: u64,
    /// Bytes of a buffer, header included: of the receive queues, and of the transmit queues.
    pub buffers: [u32; 2],
    /// The memory is in huge pages.
    pub huge: bool,
    /// What the device has in hand is noted in memory that outlives it ("Inflight I/O tracking", vhost-user.rst).
    pub inflight: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sizes: [256; 2],
            pairs: 1,
            features: PLAIN,
            buffers: [BUFFER; 2],
            huge: false,
            inflight: false,
        }
    }
}

/// A connected front end.
pub struct End {
    memory: Arc<SharedMemory>,
    /// Receive and transmit, pair by pair (Virtual I/O Device 1.2, section 5.1.2).
    queues: Vec<Queue>,
    features: u64,
    /// Where the device notes what it has in hand.
    inflight: Option<(VhostUserInflight, File)>,
    fault: Option<DeviceFault>,
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
        End::open(stream, Options { sizes: [size; 2], features, ..Options::default() })
    }

    /// Offers memory and rings over a connected socket.
    ///
    /// # Errors
    /// What the device or the kernel refused.
    pub fn open(stream: UnixStream, options: Options) -> io::Result<End> {
        if options.pairs == 0 {
            return Err(failed("an end has at least one pair of queues"));
        }
        let mut frontend = Frontend::from_stream(stream, RINGS);
        let features = negotiate(&mut frontend, options.features, options.inflight)?;
        let shape = |kind: usize| Shape {
            size: options.sizes[kind],
            packed: features & PACKED != 0,
            buffer: options.buffers[kind],
            mergeable: features & MERGEABLE != 0,
            indirect: features & INDIRECT != 0,
            event_index: features & EVENT_INDEX != 0,
            in_order: features & IN_ORDER != 0,
        };
        let shapes = [0, 1].map(shape);
        let pair_bytes = shapes[0].bytes() + shapes[1].bytes();
        let bytes = pair_bytes * u64::from(options.pairs);
        let memory = if options.huge { SharedMemory::huge(bytes) } else { SharedMemory::new(bytes) };
        let memory = Arc::new(memory?);
        let mut queues = Vec::new();
        for pair in 0..u64::from(options.pairs) {
            let at = pair * pair_bytes;
            queues.push(Queue::new(memory.clone(), at, Role::Receive, shapes[0])?);
            queues.push(Queue::new(memory.clone(), at + shapes[0].bytes(), Role::Transmit, shapes[1])?);
        }
        let inflight = if options.inflight {
            let size = options.sizes[0].max(options.sizes[1]);
            let rings = VhostUserInflight::new(0, 0, 2 * options.pairs, size);
            Some(frontend.get_inflight_fd(&rings).map_err(failed)?)
        } else {
            None
        };
        let mut end = End { memory, queues, features, inflight, fault: None, frontend };
        end.share()?;
        Ok(end)
    }

    /// Offers the same memory and rings over another connection, as they are: frames that were sent and not taken
    /// are there, and the device goes on where its predecessor stopped.
    ///
    /// # Errors
    /// What the device refused; a feature that its predecessor had and it has not.
    pub fn connect_again(&mut self, stream: UnixStream) -> io::Result<()> {
        self.frontend = Frontend::from_stream(stream, RINGS);
        let features = negotiate(&mut self.frontend, self.features, self.inflight.is_some())?;
        if features != self.features {
            return Err(failed(format_args!(
                "the device has features {features:#x}, not {:#x}",
                self.features
            )));
        }
        self.share()
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
        if let Some((rings, file)) = &self.inflight {
            self.frontend.set_inflight_fd(rings, file.as_raw_fd()).map_err(failed)?;
        }
        self.frontend.set_mem_table(&[region]).map_err(failed)?;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let (layout, base) = (queue.ring().layout(), queue.ring().base());
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
            let (kick, call) = queue.events();
            self.frontend.set_vring_num(index, size).map_err(failed)?;
            self.frontend.set_vring_addr(index, &addresses).map_err(failed)?;
            self.frontend.set_vring_base(index, base).map_err(failed)?;
            self.frontend.set_vring_call(index, call).map_err(failed)?;
            self.frontend.set_vring_kick(index, kick).map_err(failed)?;
            self.frontend.set_vring_enable(index, true).map_err(failed)?;
        }
        Ok(())
    }

    /// The memory that is shared.
    pub fn memory(&self) -> &Arc<SharedMemory> {
        &self.memory
    }

    /// The features that are used: those of the options that the device has.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The queues of a pair, receive and transmit, if there is such a pair.
    pub fn pair(&mut self, pair: usize) -> Option<[&mut Queue; 2]> {
        match self.queues.chunks_exact_mut(2).nth(pair)? {
            [receive, transmit] => Some([receive, transmit]),
            _ => None,
        }
    }

    fn first(&mut self) -> [&mut Queue; 2] {
        let [receive, transmit, ..] = &mut self.queues[..] else { unreachable!("there is a pair") };
        [receive, transmit]
    }

    /// Sends a frame of at most a buffer on the first pair, with its header. False if the ring is full.
    pub fn send(&mut self, header: [u8; HEADER], frame: &[u8]) -> bool {
        let [_, transmit] = self.first();
        if let Err(fault) = transmit.reclaim() {
            self.fault = Some(fault);
            return false;
        }
        let sent = transmit.send(&[&header, frame]);
        transmit.publish();
        sent
    }

    /// The next frame of the first pair, with its header.
    pub fn receive(&mut self) -> Option<([u8; HEADER], Vec<u8>)> {
        let [receive, _] = self.first();
        match receive.receive() {
            Ok(None) => None,
            Ok(Some(frame)) => {
                let (header, mut bytes) = (frame.head(), frame.to_vec());
                receive.publish();
                bytes.drain(..HEADER);
                Some((header, bytes))
            }
            Err(fault) => {
                self.fault = Some(fault);
                None
            }
        }
    }

    /// How the device broke the rules, seen by [`send`](Self::send) or [`receive`](Self::receive).
    pub fn fault(&self) -> Option<DeviceFault> {
        self.fault
    }

    /// The rings of the first pair, to do with them what one likes: receive and transmit. None if they are packed.
    pub fn rings(&mut self) -> Option<[&mut SplitDriver; 2]> {
        let [receive, transmit] = self.first().map(Queue::ring);
        match (receive, transmit) {
            (Ring::Split(receive), Ring::Split(transmit)) => Some([receive, transmit]),
            _ => None,
        }
    }

    /// The front end's side of the messages.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }
}

/// Agrees with the device on features: those of `wanted` that it has.
fn negotiate(frontend: &mut Frontend, wanted: u64, inflight: bool) -> io::Result<u64> {
    frontend.set_owner().map_err(failed)?;
    let offered = frontend.get_features().map_err(failed)?;
    let protocol = frontend.get_protocol_features().map_err(failed)?;
    let mut uses = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::MQ;
    uses.set(VhostUserProtocolFeatures::INFLIGHT_SHMFD, inflight);
    frontend.set_protocol_features(protocol & uses).map_err(failed)?;
    if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    let features = offered & (wanted | PROTOCOL_FEATURES);
    frontend.set_features(features).map_err(failed)?;
    if features & PLAIN == 0 {
        return Err(failed(
            "the device has neither VIRTIO_F_VERSION_1 nor mergeable buffers: too short a header",
        ));
    }
    Ok(features)
}
