//! Recording.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::recorder::{CAPACITY, Shared};
use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};

/// Bytes of a record's header: seconds, nanoseconds, captured length, original length.
const RECORD: usize = 16;

pub(super) struct Tx {
    /// Without a file to record into, what is sent vanishes.
    tape: Option<Arc<Shared>>,
}

impl Tx {
    pub(super) fn new(tape: Option<Arc<Shared>>) -> Tx {
        Tx { tape }
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let mut report = TxReport::default();
        let Some(shared) = &self.tape else {
            report.sent = burst.len() as u32;
            report.bytes = (0..burst.len()).map(|i| burst.item(i).total() as u64).sum();
            return report;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut tape = shared.lock();
        if tape.failure.is_some() {
            report.down = burst.len() as u32;
            return report;
        }
        for i in 0..burst.len() {
            let (at, len) = (tape.bytes.len(), burst.item(i).total());
            let end = at + RECORD + len;
            if end > CAPACITY {
                report.full += 1;
                continue;
            }
            tape.bytes.resize(end, 0);
            // The seconds are unsigned, which lasts until 2106.
            let header = [now.as_secs() as u32, now.subsec_nanos(), len as u32, len as u32];
            for (field, value) in tape.bytes[at..].chunks_exact_mut(4).zip(header) {
                field.copy_from_slice(&value.to_le_bytes());
            }
            if burst.copy_to(i, &mut tape.bytes[at + RECORD..]).is_some() {
                report.sent += 1;
                report.bytes += len as u64;
            } else {
                tape.bytes.truncate(at);
                report.refused += 1;
            }
        }
        drop(tape);
        shared.ring();
        report
    }
}
