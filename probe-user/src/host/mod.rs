//! Facts about the host, gathered once before anything is loaded.
//!
//! In: /proc, /sys and the running kernel's type information. Out: [`facts::HostFacts`], plain data that
//! the plan and `doctor` work from. Invariant: what could not be told is a state with its reason, never a
//! default. Deliberately absent: decisions (the plan) and any change to the host.
#![forbid(unsafe_code)]

pub(crate) mod btf;
pub(crate) mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
pub(crate) mod kernels;
pub(crate) mod offsets;
mod read;
