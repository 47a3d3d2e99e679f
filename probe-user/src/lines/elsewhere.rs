//! Where to look next: followers whose delays this host cannot explain.
//!
//! In: happenings as they come, and the report at the end. Out: one hint, or none. Invariant: a follower is named only when
//! nothing but `remote` was the main cause of every line about it. Deliberately absent: guesses about where its node is.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use probe_ebpf::cause;

use super::proposal::main_cause;
use super::sid;
use crate::engine::Happening;
use crate::model::{FollowerKey, Report, Vantage};

/// What the lines so far said of followers.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// Followers that the leader's vantage told of, and whether every delay was mainly remote.
    remote: BTreeMap<FollowerKey, bool>,
}

impl Elsewhere {
    /// Notes proposals that were told.
    pub(crate) fn meet(&mut self, happenings: &[Happening]) {
        for happening in happenings {
            if let Happening::Proposal(r, labels, _) = happening
                && labels.key.vantage == Vantage::Leader
            {
                let remote = main_cause(r) == cause::REMOTE;
                match self.remote.get_mut(&labels.key) {
                    Some(always) => *always &= remote,
                    None => _ = self.remote.insert(labels.key.clone(), remote),
                }
            }
        }
    }

    /// Sends the reader to the nodes of followers that were slow for reasons of their own and are not on this host.
    pub(crate) fn hint(&self, report: &Report) -> Option<String> {
        let here = |key: &FollowerKey| {
            let own = FollowerKey { vantage: Vantage::Follower, ..key.clone() };
            report.followers.iter().any(|f| f.key == own)
        };
        let away: BTreeSet<Option<i64>> = self
            .remote
            .iter()
            .filter(|(key, remote)| **remote && !here(key))
            .map(|(key, _)| key.sid)
            .collect();
        let (who, whose) = match away.len() {
            0 => return None,
            1 => ("follower", "its node"),
            _ => ("followers", "their nodes"),
        };
        let names: Vec<String> = away.into_iter().map(sid).collect();
        Some(format!(
            "{who} {}: the time was spent on {whose} (remote); run termite-probe there to see why",
            names.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::tests::{follower, parts, proposal, report};
    use probe_ebpf::abi::ProposalRecord;

    fn slow(sid: Option<i64>, cause: usize) -> Happening {
        let causes_ns = parts(&[(cause, 100)]);
        let r = ProposalRecord { ended_at: 100, causes_ns, ..ProposalRecord::default() };
        proposal(r, Vantage::Leader, sid)
    }

    fn check(told: &[Happening], here: &[i64], expected: Option<&str>) {
        let mut elsewhere = Elsewhere::default();
        elsewhere.meet(told);
        let mut followers: Vec<_> =
            here.iter().map(|sid| follower(Vantage::Follower, Some(*sid), &[100])).collect();
        followers.extend([2, 3].map(|sid| follower(Vantage::Leader, Some(sid), &[100])));
        assert_eq!(elsewhere.hint(&report(followers)).as_deref(), expected);
    }

    #[test]
    fn followers_that_were_slow_elsewhere_are_named_once() {
        let of = |sid| slow(Some(sid), cause::REMOTE);
        let one = "follower 2: the time was spent on its node (remote); run termite-probe there to see why";
        check(&[of(2), of(2)], &[], Some(one));
        let two =
            "followers 2, 3: the time was spent on their nodes (remote); run termite-probe there to see why";
        check(&[of(3), of(2), of(3)], &[], Some(two));
        check(&[of(3), of(2)], &[3], Some(one));
        let unknown =
            "follower ?: the time was spent on its node (remote); run termite-probe there to see why";
        check(&[slow(None, cause::REMOTE)], &[], Some(unknown));
    }

    #[test]
    fn what_this_host_explains_gives_no_hint() {
        check(&[], &[], None);
        check(&[slow(Some(2), cause::REMOTE)], &[2, 3], None);
        check(&[slow(Some(2), cause::REMOTE), slow(Some(2), cause::NETWORK)], &[], None);
    }
}
