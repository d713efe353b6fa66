//! The rx queues of a worker, by how they are asked.
//!
//! Rings are asked every turn, and one that has had frames is watched only while the worker sleeps. A queue
//! behind system calls is watched by `epoll` as long as nothing comes; from its first frame on it is *hot*: taken
//! out of the watch and asked directly, until it has been quiet for a while. A watch costs whoever sends to us a
//! lock and a wake-up for every frame, on his own core; a thousand quiet queues cost nobody anything.

use pmd::{BATCH, Fault, RxQueue, Source};

use super::events::Events;
use super::mailbox::Retired;
use super::queue::Queue;

/// Queues that are hot at a time; the others stay watched, since asking each costs a system call a turn.
const HOT: usize = 16;
/// How long a hot queue may be quiet.
const COOL_NS: u64 = 100_000;

/// A queue that is asked directly.
struct Hot {
    slot: usize,
    /// When it had a frame last.
    last_ns: u64,
    /// How many frames it is asked for. A single frame is sent on before anybody asks whether there is
    /// another, which costs a system call; a queue that had as many as it was asked for is asked for twice
    /// as many.
    limit: usize,
}

/// A queue that is asked every turn.
struct Polled {
    slot: usize,
    /// Whether its ring's descriptor is among those to sleep on.
    watched: bool,
}

/// The rx queues of a worker.
pub(super) struct Queues {
    slots: Vec<Option<Queue>>,
    /// Queues that are asked every turn.
    polled: Vec<Polled>,
    hot: Vec<Hot>,
    /// How many have nothing to sleep on.
    restless: usize,
    events: Events,
    /// Queues that failed, kept until their port is removed.
    faulty: Vec<Queue>,
}

impl Queues {
    pub(super) fn new(events: Events) -> Queues {
        Queues {
            slots: Vec::new(),
            polled: Vec::new(),
            hot: Vec::with_capacity(HOT),
            restless: 0,
            events,
            faulty: Vec::new(),
        }
    }

    /// The queue in a slot.
    #[inline]
    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Queue> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The `at`th ring.
    #[inline]
    pub(super) fn polled(&self, at: usize) -> Option<usize> {
        self.polled.get(at).map(|polled| polled.slot)
    }

    /// The `at`th ring had frames: until the worker sleeps again nobody is to pay for waking it.
    #[inline]
    pub(super) fn unwatch(&mut self, at: usize) {
        if let Some(polled) = self.polled.get_mut(at)
            && polled.watched
        {
            polled.watched = false;
            if let Some(Some(queue)) = self.slots.get(polled.slot)
                && let Source::Ring(fd) = queue.rx.source()
            {
                self.events.remove_ring(fd);
            }
        }
    }

    /// The `at`th hot queue, and how many frames to ask it for.
    #[inline]
    pub(super) fn hot(&self, at: usize) -> Option<(usize, usize)> {
        self.hot.get(at).map(|hot| (hot.slot, hot.limit))
    }

    /// Whether there are hot queues.
    #[inline]
    pub(super) fn has_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// Asks the watch; gives the number of ready queues.
    #[inline]
    pub(super) fn poll(&mut self) -> usize {
        self.events.poll()
    }

    /// The `i`th ready queue.
    #[inline]
    pub(super) fn ready(&self, i: usize) -> usize {
        self.events.token(i) as usize
    }

    /// A watched queue had frames: from now on it is asked directly.
    pub(super) fn heat(&mut self, slot: usize, now_ns: u64) {
        if self.hot.len() < HOT
            && let Some(Some(queue)) = self.slots.get(slot)
            && let Source::Descriptor(fd) = queue.rx.source()
        {
            self.events.remove_descriptor(fd);
            self.hot.push(Hot { slot, last_ns: now_ns, limit: 1 });
        }
    }

    /// The `at`th hot queue was asked. One that has been quiet for long is watched again; true if so, and
    /// the next one is in its place.
    #[inline]
    pub(super) fn asked(&mut self, at: usize, frames: usize, now_ns: u64) -> bool {
        let Some(hot) = self.hot.get_mut(at) else { return true };
        if frames >= hot.limit {
            hot.limit = (2 * hot.limit).min(BATCH);
        } else if frames == 0 {
            hot.limit = 1;
        }
        if frames > 0 {
            hot.last_ns = now_ns;
        } else if now_ns.saturating_sub(hot.last_ns) > COOL_NS {
            self.cool(at);
            return true;
        }
        false
    }

