//! Poll-mode drivers: how frames get into and out of the switch.
//!
//! # The port contract
//!
//! A driver is written from this page and the items it names.
//!
//! **Opening is apart from driving.** `open.rs` of a driver holds all that needs a privilege: it makes
//! devices, sockets, mappings, and hands over open descriptors and plain values. `rx.rs` and `tx.rs` are
//! built from those alone, so that another process, which was given the descriptors, can build them again.
//!
//! **Queues.** An open [`Port`] has rx queues and tx queues. An [`RxQueue`] belongs to one worker; a
//! [`TxQueue`] to one worker, or to several behind a lock. Neither may block, allocate or log in steady
//! state; a ring's queue makes no system call per frame (a TAP must, that is its kernel interface).
//!
//! **Lending.** [`RxQueue::receive`] lends a [`Batch`] for one burst. A frame in it is a private head and
//! segments (see [`batch`]); frames lie in arena buffers, in the worker's scratch memory, or in somebody
//! else's memory, and the contract is the same. When the burst is over the worker gives the batch back
//! and calls [`RxQueue::release`].
//!
//! **Sending.** [`TxQueue::transmit`] gets a [`Burst`] of gather lists (see [`gather`]) and either sends a
//! frame or drops it: a full destination never makes the switch wait. It says what it did in a
//! [`TxReport`], whose counts add up to the burst.
//!
//! **Offloads are metadata.** A driver translates its device's words into [`Offload`] and back, checks what
//! a device or guest claims against the frame's length, and says in [`Port::features`] what it can send.
//! The worker never gives it more: trains are cut before ([`segment`]); partial checksums are completed
//! by [`Burst::copy_to`] and [`Burst::take`].
//!
//! **Events.** [`RxQueue::source`] says how a worker learns of frames: a ring is polled and armed before
//! sleep, a descriptor is watched by `epoll` while it is quiet and asked while frames come, so it never blocks.
//!
//! **Faults.** A device that is gone shows as a [`Fault`] or as [`TxReport::down`], never as a panic or a
//! spin. Everything read from a device or a peer is checked before it is believed.
//!
//! [`mem`] is the smallest complete driver, and the model for the others.
#![deny(unsafe_code)]

pub mod afxdp;
pub mod arena;
pub mod batch;
pub mod checksum;
pub mod clock;
pub mod coalesce;
pub mod encapsulation;
pub mod gather;
pub mod huge;
pub mod local;
pub mod mem;
pub mod netdev;
pub mod null;
pub mod offload;
pub mod packet;
pub mod pcap;
pub mod pool;
pub mod port;
pub mod prefetch;
pub mod segment;
pub mod tap;
pub mod veth;
pub mod virtio;

pub use arena::{Arena, ArenaError, Buffer, FrameIndex, HugePages};
pub use batch::{BATCH, Batch, MAX_FRAME, RxMemory};
pub use encapsulation::Encapsulation;
pub use gather::{Burst, Part, Prefixes, Tails, TxItem};
pub use offload::{Checksum, Features, Gso, GsoKind, Offload, Outer, Packed};
pub use pool::Pool;
pub use port::{Fate, Fault, Link, Peer, Port, RxQueue, Source, Taken, TxQueue, TxReport};
pub use prefetch::prefetch;
