//! Traffic between two vhost-user ports, made and measured by one core: [`flows`] are what is sent, [`run`] sends it
//! both ways at once and measures what comes back.

pub mod flows;
pub mod run;
