//! A session: what one front end has said, and the rings that follow from it.
//!
//! The messages arrive one by one on the port's thread, and `requests.rs` says here what they change. A ring
//! runs when all of it is known and it is both started and enabled ("Ring states" there); whatever changes one of
//! these first takes the ring from its worker, and puts it back if it still can run. Frames meanwhile wait in the
//! ring. When the connection ends everything is taken back and forgotten.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use pmd::Features;
use vhost_protocol::vhost_user::{Error, Result};

use super::announce::Announcement;
use super::features::{self, EVENT_IDX, IN_ORDER, LOG_ALL, RING_PACKED};
use super::inflight::Inflight;
use super::open::Settings;
use super::page::{self, Identity, Pages};
use super::pairs::Running;
use super::reason::Reason;
use crate::caller;
use crate::event::{self, Bell};
use crate::memory::{GuestMemory, MemoryError, REGIONS, RegionSpec};
use crate::ring::access::Direct;
use crate::ring::dirty::{Bitmap, Dirty};
use crate::ring::packed::{Packed, Style};
use crate::ring::record::Record;
use crate::ring::split::Split;
use crate::ring::{Alarm, BadRing, Lane, Layout, Ring as Queue};
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
    /// The largest network packet that the guest takes, if it said so.
    pub mtu: Option<u32>,
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
pub(super) struct Ring {
    pub size: u32,
    pub addresses: Option<Layout>,
    /// The guest address by which writes to its used ring are to be noted, if they are.
    pub log: Option<u64>,
    /// Where it goes on: a packed ring without a record, that is; a split ring does where its used index says.
    pub base: u32,
    /// Where the front end knows it to be: what it has said or been told last in this connection.
    pub told: Option<u32>,
    pub started: bool,
    pub enabled: bool,
    pub kick: Option<OwnedFd>,
    pub call: Option<Arc<OwnedFd>>,
    /// By what the front end hears that the ring is broken.
    pub error: Option<OwnedFd>,
}

/// The device as its front end sees it.
///
/// Rings are in the order of Virtual I/O Device 1.2, section 5.1.2: the guest's receive queue, its transmit queue,
/// the next pair's.
pub(super) struct Session {
    places: Vec<Place>,
    pub(super) rings: Vec<Ring>,
    running: Arc<Running>,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// What we offer.
    pub(super) offered: u64,
    /// What of it the front end uses.
    pub(super) features: u64,
    /// The regions of memory, and what they became.
    pub(super) table: Vec<(RegionSpec, File)>,
    memory: Option<Arc<GuestMemory>>,
    pub(super) inflight: Option<Inflight>,
    /// For packed rings that have no inflight region.
    pages: Option<Pages>,
    has_warned: Cell<bool>,
    /// Where the pages that we write are noted, while [`LOG_ALL`] is set.
    pub(super) log: Option<Arc<Bitmap>>,
    announcement: Arc<Announcement>,
    status: SharedStatus,
    pub(super) alarm: Arc<Alarm>,
}

/// An error that says why, for the port's reason.
pub(super) fn refuse(reason: Reason, detail: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, reason.because(detail)))
}

/// The word for memory that is not mapped.
pub(super) fn word(error: &MemoryError) -> Reason {
    if error.is_overflow() { Reason::Overflow } else { Reason::BadMessage }
}

impl Session {
    /// A device with these rings, of which nothing is known yet.
    pub(super) fn new(
        places: Vec<Place>,
        running: Arc<Running>,
        status: SharedStatus,
        alarm: Arc<Alarm>,
        announcement: Arc<Announcement>,
        settings: &Settings,
    ) -> Session {
        Session {
            rings: places.iter().map(|_| Ring::default()).collect(),
            places,
            running,
            mac: settings.mac,
            mtu: settings.mtu,
            offered: features::offered(settings),
            features: 0,
            table: Vec::new(),
            memory: None,
            inflight: None,
            pages: settings.pages.clone().map(Pages),
            has_warned: Cell::new(false),
            log: None,
            announcement,
            status,
            alarm,
        }
    }

