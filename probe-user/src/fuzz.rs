//! Fuzz targets of user space: any bytes in, a panic out when a promise is broken.
//!
//! Each promise is that nothing panics, and that what is understood is what a second, plain reading of the same bytes
//! gives. Invariant: a target is a plain function, so that the tests replay its corpus without a fuzzer. Deliberately
//! absent: the fuzzer (`tests/fuzz`).
#![forbid(unsafe_code)]

use std::mem::offset_of;

use bytes::Bytes;
use probe_ebpf::abi::{
    HeartbeatRecord, ProposalRecord, SafepointRecord, SegmentRecord, ThreadRecord, TransitionRecord, change,
};
use probe_ebpf::cause;

use crate::records::Record;
use crate::{discover, host, jvm};

/// A target: panics when the bytes show that a promise is broken.
pub type Target = fn(&[u8]);

/// Every target of this crate by its name.
pub const TARGETS: [(&str, Target); 6] = [
    ("records", records),
    ("btf", btf),
    ("usdt", usdt),
    ("zoo_cfg", zoo_cfg),
    ("hsperfdata", hsperfdata),
    ("proc", proc),
];

/// The kernel's types.
pub fn btf(data: &[u8]) {
    host::fuzz::btf(data);
}

/// The notes of a libjvm, and where they lead.
pub fn usdt(data: &[u8]) {
    jvm::fuzz::usdt(data);
}

/// A server's configuration.
pub fn zoo_cfg(data: &[u8]) {
    discover::fuzz::zoo_cfg(data);
}

/// A JVM's counters.
pub fn hsperfdata(data: &[u8]) {
    jvm::fuzz::hsperfdata(data);
}

/// Small files of /proc and /sys, command lines, thread names.
pub fn proc(data: &[u8]) {
    host::fuzz::proc(data);
    discover::fuzz::proc(data);
}

/// A record of the kernel side: each field is the one at its place in the structure.
pub fn records(data: &[u8]) {
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().expect("four"));
    let long = |at: usize| u64::from_ne_bytes(data[at..at + 8].try_into().expect("eight"));
    let Ok(record) = Record::decode(Bytes::copy_from_slice(data)) else { return };
    match record {
        Record::Proposal(r) => {
            assert_eq!(data.len(), size_of::<ProposalRecord>());
            assert_eq!((r.kind, r.slot), (word(0), word(offset_of!(ProposalRecord, slot))));
            assert_eq!(r.generation, word(offset_of!(ProposalRecord, generation)));
            assert_eq!(r.zxid, long(offset_of!(ProposalRecord, zxid)));
            assert_eq!(r.began_at, long(offset_of!(ProposalRecord, began_at)));
            assert_eq!(r.ended_at, long(offset_of!(ProposalRecord, ended_at)));
            assert_eq!(r.flush_ended_at, long(offset_of!(ProposalRecord, flush_ended_at)));
            assert_eq!(r.ack_seq, word(offset_of!(ProposalRecord, ack_seq)));
            assert_eq!(r.way.held_ns, long(offset_of!(ProposalRecord, way.held_ns)));
            let parts = offset_of!(ProposalRecord, causes_ns);
            assert!((0..cause::COUNT).all(|n| r.causes_ns[n] == long(parts + 8 * n)));
        }
        Record::Segment(r) => {
            assert_eq!(data.len(), size_of::<SegmentRecord>());
            assert!((r.cause as usize) < cause::COUNT && r.cause == word(offset_of!(SegmentRecord, cause)));
            assert_eq!(r.ended_at, long(offset_of!(SegmentRecord, ended_at)));
            assert_eq!(r.other_tgid, word(offset_of!(SegmentRecord, other_tgid)));
            assert_eq!(r.comm, data[offset_of!(SegmentRecord, comm)..][..16]);
            let stack = offset_of!(SegmentRecord, stack);
            assert!(r.stack.iter().enumerate().all(|(n, frame)| *frame == long(stack + 8 * n)));
        }
        Record::Heartbeat(r) => {
            assert_eq!(data.len(), size_of::<HeartbeatRecord>());
            assert_eq!(r.ended_at, long(offset_of!(HeartbeatRecord, ended_at)));
        }
        Record::Transition(r) => {
            assert_eq!(data.len(), size_of::<TransitionRecord>());
            assert!((r.change as usize) < change::COUNT);
            assert_eq!(r.at, long(offset_of!(TransitionRecord, at)));
        }
        Record::Thread(r) => {
            assert_eq!(data.len(), size_of::<ThreadRecord>());
            assert_eq!(r.tid, word(offset_of!(ThreadRecord, tid)));
            assert_eq!(r.comm, data[offset_of!(ThreadRecord, comm)..][..16]);
        }
        Record::Safepoint(r) => {
            assert_eq!(data.len(), size_of::<SafepointRecord>());
            assert_eq!(r.ended_at, long(offset_of!(SafepointRecord, ended_at)));
            assert_eq!(r.name[..], data[offset_of!(SafepointRecord, name)..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::TARGETS;

    /// Every named input, among them one for each defect that fuzzing has found.
    #[test]
    fn the_corpora_are_replayed() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let directory = corpus.join(name);
            let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
            let mut count = 0;
            for file in files {
                let path = file.expect("an entry").path();
                println!("{}", path.display()); // shown when the target panics
                target(&fs::read(&path).expect("a file"));
                count += 1;
            }
            assert!(count > 5, "{name} has {count} inputs");
        }
    }
}
