//! Records of the kernel side: bytes of the ring in, [`Record`]s out.
//!
//! Invariant: total; bytes that are no record of a known kind and size become [`Malformed`], never a panic.
//! Deliberately absent: the ring itself, and what a record means.
#![forbid(unsafe_code)]

use bytes::{Buf, Bytes};
use probe_ebpf::abi::{
    HeartbeatRecord, ProposalRecord, SafepointRecord, SegmentRecord, ThreadRecord, TransitionRecord, change,
    kind,
};
use probe_ebpf::cause;
use probe_ebpf::network::Way;
use probe_ebpf::safepoint::NAME_BYTES;

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A proposal's delay.
    Proposal(ProposalRecord),
    /// A heartbeat's delay.
    Heartbeat(HeartbeatRecord),
    /// A change of a link.
    Transition(TransitionRecord),
    /// A thread took a Termite thread's name.
    Thread(ThreadRecord),
    /// A long segment of a thread's clock.
    Segment(SegmentRecord),
    /// A JVM stood still.
    Safepoint(SafepointRecord),
}

/// Bytes that are no record: the two halves of the probe disagree, which is a defect of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of kind {kind} and {bytes} bytes from the kernel side is not understood")]
pub(crate) struct Malformed {
    /// Its first word.
    pub(crate) kind: u32,
    /// Its size.
    pub(crate) bytes: usize,
}

const PROPOSAL_BYTES: usize = size_of::<ProposalRecord>();
const HEARTBEAT_BYTES: usize = size_of::<HeartbeatRecord>();
const TRANSITION_BYTES: usize = size_of::<TransitionRecord>();
const THREAD_BYTES: usize = size_of::<ThreadRecord>();
const SEGMENT_BYTES: usize = size_of::<SegmentRecord>();
const SAFEPOINT_BYTES: usize = size_of::<SafepointRecord>();

impl Record {
    /// Decodes one record.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        let size = bytes.len();
        let kind = bytes.try_get_u32_ne().map_err(|_| Malformed { kind: 0, bytes: size })?;
        let record = match (kind, size) {
            (kind::PROPOSAL, PROPOSAL_BYTES) => Self::Proposal(proposal(bytes)),
            (kind::HEARTBEAT, HEARTBEAT_BYTES) => Self::Heartbeat(heartbeat(bytes)),
            (kind::TRANSITION, TRANSITION_BYTES) => {
                let record = transition(bytes);
                if record.change as usize >= change::COUNT {
                    return Err(Malformed { kind, bytes: size });
                }
                Self::Transition(record)
            }
            (kind::THREAD, THREAD_BYTES) => Self::Thread(thread(bytes)),
            (kind::SEGMENT, SEGMENT_BYTES) => {
                let record = segment(bytes);
                if record.cause as usize >= cause::COUNT {
                    return Err(Malformed { kind, bytes: size });
                }
                Self::Segment(record)
            }
            (kind::SAFEPOINT, SAFEPOINT_BYTES) => Self::Safepoint(safepoint(bytes)),
            _ => return Err(Malformed { kind, bytes: size }),
        };
        Ok(record)
    }
}

// The sizes were checked above, so the getters cannot run short.

fn proposal(mut b: Bytes) -> ProposalRecord {
    ProposalRecord {
        kind: kind::PROPOSAL,
        slot: b.get_u32_ne(),
        generation: b.get_u32_ne(),
        flags: b.get_u32_ne(),
        zxid: b.get_u64_ne(),
        began_at: b.get_u64_ne(),
        ended_at: b.get_u64_ne(),
        read_at: b.get_u64_ne(),
        flush_began_at: b.get_u64_ne(),
        flush_ended_at: b.get_u64_ne(),
        tid: b.get_u32_ne(),
        ack_seq: b.get_u32_ne(),
        receipt: b.get_u64_ne(),
        resent: b.get_u64_ne(),
        way: Way {
            unsent_ns: b.get_u64_ne(),
            resent_ns: b.get_u64_ne(),
            round_trip_ns: b.get_u64_ne(),
            held_ns: b.get_u64_ne(),
        },
        causes_ns: std::array::from_fn(|_| b.get_u64_ne()),
    }
}

