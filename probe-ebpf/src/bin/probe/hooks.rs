//! One file for each job; the variants of a job stand side by side.

mod arrival;
mod close;
mod flush;
mod handed;
mod path;
mod receive;
mod safepoint;
mod sched;
mod send;
mod thread;
