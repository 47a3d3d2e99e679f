//! Which long wait explains which delay, and which is worth telling by itself.
//!
//! In: segments and safepoints as they come, proposals once they have. Out: clues, and stalls. Invariant: a process that is
//! forgotten leaves nothing behind. Deliberately absent: rendering, and the choice of what the kernel side tells.
#![forbid(unsafe_code)]

use std::sync::Arc;

use probe_ebpf::abi::{ProposalRecord, SafepointRecord, SegmentRecord};
use probe_ebpf::cause;

use crate::clues::{Interpreter, stop};
use crate::evidence::{Clue, Evidence, NOTABLE_NS};
use crate::model::Vantage;

/// Waits that keep a thread from its work, whatever it does. Not so a lock or a sleep: these it chose itself.
const STALLS: [usize; 9] = [
    cause::RUN_QUEUE,
    cause::CPU_THROTTLE,
    cause::GC,
    cause::SAFEPOINT,
    cause::FSYNC,
    cause::DISK_IO,
    cause::RECLAIM,
    cause::KERNEL_WAIT,
    cause::STOPPED,
];

/// A long wait that delays whatever its process does, whether or not a proposal was waiting for it.
#[derive(Clone, Debug)]
pub(crate) struct Stall {
    /// The wait.
    pub(crate) clue: Arc<Clue>,
    /// Name of the ensemble.
    pub(crate) ensemble: String,
    /// Server id of the process.
    pub(crate) sid: Option<i64>,
    /// The end of its links on which the process is: at the leader's it leads; `None` while it has none.
    pub(crate) role: Option<Vantage>,
}

/// Keeps what explains delays.
#[derive(Debug)]
pub(crate) struct Explainer {
    evidence: Evidence,
    interpreter: Interpreter,
    slower_ns: u64,
}

impl Explainer {
    /// Waits of at least `slower_ns` are stalls; `u64::MAX` when nobody asked to see anything.
    pub(crate) fn new(slower_ns: u64) -> Self {
        Self { evidence: Evidence::default(), interpreter: Interpreter::new(), slower_ns }
    }

    /// Keeps a stop of a JVM. It comes before the segments of the threads that it held.
    pub(crate) fn safepoint(&mut self, r: &SafepointRecord) {
        if self.slower_ns != u64::MAX {
            self.evidence.add(Arc::new(stop(r)));
        }
    }

    /// Keeps a long wait of a thread; gives it back when it is a stall.
    pub(crate) fn segment(&mut self, r: &SegmentRecord) -> Option<Arc<Clue>> {
        if self.slower_ns == u64::MAX {
            return None;
        }
        let mut clue = self.interpreter.clue(r);
        if clue.cause == cause::GC || clue.cause == cause::SAFEPOINT {
            let fits = |stop: &Clue| stop.cause == clue.cause && stop.operation.is_some();
            let stops = self.evidence.for_delay(clue.pid, clue.from, clue.to, fits);
            clue.operation = stops.first().and_then(|stop| stop.operation.clone());
        }
        let clue = Arc::new(clue);
        self.evidence.add(clue.clone());
        (clue.duration_ns() >= self.slower_ns && STALLS.contains(&clue.cause)).then_some(clue)
    }

    /// What the process at this end did meanwhile: at the follower in the time of the delay, at the leader
    /// while the ACK that had arrived waited to be read.
    pub(crate) fn explain(&self, r: &ProposalRecord, pid: u32, vantage: Vantage) -> Vec<Arc<Clue>> {
        match vantage {
            Vantage::Follower => {
                let fits = |clue: &Clue| r.causes_ns[clue.cause] >= NOTABLE_NS;
                self.evidence.for_delay(pid, r.began_at, r.ended_at, fits)
            }
            Vantage::Leader => self.evidence.for_delay(pid, r.ended_at, r.read_at, |clue| clue.tid == r.tid),
        }
    }

    /// A process is gone.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.evidence.forget(pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use probe_ebpf::safepoint::NAME_BYTES;

    const MS: u64 = 1_000_000;

    fn gc() -> (SafepointRecord, SegmentRecord) {
        let mut name = [0; NAME_BYTES];
        name[..7].copy_from_slice(b"G1 full");
        let stop =
            SafepointRecord { tgid: 5, began_at: MS, ended_at: 90 * MS, gc: 1, name, ..Default::default() };
        let held = SegmentRecord {
            tgid: 5,
            tid: 6,
            cause: cause::GC as u32,
            began_at: 2 * MS,
            ended_at: 91 * MS,
            ..Default::default()
        };
        (stop, held)
    }

    #[test]
    fn a_thread_that_a_collection_held_knows_which() {
        let mut explainer = Explainer::new(10 * MS);
        let (stop, held) = gc();
        explainer.safepoint(&stop);
        let stall = explainer.segment(&held).unwrap();
        assert_eq!(stall.operation.as_deref(), Some("G1 full"));
        let mut proposal = ProposalRecord { began_at: 0, ended_at: 92 * MS, ..ProposalRecord::default() };
        assert_eq!(explainer.explain(&proposal, 5, Vantage::Follower), []);
        proposal.causes_ns[cause::GC] = 80 * MS;
        assert_eq!(explainer.explain(&proposal, 5, Vantage::Follower).len(), 2);
        // At the leader only the thread that read the ACK counts, after the ACK had arrived.
        let read = ProposalRecord {
            began_at: 0,
            ended_at: MS,
            read_at: 92 * MS,
            tid: 6,
            ..ProposalRecord::default()
        };
        assert_eq!(explainer.explain(&read, 5, Vantage::Leader), [stall]);
        explainer.forget(5);
        assert_eq!(explainer.explain(&proposal, 5, Vantage::Follower), []);
    }

    #[test]
    fn locks_and_short_waits_are_evidence_but_no_stalls() {
        let (_, held) = gc();
        assert!(Explainer::new(100 * MS).segment(&held).is_none());
        let lock = SegmentRecord { cause: cause::LOCK as u32, ..held };
        assert!(Explainer::new(10 * MS).segment(&lock).is_none());
        assert!(Explainer::new(u64::MAX).segment(&held).is_none());
    }
}
