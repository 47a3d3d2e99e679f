//! One server's settings: the text of a zoo.cfg goes in, typed settings come out.
//!
//! Invariant: a `Config` that exists names a leader among its voters. Keys of ZooKeeper that the demo
//! has no use for are passed over, as are those of sections it does not know; its own keys begin with
//! `demo.` and a misspelt one of those is an error. Deliberately not here: observers, dynamic
//! reconfiguration, election.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// A server's id in the ensemble.
pub(crate) type Sid = u64;

/// A `server.N=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Name or address.
    pub(crate) host: String,
    /// Where the leader listens for followers.
    pub(crate) quorum_port: u16,
    /// Stated for the probe's sake; the demo holds no elections.
    pub(crate) election_port: u16,
}

/// The writes that the leader makes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// Proposals a second; 0 for none.
    pub(crate) rate: u32,
    /// Proposals made at once and flushed together.
    pub(crate) burst: u32,
    /// Bytes of each value.
    pub(crate) value_bytes: usize,
    /// After so many proposals only heartbeats follow.
    pub(crate) count: Option<u64>,
}

/// Settings of one server, apart from its sid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Holds `myid`, the epoch and the log.
    pub(crate) data_dir: PathBuf,
    /// The voters.
    pub(crate) members: BTreeMap<Sid, Member>,
    /// Which of them leads.
    pub(crate) leader: Sid,
    /// The protocol's unit of time; heartbeats come every half tick.
    pub(crate) tick: Duration,
    /// How long a follower may look for its leader.
    pub(crate) init_limit: Duration,
    /// How long a peer may be silent.
    pub(crate) sync_limit: Duration,
    /// The writes.
    pub(crate) load: Load,
    /// Slept before each fdatasync.
    pub(crate) delay_log: Duration,
}

/// Why a file is not a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A value that is not of its key's kind.
    #[error("line {line}: `{key}` cannot be `{value}`")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What stands there.
        value: String,
    },
    /// A `demo.` key that does not exist.
    #[error("line {line}: there is no key `{key}`")]
    Key {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        key: String,
    },
    /// A key that must be there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The leader has no `server.N` line.
    #[error("demo.leader={0} has no server.{0} line")]
    Leader(Sid),
}

impl Config {
    /// Reads a file and the `myid` beside the data it names.
    pub(crate) fn load(path: &Path) -> anyhow::Result<(Self, Sid)> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let config = Self::parse(&text).with_context(|| format!("in {}", path.display()))?;
        let myid = config.data_dir.join("myid");
        let text =
            std::fs::read_to_string(&myid).with_context(|| format!("cannot read {}", myid.display()))?;
        let sid = text.trim().parse().with_context(|| format!("{} holds no number", myid.display()))?;
        anyhow::ensure!(
            config.members.contains_key(&sid),
            "{} says {sid}, which has no server.{sid} line",
            myid.display()
        );
        Ok((config, sid))
    }

    /// Reads the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            draft.set(index + 1, key.trim(), value.trim())?;
        }
        draft.finish()
    }

    /// Acknowledgements that commit a proposal.
    pub(crate) fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The list of servers as NEWLEADER carries it.
    pub(crate) fn members_text(&self) -> String {
        let mut text = String::new();
        for (sid, member) in &self.members {
            let Member { host, quorum_port, election_port } = member;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "server.{sid}={host}:{quorum_port}:{election_port}:participant");
        }
        text + "version=0"
    }
}

struct Draft {
    data_dir: Option<PathBuf>,
    members: BTreeMap<Sid, Member>,
    leader: Option<Sid>,
    tick_ms: u64,
    init_limit: u32,
    sync_limit: u32,
    load: Load,
    delay_log_ms: u64,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            data_dir: None,
            members: BTreeMap::new(),
            leader: None,
            tick_ms: 2000,
            init_limit: 10,
            sync_limit: 5,
            load: Load { rate: 200, burst: 1, value_bytes: 64, count: None },
            delay_log_ms: 0,
        }
    }
}

