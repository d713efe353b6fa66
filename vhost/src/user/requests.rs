//! What each message of a front end changes.
//!
//! The messages of vhost-user.rst, decoded by rust-vmm's crate or by [`message`](super::message).

use std::fs::File;
use std::sync::Arc;

use vhost_protocol::VhostUserMemoryRegionBase;
use vhost_protocol::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost_protocol::vhost_user::{GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::features::PROTOCOL_FEATURES;
use super::inflight::{Inflight, Shape};
use super::message::Body;
use super::reason::Reason;
use super::session::{Session, descriptor, refuse, word};
use crate::memory::{GuestMemory, REGIONS, RegionSpec};
use crate::ring::dirty::Bitmap;
use crate::ring::{BadRing, Layout, RING};

/// What we offer of the protocol itself.
const PROTOCOL: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::RARP)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::MTU)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// The smallest MTU that a guest may ask for (Virtual I/O Device 1.2, section 5.1.4.1).
const MIN_MTU: u64 = 68;

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

fn spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest: region.guest_phys_addr,
        user: region.user_addr,
        bytes: region.memory_size,
        offset: region.mmap_offset,
    }
}

impl Session {
    /// Follows a message that the protocol crate does not know. False: it means well, and cannot be.
    pub(super) fn follow(&mut self, message: &Body) -> Result<bool> {
        match *message {
            Body::Enable { index, state } => self.set_vring_enable(index, state == 1).map(|()| true),
            Body::Rarp(mac) => {
                self.announce(mac);
                Ok(true)
            }
            Body::Mtu(mtu) => {
                let fits = (MIN_MTU..=self.mtu.into()).contains(&mtu);
                if fits {
                    self.tell(|status| status.mtu = u32::try_from(mtu).ok());
                }
                Ok(fits)
            }
            Body::LogFd => Ok(true),
        }
    }

    /// The configuration of the device: Virtual I/O Device 1.2, section 5.1.4.
    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        let mtu = u16::try_from(self.mtu).unwrap_or(u16::MAX);
        for (at, value) in [(6, LINK_UP), (8, self.rings.len() as u16 / 2), (10, mtu)] {
            config[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    /// What an inflight region is for, within our limits.
    fn shape(&self, inflight: &VhostUserInflight) -> Result<Shape> {
        let (queues, size) = (inflight.num_queues, inflight.queue_size);
        if usize::from(queues) > self.rings.len() || size > RING {
            let detail = format_args!("an inflight region for {queues} rings of {size} entries");
            return Err(refuse(Reason::Overflow, detail));
        }
        Ok(Shape { queues, size })
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.forget_pages();
        self.forget();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.forget_pages();
        self.reset();
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
        self.table = regions.iter().map(spec).zip(files).collect();
        self.map()?;
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
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let layout = Layout { size: 0, descriptors: descriptor, available, used };
        let log = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log);
        self.change(index, |ring| (ring.addresses, ring.log) = (Some(layout), log))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        // Where a split ring's used index is another, that holds: what lies between the two was taken by somebody and
        // not given back, and would be lost to the guest.
        let at = self.check(index)?;
        // The first time it may be what the front end knows from before we were away; then it knows better than we.
        if self.rings[at].told.is_some() {
            self.stop(at);
            self.forget_page(at);
        }
        self.change(index, |ring| (ring.base, ring.told) = (base, Some(base)))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let at = self.check(index)?;
        self.stop(at);
        let ring = &mut self.rings[at];
        let was_started = std::mem::take(&mut ring.started);
        ring.kick = None;
        ring.told = Some(ring.base);
        let (base, size) = (ring.base, ring.size);
        // The front end knows now, and will say where it goes on.
        if let Some(record) = self.inflight.as_ref().and_then(|inflight| inflight.record(at, size)) {
            record.forget();
        }
        self.forget_page(at);
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

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let error = descriptor(fd)?;
        self.change(index.into(), |ring| ring.error = error)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        match VhostUserProtocolFeatures::from_bits(features) {
            Some(features) if PROTOCOL.contains(features) => Ok(()),
            _ => Err(refuse(
                Reason::BadMessage,
                format_args!("protocol features {features:#x} were not offered"),
            )),
        }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        // In pairs, as every network front end takes it.
        Ok((self.rings.len() / 2) as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(index, |ring| ring.enabled = enable)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        // The protocol crate has checked the two against the longest configuration.
        let (offset, size) = (offset as usize, size as usize);
        let config = self.config().into_iter().chain(std::iter::repeat(0));
        Ok(config.skip(offset).take(size).collect())
    }

    fn get_inflight_fd(&mut self, inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let shape = self.shape(inflight)?;
        let file = shape.make().map_err(|error| refuse(Reason::BadMessage, error))?;
        let (mmap_size, mmap_offset) = (shape.bytes(), 0);
        Ok((VhostUserInflight { mmap_size, mmap_offset, ..*inflight }, file))
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> Result<()> {
        let shape = self.shape(inflight)?;
        if inflight.mmap_size < shape.bytes() {
            let bytes = inflight.mmap_size;
            return Err(refuse(
                Reason::BadMessage,
                format_args!("an inflight region of {bytes} bytes is too short"),
            ));
        }
        self.stop_all();
        let region = Inflight::map(file, inflight.mmap_offset, shape, &self.alarm);
        self.inflight = Some(region.map_err(|error| refuse(word(&error), error))?);
        self.run_all();
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.table.push((spec(region), file));
        self.map()?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let RegionSpec { guest, user, bytes, .. } = spec(region);
        let is_it =
            |(known, _): &(RegionSpec, File)| (known.guest, known.user, known.bytes) == (guest, user, bytes);
        let at = self.table.iter().position(is_it);
        let at =
            at.ok_or_else(|| refuse(Reason::BadMessage, format_args!("there is no region at {guest:#x}")))?;
        self.table.remove(at);
        self.map()
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let spec = RegionSpec { guest: 0, user: 0, bytes: log.mmap_size, offset: log.mmap_offset };
        let memory = GuestMemory::map([(spec, file)], Some(&self.alarm));
        let memory = memory.map_err(|error| refuse(word(&error), format_args!("the log: {error}")))?;
        self.stop_all();
        let bitmap = Bitmap::new(Arc::new(memory), log.mmap_size);
        let bitmap = bitmap.ok_or_else(|| refuse(Reason::BadMessage, "the log has no memory"))?;
        self.log = Some(Arc::new(bitmap));
        self.run_all();
        Ok(())
    }

    // What follows was not offered; the protocol crate lets hardly any of it through.

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(refuse(Reason::BadMessage, "SET_CONFIG was not offered"))
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(refuse(Reason::BadMessage, "this is no GPU"))
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(refuse(Reason::BadMessage, "GET_SHARED_OBJECT was not offered"))
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
}