fn segment(mut b: Bytes) -> SegmentRecord {
    let mut record = SegmentRecord {
        kind: kind::SEGMENT,
        cause: b.get_u32_ne(),
        tgid: b.get_u32_ne(),
        tid: b.get_u32_ne(),
        began_at: b.get_u64_ne(),
        ended_at: b.get_u64_ne(),
        call: b.get_u32_ne(),
        by: b.get_u32_ne(),
        other_tid: b.get_u32_ne(),
        other_tgid: b.get_u32_ne(),
        ..SegmentRecord::default()
    };
    b.copy_to_slice(&mut record.other_comm);
    b.copy_to_slice(&mut record.comm);
    record.stack = std::array::from_fn(|_| b.get_u64_ne());
    record
}

fn heartbeat(mut b: Bytes) -> HeartbeatRecord {
    HeartbeatRecord {
        kind: kind::HEARTBEAT,
        slot: b.get_u32_ne(),
        generation: b.get_u32_ne(),
        reserved: b.get_u32_ne(),
        began_at: b.get_u64_ne(),
        ended_at: b.get_u64_ne(),
    }
}

fn transition(mut b: Bytes) -> TransitionRecord {
    TransitionRecord {
        kind: kind::TRANSITION,
        slot: b.get_u32_ne(),
        generation: b.get_u32_ne(),
        change: b.get_u32_ne(),
        at: b.get_u64_ne(),
        number: b.get_u64_ne(),
    }
}

fn thread(mut b: Bytes) -> ThreadRecord {
    let mut record = ThreadRecord {
        kind: kind::THREAD,
        tgid: b.get_u32_ne(),
        tid: b.get_u32_ne(),
        reserved: b.get_u32_ne(),
        comm: [0; 16],
    };
    b.copy_to_slice(&mut record.comm);
    record
}

fn safepoint(mut b: Bytes) -> SafepointRecord {
    let mut record = SafepointRecord {
        kind: kind::SAFEPOINT,
        tgid: b.get_u32_ne(),
        began_at: b.get_u64_ne(),
        ended_at: b.get_u64_ne(),
        gc: b.get_u32_ne(),
        rung: b.get_u32_ne(),
        name: [0; NAME_BYTES],
    };
    b.copy_to_slice(&mut record.name);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    #[test]
    fn a_proposal_is_read_field_by_field() {
        let mut b = BytesMut::new();
        [kind::PROPOSAL, 7, 3, 4].iter().for_each(|v| b.put_u32_ne(*v));
        [0x1_0000_0001_u64, 10, 90, 20, 30, 80].iter().for_each(|v| b.put_u64_ne(*v));
        [42_u32, 9].iter().for_each(|v| b.put_u32_ne(*v));
        [12_u64, 3, 4, 5, 6, 7].iter().for_each(|v| b.put_u64_ne(*v));
        (0..cause::COUNT as u64).for_each(|v| b.put_u64_ne(v));
        let want = ProposalRecord {
            kind: kind::PROPOSAL,
            slot: 7,
            generation: 3,
            flags: 4,
            zxid: 0x1_0000_0001,
            began_at: 10,
            ended_at: 90,
            read_at: 20,
            flush_began_at: 30,
            flush_ended_at: 80,
            tid: 42,
            ack_seq: 9,
            receipt: 12,
            resent: 3,
            way: Way { unsent_ns: 4, resent_ns: 5, round_trip_ns: 6, held_ns: 7 },
            causes_ns: std::array::from_fn(|cause| cause as u64),
        };
        assert_eq!(Record::decode(b.freeze()), Ok(Record::Proposal(want)));
    }

    #[test]
    fn an_unknown_change_is_refused() {
        let mut b = BytesMut::new();
        [kind::TRANSITION, 0, 1, change::COUNT as u32].iter().for_each(|v| b.put_u32_ne(*v));
        b.put_u64_ne(5);
        assert_eq!(Record::decode(b.freeze()), Err(Malformed { kind: kind::TRANSITION, bytes: 24 }));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..250)) {
            let _either = Record::decode(Bytes::from(bytes));
        }
    }
}
