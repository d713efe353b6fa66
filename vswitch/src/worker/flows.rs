//! A listed flow-cache entry.

use crate::flow::action::Actions;
use crate::flow::key::FlowKey;

/// One cached flow, as `flow list` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The masked key.
    pub key: FlowKey,
    /// What is done with its frames.
    pub actions: Actions,
}
