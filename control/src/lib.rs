//! What others see of the switch: the desired state, the messages of its API, a client.
//!
//! * [`schema`]: the desired state, as a TOML document or as values, with its validation.
//! * [`api`]: the messages of the daemon's control socket, newline-delimited JSON-RPC 2.0.
//! * [`client`]: a blocking client of that socket.
//! * [`mac`]: an Ethernet address as people and documents write it.
//!
//! The daemon builds on these types, `vswitchctl` and every other front end speak to the daemon
//! through them. This crate knows neither drivers nor the data path: a program that only wants to
//! talk to a switch needs nothing else.
#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod mac;
pub mod schema;

pub use mac::MacAddress;
