//! The shared half: what the kernel programs and user space must agree on, and the logic that runs in
//! the kernel but is tested on the host.
//!
//! In: bytes of socket calls, TCP sequence numbers, instants. Out: packets, matched proposals, counts.
//! Invariant: every function here is total; bad bytes become counted anomalies. Deliberately absent:
//! clocks, maps, helpers (the kernel's side, `bin/probe`) and strings, files, decisions (the user's side).
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod arrivals;
pub mod cause;
pub mod counts;
pub mod framer;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod histogram;
pub mod history;
pub mod inference;
pub mod irq;
pub mod link;
pub mod names;
pub mod network;
pub mod overtaken;
pub mod ports;
pub mod quota;
pub mod safepoint;
pub mod span;
pub mod thread;
pub mod tids;
pub mod usdt;
pub mod window;
pub mod zab;

#[cfg(any(test, fuzzing))]
#[cfg_attr(not(test), allow(dead_code))] // the fuzz targets use a part of it
mod testing;
