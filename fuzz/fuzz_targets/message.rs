//! See `vswitch_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::message(bytes));
