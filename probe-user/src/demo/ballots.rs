//! Which proposals are still open: proposals and acknowledgements go in, commits come out.
//!
//! Invariant: zxids are committed in the order in which they were proposed, each exactly once, and only
//! when a quorum has acknowledged it. Deliberately not here: sockets, clocks and what a proposal says.

use std::collections::VecDeque;

use super::config::Sid;

struct Open {
    zxid: u64,
    voters: Vec<Sid>,
}

/// The proposals without a quorum, oldest first.
pub(crate) struct Ballots {
    quorum: usize,
    open: VecDeque<Open>,
}

impl Ballots {
    /// Commits at `quorum` acknowledgements.
    pub(crate) fn new(quorum: usize) -> Self {
        Self { quorum, open: VecDeque::new() }
    }

    /// Opens the next proposal; zxids of one epoch are consecutive.
    pub(crate) fn propose(&mut self, zxid: u64) {
        self.open.push_back(Open { zxid, voters: Vec::new() });
    }

    /// Counts a voice and returns the proposals that are committed by it. One for a proposal that is
    /// committed already changes nothing, nor does a second one of the same voter.
    pub(crate) fn acknowledge(&mut self, sid: Sid, zxid: u64) -> Vec<u64> {
        let oldest = self.open.front().map_or(u64::MAX, |open| open.zxid);
        let index = zxid.checked_sub(oldest).and_then(|ahead| usize::try_from(ahead).ok());
        let Some(open) = index.and_then(|index| self.open.get_mut(index)) else {
            return Vec::new();
        };
        if !open.voters.contains(&sid) {
            open.voters.push(sid);
        }
        let mut committed = Vec::new();
        while self.open.front().is_some_and(|open| open.voters.len() >= self.quorum) {
            committed.extend(self.open.pop_front().map(|open| open.zxid));
        }
        committed
    }

    /// How many wait for a quorum.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_commits_in_order_and_once() {
        const NONE: [u64; 0] = [];
        let mut ballots = Ballots::new(2);
        for zxid in 101..=103 {
            ballots.propose(zxid);
        }
        assert_eq!(ballots.acknowledge(3, 101), NONE);
        assert_eq!(ballots.acknowledge(3, 101), NONE, "the same voter twice is one voice");
        assert_eq!(ballots.acknowledge(1, 102), NONE);
        assert_eq!(ballots.acknowledge(3, 102), NONE, "101 is open before it");
        assert_eq!(ballots.acknowledge(1, 101), [101, 102]);
        assert_eq!(ballots.acknowledge(2, 101), NONE, "late voices change nothing");
        assert_eq!(ballots.acknowledge(2, 999), NONE);
        assert_eq!(ballots.len(), 1);
    }
}
