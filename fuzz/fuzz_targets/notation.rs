//! See `vswitch_fuzz::notation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::notation(bytes));
