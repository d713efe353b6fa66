//! The other end: memory that is shared, rings in it as a driver keeps them, and a front end that offers both.
//!
//! For tests and benches, and the ground of a guest-side library. [`ring::SplitDriver`] behaves as a driver should
//! and lets whoever wants to misbehave: every field of the ring can be set by hand. Nothing in the device part of
//! the crate knows it.

pub mod frontend;
pub mod memory;
pub mod ring;

use std::fs::File;
use std::io;

/// An anonymous file of `bytes` bytes, to be shared as memory.
///
/// # Errors
/// No descriptor or memory could be had.
pub fn memfd(bytes: u64) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("vhost-driver", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.set_len(bytes)?;
    Ok(file)
}