    fn cool(&mut self, at: usize) {
        let slot = self.hot.swap_remove(at).slot;
        // A descriptor that is readable already is reported as soon as it is watched.
        if let Some(Some(queue)) = self.slots.get(slot)
            && let Source::Descriptor(fd) = queue.rx.source()
            && self.events.add_descriptor(fd, slot as u64).is_err()
        {
            // Out of kernel memory: asked directly again, until the watch takes it.
            self.hot.push(Hot { slot, last_ns: 0, limit: 1 });
        }
    }

    /// Before sleeping: everything is watched, and rings are told to ring. False if there are frames.
    pub(super) fn arm(&mut self) -> bool {
        for at in (0..self.hot.len()).rev() {
            self.cool(at);
        }
        let mut quiet = self.hot.is_empty();
        for Polled { slot, watched } in &mut self.polled {
            let Some(queue) = &mut self.slots[*slot] else { continue };
            if !*watched && let Source::Ring(fd) = queue.rx.source() {
                // Out of kernel memory: asked every turn, until the watch takes it.
                *watched = self.events.add_ring(fd).is_ok();
                quiet &= *watched;
            }
            quiet &= !queue.rx.arm();
        }
        quiet
    }

    /// Sleeps until something happens or the time is over.
    pub(super) fn sleep(&mut self, timeout_ns: u64) {
        self.events.sleep(timeout_ns);
    }

    /// Whether some queue has nothing to sleep on.
    pub(super) fn is_restless(&self) -> bool {
        self.restless > 0
    }

    /// How many frames each queue has missed, by its port.
    pub(super) fn missed(&self) -> Vec<(u16, u64)> {
        self.slots.iter().flatten().map(|queue| (queue.port, queue.rx.missed())).collect()
    }

    /// The slot of a port's queue.
    pub(super) fn find(&self, port: u16, number: u16) -> Option<usize> {
        let is_it = |queue: &Queue| queue.port == port && queue.number == number;
        self.slots.iter().position(|queue| queue.as_ref().is_some_and(is_it))
    }

    /// Takes a queue on.
    pub(super) fn add(&mut self, queue: Queue) -> Result<(), (Queue, Fault)> {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let added = match queue.rx.source() {
            Source::Descriptor(fd) => self.events.add_descriptor(fd, slot as u64),
            Source::Ring(fd) => self.events.add_ring(fd),
            Source::Polled => Ok(()),
        };
        if let Err(error) = added {
            return Err((queue, Fault::new(format!("epoll_ctl: {error}"))));
        }
        if !matches!(queue.rx.source(), Source::Descriptor(_)) {
            self.polled.push(Polled { slot, watched: true });
        }
        self.restless += usize::from(matches!(queue.rx.source(), Source::Polled));
        self.slots[slot] = Some(queue);
        Ok(())
    }

    /// Gives a queue up.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Queue> {
        let queue = self.slots.get_mut(slot)?.take()?;
        match queue.rx.source() {
            Source::Descriptor(fd) => match self.hot.iter().position(|hot| hot.slot == slot) {
                Some(at) => drop(self.hot.swap_remove(at)),
                None => self.events.remove_descriptor(fd),
            },
            Source::Ring(fd) => self.events.remove_ring(fd),
            Source::Polled => self.restless -= 1,
        }
        self.polled.retain(|polled| polled.slot != slot);
        Some(queue)
    }

    /// Checks all queues up to the first that fails.
    pub(super) fn check(&mut self) -> Option<(usize, Fault)> {
        let checked =
            |(slot, queue): (usize, &mut Option<Queue>)| Some((slot, queue.as_mut()?.rx.check().err()?));
        self.slots.iter_mut().enumerate().find_map(checked)
    }

    /// A queue failed: it is not asked any more. Gives it.
    pub(super) fn fail(&mut self, slot: usize) -> Option<&Queue> {
        let queue = self.remove(slot)?;
        self.faulty.push(queue);
        self.faulty.last()
    }

    /// Keeps a queue that could not be taken on until its port is removed.
    pub(super) fn keep_faulty(&mut self, queue: Queue) {
        self.faulty.push(queue);
    }

    /// Gives up all queues of a port.
    pub(super) fn remove_port(&mut self, port: u16, retired: &mut Retired) {
        let of_port = |queue: &Option<Queue>| queue.as_ref().is_some_and(|queue| queue.port == port);
        while let Some(slot) = self.slots.iter().position(of_port) {
            retired.rx.extend(self.remove(slot).map(|queue| queue.rx));
        }
        let (gone, kept) = self.faulty.drain(..).partition(|queue| queue.port == port);
        self.faulty = kept;
        retired.rx.extend(gone.into_iter().map(|queue: Queue| -> Box<dyn RxQueue> { queue.rx }));
    }

    /// Gives up all.
    pub(super) fn clear(&mut self) {
        for slot in 0..self.slots.len() {
            self.remove(slot);
        }
        self.faulty.clear();
    }
}
