//! A session: what one front end has said, and the rings that follow from it.
//!
//! The messages of vhost-user.rst, decoded by rust-vmm's crate, arrive here one by one on the port's thread. A ring
//! runs when all of it is known and it is both started and enabled ("Ring states" there); whatever changes one of
//! these first takes the ring from its worker, and puts it back if it still can run. Frames meanwhile wait in the
//! ring. When the connection ends everything is taken back and forgotten.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use pmd::Features;
use vhost_protocol::VhostUserMemoryRegionBase;
use vhost_protocol::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost_protocol::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::features::{self, EVENT_IDX, PROTOCOL_FEATURES};
use super::open::Settings;
use super::pairs::Running;
use super::reason::Reason;
use crate::event::{self, Bell};
use crate::memory::{GuestMemory, MemoryError, RegionSpec};
use crate::ring::access::Direct;
use crate::ring::split::Split;
use crate::ring::{Alarm, BadRing, Lane, Layout, RING, Ring as Queue};
use crate::seat::Owner;

/// How the port stands, for whoever asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// The other end is connected.
    pub connected: bool,
    /// What the guest takes.
    pub features: Features,
    /// Feature bits that both have.
    pub negotiated: u64,
    /// How often the use of the rings came to an end.
    pub resets: u64,
    /// Why frames do not pass, beginning with the word of a [`Reason`].
    pub reason: String,
}

/// A status that the port reads and the session writes.
pub(super) type SharedStatus = Arc<Mutex<Status>>;

/// Where a ring goes.
pub(super) struct Place {
    /// The worker's seat.
    pub owner: Owner<Lane>,
    /// What wakes the worker; for the ring that we receive from.
    pub bell: Option<Arc<Bell>>,
}

/// What is known about a ring.
#[derive(Default)]
struct Ring {
    size: u32,
    addresses: Option<Layout>,
    base: u32,
    started: bool,
    enabled: bool,
    kick: Option<OwnedFd>,
    call: Option<Arc<OwnedFd>>,
}

/// The device as its front end sees it.
///
/// Rings are in the order of Virtual I/O Device 1.2, section 5.1.2: the guest's receive queue, its transmit queue,
/// the next pair's.
pub(super) struct Session {
    places: Vec<Place>,
    rings: Vec<Ring>,
    running: Arc<Running>,
    /// What we offer.
    offered: u64,
    memory: Option<Arc<GuestMemory>>,
    features: u64,
    status: SharedStatus,
    /// Raised when a ring is broken or memory is lost.
    alarm: Arc<Alarm>,
}

/// An error that says why, for the port's reason.
fn refuse(reason: Reason, detail: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, reason.because(detail)))
}

impl Session {
    /// A device with these rings, of which nothing is known yet.
    pub(super) fn new(
        places: Vec<Place>,
        running: Arc<Running>,
        status: SharedStatus,
        alarm: Arc<Alarm>,
        settings: &Settings,
    ) -> Session {
        let rings = places.iter().map(|_| Ring::default()).collect();
        let offered = features::offered(settings);
        Session { places, rings, running, offered, memory: None, features: 0, status, alarm }
    }

