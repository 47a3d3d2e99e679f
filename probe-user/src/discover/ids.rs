//! Names of things, as types of their own, so that a server id is never taken for a process id.
//!
//! Nothing comes in and nothing goes out but the number itself. Invariant: a `Sid` is what the ensemble
//! calls the server, a `Tgid` is what this kernel calls the process. Deliberately not here: how either is
//! found out.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Serialize;

/// A server's id within its ensemble (a Java `long`; by convention 1 to 255).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct Sid(pub(crate) i64);

/// A process, by the id of its thread group as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct Tgid(pub(crate) u32);

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Tgid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
