//! Traffic between two vhost-user ports, made and measured by one core: [`flows`] are what is sent, [`run`] sends it
//! both ways at once and measures what comes back; [`outer`] is around them where a tunnel ends at the second port.

pub mod flows;
pub mod outer;
pub mod run;
