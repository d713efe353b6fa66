//! AF_XDP: frames between a network device's queue and the arena, past the host's stack.
//!
//! The kernel receives straight into the arena's frames (its UMEM) and sends straight out of them; with a driver
//! that can, the hardware does (zero-copy), else the kernel copies once. Which frames come to us is decided by a
//! small XDP program on the device. Serves physical devices, programs that speak AF_XDP, and the host ends of veth
//! pairs.
//!
//! The raw pieces stand on system calls alone, in files of one noun each: [`umem`] (the memory), [`ring`] (the four
//! rings of a socket), [`socket`] (a queue's socket from `socket` to `bind`), [`program`] (the XDP program, and the
//! map from queues to sockets). Everything that a driver needs in the end is a descriptor or a plain value, so that
//! another process can take them over and go on.

pub mod program;
pub mod ring;
pub mod socket;
pub mod umem;
