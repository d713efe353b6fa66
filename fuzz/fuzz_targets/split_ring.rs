//! See `vswitch_fuzz::split_ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::split_ring(bytes));