impl Draft {
    fn set(&mut self, line: usize, key: &str, value: &str) -> Result<(), ConfigError> {
        let bad = || ConfigError::Value { line, key: key.to_owned(), value: value.to_owned() };
        let number = || value.parse::<u64>().map_err(|_| bad());
        let small = || value.parse::<u32>().map_err(|_| bad());
        match key {
            "dataDir" => self.data_dir = Some(value.into()),
            "tickTime" => self.tick_ms = number()?.max(2),
            "initLimit" => self.init_limit = small()?.max(1),
            "syncLimit" => self.sync_limit = small()?.max(1),
            "demo.leader" => self.leader = Some(number()?),
            "demo.rate" => self.load.rate = small()?,
            "demo.burst" => self.load.burst = small()?.max(1),
            "demo.value_bytes" => {
                // A packet is refused above jute.maxbuffer and as much again.
                self.load.value_bytes =
                    value.parse().ok().filter(|&bytes| bytes <= 2_000_000).ok_or_else(bad)?;
            }
            "demo.count" => self.load.count = Some(number()?),
            "demo.delay_log" => self.delay_log_ms = number()?,
            _ if key.starts_with("demo.") => {
                return Err(ConfigError::Key { line, key: key.to_owned() });
            }
            _ => {
                if let Some(sid) = key.strip_prefix("server.") {
                    let sid = sid.parse().map_err(|_| bad())?;
                    self.members.insert(sid, parse_member(value).ok_or_else(bad)?);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let highest = *self.members.keys().next_back().ok_or(ConfigError::Missing("server.N"))?;
        let leader = self.leader.unwrap_or(highest);
        if !self.members.contains_key(&leader) {
            return Err(ConfigError::Leader(leader));
        }
        let tick = Duration::from_millis(self.tick_ms);
        Ok(Config {
            data_dir: self.data_dir.ok_or(ConfigError::Missing("dataDir"))?,
            members: self.members,
            leader,
            tick,
            init_limit: tick * self.init_limit,
            sync_limit: tick * self.sync_limit,
            load: self.load,
            delay_log: Duration::from_millis(self.delay_log_ms),
        })
    }
}

/// `host:quorum:election[:participant][;client]`
fn parse_member(value: &str) -> Option<Member> {
    let (voter, _client) = value.split_once(';').unwrap_or((value, ""));
    let voter = voter.strip_suffix(":participant").unwrap_or(voter);
    let (voter, election_port) = voter.rsplit_once(':')?;
    let (host, quorum_port) = voter.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    Some(Member {
        host: host.to_owned(),
        quorum_port: quorum_port.parse().ok()?,
        election_port: election_port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "dataDir=/d\nserver.1=127.0.0.1:1:11\nserver.2=127.0.0.1:2:12:participant;0:9\nserver.3=h:3:13\n";

    #[test]
    fn the_highest_sid_leads_unless_told_otherwise() {
        let config = Config::parse(THREE).unwrap();
        assert_eq!(config.leader, 3);
        assert_eq!(config.quorum(), 2);
        assert_eq!(config.members[&2].quorum_port, 2);
        assert_eq!(config.tick, Duration::from_secs(2));
        assert_eq!(config.sync_limit, Duration::from_secs(10));
        assert_eq!(Config::parse(&format!("{THREE}demo.leader=1")).unwrap().leader, 1);
        assert_eq!(Config::parse(&format!("{THREE}demo.leader=4")), Err(ConfigError::Leader(4)));
    }

    #[test]
    fn keys_of_the_demo_are_read_and_foreign_ones_passed_over() {
        let text = format!(
            "# a comment\n{THREE}clientPort=2181\n4lw.commands.whitelist=*\ndemo.rate=50\ndemo.burst=9\n\
             demo.value_bytes=1000\ndemo.count=7\ndemo.delay_log = 20\n"
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.load, Load { rate: 50, burst: 9, value_bytes: 1000, count: Some(7) });
        assert_eq!(config.delay_log, Duration::from_millis(20));
    }

    #[test]
    fn mistakes_name_their_line() {
        fn check(text: &str, expected: &str) {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), expected);
        }
        check("server.1=127.0.0.1:1", "line 1: `server.1` cannot be `127.0.0.1:1`");
        check("server.1=h:1:2:observer", "line 1: `server.1` cannot be `h:1:2:observer`");
        check("\ndemo.rate=fast", "line 2: `demo.rate` cannot be `fast`");
        check("demo.value_bytes=3000000", "line 1: `demo.value_bytes` cannot be `3000000`");
        check("demo.rat=1", "line 1: there is no key `demo.rat`");
        check("dataDir=/d", "`server.N` is missing");
        check("server.1=h:1:2", "`dataDir` is missing");
    }

    #[test]
    fn newleader_lists_every_voter() {
        assert_eq!(
            Config::parse(THREE).unwrap().members_text(),
            "server.1=127.0.0.1:1:11:participant\nserver.2=127.0.0.1:2:12:participant\n\
             server.3=h:3:13:participant\nversion=0"
        );
    }
}
