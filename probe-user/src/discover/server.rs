//! A Termite server as the probe knows it.
//!
//! In: the facts that were read about a process. Out: a [`Server`]. Invariants: nothing is guessed, what is not
//! known says why; members of one ensemble give it one name. Deliberately not here: reading, narrowing.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::config::Configuration;
use super::ids::{Sid, Tgid};
use super::recognise::{NamedSid, named_sid};
use super::zoo_cfg::{Endpoint, Peer};

/// A fact, or why it is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Known<T> {
    /// Known, and from where.
    Known {
        /// The fact.
        value: T,
        /// Where it was found.
        source: &'static str,
    },
    /// Not known, and why.
    Unknown(String),
}

impl<T> Known<T> {
    /// The fact, if it is one.
    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// What an ensemble is called: `host:quorum-port` of the voter with the lowest sid, such as
/// `zk1.example:2888`, or what the user calls it.
///
/// Every member's zoo.cfg lists that voter, so the name is the same on every host and after every restart. It
/// changes when a reconfiguration removes that voter. Two ensembles on one host differ in the port; two with the
/// same addresses in different network namespaces have the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub(crate) struct EnsembleName(String);

impl EnsembleName {
    /// A name that the user chose.
    pub(crate) fn given(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name while no configuration could be read.
    pub(crate) fn unknown() -> Self {
        Self("unknown".to_owned())
    }

    /// The name of the ensemble of these servers.
    pub(super) fn of(peers: &[Peer]) -> Self {
        let lowest = peers.iter().find(|p| !p.observer).or(peers.first());
        match lowest.and_then(|p| p.endpoints.first()) {
            Some(Endpoint { host, quorum_port, .. }) if host.contains(':') => {
                Self(format!("[{host}]:{quorum_port}"))
            }
            Some(Endpoint { host, quorum_port, .. }) => Self(format!("{host}:{quorum_port}")),
            None => Self::unknown(),
        }
    }

    /// The name as it is shown.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnsembleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A Termite process on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Server {
    /// The process.
    pub(crate) tgid: Tgid,
    /// Its start in clock ticks since boot: with `tgid`, this names the process for ever.
    pub(crate) started: u64,
    /// Its id in the ensemble.
    pub(crate) sid: Known<Sid>,
    /// The ensemble it belongs to.
    pub(crate) ensemble: EnsembleName,
    /// Where it takes learners when it leads: the lowest, if it has several.
    pub(crate) own_quorum_port: Option<u16>,
    /// Its `tickTime`, ms, when it is set.
    pub(crate) tick_ms: Option<u32>,
    /// The quorum ports of all servers of the ensemble, sorted, each once; empty if not known.
    pub(crate) quorum_ports: Vec<u16>,
    /// All servers of the ensemble, itself too, sorted by sid; empty if not known.
    pub(crate) peers: Vec<Peer>,
    /// The inode of its network namespace.
    pub(crate) net_ns: Option<u32>,
    /// Types of the file systems to which it writes its log and its snapshots, each once.
    pub(crate) writes_to: Known<Vec<String>>,
    /// zoo.cfg as the process (or the user) calls it.
    pub(crate) config_path: Option<PathBuf>,
    /// What could not be known, and what to do.
    pub(crate) notes: Vec<String>,
}

impl Server {
    /// What the configuration says about this server itself.
    pub(crate) fn own(&self) -> Option<&Peer> {
        let sid = self.sid.value()?;
        self.peers.iter().find(|p| p.sid == *sid)
    }
}

#[cfg(test)]
impl<T> Known<T> {
    /// Of no interest to a test.
    pub(crate) fn unasked() -> Self {
        Self::Unknown("nobody asked".to_owned())
    }
}

#[cfg(test)]
impl Server {
    /// A server as its zoo.cfg and myid tell.
    pub(crate) fn told(tgid: u32, sid: Option<i64>, zoo_cfg: &str) -> Self {
        let my_id = match sid {
            Some(sid) => Known::Known { value: Sid(sid), source: "dataDir/myid" },
            None => Known::Unknown("no myid".to_owned()),
        };
        describe(Facts {
            tgid: Tgid(tgid),
            started: 1,
            threads: Vec::new(),
            net_ns: Ok(1),
            writes_to: Known::unasked(),
            configuration: Configuration {
                path: None,
                servers: Some(super::zoo_cfg::parse(zoo_cfg.as_bytes()).servers),
                tick_ms: None,
                my_id,
                data_dirs: Vec::new(),
                notes: Vec::new(),
            },
        })
    }
}

/// What was read about a process that is a server.
pub(super) struct Facts {
    pub(super) tgid: Tgid,
    pub(super) started: u64,
    pub(super) threads: Vec<String>,
    /// Or why it could not be read.
    pub(super) net_ns: Result<u32, String>,
    pub(super) writes_to: Known<Vec<String>>,
    pub(super) configuration: Configuration,
}

/// Puts the facts together.
pub(super) fn describe(facts: Facts) -> Server {
    let Facts { tgid, started, threads, net_ns, writes_to, configuration } = facts;
    let mut notes = configuration.notes;
    let peers = configuration.servers.unwrap_or_default();
    let sid = own_sid(&named_sid(&threads), configuration.my_id, &mut notes);
    let mut quorum_ports: Vec<u16> = peers.iter().flat_map(Peer::quorum_ports).collect();
    quorum_ports.sort_unstable();
    quorum_ports.dedup();
    let mut server = Server {
        tgid,
        started,
        sid,
        ensemble: EnsembleName::of(&peers),
        own_quorum_port: None,
        tick_ms: configuration.tick_ms,
        quorum_ports,
        peers,
        net_ns: net_ns.as_ref().ok().copied(),
        writes_to,
        config_path: configuration.path,
        notes,
    };
    server.own_quorum_port = server.own().and_then(|p| p.quorum_ports().first().copied());
    if let Err(why) = net_ns {
        server.notes.push(format!("the network namespace is not known: {why}"));
    }
    note_own_entry(&mut server);
    server
}

fn note_own_entry(server: &mut Server) {
    let Some(sid) = server.sid.value().copied() else {
        return;
    };
    match server.own() {
        None if !server.peers.is_empty() => {
            server.notes.push(format!("zoo.cfg lists no server.{sid}, which this process says it is"));
        }
        Some(own) if own.endpoints.iter().any(|e| matches!(e.host.as_str(), "0.0.0.0" | "::")) => {
            server.notes.push(format!(
                "server.{sid} names itself by a wildcard address, so other members may name the ensemble \
                 otherwise; --ensemble with --pid or --config sets the name"
            ));
        }
        _ => {}
    }
}

/// The thread's name is what the running server believes; `myid` is what the next start will read.
fn own_sid(named: &NamedSid, my_id: Known<Sid>, notes: &mut Vec<String>) -> Known<Sid> {
    match (named, my_id) {
        (NamedSid::Several, _) => Known::Unknown(
            "several servers run in this process, which the probe cannot tell apart".to_owned(),
        ),
        (NamedSid::Whole(sid), my_id) => {
            if let Some(other) = my_id.value().filter(|&other| other != sid) {
                notes.push(format!(
                    "dataDir/myid says {other}, the thread SyncThread:{sid} says {sid}: taken"
                ));
            }
            Known::Known { value: *sid, source: "thread SyncThread" }
        }
        (NamedSid::BeginsWith(digits), Known::Known { value, .. })
            if !value.to_string().starts_with(digits) =>
        {
            Known::Unknown(format!("dataDir/myid says {value}, the thread's name begins with {digits}"))
        }
        (NamedSid::BeginsWith(digits), Known::Unknown(why)) => {
            Known::Unknown(format!("the thread's name is cut after {digits}, and {why}"))
        }
        (_, my_id @ Known::Known { .. }) => my_id,
        (NamedSid::None, Known::Unknown(why)) => Known::Unknown(format!("no thread SyncThread:N, and {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::zoo_cfg;

    fn my_id(sid: i64) -> Known<Sid> {
        Known::Known { value: Sid(sid), source: "dataDir/myid" }
    }

    fn server(cfg: &str, threads: &[&str], my_id: Known<Sid>) -> Server {
        let servers = Some(zoo_cfg::parse(cfg.as_bytes()).servers);
        describe(Facts {
            tgid: Tgid(42),
            started: 7,
            threads: threads.iter().map(|&t| t.to_owned()).collect(),
            net_ns: Ok(4_026_531_840),
            writes_to: Known::unasked(),
            configuration: Configuration {
                path: None,
                servers,
                my_id,
                tick_ms: None,
                data_dirs: Vec::new(),
                notes: Vec::new(),
            },
        })
    }

    const THREE: &str = "server.3=c:2890:1\nserver.1=zk1.example:2888:1\nserver.2=b:2889:1";

    #[test]
    fn a_server_knows_itself() {
        let s = server(THREE, &["SyncThread:2"], my_id(2));
        assert_eq!(s.sid, Known::Known { value: Sid(2), source: "thread SyncThread" });
        assert_eq!(s.own_quorum_port, Some(2889));
        assert_eq!(s.quorum_ports, [2888, 2889, 2890]);
        assert_eq!(s.ensemble.as_str(), "zk1.example:2888");
        assert_eq!(s.notes, Vec::<String>::new());
    }

    #[test]
    fn the_thread_is_preferred_and_a_contradiction_told() {
        let s = server(THREE, &["SyncThread:2"], my_id(3));
        assert_eq!(s.sid.value(), Some(&Sid(2)));
        assert_eq!(s.notes, ["dataDir/myid says 3, the thread SyncThread:2 says 2: taken"]);
        let s = server(THREE, &["java"], my_id(3));
        assert_eq!(s.sid, my_id(3));
    }

    #[test]
    fn a_sid_is_never_guessed() {
        let none = || Known::Unknown("zoo.cfg names no dataDir".to_owned());
        assert_eq!(server(THREE, &["SyncThread:1", "SyncThread:2"], my_id(1)).sid.value(), None);
        assert_eq!(server(THREE, &["SyncThread:1234"], my_id(12_345)).sid, my_id(12_345));
        assert_eq!(server(THREE, &["SyncThread:1234"], my_id(1)).sid.value(), None);
        assert_eq!(server(THREE, &["SyncThread:1234"], none()).sid.value(), None);
        let s = server(THREE, &[], none());
        assert_eq!(s.sid, Known::Unknown("no thread SyncThread:N, and zoo.cfg names no dataDir".to_owned()));
        assert_eq!(s.own_quorum_port, None);
    }

    #[test]
    fn every_member_names_the_ensemble_alike() {
        let name = |cfg: &str| server(cfg, &[], my_id(1)).ensemble.to_string();
        assert_eq!(name("server.2=b:2889:1\nserver.1=zk1.example:2888:1\nserver.3=c:2890:1"), name(THREE));
        assert_eq!(name("server.1=o:1:2:observer\nserver.2=b:2889:1"), "b:2889");
        assert_eq!(name("server.1=[2001:db8::1]:2888:3888"), "[2001:db8::1]:2888");
        assert_eq!(name(""), "unknown");
    }

    #[test]
    fn oddities_are_notes() {
        assert!(server("server.1=0.0.0.0:2888:1", &[], my_id(1)).notes[0].contains("wildcard"));
        assert!(server(THREE, &[], my_id(9)).notes[0].contains("lists no server.9"));
    }
}
