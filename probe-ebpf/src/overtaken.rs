//! ACKs that overtake the end of the send call that carried their proposal.
//!
//! At the leader a proposal enters the window when its send call ends. On a busy host the sender can be
//! preempted there, and the follower's ACK be read before. In: such ACKs. Out: the ACK of a proposal that
//! enters late. Invariant: an entry answers for its own zxid only, and once. Deliberately absent: more than
//! a moment's worth of them; what does not fit is an unknown ACK, and its proposal expires, both counted.

/// ACKs that can wait.
pub const CAPACITY: u32 = 64;
const MASK: u32 = CAPACITY - 1;

/// An ACK that waits for its proposal, monotonic ns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overtaken {
    /// The proposal; 0 when the place is free.
    pub zxid: u64,
    /// `ack_arrived`.
    pub arrived_at: u64,
    /// `ack_read`.
    pub read_at: u64,
    /// Sequence number after its last byte.
    pub end_seq: u32,
    /// Explicit padding.
    pub reserved: u32,
}

/// Waiting ACKs by the proposal's counter.
pub type Waiting = [Overtaken; CAPACITY as usize];

/// Lets an ACK wait.
#[inline(always)]
pub fn put(waiting: &mut Waiting, ack: Overtaken) {
    waiting[(ack.zxid as u32 & MASK) as usize] = ack;
}

/// The ACK that waits for `zxid`, if one does.
#[inline(always)]
pub fn take(waiting: &mut Waiting, zxid: u64) -> Option<Overtaken> {
    let place = &mut waiting[(zxid as u32 & MASK) as usize];
    if place.zxid != zxid {
        return None;
    }
    let ack = *place;
    place.zxid = 0;
    Some(ack)
}
