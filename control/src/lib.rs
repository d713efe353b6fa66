//! What others see of the switch.
#![forbid(unsafe_code)]