    pub(super) fn tell(&self, tell: impl FnOnce(&mut Status)) {
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

    pub(super) fn forget(&mut self) {
        self.reset();
        self.table.clear();
        (self.memory, self.log) = (None, None);
    }

    /// The device is as new. Its memory is not part of it: who has told us the regions does not do so again.
    pub(super) fn reset(&mut self) {
        self.stop_all();
        if self.rings.iter().any(|ring| ring.started) {
            self.tell(|status| status.resets += 1);
        }
        self.rings.fill_with(Ring::default);
        self.inflight = None;
        self.features = 0;
        self.tell(|status| (status.negotiated, status.mtu) = (0, None));
    }

    /// Why memory or a ring is out of use, if it is.
    pub(super) fn broken(&mut self) -> Option<String> {
        // First: what a ring reads there afterwards breaks the rules, too.
        let inflight = self.inflight.as_ref().map(|inflight| &inflight.memory);
        let log = self.log.as_ref().map(|log| log.memory());
        if let Some(guest) = self.memory.iter().chain(inflight).chain(log).find_map(|memory| memory.lost()) {
            return Some(Reason::MemoryTruncated.because(format_args!(
                "the file of the memory region at {guest:#x} was cut short, or has no memory"
            )));
        }
        (0..self.places.len()).find_map(|index| {
            let broken = self.stop(index)?.broken;
            if broken.is_none() {
                self.run(index);
            } else if let Some(error) = &self.rings[index].error {
                caller::call(error.as_fd());
            }
            let (pair, name) = (index / 2, if index % 2 == 0 { "receive" } else { "transmit" });
            broken.map(|reason| {
                Reason::BadRing.because(format_args!("the guest's {name} ring {pair}: {reason}"))
            })
        })
    }

    pub(super) fn stop_all(&mut self) {
        (0..self.places.len()).for_each(|index| drop(self.stop(index)));
    }

    pub(super) fn run_all(&mut self) {
        (0..self.places.len()).for_each(|index| self.run(index));
    }

    /// Takes a ring from its worker.
    pub(super) fn stop(&mut self, index: usize) -> Option<Lane> {
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
        // What a guest sends on a ring that is started and not enabled is thrown away ("Ring states").
        let (enabled, transmits) = (ring.enabled, index % 2 == 1);
        if !(ring.started && (enabled || transmits)) {
            return;
        }
        let layout = Layout { size: ring.size, ..addresses };
        let terms = features::terms(self.features);
        let queue = match self.queue(index, memory.clone(), &layout) {
            Ok(queue) => queue,
            Err(reason) => return self.tell(|status| status.reason = Reason::BadRing.because(reason)),
        };
        let mut lane = Lane::new(queue, terms, ring.call.clone());
        lane.discards = !enabled;
        lane.dirty = self.dirty(index, memory, &layout);
        lane.mark_ring();
        let Place { owner, bell } = &mut self.places[index];
        owner.put(lane);
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
        // A call that went to the descriptor before this one, or that a killed predecessor owed, is lost; and a guest
        // that waits for it is not called again for what it has not looked at.
        if let Some(call) = &ring.call {
            caller::call(call.as_fd());
        }
        self.tell(|status| status.features = terms.features);
        self.running.set(index, enabled);
    }

    /// What notes the pages that a ring has us write, if they are to be noted.
    fn dirty(&self, index: usize, memory: &Arc<GuestMemory>, layout: &Layout) -> Option<Dirty> {
        let log = self.log.as_ref().filter(|_| self.features & LOG_ALL != 0)?;
        let entries = u64::from(layout.size);
        // Sections 2.7.8 and 2.8.10: the used ring; the descriptors, which are written over, and the device area.
        let (descriptors, used) = match self.features & RING_PACKED {
            0 => (0, 6 + 8 * entries),
            _ => (16 * entries, 4),
        };
        let place = memory.user(layout.descriptors, descriptors, 1).and_then(|place| memory.address(place));
        // "Migration" in vhost-user.rst: what descriptors lie in or point to always; the used ring if that is asked
        // for, and by the address that is given for it.
        let parts = [place.map(|address| (address, descriptors)), self.rings[index].log.map(|at| (at, used))];
        Some(Dirty::new(log.clone(), memory.clone(), parts.into_iter().flatten()))
    }

    /// The ring itself, of the kind that was agreed on.
    fn queue(
        &self,
        index: usize,
        memory: Arc<GuestMemory>,
        layout: &Layout,
    ) -> std::result::Result<Queue, BadRing> {
        let event_index = self.features & EVENT_IDX != 0;
        if self.features & RING_PACKED == 0 {
            return Split::new(memory, layout, event_index, Direct).map(Queue::Split);
        }
        let style = Style { in_order: self.features & IN_ORDER != 0, event_index };
        let record = match &self.inflight {
            Some(inflight) => inflight.record(index, layout.size),
            None => self.page(index, layout),
        };
        Packed::new(memory, layout, style, self.rings[index].base, record, Direct).map(Queue::Packed)
    }

    /// The record of a packed ring that we keep ourselves.
    fn page(&self, index: usize, layout: &Layout) -> Option<Record> {
        let pages = self.pages.as_ref()?;
        let identity = Identity {
            // Whether pages are noted changes while a ring goes on.
            features: self.features & !LOG_ALL,
            size: layout.size.into(),
            base: self.rings[index].told.unwrap_or_default().into(),
            parts: [layout.descriptors, layout.available, layout.used],
            file: page::file_of(&self.table, layout.descriptors)?,
        };
        let record = pages.record(index, &identity, &self.alarm);
        record.unwrap_or_else(|error| {
            // Once: who connects again and again fills no log.
            if !self.has_warned.replace(true) {
                eprintln!("vswitchd: packed rings will not outlive the switch: {pages}.{index}: {error}");
            }
            None
        })
    }

    /// A ring has been told, or is to be told, where it begins.
    pub(super) fn forget_page(&self, index: usize) {
        if let Some(pages) = &self.pages {
            pages.forget(index);
        }
    }

    /// The device was reset by the front end, and not by our end or its.
    pub(super) fn forget_pages(&self) {
        (0..self.rings.len()).for_each(|index| self.forget_page(index));
    }

    /// Changes what is known about a ring.
    pub(super) fn change(&mut self, index: u32, change: impl FnOnce(&mut Ring)) -> Result<()> {
        let index = self.check(index)?;
        self.stop(index);
        change(&mut self.rings[index]);
        self.run(index);
        Ok(())
    }

    pub(super) fn check(&self, index: u32) -> Result<usize> {
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

    /// Maps the table of regions, which has changed.
    pub(super) fn map(&mut self) -> Result<()> {
        if self.table.len() > REGIONS {
            return Err(refuse(Reason::Overflow, MemoryError::Count(self.table.len())));
        }
        // The old mapping goes first: it may be most of what there is.
        self.remember(None);
        let copies = self.table.iter().map(|(spec, file)| Ok((*spec, file.try_clone()?)));
        let copies =
            copies.collect::<io::Result<Vec<_>>>().map_err(|error| refuse(Reason::BadMessage, error))?;
        let memory = GuestMemory::map(copies, Some(&self.alarm));
        let memory = memory.map_err(|error| refuse(word(&error), error))?;
        self.remember(Some(Arc::new(memory)));
        Ok(())
    }

    /// Has the switch receive a frame from `mac`.
    pub(super) fn announce(&self, mac: [u8; 6]) {
        if let Some(bell) = self.places.iter().find_map(|place| place.bell.as_ref()) {
            self.announcement.ask(mac, bell);
        }
    }
}

/// A descriptor of the other side's, if it gave one.
pub(super) fn descriptor(file: Option<File>) -> Result<Option<OwnedFd>> {
    file.map(event::accept).transpose().map_err(|error| refuse(Reason::BadMessage, error))
}
