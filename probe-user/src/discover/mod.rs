//! Finds the Termite processes of this host, and knows who they are.
//!
//! In: /proc, the user's [`Filter`], and the files that a server itself reads (zoo.cfg, its dynamic part, myid).
//! Out: a [`Scan`]: the servers to watch, and what looks like one but is not watched, with the reason.
//! Invariants: only reads, and touches no process; nothing is guessed, what is not known says why; a path of a
//! process is resolved inside its own root, so containers need nothing special. Deliberately not here: what the
//! traffic says about sids, and when to look again.
//!
//! Files are read in `procfs` and `inside`, names resolved in `peer`; everything else is pure:
//! command line (`command`) and thread names (`recognise`) → zoo.cfg (`properties`, `zoo_cfg`, `config`) → server
//! (`server`) → what was asked for (`narrow`) → what changed (`watch`).

mod command;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod ids;
mod inside;
mod mounts;
mod narrow;
mod peer;
mod procfs;
mod properties;
mod recognise;
mod server;
mod sys;
mod watch;
mod zoo_cfg;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use command::CommandLine;
use config::{Configuration, Here, Inside};
use recognise::{Evidence, Standing};
use server::Facts;

#[cfg(test)]
pub(crate) use ids::Sid;
pub(crate) use ids::Tgid;
pub(crate) use narrow::{Filter, Scan, SetAside};
pub(crate) use peer::{Addresses, Link, peer_sid};
pub(crate) use procfs::Procfs;
#[cfg(test)]
pub(crate) use server::EnsembleName;
pub(crate) use server::{Known, Server};
pub(crate) use sys::pidfd;
pub(crate) use watch::{Change, Watch};

