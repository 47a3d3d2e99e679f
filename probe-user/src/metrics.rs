//! The report as metrics: a [`Report`] in, an exposition for Prometheus out.
//!
//! Invariants: base units only (ns become seconds here and nowhere before); a follower's series are there
//! with zeros from the moment it is known; what cannot be measured (an observer's proposals, anything on a
//! TLS link, coverage before the first proposal) is absent, never zero; no series appears twice, whatever
//! the report says. Deliberately absent: how the report was made, HTTP, quantiles (the scraper's job).

mod causes;
mod classic;
mod flushes;
mod inferred;
mod jvm;
pub(crate) mod process;
mod programs;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::process::Process;
use self::rows::{Delays, Row};
use crate::model::{FlushReport, JvmReport, ProbeReport, Report, Vantage};
use probe_ebpf::abi::kind;

/// Which of the two text formats is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older format of Prometheus, 0.0.4: what `promtool check metrics` reads.
    Classic,
}

impl Format {
    /// The value of the Content-Type header.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the metrics say beside the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probe {
    /// The probe measures what it was asked to.
    pub(crate) ready: bool,
    /// The probe's own process; `None` when /proc could not be read.
    pub(crate) process: Option<Process>,
}

/// Encodes `report`.
///
/// # Errors
/// None are expected: writing to a string does not fail.
pub(crate) fn encode(report: &Report, probe: Probe, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition {
        rows: rows::collect(&report.followers),
        waits: causes::ack_waits(&report.followers),
        jvms: report.jvms.clone(),
        flushes: report.flushes.clone(),
        report: report.probe.clone(),
        probe,
    }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(match format {
        Format::OpenMetrics => out,
        Format::Classic => classic::from_open_metrics(&out),
    })
}

/// The part of a report that the metrics show.
#[derive(Debug)]
struct Exposition {
    rows: Vec<Row>,
    waits: causes::AckWaits,
    jvms: Vec<JvmReport>,
    flushes: Vec<FlushReport>,
    report: ProbeReport,
    probe: Probe,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        self.encode_delays(e)?;
        for counter in &COUNTERS {
            self.encode_counter(e, counter)?;
        }
        self.encode_stages(e)?;
        causes::encode(e, &self.rows, &self.waits)?;
        self.encode_links(e)?;
        self.encode_coverage(e)?;
        inferred::encode(e, &self.rows)?;
        jvm::encode(e, &self.jvms)?;
        flushes::encode(e, &self.flushes)?;
        self.encode_records(e)?;
        self.encode_probe(e)?;
        self.report.programs.as_deref().map_or(Ok(()), |p| programs::encode(p, e))?;
        self.probe.process.map_or(Ok(()), |p| p.encode(e))
    }
}

/// For which followers a family exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Those whose proposals can be seen.
    Proposals,
    /// Those whose packets can be seen.
    Packets,
}

impl Scope {
    fn covers(self, row: &Row) -> bool {
        match self {
            Self::Proposals => row.proposals_visible,
            Self::Packets => row.packets_visible,
        }
    }
}

/// A counter that each follower has.
struct Counter {
    name: &'static str,
    help: &'static str,
    scope: Scope,
    of: fn(&Row) -> u64,
}

const COUNTERS: [Counter; 6] = [
    Counter {
        name: "termite_proposals",
        help: "Live proposals seen, in proposals: matched + expired + in flight.",
        scope: Scope::Proposals,
        of: |row| row.counts.proposals,
    },
    Counter {
        name: "termite_proposals_matched",
        help: "Live proposals whose acknowledgement was seen, in proposals.",
        scope: Scope::Proposals,
        of: |row| row.counts.matched,
    },
    Counter {
        name: "termite_proposals_expired",
        help: "Live proposals that will never be acknowledged on their connection, in proposals.",
        scope: Scope::Proposals,
        of: |row| row.counts.expired,
    },
    Counter {
        name: "termite_proposals_replayed",
        help: "Old proposals sent again to a joining follower, which are not measured, in proposals.",
        scope: Scope::Proposals,
        of: |row| row.counts.replayed,
    },
    Counter {
        name: "termite_heartbeats",
        help: "Heartbeats (PINGs) of the leader seen, answered or not, in heartbeats.",
        scope: Scope::Packets,
        of: |row| row.counts.pings,
    },
    Counter {
        name: "termite_probe_stream_resyncs",
        help: "Times the packet framing of a connection was lost and searched anew, in occurrences.",
        scope: Scope::Packets,
        of: |row| row.counts.resyncs,
    },
];

