//! The probe's records beside the capture: what both measured, and by how much they differ.
//!
//! In: the records of one trace, the links of one capture, and who is who. Out: the differences per
//! vantage, the proposals that only one of the two has. A record and an exchange belong together by
//! vantage, ensemble (the watched process), follower and zxid.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};

use crate::capture::Link;
use crate::ensemble::Ensemble;
use crate::probe::{Proposal, Vantage};

/// How many examples a message shows.
const EXAMPLES: usize = 8;

/// What comparing gave.
#[derive(Debug, Default)]
pub struct Agreement {
    /// Probe minus capture, in nanoseconds, sorted.
    pub differences_ns: BTreeMap<Vantage, Vec<i64>>,
    /// Acknowledged in the capture, without a record.
    pub missing: Vec<(Vantage, u64, u64)>,
    /// Recorded, but not acknowledged in the capture, or another time over.
    pub invented: Vec<(Vantage, Option<u64>, u64)>,
    /// Recorded for the wrong leader.
    pub wrong_leader: Vec<(Vantage, u64, u64)>,
}

/// The zxids of which every one must have been recorded. Records outside of it must be true as well.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The last zxid before the window.
    pub after: u64,
    /// The last one of it.
    pub last: u64,
}

impl Window {
    /// Every zxid.
    pub const ALL: Self = Self { after: 0, last: u64::MAX };

    /// Whether a zxid is in it.
    pub fn holds(&self, zxid: u64) -> bool {
        zxid > self.after && zxid <= self.last
    }
}

/// Who is who in an ensemble.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The processes whose records belong to it.
    pub pids: Vec<u32>,
    /// The servers by their quorum ports; in namespaces too, no two servers share one.
    pub leaders: BTreeMap<u16, u64>,
}

impl Who {
    /// Who is who in this one.
    pub fn of(ensemble: &Ensemble) -> Result<Self> {
        let port = |sid| Ok((ensemble.server(sid)?.quorum.port(), sid));
        let leaders = ensemble.sids().into_iter().map(port).collect::<Result<_>>()?;
        Ok(Self { pids: ensemble.pids(), leaders })
    }
}

/// Compares what the probe recorded of an ensemble with what the capture saw on its links.
pub fn compare(who: &Who, proposals: &[Proposal], links: &[Link], window: Window) -> Result<Agreement> {
    let mut truth = acknowledged(who, links)?;
    let mut agreement = Agreement::default();
    for proposal in proposals.iter().filter(|proposal| who.pids.contains(&proposal.pid)) {
        let found = proposal.sid.and_then(|sid| truth.remove(&(proposal.vantage, sid, proposal.zxid)));
        let Some(exchange) = found else {
            agreement.invented.push((proposal.vantage, proposal.sid, proposal.zxid));
            continue;
        };
        if proposal.leader_sid.is_some_and(|leader| leader != exchange.leader_sid) {
            agreement.wrong_leader.push((proposal.vantage, exchange.leader_sid, proposal.zxid));
        }
        let difference = i64::try_from(proposal.delay_ns)? - i64::try_from(exchange.delay_ns)?;
        agreement.differences_ns.entry(proposal.vantage).or_default().push(difference);
    }
    let due = truth.into_iter().filter(|((_, _, zxid), exchange)| exchange.due && window.holds(*zxid));
    agreement.missing = due.map(|(key, _)| key).collect();
    for differences in agreement.differences_ns.values_mut() {
        differences.sort_unstable();
    }
    Ok(agreement)
}

/// Every proposal that was acknowledged outside a synchronisation. Where one follower acknowledged the
/// same zxid on two links, the first counts.
type Truth = BTreeMap<(Vantage, u64, u64), Acknowledged>;

/// What the capture knows of a proposal.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    delay_ns: u64,
    leader_sid: u64,
    /// Whether the vantage must have seen the ACK: a leader that was gone by then cannot have.
    due: bool,
}

fn acknowledged(who: &Who, links: &[Link]) -> Result<Truth> {
    let mut truth = Truth::new();
    for link in links.iter().filter(|link| !link.exchanges.is_empty()) {
        let Some(leader_sid) = who.leaders.get(&link.leader.port()).copied() else {
            continue;
        };
        let sid = link.sid.context("a link with proposals whose learner never said who it is")?;
        for exchange in link.exchanges.iter().filter(|exchange| !exchange.replayed) {
            let Some(delay_ns) = exchange.delay_ns() else {
                continue;
            };
            let in_time =
                link.leader_closed_at_ns.is_none_or(|closed_at| exchange.acked_at_ns < Some(closed_at));
            for vantage in [Vantage::Follower, Vantage::Leader] {
                let due = in_time || vantage == Vantage::Follower;
                truth.entry((vantage, sid, exchange.zxid)).or_insert(Acknowledged {
                    delay_ns,
                    leader_sid,
                    due,
                });
            }
        }
    }
    Ok(truth)
}

