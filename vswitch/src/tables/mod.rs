//! Tables that frames write: fixed in size, shared by all workers, read without waiting.

pub mod fdb;
pub mod neighbour;
pub mod versions;
