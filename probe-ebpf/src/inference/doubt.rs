//! Why nothing is told, or that something is: values of [`Inference::doubt`].
//!
//! Values only. Invariant: each has a name. Deliberately absent: when they arise.

/// Proposals are inferred.
pub const NONE: u32 = 0;
/// The size of an empty packet was not seen yet, or is none that a known cipher gives.
pub const CIPHER: u32 = 1;
/// The learner joins, or the probe came in mid-stream: it waits for a silence with nothing in flight.
pub const SILENCE: u32 = 2;
/// A record of a size that no packet has: a packet went over more than one.
pub const SIZE: u32 = 3;
/// An ACK without a proposal: a record held more than one.
pub const SURPLUS: u32 = 4;
/// ACKs come, and never as many as proposals: a record was taken for a proposal, or the link is never idle.
pub const UNBALANCED: u32 = 5;
/// Bytes were missed.
pub const BYTES: u32 = 6;
/// How many there are, and one more.
pub const COUNT: usize = 8;
/// Their names in records and metrics.
pub const NAMES: [&str; COUNT] =
    ["none", "cipher", "silence", "size", "surplus_ack", "unbalanced", "missed_bytes", "unknown"];
