//! See `vswitch_fuzz::packed_ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::packed_ring(bytes));
