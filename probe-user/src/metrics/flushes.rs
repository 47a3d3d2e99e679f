//! The flushes of servers as a metric: [`FlushReport`]s in, a family out.
//!
//! Invariant: a server's series are there with zeros as soon as its flushes can be seen. Deliberately absent: whose
//! proposals waited for them, which the causes of delays tell.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::rows::{Delays, UNKNOWN_SID};
use crate::model::FlushReport;

/// Encodes the family.
pub(super) fn encode(e: &mut DescriptorEncoder<'_>, servers: &[FlushReport]) -> fmt::Result {
    let help = "Calls of fsync and fdatasync by a server in seconds, whatever the file.";
    let mut metric =
        e.encode_descriptor("termite_fsync", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for server in servers {
        let sid = server.sid.map_or_else(|| UNKNOWN_SID.to_owned(), |sid| sid.to_string());
        let delays = Delays::of_pauses(&server.lengths);
        let labels = [("ensemble", server.ensemble.as_str()), ("sid", sid.as_str())];
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            super::seconds(delays.sum_ns),
            delays.count(),
            &delays.buckets,
            None,
        )?;
    }
    Ok(())
}
