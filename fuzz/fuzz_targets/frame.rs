//! See `vswitch_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::frame(bytes));
