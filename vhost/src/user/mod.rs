//! `vhost-user`: virtual machines, and containers whose application brings its own stack.
//!
//! The other end, the front end (QEMU, DPDK's virtio-user), shares its memory and its rings by messages over a unix
//! socket; either side may be the one that listens. We are the back end: vhost-user.rst of QEMU's documentation, and
//! Virtual I/O Device 1.2, section 5.1, for the device.
//!
//! A thread for each port follows the messages; workers find a ring in their [`seat`](crate::seat), or none. The
//! port stays open whatever the other end does: it is connected or not, which [`Port::link`] tells, with a reason
//! that begins with the word of a [`Reason`]; who broke the rules is cut off, and may connect again a little later.

mod announce;
mod features;
mod inflight;
mod message;
mod open;
mod page;
mod pairs;
mod reason;
pub mod rehearsal;
mod requests;
mod service;
mod session;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use pmd::{Fate, Fault, Features, Link, Peer, Port, RxQueue, TxQueue};

use self::announce::{Announcement, AnnouncingRx};
pub use self::open::{Mode, OpenError, OpenVhostUser, Settings, open};
use self::page::Pages;
pub use self::pairs::PAIRS;
use self::pairs::{PairTx, Running};
pub use self::reason::Reason;
use self::service::Service;
use self::session::{Place, Session, SharedStatus, Status};
use crate::event::Bell;
use crate::ring::Alarm;
use crate::ring::rx::Rx;
use crate::ring::tx::Tx;
use crate::seat::seat;

/// An open vhost-user port.
pub struct VhostUserPort {
    mac: [u8; 6],
    mtu: u32,
    mode: Mode,
    status: SharedStatus,
    running: Arc<Running>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    pages: Option<Pages>,
    service: Service,
}

/// What a port is made of.
struct Parts {
    session: Session,
    alarm: Arc<Alarm>,
    status: SharedStatus,
    running: Arc<Running>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
}

impl Parts {
    fn new(settings: &Settings) -> Result<Parts, OpenError> {
        let announcement = Arc::new(Announcement::default());
        let alarm = Arc::new(Alarm::new().map_err(OpenError::Resources)?);
        let (mut places, mut rx, mut tx) = (Vec::new(), Vec::<Box<dyn RxQueue>>::new(), Vec::new());
        for _ in 0..settings.queues.clamp(1, PAIRS) {
            let bell = Arc::new(Bell::new().map_err(OpenError::Resources)?);
            let (rx_owner, rx_seat) = seat();
            let (tx_owner, tx_seat) = seat();
            places.push(Place { owner: tx_owner, bell: None });
            places.push(Place { owner: rx_owner, bell: Some(bell.clone()) });
            let queue = Rx::new(rx_seat, bell, alarm.clone());
            rx.push(match rx.len() {
                0 => Box::new(AnnouncingRx::new(queue, announcement.clone())),
                _ => Box::new(queue),
            });
            tx.push(Tx::new(tx_seat, alarm.clone()));
        }
        let running = Arc::new(Running::default());
        let reason = Reason::Disconnected.because("nobody has connected yet");
        let status: SharedStatus = Arc::new(Mutex::new(Status { reason, ..Status::default() }));
        let session =
            Session::new(places, running.clone(), status.clone(), alarm.clone(), announcement, settings);
        let alone = tx.len() == 1 && settings.workers < 2;
        let tx = if alone { boxed(tx) } else { boxed(PairTx::over(tx, &running, settings.workers)) };
        Ok(Parts { session, alarm, status, running, rx, tx })
    }
}

impl VhostUserPort {
    /// A port over what [`open`] opened; needs no privilege.
    ///
    /// # Errors
    /// No descriptor or thread could be had.
    pub fn new(open: OpenVhostUser) -> Result<VhostUserPort, OpenError> {
        let Settings { mac, mtu, mode, .. } = open.settings;
        let pages = open.settings.pages.clone().map(Pages);
        let Parts { session, alarm, status, running, rx, tx } = Parts::new(&open.settings)?;
        let service = Service::start(open, session, alarm).map_err(OpenError::Resources)?;
        Ok(VhostUserPort { mac, mtu, mode, status, running, rx, tx, pages, service })
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn boxed<Q: TxQueue + 'static>(queues: Vec<Q>) -> Vec<Box<dyn TxQueue>> {
    queues.into_iter().map(|queue| Box::new(queue) as _).collect()
}

impl Port for VhostUserPort {
    fn kind(&self) -> &'static str {
        "vhost-user"
    }

    fn mode(&self) -> &str {
        match self.mode {
            Mode::Server => "server",
            Mode::Client => "client",
        }
    }

    fn mac(&self) -> Option<[u8; 6]> {
        Some(self.mac)
    }

    fn mtu(&self) -> u32 {
        self.status().mtu.unwrap_or(self.mtu)
    }

    fn features(&self) -> Features {
        self.status().features
    }

    fn link(&self) -> Link {
        if self.running.pairs() > 0 { Link::up() } else { Link::down(self.status().reason) }
    }

    fn peer(&self) -> Option<Peer> {
        let status = self.status();
        Some(Peer {
            connected: status.connected,
            ring: self.running.any().then(|| features::ring(status.negotiated)),
            queues_enabled: self.running.pairs(),
            features: features::names(status.negotiated).collect(),
            resets: status.resets,
        })
    }

    fn take_rx(&mut self) -> Vec<Box<dyn RxQueue>> {
        std::mem::take(&mut self.rx)
    }

    fn take_tx(&mut self) -> Vec<Box<dyn TxQueue>> {
        std::mem::take(&mut self.tx)
    }

    fn close(self: Box<Self>, fate: Fate) -> Result<(), Fault> {
        let VhostUserPort { pages, service, .. } = *self;
        drop(service);
        if let Some(pages) = pages.filter(|_| fate == Fate::Remove) {
            (0..2 * usize::from(PAIRS)).for_each(|ring| pages.forget(ring));
        }
        Ok(())
    }
}
