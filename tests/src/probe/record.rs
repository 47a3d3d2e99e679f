//! The records of `trace --json`, as the contract states them. Unknown fields and kinds are tolerated:
//! they may be added; what is here may not go away.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Deserializer, de::Error as _};

/// One line.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A proposal and its acknowledgement.
    Proposal(Proposal),
    /// A ping and its answer.
    Heartbeat(serde_json::Value),
    /// A server or a link came, went or changed.
    Transition(serde_json::Value),
    /// A JVM stood still.
    Safepoint(Safepoint),
    /// A thread of a server stood still without a proposal that waited for it.
    Stall(Stall),
    /// Records that could not be emitted.
    Lost(Lost),
    /// The last line.
    Summary(Summary),
    /// A kind of a newer probe.
    #[serde(other)]
    Other,
}

/// Where a delay was measured.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Vantage {
    /// On the follower's node.
    Follower,
    /// On the leader's node.
    Leader,
}

/// One measured proposal.
#[derive(Clone, Debug, Deserialize)]
pub struct Proposal {
    /// Wall clock, RFC 3339.
    pub at: String,
    /// Monotonic clock.
    pub mono_ns: u64,
    /// The cluster's name.
    pub ensemble: String,
    /// The process that was watched.
    pub pid: u32,
    /// Where it was measured.
    pub vantage: Vantage,
    /// The follower.
    pub sid: Option<u64>,
    /// Its leader.
    pub leader_sid: Option<u64>,
    /// The proposal; 0 where its zxid cannot be seen.
    #[serde(deserialize_with = "zxid")]
    pub zxid: u64,
    /// How long it took.
    pub delay_ns: u64,
    /// How the delay splits along the way.
    #[serde(default)]
    pub stages_ns: Option<Stages>,
    /// How the delay splits by cause.
    pub causes_ns: BTreeMap<String, u64>,
    /// The cause with the largest share.
    #[serde(default)]
    pub verdict: Option<String>,
    /// Whether it was matched without seeing zxids.
    #[serde(default)]
    pub inferred: bool,
    /// What the verdict rests on.
    #[serde(default)]
    pub evidence: serde_json::Value,
}

/// The stages of a delay at the follower.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Stages {
    /// From the arrival to the read.
    #[serde(default)]
    pub receive: Option<u64>,
    /// From the read to the log.
    #[serde(default)]
    pub process: Option<u64>,
    /// The flush.
    #[serde(default)]
    pub log: Option<u64>,
    /// From the flush to the ACK.
    #[serde(default)]
    pub send: Option<u64>,
}

/// One stop of a JVM.
#[derive(Clone, Debug, Deserialize)]
pub struct Safepoint {
    /// Its end, on the monotonic clock.
    pub mono_ns: u64,
    /// The process.
    pub pid: u32,
    /// The server.
    pub sid: Option<u64>,
    /// How long it took.
    pub duration_ns: u64,
    /// Whether it was for garbage collection.
    pub gc: bool,
    /// What for, as the JVM calls it.
    pub operation: Option<String>,
    /// How it was seen.
    pub rung: String,
}

/// A time for which a thread of a server stood still.
#[derive(Clone, Debug, Deserialize)]
pub struct Stall {
    /// Its end, on the monotonic clock.
    pub mono_ns: u64,
    /// The process.
    pub pid: u32,
    /// The server.
    pub sid: Option<u64>,
    /// At which end of its links it is; absent while it has none.
    pub role: Option<Vantage>,
    /// The thread.
    pub tid: u32,
    /// The thread's name.
    pub thread: String,
    /// Why it stood still.
    pub cause: String,
    /// How long.
    pub duration_ns: u64,
}

/// Records that could not be emitted.
#[derive(Clone, Debug, Deserialize)]
pub struct Lost {
    /// Everything the line says.
    #[serde(flatten)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// The last line of a trace.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// One entry per follower and vantage.
    pub followers: Vec<Follower>,
    /// What was emitted and lost, per kind.
    #[serde(default)]
    pub records: BTreeMap<String, RecordCount>,
}

/// Records of one kind.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct RecordCount {
    /// That reached user space.
    pub emitted: u64,
    /// That did not.
    pub lost: u64,
}

