//! Flushes of servers: what the kernel counted for each process in, a report for each server out.
//!
//! Invariants: counts only grow over the life of the probe, also when a server restarts; a server whose flushes cannot be
//! seen has no report. Deliberately absent: which file was flushed, and which proposals waited for it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use probe_ebpf::safepoint::Pauses;

use crate::discover::Server;
use crate::model::FlushReport;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushes(BTreeMap<(String, Option<i64>), Pauses>);

impl Flushes {
    /// Adds the flushes of a process of `server`.
    pub(crate) fn add(&mut self, server: &Server, lengths: &Pauses) {
        self.add_to((server.ensemble.to_string(), server.sid.value().map(|sid| sid.0)), lengths);
    }

    fn add_to(&mut self, key: (String, Option<i64>), lengths: &Pauses) {
        self.0.entry(key).or_default().merge(lengths);
    }

    /// One report for each server, sorted.
    pub(crate) fn into_reports(self) -> Vec<FlushReport> {
        let report = |((ensemble, sid), lengths)| FlushReport { ensemble, sid, lengths };
        self.0.into_iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_server_goes_on_counting() {
        let mut lengths = Pauses::NONE;
        lengths.add(3_000_000);
        let mut flushes = Flushes::default();
        for sid in [Some(1), None, Some(1)] {
            flushes.add_to(("e".to_owned(), sid), &lengths);
        }
        let told: Vec<_> =
            flushes.into_reports().iter().map(|r| (r.sid, r.lengths.count, r.lengths.sum_ns)).collect();
        assert_eq!(told, [(None, 1, 3_000_000), (Some(1), 2, 6_000_000)]);
    }
}
