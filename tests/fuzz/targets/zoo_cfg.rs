//! `probe_user::fuzz::zoo_cfg` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| probe_user::fuzz::zoo_cfg(data));
