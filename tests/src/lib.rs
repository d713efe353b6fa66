//! The harness of the system tests: real kernels, real daemons, real clients.
//!
//! A test makes a [`Lab`]: a network namespace that plays the host, in which the built `vswitchd` runs, and
//! further namespaces that play the containers. It describes the switch in TOML as a user would, talks to it by
//! the built `vswitchctl`, and sends traffic by the kernel's own stack (`ping`, `iperf3`) or by [`probe`], the
//! small sender and receiver of this crate that checks every byte it gets. All of it is gone when the value is
//! dropped, also while a test unwinds; what a killed test program left behind is swept by the next one.
//!
//! Nothing here may know how the switch works inside: the tests see what a user sees. Waiting is always for a
//! condition with a deadline ([`wait::wait_until`]), never for a while.

pub mod binaries;
pub mod cases;
pub mod ctl;
pub mod daemon;
pub mod frontend;
pub mod guest;
pub mod lab;
pub mod namespace;
pub mod ovs;
pub mod probe;
pub mod service;
pub mod testpmd;
pub mod traffic;
pub mod wait;

pub use ctl::{Ctl, Refusal};
pub use daemon::Daemon;
pub use lab::{Attachment, Container, Lab};
pub use namespace::Namespace;
pub use wait::wait_until;
