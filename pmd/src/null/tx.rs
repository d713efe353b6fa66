//! The sink.

use crate::gather::Burst;
use crate::pool::Pool;
use crate::port::{TxQueue, TxReport};

pub(super) struct Tx;

impl TxQueue for Tx {
    fn transmit(&mut self, burst: &mut Burst<'_, '_>, _pool: &mut Pool) -> TxReport {
        let bytes = (0..burst.len()).map(|i| burst.item(i).total() as u64).sum();
        TxReport { sent: burst.len() as u32, bytes, ..TxReport::default() }
    }
}
