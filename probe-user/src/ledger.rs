//! The books: what was measured of each follower, over all its connections, open and closed.
//!
//! In: links with their labels. Out: [`FollowerReport`]s. Invariants: nothing that was ever measured
//! disappears; `proposals = matched + expired + in_flight`. Deliberately absent: the maps, the clock.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::abi::wire;
use probe_ebpf::histogram::Histogram;
use probe_ebpf::link::{Counts, Link};

use crate::labels::Labels;
use crate::model::{FollowerKey, FollowerReport};

/// Sums over links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    followers: BTreeMap<FollowerKey, FollowerReport>,
}

impl Ledger {
    /// Adds a link that is still open.
    pub(crate) fn add_open(&mut self, link: &Link, labels: &Labels) {
        let report = self.entry(link, labels);
        report.connections += 1;
        report.in_flight += u64::from(link.window.in_flight());
    }

    /// Adds a link for good: what is in flight on it will never be acknowledged.
    pub(crate) fn add_closed(&mut self, link: &Link, labels: &Labels) {
        let report = self.entry(link, labels);
        report.counts.expired += u64::from(link.window.in_flight());
    }

    /// All followers, sorted.
    pub(crate) fn into_reports(self) -> Vec<FollowerReport> {
        self.followers.into_values().collect()
    }

    fn entry(&mut self, link: &Link, labels: &Labels) -> &mut FollowerReport {
        let report = self.followers.entry(labels.key.clone()).or_insert_with(|| empty(labels));
        report.pid = labels.pid;
        report.leader_sid = labels.leader_sid.or(report.leader_sid);
        report.observer |= labels.observer;
        let name = wire_name(link);
        if report.wire == "unknown" || name != "unknown" {
            report.wire = name;
        }
        add_counts(&mut report.counts, &link.counts);
        for (sum, ns) in report.stages_ns.iter_mut().zip(link.stages_ns) {
            *sum += ns;
        }
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
        connections: 0,
        counts: Counts::default(),
        in_flight: 0,
        stages_ns: [0; 4],
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
        stalls,
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
    } = *more;
    sum.proposals += proposals;
    sum.matched += matched;
    sum.expired += expired;
    sum.unmeasured += unmeasured;
    sum.stalls += stalls;
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
}
