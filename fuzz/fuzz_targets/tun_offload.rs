#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| i2plan_fuzz::tun_offload::run(input));
