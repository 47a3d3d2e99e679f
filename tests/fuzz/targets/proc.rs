//! `probe_user::fuzz::proc` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| probe_user::fuzz::proc(data));
