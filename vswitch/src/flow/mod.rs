//! From a frame to a decision that was already made: headers to key, key to hash, hash to cached action.

pub mod action;
pub mod cache;
pub mod hash;
pub mod headers;
pub mod key;
pub mod malformed;
pub mod numbers;
