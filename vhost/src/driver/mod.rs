//! The other end: memory that is shared, rings in it as a driver keeps them, and a front end that offers both.
//!
//! For tests and benches, and the ground of a guest-side library. [`memory`] is what is shared; [`split`] and
//! [`packed`] are virtqueues, with every field within reach of those who want to misbehave, and [`ring`] is one of
//! either kind; [`queue`] is a ring with buffers, which sends and receives frames and believes the device nothing;
//! [`frontend`] is a device's worth of queues, offered over a vhost-user socket; [`flip`] is a guest whose memory is
//! never twice the same. Nothing in the device part of the
//! crate knows them.

pub mod flip;
pub mod frontend;
pub mod memory;
pub mod packed;
pub mod queue;
pub mod ring;
pub mod split;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;

use rustix::fs::MemfdFlags;

/// An anonymous file of `bytes` bytes, to be shared as memory.
///
/// # Errors
/// No descriptor or memory could be had.
pub fn memfd(bytes: u64) -> io::Result<File> {
    memfd_with(bytes, MemfdFlags::CLOEXEC)
}

fn memfd_with(bytes: u64, flags: MemfdFlags) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("vhost-driver", flags)?);
    file.set_len(bytes)?;
    Ok(file)
}
