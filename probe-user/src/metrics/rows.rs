//! One row for each follower and vantage: what the metrics need of a [`FollowerReport`], ready to encode.
//!
//! In: the followers of a report. Out: rows with distinct labels; followers that the labels cannot tell
//! apart (two of one ensemble whose sids are unknown) are added up, for a scraper refuses a page that
//! names a series twice. Deliberately absent: the text format.

use std::collections::BTreeMap;

use crate::model::{FollowerKey, FollowerReport, Vantage};
use probe_ebpf::cause::{self, Parts};
use probe_ebpf::histogram::{BOUNDS_NS, Histogram};
use probe_ebpf::inference::doubt;
use probe_ebpf::link::Counts;
use probe_ebpf::safepoint::Pauses;

/// The label value of a follower whose server id is not known yet.
pub(super) const UNKNOWN_SID: &str = "unknown";

/// Of the bounds of proposal delays, heartbeats and stops use every so many: they are few, and series cost.
const FEW_STEP: usize = 2;

/// A histogram for the encoder.
#[derive(Debug)]
pub(super) struct Delays {
    /// Sum, ns.
    pub(super) sum_ns: u64,
    /// Upper bound (inclusive) in seconds and samples of each bucket, not cumulative; the last is +Inf.
    pub(super) buckets: Vec<(f64, u64)>,
}

/// A follower at a vantage.
#[derive(Debug)]
pub(super) struct Row {
    ensemble: String,
    sid: String,
    pub(super) vantage: Vantage,
    /// Its proposals are measured; not so for an observer, nor behind TLS before one was inferred.
    pub(super) proposals_visible: bool,
    /// It is or was behind TLS: its proposals are inferred.
    pub(super) inferred: bool,
    /// How often each doubt arose there.
    pub(super) doubts: [u64; doubt::COUNT],
    /// Its packets are seen; not so behind TLS.
    pub(super) packets_visible: bool,
    /// Connections by what is on the wire and whether it is an observer.
    pub(super) links: BTreeMap<(&'static str, bool), u64>,
    pub(super) counts: Counts,
    pub(super) in_flight: u64,
    pub(super) stages_ns: [u64; 4],
    pub(super) causes_ns: Parts,
    pub(super) stalls_by_cause: [u64; cause::COUNT],
    pub(super) delay: Delays,
    pub(super) heartbeat: Delays,
}

/// Rows of `followers`, sorted by key.
pub(super) fn collect(followers: &[FollowerReport]) -> Vec<Row> {
    let mut rows: BTreeMap<&FollowerKey, Row> = BTreeMap::new();
    for follower in followers {
        rows.entry(&follower.key).or_insert_with(|| Row::new(&follower.key)).add(follower);
    }
    rows.into_values().collect()
}

impl Delays {
    /// An empty histogram with every `step`-th bound.
    fn new(step: usize) -> Self {
        let bounds = BOUNDS_NS.iter().step_by(step).map(|ns| (super::seconds(*ns), 0));
        Self { sum_ns: 0, buckets: bounds.chain([(f64::INFINITY, 0)]).collect() }
    }

    /// Adds `histogram`; a bucket between two kept bounds falls to the upper one.
    fn add(&mut self, histogram: &Histogram, step: usize) {
        self.add_buckets(&histogram.decimal, histogram.sum_ns, step);
    }

    /// The stops of a JVM, or the flushes of a server.
    pub(super) fn of_pauses(pauses: &Pauses) -> Self {
        let mut delays = Self::new(FEW_STEP);
        delays.add_buckets(&pauses.decimal, pauses.sum_ns, FEW_STEP);
        delays
    }

    fn add_buckets(&mut self, decimal: &[u64], sum_ns: u64, step: usize) {
        self.sum_ns = self.sum_ns.wrapping_add(sum_ns);
        let last = self.buckets.len() - 1;
        for (index, n) in decimal.iter().enumerate() {
            self.buckets[index.div_ceil(step).min(last)].1 += n;
        }
    }

    /// Samples. Counted from the buckets: the report's own count was read from a live map at another
    /// instant, and +Inf must equal the count.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }
}

impl Row {
    fn new(key: &FollowerKey) -> Self {
        Self {
            ensemble: key.ensemble.clone(),
            sid: key.sid.map_or_else(|| UNKNOWN_SID.to_owned(), |sid| sid.to_string()),
            vantage: key.vantage,
            proposals_visible: false,
            inferred: false,
            doubts: [0; doubt::COUNT],
            packets_visible: false,
            links: BTreeMap::new(),
            counts: Counts::default(),
            in_flight: 0,
            stages_ns: [0; 4],
            causes_ns: [0; cause::COUNT],
            stalls_by_cause: [0; cause::COUNT],
            delay: Delays::new(1),
            heartbeat: Delays::new(FEW_STEP),
        }
    }

    fn add(&mut self, f: &FollowerReport) {
        // What was once measured stays, even when the follower came back as an observer or with TLS.
        self.packets_visible |= f.wire != "tls" || f.counts.pings > 0;
        self.inferred |= f.wire == "tls";
        for (mine, theirs) in self.doubts.iter_mut().zip(f.doubts) {
            *mine += theirs;
        }
        self.proposals_visible |= (f.wire != "tls" && !f.observer) || f.counts.proposals > 0;
        *self.links.entry((f.wire, f.observer)).or_default() += f.connections;
        add_counts(&mut self.counts, &f.counts);
        self.in_flight += f.in_flight;
        cause::add(&mut self.causes_ns, &f.causes_ns);
        cause::add(&mut self.stalls_by_cause, &f.stalls_by_cause);
        for (mine, theirs) in self.stages_ns.iter_mut().zip(f.stages_ns) {
            *mine += theirs;
        }
        self.delay.add(&f.delay, 1);
        self.heartbeat.add(&f.heartbeat, FEW_STEP);
    }

    /// The labels of every series of this row.
    pub(super) fn labels(&self) -> [(&'static str, &str); 3] {
        [("ensemble", self.ensemble.as_str()), ("vantage", self.vantage.name()), ("sid", self.sid.as_str())]
    }

    /// Measured ÷ (acknowledged or expired); `None` before the first such proposal.
    pub(super) fn coverage(&self) -> Option<f64> {
        let ended = self.counts.matched + self.counts.expired;
        let measured = self.counts.matched.saturating_sub(self.counts.unmeasured);
        (ended > 0).then(|| measured as f64 / ended as f64)
    }

    /// What was seen and could not be used.
    pub(super) fn anomalies(&self) -> [(&'static str, u64); 4] {
        [
            ("gap", self.counts.gaps),
            ("unframed_call", self.counts.unframed_calls),
            ("unknown_ack", self.counts.unknown_acks),
            ("unmeasured", self.counts.unmeasured),
        ]
    }
}

/// Adds the counters that metrics show.
fn add_counts(mine: &mut Counts, theirs: &Counts) {
    mine.proposals += theirs.proposals;
    mine.matched += theirs.matched;
    mine.expired += theirs.expired;
    mine.unmeasured += theirs.unmeasured;
    mine.replayed += theirs.replayed;
    mine.unknown_acks += theirs.unknown_acks;
    mine.gaps += theirs.gaps;
    mine.resyncs += theirs.resyncs;
    mine.unframed_calls += theirs.unframed_calls;
    mine.pings += theirs.pings;
    mine.unknown += theirs.unknown;
}
