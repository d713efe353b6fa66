//! Shared-memory rings to virtual machines and user-space stacks.
//!
//! Devices whose other end is another process's memory. It sits between `pmd`, whose port contract its devices
//! implement, and `vswitch`, which opens them.
//!
//! [`guard`] maps files of the other side, so that one that is cut short ends nobody but its owner's session;
//! [`memory`] is the other side's memory as we have it mapped; [`ring`] moves frames through a virtqueue in it,
//! as queues of the port contract; [`seat`] hands a ring to a worker and takes it away again, between bursts;
//! [`user`] is the vhost-user port: the socket, the messages, the thread that follows them. [`driver`] is the
//! other end of a ring, for tests and benches and for whoever wants to be one.
//!
//! **Hostile until proven otherwise.** Everything in shared memory may change between two looks. A value is
//! loaded once, checked, and only the checked copy is used; work per burst is bounded whatever the ring says; a
//! ring that breaks the rules is out of use with a named reason, and nobody else notices.
#![deny(unsafe_code)]

mod caller;
pub mod driver;
mod event;
pub mod guard;
pub mod memory;
pub mod ring;
pub mod seat;
pub mod user;

pub use user::{Mode, PAIRS, Settings, VhostUserPort, open};
