//! The stops of JVMs as metrics: [`JvmReport`]s in, families out.
//!
//! Invariant: a server's series are there with zeros as soon as its stops can be counted; one whose stops
//! cannot be has a rung that says so and no histogram. Deliberately absent: single stops.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::rows::Delays;
use crate::model::JvmReport;

/// The label value of a server whose id is not known yet.
const UNKNOWN_SID: &str = "unknown";

/// Encodes the families of all JVMs.
pub(super) fn encode(e: &mut DescriptorEncoder<'_>, jvms: &[JvmReport]) -> fmt::Result {
    let help = "Stops of a server's JVM in seconds, for all of its threads: for garbage collection (gc) and \
                for other reasons (safepoint).";
    let mut metric =
        e.encode_descriptor("termite_jvm_safepoint", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for jvm in jvms.iter().filter(|jvm| jvm.counts_stops()) {
        let sid = sid(jvm);
        for (kind, pauses) in [("gc", &jvm.gc), ("safepoint", &jvm.safepoint)] {
            let delays = Delays::of_pauses(pauses);
            let labels = [("ensemble", jvm.ensemble.as_str()), ("sid", sid.as_str()), ("kind", kind)];
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                super::seconds(delays.sum_ns),
                delays.count(),
                &delays.buckets,
                None,
            )?;
        }
    }
    let help = "How the stops of a running server's JVM are seen; always 1.";
    let mut metric = e.encode_descriptor("termite_jvm_rung", help, None, MetricType::Info)?;
    for jvm in jvms {
        if let Some(rung) = jvm.rung {
            let sid = sid(jvm);
            metric.encode_info(&[
                ("ensemble", jvm.ensemble.as_str()),
                ("sid", sid.as_str()),
                ("rung", rung),
            ])?;
        }
    }
    let help = "Stops of a server's JVM that could not be measured, in stops.";
    let mut metric = e.encode_descriptor("termite_jvm_stops_discarded", help, None, MetricType::Counter)?;
    for jvm in jvms.iter().filter(|jvm| jvm.counts_stops()) {
        let sid = sid(jvm);
        let labels = [("ensemble", jvm.ensemble.as_str()), ("sid", sid.as_str())];
        super::count(&mut metric, &labels, jvm.discarded)?;
    }
    Ok(())
}

fn sid(jvm: &JvmReport) -> String {
    jvm.sid.map_or_else(|| UNKNOWN_SID.to_owned(), |sid| sid.to_string())
}
