//! The causes of delays as metrics: rows and followers in, families out.
//!
//! Invariants: every cause that is possible at a vantage has its series, with zeros, from the moment the follower is known;
//! the causes of a follower add up to the sum of its delays. Deliberately absent: single delays.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::rows::{Row, UNKNOWN_SID};
use super::{count, seconds};
use crate::model::{FollowerReport, Vantage};
use probe_ebpf::cause::{self, Parts};

/// What the leader itself was doing while ACKs that had arrived waited to be read, by ensemble and leader.
pub(super) type AckWaits = BTreeMap<(String, String), Parts>;

/// Sums over the followers that are seen from their leader.
pub(super) fn ack_waits(followers: &[FollowerReport]) -> AckWaits {
    let mut waits = AckWaits::new();
    let at_leader = |f: &&FollowerReport| f.key.vantage == Vantage::Leader && !f.observer && f.wire != "tls";
    for f in followers.iter().filter(at_leader) {
        let leader = f.leader_sid.map_or_else(|| UNKNOWN_SID.to_owned(), |sid| sid.to_string());
        let parts = waits.entry((f.key.ensemble.clone(), leader)).or_insert([0; cause::COUNT]);
        cause::add(parts, &f.leader_ns);
    }
    waits
}

/// Can a delay at `vantage` have this cause?
fn is_possible(vantage: Vantage, index: usize) -> bool {
    let elsewhere = index == cause::NETWORK || index == cause::REMOTE;
    match vantage {
        Vantage::Follower => !elsewhere,
        Vantage::Leader => elsewhere || index == cause::UNEXPLAINED,
    }
}

/// Encodes the families.
pub(super) fn encode(e: &mut DescriptorEncoder<'_>, rows: &[Row], waits: &AckWaits) -> fmt::Result {
    let help = "Part of the delays due to each cause in seconds; the causes add up to the sum of the delays.";
    let mut metric =
        e.encode_descriptor("termite_proposal_cause", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for row in rows.iter().filter(|row| row.proposals_visible) {
        for (index, (name, ns)) in cause::NAMES.iter().zip(row.causes_ns).enumerate() {
            // What should be impossible shows rather than being left out of the sum.
            if ns > 0 || is_possible(row.vantage, index) {
                let labels = (row.labels(), [("cause", *name)]);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds(ns), None)?;
            }
        }
    }
    let help =
        "Proposals with a delay of at least the stall threshold in proposals, by the largest cause of each.";
    let mut metric = e.encode_descriptor("termite_proposal_stalls", help, None, MetricType::Counter)?;
    for row in rows.iter().filter(|row| row.proposals_visible) {
        for (index, (name, stalls)) in cause::NAMES.iter().zip(row.stalls_by_cause).enumerate() {
            if stalls > 0 || is_possible(row.vantage, index) {
                count(&mut metric, &(row.labels(), [("cause", *name)]), stalls)?;
            }
        }
    }
    let help = "What the leader itself was doing in seconds while acknowledgements that had arrived waited to be \
                read, by cause, for each acknowledgement; not part of any delay.";
    let mut metric =
        e.encode_descriptor("termite_leader_ack_wait", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for ((ensemble, sid), parts) in waits {
        for (index, (name, ns)) in cause::NAMES.iter().zip(parts).enumerate() {
            if *ns > 0 || is_possible(Vantage::Follower, index) {
                let labels = [("ensemble", ensemble.as_str()), ("sid", sid.as_str()), ("cause", *name)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&seconds(*ns), None)?;
            }
        }
    }
    Ok(())
}
