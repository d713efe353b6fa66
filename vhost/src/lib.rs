//! Shared-memory rings to virtual machines and user-space stacks.
//!
//! This crate is the home of the devices whose other end is another process's memory: vhost-user
//! (both ends), memif (both ends) and a guest-side stack. It sits between `pmd`, whose port contract
//! its devices implement, and `vswitch`, which opens them. It is empty for now: the contract it will
//! implement (lending, gather lists, offload metadata) is in `pmd`.
#![forbid(unsafe_code)]
