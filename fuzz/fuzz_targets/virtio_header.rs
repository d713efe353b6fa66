//! See `vswitch_fuzz::virtio_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vswitch_fuzz::virtio_header(bytes));
