//! One file for each job; the variants of a job stand side by side.

mod arrival;
mod close;
mod flush;
mod handed;
mod irq;
mod path;
mod present;
mod receive;
mod reclaim;
mod safepoint;
mod sched;
mod send;
mod thread;
mod tick;
