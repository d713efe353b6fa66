//! A port without its thread and its socket's file: messages from bytes, with a worker's bursts in between.
//!
//! For fuzzers, which want thousands of sessions a second. What follows the messages, and what takes frames from
//! rings that come about by them, is what a port has.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use pmd::{Arena, Burst, Features, HugePages, Pool, Prefixes, RxMemory, RxQueue, TxItem, TxQueue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost_protocol::vhost_user::BackendReqHandler;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::pairs::Running;
use super::service::follow;
use super::session::Session;
use super::{Parts, Settings};
use crate::ring::Alarm;

/// Bytes of the memory that messages may share.
const MEMORY: u64 = 1 << 20;

/// Most messages of a play: their answers have to fit into a socket.
const MESSAGES: usize = 64;

/// A port for rehearsals.
pub struct Rehearsal {
    session: Arc<Mutex<Session>>,
    alarm: Arc<Alarm>,
    running: Arc<Running>,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    memory: File,
    event: OwnedFd,
    pool: Pool,
    scratch: RxMemory,
}

impl Rehearsal {
    /// A port with these settings.
    ///
    /// # Errors
    /// No memory or descriptor could be had.
    pub fn new(settings: &Settings) -> io::Result<Rehearsal> {
        let parts = Parts::new(settings).map_err(io::Error::other)?;
        let memory = File::from(memfd_create("rehearsal", MemfdFlags::CLOEXEC)?);
        memory.set_len(MEMORY)?;
        Ok(Rehearsal {
            session: Arc::new(Mutex::new(parts.session)),
            alarm: parts.alarm,
            running: parts.running,
            rx: parts.rx,
            tx: parts.tx,
            memory,
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            pool: Arena::new(64, HugePages::Off).map_err(io::Error::other)?.pool(),
            scratch: RxMemory::new(),
        })
    }

    /// Plays a session; how many messages of it were followed, and whether the port was up at any time.
    ///
    /// Each message is a byte for the request, one for its flags (the lower half) and its descriptors (their number
    /// in the next two bits, and above whether they are memory), one for the length of the payload, the payload.
    ///
    /// # Panics
    /// Something of the session is left when it is over.
    pub fn play(&mut self, bytes: &[u8]) -> (usize, bool) {
        let Ok((theirs, ours)) = UnixStream::pair() else { return (0, false) };
        // Nothing of the play before is left in there.
        if self.memory.set_len(0).and_then(|()| self.memory.set_len(MEMORY)).is_err() {
            return (0, false);
        }
        self.say(&theirs, bytes);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
        self.lock().begin();
        let (mut followed, mut was_up) = (0, false);
        if let Ok(handled) = ours.try_clone() {
            let mut handler = BackendReqHandler::from_stream(handled, self.session.clone());
            while follow(&self.session, &ours, &mut handler).is_ok() {
                followed += 1;
                was_up |= self.is_up();
                self.burst();
                if self.alarm.take() && self.lock().broken().is_some() {
                    break;
                }
            }
        }
        self.lock().end("disconnected: the play is over".into());
        assert!(!self.is_up());
        (followed, was_up)
    }

    fn is_up(&self) -> bool {
        self.running.pairs() > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, stream: &UnixStream, mut bytes: &[u8]) {
        for _ in 0..MESSAGES {
            let &[request, how, length, ref rest @ ..] = bytes else { return };
            let (payload, rest) = rest.split_at(usize::from(length).min(rest.len()));
            let header = [request.into(), u32::from(how & 0xf) ^ 1, u32::from(length)];
            let message = [header.map(u32::to_ne_bytes).as_flattened(), payload].concat();
            let memory = how & 0x40 != 0;
            let descriptor = if memory { self.memory.as_raw_fd() } else { self.event.as_raw_fd() };
            let descriptors = vec![descriptor; usize::from(how >> 4 & 3)];
            if stream.send_with_fds(&[&message[..]], &descriptors).is_err() {
                return;
            }
            bytes = rest;
        }
    }

    /// One burst of each queue, echoed.
    fn burst(&mut self) {
        let (pool, prefixes) = (&mut self.pool, Prefixes::default());
        for (rx, tx) in self.rx.iter_mut().zip(&mut self.tx) {
            let Ok(mut batch) = rx.receive(&mut self.scratch, pool, 64) else { continue };
            let items: Vec<TxItem> = (0..batch.len() as u16).map(TxItem::exclusive).collect();
            tx.transmit(&mut Burst::new(&mut batch, &items, &prefixes, Features::NONE), pool);
            batch.recycle(pool);
            rx.release(pool);
            rx.arm();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::Mode;

    #[test]
    fn a_decent_session_comes_up_and_leaves_nothing() {
        let mut rehearsal = Rehearsal::new(&Settings::new("unused", Mode::Server)).unwrap();
        let session = include_bytes!("../../../fuzz/corpus/message/split");
        for _ in 0..3 {
            assert_eq!(rehearsal.play(session), (19, true));
            // Without its last message.
            assert_eq!(rehearsal.play(&session[..session.len() - 11]), (18, false));
        }
    }
}
