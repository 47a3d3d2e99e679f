//! A host that is never at rest: servers that come and go, threads that live for a moment, connections by the thousand.
//!
//! Each is real to the kernel and to the probe: processes, threads and sockets, none of them a stand-in. Deliberately
//! absent: judging what the probe makes of it, which is [`soak`]'s.

pub(crate) mod crowd;
pub mod fleet;
pub mod soak;
pub mod threads;
