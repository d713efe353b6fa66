//! See `vswitch_fuzz::tunnel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::tunnel(bytes));