    fn tell(&self, tell: impl FnOnce(&mut Status)) {
        tell(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A front end has connected.
    pub(super) fn begin(&mut self) {
        self.tell(|status| {
            status.connected = true;
            status.reason = Reason::Disconnected.because("the other end has not started its rings");
        });
    }

    /// The front end has said which features it uses.
    pub(super) fn has_features(&self) -> bool {
        self.features != 0
    }

    /// Nobody is there, for this reason.
    pub(super) fn waiting(&mut self, reason: &str) {
        self.tell(|status| {
            // What was wrong with the last one is told until the next one is there.
            if status.reason.starts_with(Reason::Disconnected.word()) {
                status.reason = reason.into();
            }
        });
    }

    /// It is gone, or is to go: nothing of it is touched any more from here on.
    pub(super) fn end(&mut self, reason: String) {
        self.forget();
        self.tell(|status| *status = Status { reason, resets: status.resets, ..Status::default() });
    }

    fn forget(&mut self) {
        self.stop_all();
        if self.rings.iter().any(|ring| ring.started) {
            self.tell(|status| status.resets += 1);
        }
        self.rings.fill_with(Ring::default);
        self.memory = None;
        self.features = 0;
    }

    /// Why memory or a ring is out of use, if it is.
    pub(super) fn broken(&mut self) -> Option<String> {
        // First: what a ring reads there afterwards breaks the rules, too.
        if let Some(guest) = self.memory.as_ref().and_then(|memory| memory.lost()) {
            return Some(Reason::MemoryTruncated.because(format_args!(
                "the file of the memory region at {guest:#x} was cut short, or has no memory"
            )));
        }
        (0..self.places.len()).find_map(|index| {
            let lane = self.stop(index)?;
            if lane.broken.is_none() {
                self.run(index);
            }
            let (pair, name) = (index / 2, if index % 2 == 0 { "receive" } else { "transmit" });
            lane.broken.map(|reason| {
                Reason::BadRing.because(format_args!("the guest's {name} ring {pair}: {reason}"))
            })
        })
    }

    fn stop_all(&mut self) {
        (0..self.places.len()).for_each(|index| drop(self.stop(index)));
    }

    fn run_all(&mut self) {
        (0..self.places.len()).for_each(|index| self.run(index));
    }

    /// Takes a ring from its worker.
    fn stop(&mut self, index: usize) -> Option<Lane> {
        self.running.set(index, false);
        let Place { owner, bell } = &mut self.places[index];
        let mut lane = owner.take()?;
        // What was sent and not shown yet is part of where the ring stands.
        lane.publish();
        self.rings[index].base = lane.ring.position();
        if let (Some(bell), Some(kick)) = (bell, &self.rings[index].kick) {
            bell.unwatch(kick.as_fd());
        }
        Some(lane)
    }

    /// Gives a ring to its worker if it can run.
    fn run(&mut self, index: usize) {
        let ring = &self.rings[index];
        let (Some(memory), Some(addresses)) = (&self.memory, ring.addresses) else { return };
        if !(ring.started && ring.enabled) {
            return;
        }
        let layout = Layout { size: ring.size, ..addresses };
        let terms = features::terms(self.features);
        let split = match Split::new(memory.clone(), &layout, self.features & EVENT_IDX != 0, Direct) {
            Ok(split) => split,
            Err(reason) => return self.tell(|status| status.reason = Reason::BadRing.because(reason)),
        };
        let Place { owner, bell } = &mut self.places[index];
        owner.put(Lane::new(Queue::Split(split), terms, ring.call.clone()));
        if let Some(bell) = bell {
            if let Some(kick) = &ring.kick
                && let Err(error) = bell.watch(kick.as_fd())
            {
                return self.tell(|status| {
                    status.reason = Reason::BadMessage.because(format_args!("epoll_ctl of a kick: {error}"))
                });
            }
            bell.ring();
        }
        self.tell(|status| status.features = terms.features);
        self.running.set(index, true);
    }

    /// Changes what is known about a ring.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Ring)) -> Result<()> {
        let index = self.check(index)?;
        self.stop(index);
        change(&mut self.rings[index]);
        self.run(index);
        Ok(())
    }

    fn check(&self, index: u32) -> Result<usize> {
        let rings = self.rings.len();
        let known = usize::try_from(index).ok().filter(|index| *index < rings);
        known.ok_or_else(|| {
            refuse(Reason::Overflow, format_args!("ring {index} of a port with {rings}; raise its `queues`"))
        })
    }

    /// Uses another memory.
    fn remember(&mut self, memory: Option<Arc<GuestMemory>>) {
        self.stop_all();
        self.memory = memory;
        self.run_all();
    }
}

/// A descriptor of the other side's, if it gave one.
fn descriptor(file: Option<File>) -> Result<Option<OwnedFd>> {
    file.map(event::accept).transpose().map_err(|error| refuse(Reason::BadMessage, error))
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.forget();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.forget();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let alien = features & !self.offered;
        if alien != 0 {
            return Err(refuse(Reason::BadMessage, format_args!("features {alien:#x} were not offered")));
        }
        self.stop_all();
        self.features = features;
        self.tell(|status| status.negotiated = features);
        if features & PROTOCOL_FEATURES == 0 {
            // There is no message that enables.
            self.rings.iter_mut().for_each(|ring| ring.enabled = true);
        }
        self.run_all();
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let specs = regions.iter().map(|region| RegionSpec {
            guest: region.guest_phys_addr,
            user: region.user_addr,
            bytes: region.memory_size,
            offset: region.mmap_offset,
        });
        // The old mapping goes first: it may be most of what there is.
        self.remember(None);
        let memory = GuestMemory::map(specs.zip(files), Some(&self.alarm)).map_err(|error| {
            let many = matches!(error, MemoryError::Count(_));
            refuse(if many { Reason::Overflow } else { Reason::BadMessage }, error)
        })?;
        self.remember(Some(Arc::new(memory)));
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        if num > RING.into() {
            return Err(refuse(Reason::Overflow, BadRing::Size(num)));
        }
        self.change(index, |ring| ring.size = num)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let layout = Layout { size: 0, descriptors: descriptor, available, used };
        self.change(index, |ring| ring.addresses = Some(layout))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        // Only told back: a ring goes on where its used index says.
        self.change(index, |ring| ring.base = base)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let at = self.check(index)?;
        self.stop(at);
        let ring = &mut self.rings[at];
        let was_started = std::mem::take(&mut ring.started);
        ring.kick = None;
        let base = ring.base;
        // A guest that is reset has all its rings stopped.
        if was_started && !self.rings.iter().any(|ring| ring.started) {
            self.tell(|status| status.resets += 1);
        }
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = descriptor(fd)?;
        self.change(index.into(), |ring| (ring.started, ring.kick) = (true, kick))
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = descriptor(fd)?.map(Arc::new);
        self.change(index.into(), |ring| ring.call = call)
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        self.check(index.into()).map(drop)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        // In pairs, as every network front end takes it.
        Ok((self.rings.len() / 2) as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(index, |ring| ring.enabled = enable)
    }

    // What follows was not offered; the protocol crate lets none of it through.

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(refuse(Reason::BadMessage, "GET_CONFIG was not offered"))
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(refuse(Reason::BadMessage, "SET_CONFIG was not offered"))
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(refuse(Reason::BadMessage, "this is no GPU"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(refuse(Reason::BadMessage, "GET_SHARED_OBJECT was not offered"))
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(refuse(Reason::BadMessage, "GET_INFLIGHT_FD was not offered"))
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(refuse(Reason::BadMessage, "SET_INFLIGHT_FD was not offered"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(refuse(Reason::BadMessage, "GET_MAX_MEM_SLOTS was not offered"))
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        Err(refuse(Reason::BadMessage, "ADD_MEM_REG was not offered"))
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(refuse(Reason::BadMessage, "REM_MEM_REG was not offered"))
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(refuse(Reason::BadMessage, "SET_DEVICE_STATE_FD was not offered"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(refuse(Reason::BadMessage, "CHECK_DEVICE_STATE was not offered"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(refuse(Reason::BadMessage, "GET_SHMEM_CONFIG was not offered"))
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(refuse(Reason::BadMessage, "SET_LOG_BASE was not offered"))
    }
}
