//! Proposals that one thing delayed, as one: a stop of 150 ms meets every proposal of that time.
//!
//! In: proposals in the order in which they ended, and the time. Out: groups, each with the proposal of the largest delay.
//! Invariants: every proposal is in exactly one group; a group is held no longer than [`HELD_NS`]. Deliberately absent: a
//! clock, formats.
#![forbid(unsafe_code)]

use probe_ebpf::abi::ProposalRecord;

use super::proposal::main_cause;
use crate::engine::Happening;

/// How long a group waits for others after its first has ended. They are acknowledged in one go once what held them is over,
/// and their records are here with the next batch, `DRAIN_EVERY` later at most.
const HELD_NS: u64 = 100_000_000;

/// Others that are told with a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct More {
    /// How many.
    pub(super) count: u64,
    /// The smallest of their delays.
    pub(super) least_ns: u64,
}

/// Proposals of one connection with the same main cause, which all began before the first of them ended.
#[derive(Debug)]
pub(super) struct Group {
    /// The one with the largest delay.
    pub(super) shown: Happening,
    delay_ns: u64,
    more: u64,
    least_ns: u64,
    cause: usize,
    connection: (u32, u32),
    first_ended_at: u64,
    /// One came that had not begun when the first ended. A follower acknowledges in order: no other will come.
    complete: bool,
}

impl Group {
    fn new(happening: &Happening, r: &ProposalRecord) -> Self {
        let delay_ns = delay_ns(r);
        Self {
            shown: happening.clone(),
            delay_ns,
            more: 0,
            least_ns: delay_ns,
            cause: main_cause(r),
            connection: (r.slot, r.generation),
            first_ended_at: r.ended_at,
            complete: false,
        }
    }

    /// The others.
    pub(super) fn more(&self) -> Option<More> {
        (self.more > 0).then_some(More { count: self.more, least_ns: self.least_ns })
    }

    fn takes(&self, r: &ProposalRecord) -> bool {
        !self.complete && self.connection == (r.slot, r.generation) && self.cause == main_cause(r)
    }

    fn add(&mut self, happening: &Happening, r: &ProposalRecord) {
        let delay_ns = delay_ns(r);
        self.more += 1;
        self.least_ns = self.least_ns.min(delay_ns);
        if delay_ns > self.delay_ns {
            self.delay_ns = delay_ns;
            self.shown = happening.clone();
        }
    }
}

fn delay_ns(r: &ProposalRecord) -> u64 {
    r.ended_at.saturating_sub(r.began_at)
}

/// The groups that wait for more.
#[derive(Debug)]
pub(super) struct Fold {
    folds: bool,
    open: Vec<Group>,
}

impl Fold {
    /// One that groups, or one that gives each proposal a group of its own.
    pub(super) fn new(folds: bool) -> Self {
        Self { folds, open: Vec::new() }
    }

    /// Puts a proposal to those that were delayed with it; everything else is none of its business.
    pub(super) fn add(&mut self, happening: &Happening) {
        let Happening::Proposal(r, ..) = happening else { return };
        let own = |group: &&mut Group| group.connection == (r.slot, r.generation);
        for group in self.open.iter_mut().filter(own) {
            group.complete |= !self.folds || r.began_at >= group.first_ended_at;
        }
        match self.open.iter_mut().find(|group| group.takes(r)) {
            Some(group) => group.add(happening, r),
            None => self.open.push(Group::new(happening, r)),
        }
    }

    /// Gives the groups that are complete or were held long enough.
    pub(super) fn ended(&mut self, now: u64) -> Vec<Group> {
        let over = |group: &mut Group| {
            !self.folds || group.complete || now >= group.first_ended_at.saturating_add(HELD_NS)
        };
        self.open.extract_if(.., over).collect()
    }

    /// When the first proposal ended that is still held.
    pub(super) fn held_since(&self) -> Option<u64> {
        self.open.iter().map(|group| group.first_ended_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::{parts, proposal};
    use crate::model::Vantage;
    use probe_ebpf::cause;

    const MS: u64 = 1_000_000;

    /// A proposal on a connection with a main cause, from and to in ms.
    fn slow(slot: u32, cause: usize, from: u64, to: u64) -> Happening {
        let (began_at, ended_at) = (from * MS, to * MS);
        let causes_ns = parts(&[(cause, ended_at - began_at)]);
        let r = ProposalRecord { slot, began_at, ended_at, causes_ns, ..ProposalRecord::default() };
        proposal(r, Vantage::Follower, Some(2))
    }

    /// Delay shown, number of others, smallest of theirs, in ms.
    fn told(groups: &[Group]) -> Vec<(u64, u64, u64)> {
        let others = |g: &Group| g.more().map_or((0, 0), |m| (m.count, m.least_ns / MS));
        groups.iter().map(|g| (g.delay_ns / MS, others(g).0, others(g).1)).collect()
    }

    fn check(folds: bool, happenings: &[Happening], expected: &[(u64, u64, u64)]) {
        let mut fold = Fold::new(folds);
        happenings.iter().for_each(|h| fold.add(h));
        assert_eq!(told(&fold.ended(u64::MAX)), expected);
        assert_eq!(fold.held_since(), None);
    }

    #[test]
    fn what_one_stop_delayed_is_one() {
        let stop: Vec<_> = (0..21).map(|i| slow(1, cause::STOPPED, 5 * i, 150)).collect();
        check(true, &stop, &[(150, 20, 50)]);
        check(false, &stop[..2], &[(150, 0, 0), (145, 0, 0)]);
        // The largest is shown, wherever it comes.
        check(true, &[slow(1, 0, 50, 100), slow(1, 0, 10, 101), slow(1, 0, 60, 102)], &[(91, 2, 42)]);
    }

    #[test]
    fn other_causes_connections_and_times_are_told_apart() {
        let first = || slow(1, cause::GC, 0, 100);
        check(true, &[first(), slow(1, cause::FSYNC, 10, 101)], &[(100, 0, 0), (91, 0, 0)]);
        check(true, &[first(), slow(2, cause::GC, 10, 101)], &[(100, 0, 0), (91, 0, 0)]);
        check(true, &[first(), slow(1, cause::GC, 100, 150)], &[(100, 0, 0), (50, 0, 0)]);
        // It began within the second's time, not within the first's.
        check(
            true,
            &[first(), slow(1, cause::GC, 99, 190), slow(1, cause::GC, 120, 191)],
            &[(100, 1, 91), (71, 0, 0)],
        );
    }

    #[test]
    fn a_group_is_given_when_it_is_complete_or_was_held_long_enough() {
        let mut fold = Fold::new(true);
        fold.add(&slow(1, cause::GC, 0, 100));
        fold.add(&slow(2, cause::GC, 0, 120));
        assert_eq!(told(&fold.ended(100 * MS + HELD_NS - 1)), []);
        assert_eq!(fold.held_since(), Some(100 * MS));
        fold.add(&slow(2, cause::GC, 120, 150));
        assert_eq!(told(&fold.ended(120 * MS)), [(120, 0, 0)], "complete");
        assert_eq!(told(&fold.ended(100 * MS + HELD_NS)), [(100, 0, 0)], "held long enough");
        assert_eq!(fold.held_since(), Some(150 * MS));
    }

    #[test]
    fn without_folding_nothing_waits() {
        let mut fold = Fold::new(false);
        fold.add(&slow(1, cause::GC, 0, 100));
        assert_eq!(told(&fold.ended(100 * MS)), [(100, 0, 0)]);
    }
}
