//! What the threads of the watched processes were doing lately, kept to explain delays.
//!
//! In: [`Clue`]s as they come, in any order. Out: those that lie in a delay, the longest first. Invariants: at most
//! [`KEPT`] clues of a process are kept, the newest; a clue is given only for time in which it was. Deliberately absent:
//! where the names in a clue come from (`clues`), what is charged to a cause (the kernel side has done that), formats.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Clues that are kept of a process: those of a few seconds in which all its threads are in trouble.
const KEPT: usize = 512;
/// Clues among which the begin of one that goes on is looked for: those of the time between two ticks.
const RECENT: usize = 64;
/// Clues that are given for a delay.
const GIVEN: usize = 8;
/// What explains less of a delay than this is not worth telling, ns.
pub(crate) const NOTABLE_NS: u64 = 1_000_000;

/// One long wait of a thread, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clue {
    /// Index of its main cause, see [`probe_ebpf::cause`].
    pub(crate) cause: usize,
    /// Process.
    pub(crate) pid: u32,
    /// Thread.
    pub(crate) tid: u32,
    /// Its name.
    pub(crate) thread: String,
    /// Begin, monotonic ns.
    pub(crate) from: u64,
    /// End, monotonic ns.
    pub(crate) to: u64,
    /// System call in which it slept.
    pub(crate) call: Option<String>,
    /// Who had the CPU meanwhile.
    pub(crate) preemptor: Option<Other>,
    /// Who ended the wait.
    pub(crate) waker: Option<Other>,
    /// Its own control group, where that had no quota left.
    pub(crate) cgroup: Option<String>,
    /// Block device of the transaction log, where it was flushed.
    pub(crate) device: Option<String>,
    /// Operation of the JVM for which the thread was stopped.
    pub(crate) operation: Option<String>,
    /// Kernel functions in which it waited, the innermost first; addresses where names are not to be had.
    pub(crate) stack: Vec<String>,
}

/// Another thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Other {
    /// Thread.
    pub(crate) tid: u32,
    /// Its process, when known.
    pub(crate) pid: Option<u32>,
    /// Its name.
    pub(crate) comm: String,
    /// Its control group, when it could still be asked.
    pub(crate) cgroup: Option<String>,
}

impl Clue {
    /// Its length.
    pub(crate) fn duration_ns(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// How much of the span from `from` to `to` it takes.
    pub(crate) fn overlap_ns(&self, from: u64, to: u64) -> u64 {
        self.to.min(to).saturating_sub(self.from.max(from))
    }
}

/// The clues of all processes.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    processes: HashMap<u32, VecDeque<Arc<Clue>>>,
}

impl Evidence {
    /// Keeps a clue: a segment of a thread's clock, a safepoint of a JVM, or a span at whose end a tick found a thread in the
    /// kernel. Such spans follow one another, and are one.
    pub(crate) fn add(&mut self, mut clue: Arc<Clue>) {
        let clues = self.processes.entry(clue.pid).or_default();
        let same = |c: &&mut Arc<Clue>| (c.tid, c.cause, c.to) == (clue.tid, clue.cause, clue.from);
        if let Some(begun) = clues.iter_mut().rev().take(RECENT).find(same) {
            Arc::make_mut(&mut clue).from = begun.from;
            *begun = clue;
            return;
        }
        if clues.len() == KEPT {
            clues.pop_front();
        }
        clues.push_back(clue);
    }

    /// Forgets a process.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// What explains the span from `from` to `to` of a process: of the clues that `fits` wants, those
    /// that take a notable part of it, the largest part first.
    pub(crate) fn for_delay(
        &self,
        pid: u32,
        from: u64,
        to: u64,
        fits: impl Fn(&Clue) -> bool,
    ) -> Vec<Arc<Clue>> {
        if to.saturating_sub(from) < NOTABLE_NS {
            return Vec::new();
        }
        let Some(clues) = self.processes.get(&pid) else { return Vec::new() };
        let notable = |c: &&Arc<Clue>| c.overlap_ns(from, to) >= NOTABLE_NS && fits(c);
        let mut found: Vec<_> = clues.iter().filter(notable).cloned().collect();
        // Of equal parts the later clue first: it is nearer to the end of the delay.
        found.sort_by_key(|c| std::cmp::Reverse((c.overlap_ns(from, to), c.to)));
        found.truncate(GIVEN);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn clue(pid: u32, cause: usize, from_ms: u64, to_ms: u64) -> Arc<Clue> {
        Arc::new(Clue { pid, cause, from: from_ms * MS, to: to_ms * MS, ..Clue::default() })
    }

    fn spans(found: &[Arc<Clue>]) -> Vec<(u64, u64)> {
        found.iter().map(|c| (c.from / MS, c.to / MS)).collect()
    }

    #[test]
    fn what_lies_in_the_delay_is_given_the_largest_part_first() {
        let mut evidence = Evidence::default();
        for clue in
            [clue(1, 3, 0, 9), clue(1, 3, 12, 14), clue(1, 3, 15, 40), clue(1, 4, 12, 20), clue(2, 3, 12, 20)]
        {
            evidence.add(clue);
        }
        let of = |from, to| spans(&evidence.for_delay(1, from * MS, to * MS, |c| c.cause == 3));
        assert_eq!(of(10, 20), [(15, 40), (12, 14)]);
        // Less than a millisecond of it is in the delay, or none.
        assert_eq!(spans(&evidence.for_delay(1, 9 * MS - 1, 12 * MS, |_| true)), []);
        assert_eq!(of(41, 50), []);
        // A delay shorter than any clue.
        assert_eq!(spans(&evidence.for_delay(1, 16 * MS, 17 * MS - 1, |_| true)), []);
    }

    #[test]
    fn spans_that_follow_one_another_are_one() {
        let mut evidence = Evidence::default();
        for clue in
            [clue(1, 0, 2, 10), clue(1, 3, 3, 9), clue(1, 0, 10, 18), clue(1, 0, 18, 26), clue(1, 0, 27, 35)]
        {
            evidence.add(clue);
        }
        assert_eq!(spans(&evidence.for_delay(1, 0, 40 * MS, |c| c.cause == 0)), [(2, 26), (27, 35)]);
    }

    #[test]
    fn the_newest_are_kept_and_few_are_given() {
        let mut evidence = Evidence::default();
        for at in 0..KEPT as u64 + 3 {
            evidence.add(clue(1, 3, 2 * at, 2 * at + 1));
        }
        assert_eq!(evidence.for_delay(1, 0, 6 * MS, |_| true), []);
        assert_eq!(spans(&evidence.for_delay(1, 0, 7 * MS, |_| true)), [(6, 7)]);
        let all = evidence.for_delay(1, 0, u64::MAX, |_| true);
        assert_eq!(all.len(), GIVEN);
        assert_eq!(all[0].from / MS, 2 * (KEPT as u64 + 2), "the latest of equals first");
        evidence.forget(1);
        assert_eq!(evidence.for_delay(1, 0, u64::MAX, |_| true), []);
    }
}