impl Agreement {
    /// Fails unless both have exactly the same proposals, with the same leaders.
    pub fn check_counts(&self) -> Result<()> {
        let examples = |count: usize| if count > EXAMPLES { ", ..." } else { "" };
        ensure!(
            self.missing.is_empty(),
            "{} acknowledged proposals have no record: {:x?}{}",
            self.missing.len(),
            &self.missing[..self.missing.len().min(EXAMPLES)],
            examples(self.missing.len())
        );
        ensure!(
            self.invented.is_empty(),
            "{} records have no acknowledged proposal: {:x?}{}",
            self.invented.len(),
            &self.invented[..self.invented.len().min(EXAMPLES)],
            examples(self.invented.len())
        );
        ensure!(
            self.wrong_leader.is_empty(),
            "{} records name the wrong leader: {:x?}",
            self.wrong_leader.len(),
            &self.wrong_leader[..self.wrong_leader.len().min(EXAMPLES)]
        );
        Ok(())
    }

    /// Fails unless the median and the p99 of the absolute differences are within these bounds.
    pub fn check_differences(&self, median_ns: u64, p99_ns: u64) -> Result<()> {
        for vantage in [Vantage::Follower, Vantage::Leader] {
            self.check_differences_at(vantage, median_ns, p99_ns)?;
        }
        Ok(())
    }

    /// The same at one vantage.
    pub fn check_differences_at(&self, vantage: Vantage, median_ns: u64, p99_ns: u64) -> Result<()> {
        let spread = self.spread(vantage).with_context(|| format!("nothing compared at {vantage:?}"))?;
        ensure!(spread.p50_ns <= median_ns, "at {vantage:?}, median too large: {spread}");
        ensure!(spread.p99_ns <= p99_ns, "at {vantage:?}, p99 too large: {spread}");
        Ok(())
    }

    /// How the absolute differences spread at one vantage, if there are any.
    pub fn spread(&self, vantage: Vantage) -> Option<Spread> {
        let differences = self.differences_ns.get(&vantage)?;
        let mut sorted: Vec<u64> = differences.iter().map(|difference| difference.unsigned_abs()).collect();
        sorted.sort_unstable();
        let at = |permille: usize| sorted[(sorted.len() - 1) * permille / 1000];
        Some(Spread {
            count: sorted.len(),
            signed_median_ns: differences[differences.len() / 2],
            p50_ns: at(500),
            p90_ns: at(900),
            p99_ns: at(990),
            p999_ns: at(999),
            max_ns: at(1000),
        })
    }
}

/// A distribution of absolute differences.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The median with its sign: who measures more.
    pub signed_median_ns: i64,
    /// The median.
    pub p50_ns: u64,
    /// The ninth of ten.
    pub p90_ns: u64,
    /// The 99th of a hundred.
    pub p99_ns: u64,
    /// The 999th of a thousand.
    pub p999_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "n {} signed median {:+.1} us, absolute p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} us",
            self.count,
            micros(self.signed_median_ns.unsigned_abs()) * if self.signed_median_ns < 0 { -1.0 } else { 1.0 },
            micros(self.p50_ns),
            micros(self.p90_ns),
            micros(self.p99_ns),
            micros(self.p999_ns),
            micros(self.max_ns)
        )
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vantage in self.differences_ns.keys() {
            if let Some(spread) = self.spread(*vantage) {
                writeln!(out, "{vantage:?}: {spread}")?;
            }
        }
        write!(out, "missing {}, invented {}", self.missing.len(), self.invented.len())
    }
}

fn micros(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::{Who, Window, compare};
    use crate::capture::{Exchange, Link};
    use crate::probe::{Proposal, Vantage};

    fn record(vantage: &str, zxid: u64, delay_ns: u64) -> anyhow::Result<Proposal> {
        let text = format!(
            r#"{{"at":"","mono_ns":0,"ensemble":"e","pid":10,"vantage":"{vantage}","sid":2,"leader_sid":1,
            "zxid":"{zxid:#x}","delay_ns":{delay_ns},"causes_ns":{{"unexplained":{delay_ns}}}}}"#
        );
        Ok(serde_json::from_str(&text)?)
    }

    #[test]
    fn missing_and_invented_are_told_apart() -> anyhow::Result<()> {
        let exchange =
            |zxid, acked_at_ns, replayed| Exchange { zxid, sent_at_ns: 100, acked_at_ns, replayed };
        let mut link = Link::new(([127, 0, 0, 1], 5).into());
        link.sid = Some(2);
        link.exchanges =
            vec![exchange(1, Some(150), true), exchange(2, Some(150), false), exchange(3, None, false)];
        let who = Who { pids: vec![10], leaders: [(5, 1)].into() };
        let records = [
            record("follower", 1, 50)?,
            record("follower", 2, 40)?,
            record("follower", 2, 40)?,
            record("leader", 3, 1)?,
        ];
        let agreement = compare(&who, &records, &[link], Window::ALL)?;
        assert_eq!(agreement.differences_ns[&Vantage::Follower], [-10]);
        assert_eq!(agreement.missing, [(Vantage::Leader, 2, 2)]);
        let invented: Vec<u64> = agreement.invented.iter().map(|(_, _, zxid)| *zxid).collect();
        assert_eq!(invented, [1, 2, 3], "a replayed one, one twice, one without an ACK");
        assert!(agreement.check_counts().is_err());
        Ok(())
    }
}