/// Why nothing can be found at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoverError {
    /// No process can be seen.
    #[error("cannot list the processes in {}: {source}; is proc mounted there?", path.display())]
    Proc {
        /// Where proc was looked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file of `--config` cannot be read.
    #[error("cannot read {}, given with --config: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Looks for Termite processes, again and again.
#[derive(Debug)]
pub(crate) struct Discovery {
    procfs: Procfs,
    /// The probe itself, whose command line can hold the user's pattern.
    own: Tgid,
    /// How often a process was looked at in vain: reading the thread names of a large JVM is dear.
    in_vain: BTreeMap<(Tgid, u64), u32>,
}

/// A process that was not a server in the first scans rarely becomes one: it is looked at each time at first,
/// then in every 16th scan.
const EAGER_SCANS: u32 = 8;
const SCANS_BETWEEN: u32 = 16;

enum Outcome {
    Server(Box<Server>),
    SetAside(String),
    Other,
}

impl Discovery {
    /// `own` is the probe's own process, which is never a candidate.
    pub(crate) fn new(procfs: Procfs, own: Tgid) -> Self {
        Self { procfs, own, in_vain: BTreeMap::new() }
    }

    /// All Termite servers of the host that the filter asks for.
    pub(crate) fn scan(&mut self, filter: &Filter) -> Result<Scan, DiscoverError> {
        let mut scan = Scan::default();
        if filter.pids.is_empty() {
            let all = self.procfs.processes();
            let all = all.map_err(|source| DiscoverError::Proc { path: self.procfs.root.clone(), source })?;
            let before = std::mem::take(&mut self.in_vain);
            for tgid in all {
                self.look_again(tgid, filter, &before, &mut scan)?;
            }
        }
        for &pid in &filter.pids {
            match self.procfs.tgid_of(pid) {
                Ok(tgid) if scan.servers.iter().any(|s| s.tgid == tgid) => {}
                Ok(tgid) => self.look(tgid, filter)?.add_to(tgid, &mut scan),
                Err(_) => scan.set_aside(Tgid(pid), "no such process"),
            }
        }
        Ok(scan.narrow(filter))
    }

    fn look_again(
        &mut self,
        tgid: Tgid,
        filter: &Filter,
        before: &BTreeMap<(Tgid, u64), u32>,
        scan: &mut Scan,
    ) -> Result<(), DiscoverError> {
        let Some(argv) = self.candidate(tgid, filter) else {
            return Ok(());
        };
        // A process that ends while it is looked at is no candidate.
        let Ok(started) = self.procfs.started(tgid) else {
            return Ok(());
        };
        let looks = before.get(&(tgid, started)).copied().unwrap_or(0);
        if looks < EAGER_SCANS || looks % SCANS_BETWEEN == 0 {
            let outcome = self.examine(tgid, &argv, filter)?;
            let other = matches!(outcome, Outcome::Other);
            outcome.add_to(tgid, scan);
            if !other {
                return Ok(());
            }
        }
        self.in_vain.insert((tgid, started), looks.wrapping_add(1));
        Ok(())
    }

    fn look(&self, tgid: Tgid, filter: &Filter) -> Result<Outcome, DiscoverError> {
        match self.candidate(tgid, filter) {
            Some(argv) => self.examine(tgid, &argv, filter),
            None => Ok(Outcome::Other),
        }
    }

    /// The command line of a process that may be a server: one read for most processes, two at most.
    fn candidate(&self, tgid: Tgid, filter: &Filter) -> Option<Vec<String>> {
        if tgid == self.own {
            return None;
        }
        let argv = self.procfs.command_line(tgid).ok()?;
        let forced = !filter.pids.is_empty();
        let telling = || recognise::worth_a_look(&argv, filter.pattern.as_deref());
        let named_java = || self.procfs.comm(tgid).is_ok_and(|comm| comm == "java");
        (forced || (!argv.is_empty() && (telling() || named_java()))).then_some(argv)
    }

    fn examine(&self, tgid: Tgid, argv: &[String], filter: &Filter) -> Result<Outcome, DiscoverError> {
        let (Ok(started), Ok(threads)) = (self.procfs.started(tgid), self.procfs.thread_names(tgid)) else {
            return Ok(Outcome::Other);
        };
        let comm = self.procfs.comm(tgid).unwrap_or_default();
        let command = CommandLine::new(argv, &comm);
        let standing = |listed| {
            recognise::standing(&Evidence {
                command: &command,
                threads: &threads,
                pattern: recognise::matches_pattern(argv, filter.pattern.as_deref()),
                listed,
            })
        };
        let forced = !filter.pids.is_empty();
        if standing(None) == Standing::Other && !forced {
            // The files of programs that are no concern of the probe stay unread.
            return Ok(Outcome::Other);
        }
        let own = self.configuration(tgid, &command);
        let standing = standing(own.servers.as_ref().map(Vec::len));
        let mut doubt = None;
        match standing {
            Standing::Server => {}
            Standing::SetAside(why) if forced => doubt = Some(why),
            Standing::Other if forced => doubt = Some("not recognised as a Termite server"),
            Standing::SetAside(why) => return Ok(Outcome::SetAside(why.to_owned())),
            Standing::Other => return Ok(Outcome::Other),
        }
        let configuration = match self.overridden(tgid, own, filter)? {
            Ok(configuration) => configuration,
            Err(why) => return Ok(Outcome::SetAside(why)),
        };
        if let Some(why) = doubt
            && filter.quorum_ports.is_empty()
            && configuration.servers.as_ref().is_none_or(Vec::is_empty)
        {
            // Which of its connections are the quorum's would be a guess.
            return Ok(Outcome::SetAside(format!(
                "{why}, and no zoo.cfg of it tells its quorum port; add --quorum-port PORT or --config FILE"
            )));
        }
        let net_ns = self.procfs.net_ns(tgid).map_err(|e| config::reason(&e));
        let writes_to = self.writes_to(tgid, &configuration.data_dirs);
        let mut server = server::describe(Facts { tgid, started, threads, net_ns, writes_to, configuration });
        server.notes.extend(doubt.map(|why| format!("watched because of --pid: {why}")));
        Ok(Outcome::Server(Box::new(server)))
    }

    /// The types of the file systems that hold these directories of a process.
    fn writes_to(&self, tgid: Tgid, data_dirs: &[PathBuf]) -> Known<Vec<String>> {
        if data_dirs.is_empty() {
            return Known::Unknown("no configuration tells its directories".to_owned());
        }
        let types = data_dirs.iter().map(|dir| {
            // ZooKeeper's FileTxnSnapLog: what it writes is in there.
            let dir = dir.join("version-2");
            let device = self.procfs.device_of(tgid, &dir).map_err(|e| config::reason(&e));
            let mounts = self.procfs.mounts(tgid).map_err(|e| config::reason(&e));
            mounts::file_system(&mounts?, device?).ok_or_else(|| "no mount is of its device".to_owned())
        });
        match types.collect::<Result<BTreeSet<String>, String>>() {
            Ok(types) => Known::Known { value: types.into_iter().collect(), source: "mountinfo" },
            Err(why) => Known::Unknown(why),
        }
    }

    fn configuration(&self, tgid: Tgid, command: &CommandLine) -> Configuration {
        match command.config() {
            Some(path) => {
                let inside = Inside(&self.procfs, tgid);
                config::read(&path, &inside, &inside)
            }
            None => Configuration::unknown(None, "the command line names no zoo.cfg"),
        }
    }

    /// `--config` stands in for a configuration that cannot be read; with `--pid` it replaces any; else it keeps
    /// the servers whose own configuration lists the same ensemble, and these keep their own data directory.
    fn overridden(
        &self,
        tgid: Tgid,
        own: Configuration,
        filter: &Filter,
    ) -> Result<Result<Configuration, String>, DiscoverError> {
        let Some(path) = &filter.config else {
            return Ok(Ok(own));
        };
        procfs::read_here(path).map_err(|source| DiscoverError::Config { path: path.clone(), source })?;
        let given = config::read(path, &Here, &Inside(&self.procfs, tgid));
        Ok(match &own.servers {
            Some(_) if !filter.pids.is_empty() => Ok(given),
            Some(servers) if given.servers.as_ref() == Some(servers) => Ok(own),
            Some(_) => Err(format!("its own configuration lists other servers than {}", path.display())),
            None => Ok(given),
        })
    }
}

impl Outcome {
    fn add_to(self, tgid: Tgid, scan: &mut Scan) {
        match self {
            Self::Server(server) => scan.servers.push(*server),
            Self::SetAside(why) => scan.set_aside(tgid, why),
            Self::Other => {}
        }
    }
}

#[cfg(test)]
mod tests;
