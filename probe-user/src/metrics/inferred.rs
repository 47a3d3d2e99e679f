//! What is not known of proposals inside TLS.
//!
//! In: rows. Out: counters of the followers that are or were behind TLS. Invariant: a proposal is counted here or among the
//! measured ones, not in both. Deliberately absent: links in clear, of which everything is known.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::count;
use super::rows::Row;
use probe_ebpf::inference::doubt;

/// Encodes them.
pub(super) fn encode(e: &mut DescriptorEncoder<'_>, rows: &[Row]) -> fmt::Result {
    let help =
        "Proposals inside TLS, as far as they can be counted, of which nothing is known, in proposals.";
    let mut metric = e.encode_descriptor("termite_proposals_unknown", help, None, MetricType::Counter)?;
    for row in rows.iter().filter(|row| row.inferred) {
        count(&mut metric, &row.labels(), row.counts.unknown)?;
    }
    let help = "Times that the pairing of proposals and acknowledgements inside TLS was given up, in occurrences, \
                by reason.";
    let mut metric =
        e.encode_descriptor("termite_probe_inference_doubts", help, None, MetricType::Counter)?;
    for row in rows.iter().filter(|row| row.inferred) {
        for reason in [doubt::SIZE, doubt::SURPLUS, doubt::UNBALANCED, doubt::BYTES] {
            let index = reason as usize;
            count(&mut metric, &(row.labels(), [("reason", doubt::NAMES[index])]), row.doubts[index])?;
        }
    }
    Ok(())
}
