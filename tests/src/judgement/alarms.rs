//! Stalls of servers to which nothing was done.

use std::collections::BTreeMap;

use super::Stop;
use crate::probe::{Proposal, Vantage};

/// Delays above this are stalls.
pub const ALARM_NS: u64 = 50_000_000;

/// A stall of a server to which nothing was done: delays that overlap are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The server that is blamed.
    pub sid: Option<u64>,
    /// Where it was seen; nothing for a stop of the server's own threads.
    pub vantage: Option<Vantage>,
    /// The cause of its longest delay.
    pub verdict: String,
    /// Its longest delay.
    pub longest_ns: u64,
    /// When it ended, on the monotonic clock.
    pub ended_at: u64,
}

/// All stalls in order of time for each server, but for those that are told there of a server to which something was
/// done.
pub fn alarms(
    is_faulted: impl Fn(Option<Vantage>, u64) -> bool,
    proposals: &[Proposal],
    stops: &[Stop],
) -> Vec<Alarm> {
    let delays = proposals.iter().map(|proposal| {
        let verdict = proposal.verdict.clone().unwrap_or_default();
        (Some(proposal.vantage), proposal.sid, proposal.began_at(), proposal.mono_ns, verdict)
    });
    let stops = stops.iter().map(|stop| (None, stop.sid, stop.began_at, stop.ended_at, stop.cause.clone()));
    let mut by_server: BTreeMap<_, Vec<(u64, u64, String)>> = BTreeMap::new();
    for (vantage, sid, began_at, ended_at, verdict) in delays.chain(stops) {
        let is_expected = sid.is_some_and(|sid| is_faulted(vantage, sid));
        if !is_expected && ended_at.saturating_sub(began_at) > ALARM_NS {
            by_server.entry((vantage, sid)).or_default().push((began_at, ended_at, verdict));
        }
    }
    by_server.into_iter().flat_map(|((vantage, sid), delays)| merged(vantage, sid, delays)).collect()
}

fn merged(vantage: Option<Vantage>, sid: Option<u64>, mut delays: Vec<(u64, u64, String)>) -> Vec<Alarm> {
    delays.sort();
    let mut alarms: Vec<Alarm> = Vec::new();
    for (began_at, ended_at, verdict) in delays {
        let longest_ns = ended_at - began_at;
        match alarms.last_mut().filter(|alarm| began_at <= alarm.ended_at) {
            Some(alarm) => {
                alarm.ended_at = alarm.ended_at.max(ended_at);
                if longest_ns > alarm.longest_ns {
                    (alarm.longest_ns, alarm.verdict) = (longest_ns, verdict);
                }
            }
            None => alarms.push(Alarm { sid, vantage, verdict, longest_ns, ended_at }),
        }
    }
    alarms
}