/// Names of the stages, in the order of `FollowerReport::stages_ns`.
const STAGES: [&str; 4] = ["receive", "process", "log", "send"];

/// 2^53 ns, from where a float rounds, are 104 days.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn count(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn delays(
    e: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: &[Row],
    scope: Scope,
    of: fn(&Row) -> &Delays,
) -> fmt::Result {
    let mut metric = e.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for row in rows.iter().filter(|row| scope.covers(row)) {
        let delays = of(row);
        metric.encode_family(&row.labels())?.encode_histogram::<NoLabelSet>(
            seconds(delays.sum_ns),
            delays.count(),
            &delays.buckets,
            None,
        )?;
    }
    Ok(())
}

impl Exposition {
    fn encode_delays(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Delay of proposals in seconds: at the follower from arrival to handing over the \
                    acknowledgement, at the leader from sending to the arrival of the acknowledgement.";
        delays(e, ("termite_proposal_delay", help), &self.rows, Scope::Proposals, |row| &row.delay)?;
        let help = "Delay of heartbeats in seconds: at the follower from the arrival of a PING to \
                    handing over its answer, at the leader from sending it to the arrival of the answer.";
        delays(e, ("termite_heartbeat_delay", help), &self.rows, Scope::Packets, |row| &row.heartbeat)
    }

    fn encode_counter(&self, e: &mut DescriptorEncoder<'_>, counter: &Counter) -> fmt::Result {
        let mut metric = e.encode_descriptor(counter.name, counter.help, None, MetricType::Counter)?;
        for row in self.rows.iter().filter(|row| counter.scope.covers(row)) {
            count(&mut metric, &row.labels(), (counter.of)(row))?;
        }
        Ok(())
    }

