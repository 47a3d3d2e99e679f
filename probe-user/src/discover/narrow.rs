//! What the user asked for, laid over what was found.
//!
//! In: the servers of this host and the [`Filter`]. Out: the servers to watch, and why others were left out.
//! Invariant: a server is left out only with a reason. Deliberately not here: `--config`, which decides before a
//! server is described (see `mod`).
//!
//! - `--pid` keeps these processes and no others, and forces them: what is not recognised is taken too, if its
//!   quorum port is known from a configuration or from `--quorum-port`.
//! - `--quorum-port` keeps servers of ensembles that use one of these ports. Where the ports are not known, or
//!   with `--pid`, the given ones are taken instead.
//! - `--ensemble NAME`: with `--pid`, `--config` or `--quorum-port`, and if what is left is one ensemble, that
//!   ensemble is called NAME. Otherwise it keeps the servers of the ensemble of that name.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::ids::Tgid;
use super::server::{EnsembleName, Server};

/// What the user asked for on the command line; empty asks for every Termite process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// These processes, recognised or not; a thread's id stands for its process.
    pub(crate) pids: Vec<u32>,
    /// Ensembles with one of these quorum ports.
    pub(crate) quorum_ports: Vec<u16>,
    /// A zoo.cfg of this host.
    pub(crate) config: Option<PathBuf>,
    /// The ensemble's name.
    pub(crate) ensemble: Option<String>,
    /// Looks also at processes whose command line contains this text (no wildcards). It widens, never narrows.
    pub(crate) pattern: Option<String>,
}

impl Filter {
    fn narrows(&self) -> bool {
        !self.pids.is_empty() || !self.quorum_ports.is_empty() || self.config.is_some()
    }
}

/// A process that looks like Termite but is not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SetAside {
    /// The process.
    pub(crate) tgid: Tgid,
    /// Why.
    pub(crate) why: String,
}

/// What was found on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Scan {
    /// To be watched, in the order of their process ids.
    pub(crate) servers: Vec<Server>,
    /// Not watched, and why.
    pub(crate) set_aside: Vec<SetAside>,
}

impl Scan {
    pub(super) fn set_aside(&mut self, tgid: Tgid, why: impl Into<String>) {
        self.set_aside.push(SetAside { tgid, why: why.into() });
    }

    /// Keeps what the filter asks for.
    pub(super) fn narrow(mut self, filter: &Filter) -> Self {
        self.by_port(filter);
        self.by_ensemble(filter);
        self.note_doubles();
        self
    }

    fn by_port(&mut self, filter: &Filter) {
        let given = &filter.quorum_ports;
        if given.is_empty() {
            return;
        }
        for mut server in std::mem::take(&mut self.servers) {
            if server.quorum_ports.iter().any(|p| given.contains(p)) {
                self.servers.push(server);
            } else if server.quorum_ports.is_empty() || !filter.pids.is_empty() {
                server.quorum_ports.clone_from(given);
                server.quorum_ports.sort_unstable();
                server.quorum_ports.dedup();
                server.own_quorum_port = None;
                server.notes.push("the quorum ports are those of --quorum-port".to_owned());
                self.servers.push(server);
            } else {
                let why = format!("its ensemble uses the quorum ports {:?}", server.quorum_ports);
                self.set_aside(server.tgid, why);
            }
        }
    }

    fn by_ensemble(&mut self, filter: &Filter) {
        let Some(asked) = filter.ensemble.as_deref() else {
            return;
        };
        let names: BTreeSet<&EnsembleName> = self.servers.iter().map(|s| &s.ensemble).collect();
        if filter.narrows() && names.len() == 1 {
            for server in &mut self.servers {
                server.ensemble = EnsembleName::given(asked);
            }
            return;
        }
        for server in std::mem::take(&mut self.servers) {
            if server.ensemble.as_str() == asked {
                self.servers.push(server);
            } else {
                self.set_aside(server.tgid, format!("its ensemble is {}", server.ensemble));
            }
        }
    }

