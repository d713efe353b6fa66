//! Poll-mode drivers.
#![deny(unsafe_code)]
