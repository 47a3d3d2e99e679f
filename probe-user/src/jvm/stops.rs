//! Sums of stops over the JVMs of a server: clocks in, reports out.
//!
//! Invariant: sums only grow over the life of the probe, also when a server restarts and its new JVM begins
//! a clock of its own. Deliberately absent: single stops, which are records.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::safepoint::SafepointClock;

use crate::discover::Server;
use crate::model::JvmReport;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops(BTreeMap<(String, Option<i64>), JvmReport>);

impl Stops {
    /// Adds what a clock counted. `rung` is that of a server that runs.
    pub(crate) fn add(&mut self, server: &Server, clock: &SafepointClock, rung: Option<&'static str>) {
        let sid = server.sid.value().map(|sid| sid.0);
        self.add_to((server.ensemble.to_string(), sid), clock, rung);
    }

    fn add_to(&mut self, key: (String, Option<i64>), clock: &SafepointClock, rung: Option<&'static str>) {
        let report = self.0.entry(key.clone()).or_insert_with(|| JvmReport {
            ensemble: key.0,
            sid: key.1,
            rung: None,
            gc: Default::default(),
            safepoint: Default::default(),
            discarded: 0,
        });
        report.rung = rung.or(report.rung);
        report.gc.merge(&clock.gc);
        report.safepoint.merge(&clock.other);
        report.discarded += clock.discarded;
    }

    /// One report for each server, sorted.
    pub(crate) fn into_reports(self) -> Vec<JvmReport> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_server_goes_on_counting() {
        let mut clock = SafepointClock::ZERO;
        clock.begin(10);
        clock.end(30);
        let mut stops = Stops::default();
        let key = ("e".to_owned(), Some(1));
        stops.add_to(key.clone(), &clock, None);
        stops.add_to(("e".to_owned(), None), &clock, Some("symbols"));
        stops.add_to(key, &clock, Some("usdt"));
        let reports = stops.into_reports();
        let told: Vec<_> =
            reports.iter().map(|r| (r.sid, r.rung, r.safepoint.count, r.safepoint.sum_ns)).collect();
        assert_eq!(told, [(None, Some("symbols"), 1, 20), (Some(1), Some("usdt"), 2, 40)]);
    }
}