    /// Two processes that say they are the same server: two ensembles with the same addresses in two network
    /// namespaces, or a restart under way.
    fn note_doubles(&mut self) {
        let who: Vec<_> = self
            .servers
            .iter()
            .filter(|s| s.ensemble != EnsembleName::unknown())
            .map(|s| (s.tgid, s.ensemble.clone(), s.sid.value().copied()))
            .collect();
        for server in &mut self.servers {
            let Some(sid) = server.sid.value().copied() else {
                continue;
            };
            let other = who.iter().find(|(tgid, ensemble, s)| {
                *tgid != server.tgid && *ensemble == server.ensemble && *s == Some(sid)
            });
            if let Some((other, ..)) = other {
                server.notes.push(format!(
                    "process {other} says too that it is server {sid} of {}: ensembles with the same addresses \
                     share their name; watch one with --pid",
                    server.ensemble
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::config::Configuration;
    use crate::discover::ids::Sid;
    use crate::discover::server::{Facts, Known, describe};
    use crate::discover::zoo_cfg;

    fn server(tgid: u32, sid: i64, cfg: &str) -> Server {
        describe(Facts {
            tgid: Tgid(tgid),
            started: 1,
            threads: Vec::new(),
            net_ns: Ok(1),
            writes_to: Known::unasked(),
            configuration: Configuration {
                path: None,
                servers: Some(zoo_cfg::parse(cfg.as_bytes()).servers),
                tick_ms: None,
                data_dirs: Vec::new(),
                my_id: Known::Known { value: Sid(sid), source: "dataDir/myid" },
                notes: Vec::new(),
            },
        })
    }

    fn found() -> Scan {
        let (a, b) = ("server.1=a:1:2\nserver.2=a:3:4", "server.1=b:5:6\nserver.2=b:7:8");
        let servers = vec![server(10, 1, a), server(11, 2, a), server(20, 1, b), server(30, 9, "")];
        Scan { servers, set_aside: Vec::new() }
    }

    fn check(scan: Scan, filter: &Filter, kept: &[(u32, &str)], aside: &[u32]) -> Scan {
        let scan = scan.narrow(filter);
        let got: Vec<_> = scan.servers.iter().map(|s| (s.tgid.0, s.ensemble.as_str())).collect();
        assert_eq!(got, kept);
        assert_eq!(scan.set_aside.iter().map(|s| s.tgid.0).collect::<Vec<_>>(), aside);
        scan
    }

    #[test]
    fn nothing_asked_keeps_all() {
        check(found(), &Filter::default(), &[(10, "a:1"), (11, "a:1"), (20, "b:5"), (30, "unknown")], &[]);
    }

    #[test]
    fn ports_keep_whole_ensembles_and_stand_in_for_unknown_ones() {
        let filter = Filter { quorum_ports: vec![3], ..Filter::default() };
        let scan = check(found(), &filter, &[(10, "a:1"), (11, "a:1"), (30, "unknown")], &[20]);
        assert_eq!(scan.servers[0].quorum_ports, [1, 3]);
        assert_eq!(scan.servers[2].quorum_ports, [3]);
        let forced = Filter { pids: vec![20], ..filter };
        let only = Scan { servers: vec![found().servers.remove(2)], set_aside: Vec::new() };
        assert_eq!(check(only, &forced, &[(20, "b:5")], &[]).servers[0].quorum_ports, [3]);
    }

    #[test]
    fn a_name_keeps_its_ensemble() {
        let named = |n: &str| Filter { ensemble: Some(n.to_owned()), ..Filter::default() };
        check(found(), &named("b:5"), &[(20, "b:5")], &[10, 11, 30]);
        let scan = check(found(), &named("prod"), &[], &[10, 11, 20, 30]);
        assert_eq!(scan.set_aside[0].why, "its ensemble is a:1");
    }

    #[test]
    fn a_name_labels_what_was_narrowed_to_one_ensemble() {
        let filter = Filter { pids: vec![10], ensemble: Some("prod".to_owned()), ..Filter::default() };
        let mut one = found();
        one.servers.truncate(1);
        check(one, &filter, &[(10, "prod")], &[]);
        check(found(), &filter, &[], &[10, 11, 20, 30]);
    }

    #[test]
    fn doubles_are_told() {
        let mut scan = found();
        scan.servers.push(server(40, 1, "server.1=a:1:2\nserver.2=a:3:4"));
        let scan = scan.narrow(&Filter::default());
        assert!(scan.servers[0].notes[0].contains("process 40"));
        assert!(scan.servers[4].notes[0].contains("process 10"));
        assert!(scan.servers[1].notes.is_empty());
        // Nothing is known of their ensembles, so they may well be two.
        let scan = Scan { servers: vec![server(1, 1, ""), server(2, 1, "")], set_aside: Vec::new() };
        assert!(scan.narrow(&Filter::default()).servers[0].notes.iter().all(|n| !n.contains("process")));
    }
}
