//! What a zoo.cfg says about the ensemble.
//!
//! In: the bytes of zoo.cfg, or of its dynamic part. Out: the servers, the data directory, the name of the
//! dynamic part, and a note for everything that could not be read. Invariants: total, a bad line is a note and
//! never stops the reading; servers are sorted by sid, each sid once; a note names keys and line numbers and
//! never a value, because a zoo.cfg can hold passwords. Deliberately not here: files (see `config`) and name
//! resolution (see `peer`).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::ids::Sid;
use super::properties;

/// One address of a server; a server with several networks has several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    /// Host name or address as written, an IPv6 address without its brackets.
    pub(crate) host: String,
    /// Where learners connect when this server leads.
    pub(crate) quorum_port: u16,
    /// Where votes are exchanged.
    pub(crate) election_port: u16,
}

/// A server of the ensemble, as `server.N=…` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Peer {
    /// The N of `server.N`.
    pub(crate) sid: Sid,
    /// At least one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// An observer gets every change but never acknowledges.
    pub(crate) observer: bool,
}

impl Peer {
    /// Every port on which this server takes learners, each once.
    pub(crate) fn quorum_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.endpoints.iter().map(|e| e.quorum_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// The part of a configuration that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ZooCfg {
    pub(super) servers: Vec<Peer>,
    pub(super) data_dir: Option<PathBuf>,
    /// Where the log is, when it is elsewhere.
    pub(super) data_log_dir: Option<PathBuf>,
    pub(super) dynamic_file: Option<PathBuf>,
    /// `tickTime`, ms.
    pub(super) tick_ms: Option<u32>,
    pub(super) notes: Vec<String>,
}

/// Reads a zoo.cfg, or the dynamic part of one.
pub(super) fn parse(bytes: &[u8]) -> ZooCfg {
    let mut cfg = ZooCfg::default();
    let mut servers: BTreeMap<Sid, Peer> = BTreeMap::new();
    for entry in properties::parse(bytes) {
        let line = entry.line;
        match entry.key.as_str() {
            "dataDir" if !entry.value.is_empty() => cfg.data_dir = Some(PathBuf::from(entry.value)),
            "dataLogDir" if !entry.value.is_empty() => cfg.data_log_dir = Some(PathBuf::from(entry.value)),
            "tickTime" => cfg.tick_ms = entry.value.trim().parse().ok().filter(|ms| *ms > 0),
            "dynamicConfigFile" if !entry.value.is_empty() => {
                cfg.dynamic_file = Some(PathBuf::from(entry.value));
            }
            key => {
                let Some(number) = key.strip_prefix("server.") else {
                    continue;
                };
                match number.parse().map_err(|_| BadServer::Sid).and_then(|n| server(Sid(n), &entry.value)) {
                    Ok(peer) => {
                        let sid = peer.sid;
                        if servers.insert(sid, peer).is_some() {
                            cfg.notes.push(format!("line {line}: server.{sid} again, the last one counts"));
                        }
                    }
                    Err(why) => cfg.notes.push(format!("line {line}: a server entry was skipped: {why}")),
                }
            }
        }
    }
    cfg.servers = servers.into_values().collect();
    cfg
}

/// Why a `server.N=…` says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BadServer {
    #[error("what follows `server.` is not a number")]
    Sid,
    #[error("expected host:quorum-port:election-port[:participant|observer]")]
    Shape,
    #[error("a port is not a number from 1 to 65535")]
    Port,
    #[error("the host is empty or has characters that no host name has")]
    Host,
    #[error("the role is neither participant nor observer")]
    Role,
}

/// `host:q:e[:role][|host:q:e[:role]]…[;[host:]client-port]`
fn server(sid: Sid, value: &str) -> Result<Peer, BadServer> {
    // What follows the semicolon is where clients connect, which is of no interest here.
    let addresses = value.split(';').next().unwrap_or_default();
    let mut peer = Peer { sid, endpoints: Vec::new(), observer: false };
    for address in addresses.split('|') {
        let (host, rest) = host_and_rest(address.trim())?;
        let mut rest = rest.split(':').map(str::trim);
        let endpoint = Endpoint {
            host: host.to_owned(),
            quorum_port: port(rest.next())?,
            election_port: port(rest.next())?,
        };
        match rest.next().map(str::to_ascii_lowercase).as_deref() {
            None | Some("participant") => {}
            Some("observer") => peer.observer = true,
            Some(_) => return Err(BadServer::Role),
        }
        if rest.next().is_some() {
            return Err(BadServer::Shape);
        }
        if !peer.endpoints.contains(&endpoint) {
            peer.endpoints.push(endpoint);
        }
    }
    Ok(peer)
}