    fn encode_stages(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Part of the delays spent in each stage in seconds; the stages add up to the sum of \
                    the delays. At the follower's vantage only.";
        let mut metric =
            e.encode_descriptor("termite_proposal_stage", help, Some(&Unit::Seconds), MetricType::Counter)?;
        let here = |row: &&Row| row.vantage == Vantage::Follower && Scope::Proposals.covers(row);
        for row in self.rows.iter().filter(here) {
            for (stage, ns) in STAGES.iter().zip(row.stages_ns) {
                let labels = (row.labels(), [("stage", *stage)]);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds(ns), None)?;
            }
        }
        Ok(())
    }

    fn encode_links(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections with the follower at this moment, in connections, by what is on the wire.";
        let mut metric = e.encode_descriptor("termite_links", help, None, MetricType::Gauge)?;
        for row in &self.rows {
            for ((wire, observer), connections) in &row.links {
                let role = [("wire", *wire), ("observer", if *observer { "true" } else { "false" })];
                metric.encode_family(&(row.labels(), role))?.encode_gauge(connections)?;
            }
        }
        let help = "Live proposals that wait for their acknowledgement at this moment, in proposals.";
        let mut metric = e.encode_descriptor("termite_proposals_in_flight", help, None, MetricType::Gauge)?;
        for row in self.rows.iter().filter(|row| row.proposals_visible) {
            metric.encode_family(&row.labels())?.encode_gauge(&row.in_flight)?;
        }
        Ok(())
    }

    fn encode_coverage(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Share of the acknowledged or expired proposals whose delay was measured, as a ratio \
                    from 0 to 1 since the probe started; absent before the first one.";
        let mut metric =
            e.encode_descriptor("termite_probe_coverage_ratio", help, None, MetricType::Gauge)?;
        for row in &self.rows {
            if let Some(coverage) = row.coverage() {
                metric.encode_family(&row.labels())?.encode_gauge(&coverage)?;
            }
        }
        let help =
            "What the probe saw of a follower's connections and could not use, in occurrences, by kind.";
        let mut metric = e.encode_descriptor("termite_probe_anomalies", help, None, MetricType::Counter)?;
        for row in self.rows.iter().filter(|row| row.packets_visible) {
            for (kind, n) in row.anomalies() {
                count(&mut metric, &(row.labels(), [("kind", kind)]), n)?;
            }
        }
        Ok(())
    }

    fn encode_records(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families = [
            (
                "termite_probe_records",
                "Records that the kernel side handed to user space, in records.",
                &self.report.emitted,
            ),
            (
                "termite_probe_records_lost",
                "Records that the kernel side could not hand over, in records; metrics do not depend on them.",
                &self.report.lost,
            ),
        ];
        for (name, help, values) in families {
            let mut metric = e.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (kind, value) in kind::NAMES.iter().zip(values) {
                count(&mut metric, &[("kind", *kind)], *value)?;
            }
        }
        let single = [
            (
                "termite_probe_links_refused",
                "Connections that were not measured because all slots were in use, in connections.",
                self.report.links_refused,
            ),
            (
                "termite_probe_threads_refused",
                "Times that a thread on a proposal's path got no clock, because all were in use, in occurrences.",
                self.report.threads_refused,
            ),
            (
                "termite_probe_flushes_lost",
                "Flushes of the log that could not be remembered, in flushes.",
                self.report.flushes_lost,
            ),
            (
                "termite_probe_switches_missed",
                "Switches to threads with a clock that the kernel did not trace, in switches.",
                self.report.switches_missed,
            ),
            (
                "termite_probe_clock_discarded",
                "Instants of thread clocks out of order, and spans that did not add up, in occurrences.",
                self.report.clock_discarded,
            ),
            (
                "termite_probe_interrupts_discarded",
                "Begins and ends of interrupts without each other, in occurrences.",
                self.report.interrupts_discarded,
            ),
        ];
        for (name, help, value) in single {
            e.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        programs::encode_skips(&self.report.skips, e)
    }

    fn encode_probe(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Termite processes that are watched at this moment, in processes.";
        e.encode_descriptor("termite_probe_servers", help, None, MetricType::Gauge)?
            .encode_gauge(&self.report.servers)?;
        let help = "1 when the probe measures what it was asked to, else 0.";
        e.encode_descriptor("termite_probe_ready", help, None, MetricType::Gauge)?
            .encode_gauge(&u32::from(self.probe.ready))?;
        let help = "Version of the probe; always 1.";
        e.encode_descriptor("termite_probe_build", help, None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let help = "Each job of the kernel side with the variant in use and its state; always 1.";
        let mut metric = e.encode_descriptor("termite_probe_hook", help, None, MetricType::Info)?;
        let hooks: BTreeSet<_> = self
            .report
            .hooks
            .iter()
            .map(|h| [("hook", h.hook), ("variant", h.variant), ("state", h.state)])
            .collect();
        for labels in hooks {
            metric.encode_info(&labels)?;
        }
        let fence = &self.report.fence;
        let help = "Each part of what the probe gave up once everything was attached, and whether it could; always 1.";
        let mut metric = e.encode_descriptor("termite_probe_fence", help, None, MetricType::Info)?;
        for part in &fence.parts {
            metric.encode_info(&[("part", part.part), ("state", part.state)])?;
        }
        let help = "Each capability that the probe still holds; always 1.";
        let mut metric = e.encode_descriptor("termite_probe_capability", help, None, MetricType::Info)?;
        for capability in &fence.kept {
            metric.encode_info(&[("capability", *capability)])?;
        }
        Ok(())
    }
}