/// One follower at one vantage.
#[derive(Clone, Debug, Deserialize)]
pub struct Follower {
    /// The cluster's name.
    pub ensemble: String,
    /// Where it was measured.
    pub vantage: Vantage,
    /// The follower.
    pub sid: Option<u64>,
    /// Its leader.
    pub leader_sid: Option<u64>,
    /// The process that was watched.
    pub pid: u32,
    /// What is on the wire.
    pub wire: String,
    /// Behind TLS: proposals of which nothing is told.
    #[serde(default)]
    pub unknown: u64,
    /// Behind TLS: how often the pairing was given up, by reason.
    #[serde(default)]
    pub doubts: BTreeMap<String, u64>,
    /// Proposals seen.
    pub proposals: u64,
    /// Of these: acknowledged,
    pub matched: u64,
    /// given up,
    pub expired: u64,
    /// or under way at the end.
    pub in_flight: u64,
    /// Proposals of a synchronisation, which are not measured.
    pub replayed: u64,
    /// How often the framer lost its place.
    pub resyncs: u64,
    /// Calls whose bytes could not be followed.
    pub unframed_calls: u64,
    /// Quantiles of the delay; absent where nothing was matched.
    #[serde(default)]
    pub p50_ns: Option<u64>,
    /// The ninth of ten.
    #[serde(default)]
    pub p90_ns: Option<u64>,
    /// The 99th of a hundred.
    #[serde(default)]
    pub p99_ns: Option<u64>,
    /// The largest.
    #[serde(default)]
    pub max_ns: Option<u64>,
}

impl Proposal {
    /// When the delay began, on the monotonic clock.
    pub fn began_at(&self) -> u64 {
        self.mono_ns.saturating_sub(self.delay_ns)
    }

    /// The part that has no cause.
    pub fn unexplained_ns(&self) -> u64 {
        self.causes_ns.get("unexplained").copied().unwrap_or(0)
    }

    /// What every record promises: the parts add up to the delay.
    pub fn check(&self) -> Result<()> {
        let causes: u64 = self.causes_ns.values().sum();
        ensure!(causes == self.delay_ns, "causes add up to {causes}: {self:?}");
        if let (Vantage::Follower, Some(stages)) = (self.vantage, self.stages_ns) {
            let parts = [stages.receive, stages.process, stages.log, stages.send];
            let sum: u64 = parts.into_iter().flatten().sum();
            ensure!(sum == self.delay_ns, "stages add up to {sum}: {self:?}");
        }
        Ok(())
    }
}

impl Summary {
    /// What every summary promises: each proposal is matched, expired or in flight.
    pub fn check(&self) -> Result<()> {
        for follower in &self.followers {
            let sum = follower.matched + follower.expired + follower.in_flight;
            ensure!(follower.proposals == sum, "proposals are unaccounted for: {follower:?}");
        }
        Ok(())
    }

    /// The entries of these processes alone.
    pub fn of(&self, pids: &[u32]) -> Self {
        let mut own = self.clone();
        own.followers.retain(|follower| pids.contains(&follower.pid));
        own
    }

    /// The entry of a follower; there must be exactly one.
    pub fn follower(&self, vantage: Vantage, sid: u64) -> Result<&Follower> {
        let found: Vec<_> = self
            .followers
            .iter()
            .filter(|entry| entry.vantage == vantage && entry.sid == Some(sid))
            .collect();
        ensure!(found.len() == 1, "{} entries for follower {sid} at {vantage:?}: {self:?}", found.len());
        Ok(found[0])
    }
}

fn zxid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(0) };
    let digits = text.strip_prefix("0x").ok_or_else(|| D::Error::custom("a zxid without 0x"))?;
    u64::from_str_radix(digits, 16).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::{Record, Vantage};

    #[test]
    fn reads_a_proposal() -> anyhow::Result<()> {
        let line = r#"{"kind":"proposal","at":"2026-01-01T00:00:00.000000001Z","mono_ns":5,"ensemble":"e",
            "pid":7,"vantage":"leader","sid":null,"leader_sid":1,"zxid":"0x10000002a","delay_ns":3,
            "causes_ns":{"network":1,"unexplained":2},"verdict":"unexplained","inferred":false,"new":1}"#;
        let Record::Proposal(proposal) = serde_json::from_str(line)? else {
            anyhow::bail!("not a proposal");
        };
        assert_eq!((proposal.zxid, proposal.vantage, proposal.sid), (0x1_0000_002a, Vantage::Leader, None));
        proposal.check()?;
        assert!(super::Proposal { delay_ns: 4, ..proposal }.check().is_err());
        Ok(())
    }

    #[test]
    fn tolerates_new_kinds() -> anyhow::Result<()> {
        assert!(matches!(serde_json::from_str(r#"{"kind":"election","x":1}"#)?, Record::Other));
        Ok(())
    }
}
