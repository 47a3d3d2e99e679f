//! The books: what was measured of each follower, over all its connections, open and closed.
//!
//! In: links with their labels. Out: [`FollowerReport`]s. Invariants: nothing that was ever measured
//! disappears; `proposals = matched + expired + in_flight`. Deliberately absent: the maps, the clock.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::abi::wire;
use probe_ebpf::cause;
use probe_ebpf::histogram::Histogram;
use probe_ebpf::inference::doubt;
use probe_ebpf::link::{Counts, Link};

use crate::labels::Labels;
use crate::model::{FollowerKey, FollowerReport};

/// Sums over links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    followers: BTreeMap<FollowerKey, Account>,
}

/// What is summed of one follower, and when its newest link opened: that one says who leads now.
#[derive(Clone, Debug)]
struct Account {
    report: FollowerReport,
    newest_at: u64,
}

impl Ledger {
    /// Adds a link that is still open, or closed so lately that it may yet change.
    pub(crate) fn add_open(&mut self, link: &Link, labels: &Labels) {
        let report = self.entry(link, labels);
        report.connections += u64::from(link.identity.closed_at == 0);
        report.in_flight += u64::from(link.window.in_flight());
    }

    /// Adds a link for good: what is in flight on it will never be acknowledged.
    pub(crate) fn add_closed(&mut self, link: &Link, labels: &Labels) {
        let report = self.entry(link, labels);
        report.counts.expired += u64::from(link.window.in_flight());
    }

    /// All followers, sorted.
    pub(crate) fn into_reports(self) -> Vec<FollowerReport> {
        self.followers.into_values().map(|account| account.report).collect()
    }

    fn entry(&mut self, link: &Link, labels: &Labels) -> &mut FollowerReport {
        let new = || Account { report: empty(labels), newest_at: 0 };
        let account = self.followers.entry(labels.key.clone()).or_insert_with(new);
        let report = &mut account.report;
        let name = wire_name(link);
        if link.identity.opened_at >= account.newest_at {
            account.newest_at = link.identity.opened_at;
            report.pid = labels.pid;
            // None too: the leader of an older link may lead no more.
            report.leader_sid = labels.leader_sid;
            report.doubt =
                (name == "tls").then(|| doubt::NAMES[link.inference.state() as usize % doubt::COUNT]);
            if name != "unknown" {
                report.wire = name;
            }
        } else if report.wire == "unknown" {
            report.wire = name;
        }
        report.observer |= labels.observer;
        for (sum, n) in report.doubts.iter_mut().zip(link.inference.doubts) {
            *sum += n;
        }
        add_counts(&mut report.counts, &link.counts);
        for (sum, ns) in report.stages_ns.iter_mut().zip(link.stages_ns) {
            *sum += ns;
        }
        cause::add(&mut report.causes_ns, &link.causes_ns);
        cause::add(&mut report.stalls_by_cause, &link.stalls_by_cause);
        cause::add(&mut report.leader_ns, &link.leader_ns);
        report.delay.merge(&link.delay);
        report.heartbeat.merge(&link.heartbeat);
        report
    }
}

fn empty(labels: &Labels) -> FollowerReport {
    FollowerReport {
        key: labels.key.clone(),
        leader_sid: None,
        pid: labels.pid,
        observer: false,
        wire: "unknown",
        doubt: None,
        connections: 0,
        doubts: [0; doubt::COUNT],
        counts: Counts::default(),
        in_flight: 0,
        stages_ns: [0; 4],
        causes_ns: [0; cause::COUNT],
        stalls_by_cause: [0; cause::COUNT],
        leader_ns: [0; cause::COUNT],
        delay: Box::new(Histogram::EMPTY),
        heartbeat: Box::new(Histogram::EMPTY),
    }
}

/// What is on the wire; SASL stays visible after its exchange.
pub(crate) fn wire_name(link: &Link) -> &'static str {
    let (down, up) = (link.down.wire, link.up.wire);
    match down.max(up) {
        wire::TLS => "tls",
        wire::SASL => "sasl",
        wire::PLAIN => "plain",
        _ => "unknown",
    }
}