fn host_and_rest(address: &str) -> Result<(&str, &str), BadServer> {
    let (host, rest) = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:").ok_or(BadServer::Shape)?,
        None => address.split_once(':').ok_or(BadServer::Shape)?,
    };
    // Hosts end up in labels and on terminals: nothing but what a name, an address or a scope can have.
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(fits) {
        return Err(BadServer::Host);
    }
    Ok((host, rest))
}

fn port(text: Option<&str>) -> Result<u16, BadServer> {
    match text.ok_or(BadServer::Shape)?.parse() {
        Ok(0) | Err(_) => Err(BadServer::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(peer: &Peer) -> String {
        let ends: Vec<_> = peer
            .endpoints
            .iter()
            .map(|e| format!("{} {} {}", e.host, e.quorum_port, e.election_port))
            .collect();
        format!("{}: {}{}", peer.sid, ends.join(", "), if peer.observer { " observer" } else { "" })
    }

    fn check(text: &str, servers: &[&str], notes: &[&str]) {
        let cfg = parse(text.as_bytes());
        assert_eq!(cfg.servers.iter().map(shown).collect::<Vec<_>>(), servers, "{text}");
        assert_eq!(cfg.notes, notes, "{text}");
    }

    #[test]
    fn servers_in_every_spelling() {
        check(
            "server.2=zk2.example:2888:3888\nserver.1 = zk1.example:2888:3888 ",
            &["1: zk1.example 2888 3888", "2: zk2.example 2888 3888"],
            &[],
        );
        check("server.3=h:1:2:observer;2181", &["3: h 1 2 observer"], &[]);
        check("server.3=h:1:2:PARTICIPANT;0.0.0.0:2181", &["3: h 1 2"], &[]);
        check("server.1=[2001:db8::1]:2888:3888;[::]:2181", &["1: 2001:db8::1 2888 3888"], &[]);
        check("server.1=a:2888:3888|b:2889:3889", &["1: a 2888 3888, b 2889 3889"], &[]);
        check("server.1=a:1:2:observer|b:1:2:observer", &["1: a 1 2, b 1 2 observer"], &[]);
    }

    #[test]
    fn bad_entries_are_notes_without_their_values() {
        check(
            "server.x=secret:1:2\nserver.1=secret\nserver.2=h:0:2\nserver.3=:1:2\nserver.4=h:1:2:king\n\
             server.5=h:1:2:observer:9\nserver.6=[::1:1:2\nserver.7=h\u{1b}[1m:1:2\nserver.8=h:1\nserver.9=ok:1:2",
            &["9: ok 1 2"],
            &[
                "line 1: a server entry was skipped: what follows `server.` is not a number",
                "line 2: a server entry was skipped: expected host:quorum-port:election-port[:participant|observer]",
                "line 3: a server entry was skipped: a port is not a number from 1 to 65535",
                "line 4: a server entry was skipped: the host is empty or has characters that no host name has",
                "line 5: a server entry was skipped: the role is neither participant nor observer",
                "line 6: a server entry was skipped: expected host:quorum-port:election-port[:participant|observer]",
                "line 7: a server entry was skipped: expected host:quorum-port:election-port[:participant|observer]",
                "line 8: a server entry was skipped: the host is empty or has characters that no host name has",
                "line 9: a server entry was skipped: expected host:quorum-port:election-port[:participant|observer]",
            ],
        );
    }

    #[test]
    fn the_last_of_two_equal_servers_counts() {
        check(
            "server.1=old:1:2\nserver.1=new:1:2",
            &["1: new 1 2"],
            &["line 2: server.1 again, the last one counts"],
        );
    }

    #[test]
    fn directories_are_kept_as_written() {
        let cfg = parse(b"dataDir=data/1\ndynamicConfigFile=/conf/zoo.cfg.dynamic\ntickTime=2000");
        assert_eq!((cfg.data_dir, cfg.tick_ms), (Some(PathBuf::from("data/1")), Some(2000)));
        assert_eq!(cfg.dynamic_file, Some(PathBuf::from("/conf/zoo.cfg.dynamic")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }

        #[test]
        fn near_misses_never_panic(lines in proptest::collection::vec("server\\.[-0-9x]{0,3}=[\\]\\[a:0-9|;\\\\ ]{0,30}", 0..20)) {
            let cfg = parse(lines.join("\n").as_bytes());
            prop_assert!(cfg.servers.windows(2).all(|w| w[0].sid < w[1].sid));
            prop_assert!(cfg.servers.iter().all(|p| !p.endpoints.is_empty()));
        }
    }
}
