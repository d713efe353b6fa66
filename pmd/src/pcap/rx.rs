//! Replaying.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;

use super::file::Replay;
use crate::arena::HEADROOM;
use crate::batch::{BATCH, Batch, RxMemory};
use crate::offload::Offload;
use crate::pool::Pool;
use crate::port::{Fault, RxQueue, Source};

/// A frame of up to so many bytes is copied whole into private memory; of a longer one this is the head.
const HEAD: usize = 2048;

pub(super) struct Rx {
    replay: Replay,
    repeat: bool,
    next: usize,
    /// A descriptor that is never readable: a worker can sleep on it when the replay is over.
    quiet: (PipeReader, PipeWriter),
}

impl Rx {
    pub(super) fn new(replay: Replay, repeat: bool) -> io::Result<Rx> {
        Ok(Rx { replay, repeat, next: 0, quiet: io::pipe()? })
    }

    fn is_over(&self) -> bool {
        self.next >= self.replay.len()
    }
}

impl RxQueue for Rx {
    fn source(&self) -> Source<'_> {
        Source::Ring(self.quiet.0.as_fd())
    }

    fn receive<'q>(
        &'q mut self,
        memory: &'q mut RxMemory,
        _pool: &mut Pool,
        limit: usize,
    ) -> Result<Batch<'q>, Fault> {
        let (mut batch, mut scratch) = memory.lend();
        while batch.len() < limit.min(BATCH) {
            if self.is_over() && self.repeat {
                self.next = 0;
            }
            let Some(frame) = self.replay.frame(self.next) else { break };
            let (head, rest) = frame.split_at(frame.len().min(HEAD));
            if scratch.rest().len() < HEADROOM + head.len() {
                break;
            }
            let private = scratch.take(HEADROOM + head.len());
            private[HEADROOM..].copy_from_slice(head);
            batch.push_private(private, HEADROOM, Offload::NONE);
            if !rest.is_empty() {
                batch.append_lent(rest);
            }
            self.next += 1;
        }
        Ok(batch)
    }

    fn arm(&mut self) -> bool {
        !self.is_over() || (self.repeat && !self.replay.is_empty())
    }
}
