//! `probe_user::fuzz::records` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| probe_user::fuzz::records(data));