/// Adds every counter. Destructured so that a new one cannot be forgotten.
fn add_counts(sum: &mut Counts, more: &Counts) {
    let Counts {
        proposals,
        matched,
        expired,
        unmeasured,
        replayed,
        replayed_acks,
        unknown_acks,
        gaps,
        resyncs,
        unframed_calls,
        pings,
        pongs,
        commits,
        requests,
        snapshots,
        unknown,
    } = *more;
    sum.proposals += proposals;
    sum.matched += matched;
    sum.expired += expired;
    sum.unmeasured += unmeasured;
    sum.replayed += replayed;
    sum.replayed_acks += replayed_acks;
    sum.unknown_acks += unknown_acks;
    sum.gaps += gaps;
    sum.resyncs += resyncs;
    sum.unframed_calls += unframed_calls;
    sum.pings += pings;
    sum.pongs += pongs;
    sum.commits += commits;
    sum.requests += requests;
    sum.snapshots += snapshots;
    sum.unknown += unknown;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Vantage;
    use probe_ebpf::window::mode;

    fn labels(sid: Option<i64>, leader_sid: Option<i64>, pid: u32) -> Labels {
        let key = FollowerKey { ensemble: "e".into(), vantage: Vantage::Leader, sid };
        Labels { key, leader_sid, pid, observer: false }
    }

    /// A link with three proposals matched, two passed over and `in_flight` under way.
    fn link(opened_at: u64, in_flight: u32) -> Box<Link> {
        let mut link = Box::new(Link::FREE);
        link.identity.opened_at = opened_at;
        (link.window.epoch, link.window.low, link.window.high) = (1, 6, 6 + in_flight);
        (link.window.mode, link.window.live_from) = (mode::LIVE, 1 << 32);
        (link.counts.matched, link.counts.expired) = (3, 2);
        link.counts.proposals = 5 + u64::from(in_flight);
        link.stages_ns = [1, 2, 3, 4];
        (link.causes_ns[cause::FSYNC], link.leader_ns[cause::GC]) = (60, 7);
        link.stalls_by_cause[cause::FSYNC] = 1;
        [10, 20, 30].into_iter().for_each(|ns| link.delay.add(ns));
        link.heartbeat.add(5);
        link
    }

    fn only(ledger: Ledger) -> FollowerReport {
        let mut reports = ledger.into_reports();
        assert_eq!(reports.len(), 1);
        let report = reports.remove(0);
        let c = &report.counts;
        assert_eq!(c.proposals, c.matched + c.expired + report.in_flight, "{report:?}");
        report
    }

    #[test]
    fn open_links_have_proposals_in_flight_and_closed_ones_have_none() {
        let mut ledger = Ledger::default();
        ledger.add_closed(&link(1, 7), &labels(Some(2), Some(1), 100));
        let closed = only(ledger.clone());
        assert_eq!((closed.connections, closed.in_flight, closed.counts.expired), (0, 0, 9));
        ledger.add_open(&link(2, 4), &labels(Some(2), Some(1), 100));
        let both = only(ledger);
        assert_eq!((both.connections, both.in_flight), (1, 4));
        assert_eq!((both.counts.proposals, both.counts.matched, both.counts.expired), (21, 6, 11));
        assert_eq!(both.stages_ns, [2, 4, 6, 8]);
        assert_eq!((both.causes_ns[cause::FSYNC], cause::total(&both.causes_ns)), (120, both.delay.sum_ns));
        assert_eq!((both.stalls_by_cause[cause::FSYNC], both.stalls()), (2, 2));
        assert_eq!((both.leader_ns[cause::GC], cause::total(&both.leader_ns)), (14, 14));
        assert_eq!((both.delay.count, both.delay.sum_ns, both.delay.max_ns), (6, 120, 30));
        assert_eq!(both.heartbeat.count, 2);
    }

    #[test]
    fn a_link_that_closed_a_moment_ago_is_no_connection() {
        let mut ledger = Ledger::default();
        let mut late = link(1, 3);
        late.identity.closed_at = 9;
        ledger.add_open(&late, &labels(Some(2), Some(1), 100));
        let report = only(ledger);
        assert_eq!((report.connections, report.in_flight), (0, 3));
    }

    #[test]
    fn what_is_not_live_is_not_in_flight() {
        let mut ledger = Ledger::default();
        let mut joining = link(1, 0);
        joining.window.high += 50;
        joining.window.mode = mode::JOINING;
        ledger.add_open(&joining, &labels(Some(2), Some(1), 100));
        assert_eq!(only(ledger).in_flight, 0);
    }

    #[test]
    fn the_newest_link_says_who_leads_in_whatever_order_they_come() {
        let (old, new) =
            ((link(1, 0), labels(Some(2), Some(1), 100)), (link(2, 0), labels(Some(2), None, 300)));
        for order in [[&old, &new], [&new, &old]] {
            let mut ledger = Ledger::default();
            order.into_iter().for_each(|(link, labels)| ledger.add_open(link, labels));
            let report = only(ledger);
            assert_eq!((report.leader_sid, report.pid), (None, 300));
        }
    }

    #[test]
    fn followers_are_told_apart_and_sorted() {
        let mut ledger = Ledger::default();
        for sid in [Some(3), None, Some(1)] {
            ledger.add_open(&link(1, 1), &labels(sid, None, 1));
        }
        let sids: Vec<_> = ledger.into_reports().iter().map(|f| f.key.sid).collect();
        assert_eq!(sids, [None, Some(1), Some(3)]);
    }

    #[test]
    fn the_wire_is_what_either_direction_shows_and_is_not_forgotten() {
        let named = |down, up| {
            let mut link = link(1, 0);
            (link.down.wire, link.up.wire) = (down, up);
            wire_name(&link)
        };
        assert_eq!(named(wire::UNKNOWN, wire::UNKNOWN), "unknown");
        assert_eq!(named(wire::PLAIN, wire::UNKNOWN), "plain");
        assert_eq!(named(wire::PLAIN, wire::SASL), "sasl");
        assert_eq!(named(wire::TLS, wire::UNKNOWN), "tls");
        let mut ledger = Ledger::default();
        let mut tls = link(1, 0);
        tls.up.wire = wire::TLS;
        ledger.add_closed(&tls, &labels(Some(2), None, 1));
        ledger.add_open(&link(2, 0), &labels(Some(2), None, 1));
        assert_eq!(only(ledger).wire, "tls");
    }

    #[test]
    fn an_observer_stays_one() {
        let mut ledger = Ledger::default();
        ledger.add_open(&link(1, 0), &Labels { observer: true, ..labels(Some(2), None, 1) });
        ledger.add_open(&link(2, 0), &labels(Some(2), None, 1));
        assert!(only(ledger).observer);
    }
}
