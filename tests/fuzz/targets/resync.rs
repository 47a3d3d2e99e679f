//! `probe_ebpf::fuzz::resync` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| probe_ebpf::fuzz::resync(data));
