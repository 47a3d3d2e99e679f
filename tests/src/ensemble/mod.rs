//! Real Apache ZooKeeper ensembles, from Debian's jars.
//!
//! In: a [`Spec`]. Out: running servers with their pids, ports and zxids. Every server is a process of
//! this test alone, with its data in a directory that vanishes with the [`Ensemble`]. Configuration
//! and state come from ZooKeeper itself (four-letter words), never from the probe.

mod server;
mod spec;
mod status;
mod tls;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

pub use self::server::Server;
pub use self::spec::{Network, Spec};
pub use self::status::{Mode, Status};
use crate::load::Endpoint;
use crate::net::{Fabric, Namespace};
use crate::poll;

/// How long an election, a join or the end of a process may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A follower applies what the leader commits even before its own log is flushed, and nothing but the
/// wire tells when it has acknowledged: the one wait of these tests that is a wait for time.
const LAST_ACK: Duration = Duration::from_secs(1);

/// The part of a zxid that counts the proposals of an epoch.
const COUNTER: u64 = 0xffff_ffff;

/// The servers of one cluster.
#[derive(Debug)]
pub struct Ensemble {
    // Dropped in this order: processes first, their namespaces and files after them.
    servers: Vec<Server>,
    fabric: Option<Fabric>,
    directory: TempDir,
}

impl Ensemble {
    /// Chooses ports and writes the configuration; starts nothing.
    pub fn prepare(spec: &Spec) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("termite-ensemble-").tempdir_in(&spec.place)?;
        let fabric = match spec.network {
            Network::Loopback | Network::LoopbackIpv6 => None,
            Network::Namespaces => Some(Fabric::new(u8::try_from(spec.servers.len())?)?),
        };
        if spec.tls.is_some() {
            tls::certify(directory.path())?;
        }
        let servers = server::configure(spec, directory.path(), fabric.as_ref())?;
        Ok(Self { servers, fabric, directory })
    }

    /// Prepares, starts every server and waits until they serve.
    pub fn start(spec: &Spec) -> Result<Self> {
        let mut ensemble = Self::prepare(spec)?;
        ensemble.start_all()?;
        Ok(ensemble)
    }

    /// Starts every server and waits until one leads and all others follow.
    pub fn start_all(&mut self) -> Result<()> {
        for sid in self.sids() {
            self.launch(sid)?;
        }
        self.wait_until_serving()
    }

    /// All server ids.
    pub fn sids(&self) -> Vec<u64> {
        self.servers.iter().map(|server| server.sid).collect()
    }

    /// All quorum ports.
    pub fn quorum_ports(&self) -> Vec<u16> {
        self.servers.iter().map(|server| server.quorum.port()).collect()
    }

    /// One server.
    pub fn server(&self, sid: u64) -> Result<&Server> {
        self.servers.iter().find(|server| server.sid == sid).with_context(|| format!("no server {sid}"))
    }

    /// The pid of a running server.
    pub fn pid(&self, sid: u64) -> Result<u32> {
        self.server(sid)?.pid().with_context(|| format!("server {sid} does not run"))
    }

    /// Every pid that a server of this ensemble has had, restarts included.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().flat_map(|server| server.pids.iter().copied()).collect()
    }

    /// The network in which the servers live, if it is not loopback.
    pub fn fabric(&self) -> Option<&Fabric> {
        self.fabric.as_ref()
    }

    /// Where clients reach a server.
    pub fn client(&self, sid: u64) -> Result<Endpoint> {
        Ok(Endpoint { address: self.server(sid)?.client, namespace: self.hub()? })
    }

    /// Starts one server without waiting for it to serve.
    pub fn launch(&mut self, sid: u64) -> Result<()> {
        let (fabric, index) = (self.fabric.as_ref(), self.index(sid)?);
        let namespace = fabric.map(|fabric| fabric.host(index)).transpose()?;
        self.servers[index].launch(namespace.map(|(_, namespace)| namespace))
    }

    /// Ends one server at once, as a power cut would.
    pub fn kill(&mut self, sid: u64) -> Result<()> {
        let index = self.index(sid)?;
        self.servers[index].kill()
    }

    /// Ends one server by SIGTERM and waits until it is gone.
    pub fn stop(&mut self, sid: u64) -> Result<()> {
        let index = self.index(sid)?;
        self.servers[index].terminate(PATIENCE)
    }

    /// Throws a stopped server's data away, its myid excepted.
    pub fn wipe(&mut self, sid: u64) -> Result<()> {
        let index = self.index(sid)?;
        self.servers[index].wipe()
    }

    /// What a server says about itself.
    pub fn status(&self, sid: u64) -> Result<Status> {
        status::ask(&self.client(sid)?)
    }

    /// What a server answers to a four-letter word.
    pub fn word(&self, sid: u64, word: &str) -> Result<String> {
        status::word(&self.client(sid)?, word)
    }

    /// Waits until one running server leads and every other running one follows or observes.
    pub fn wait_until_serving(&mut self) -> Result<()> {
        let outcome = poll::until("one leader, and everybody else with it", PATIENCE, || {
            let mut leaders = 0;
            for index in 0..self.servers.len() {
                self.servers[index].check_alive()?;
                let server = &self.servers[index];
                if server.pid().is_none() {
                    continue;
                }
                match self.status(server.sid) {
                    Ok(status) => leaders += usize::from(status.mode == Mode::Leader),
                    Err(_) => return Ok(None),
                }
            }
            Ok((leaders == 1).then_some(()))
        });
        outcome.with_context(|| format!("the ensemble does not serve; its logs end so:\n{}", self.log_ends()))
    }

    /// The server that leads now.
    pub fn leader(&self) -> Result<u64> {
        self.with_mode(Mode::Leader)?.first().copied().context("nobody leads")
    }

    /// The voters that follow now.
    pub fn followers(&self) -> Result<Vec<u64>> {
        self.with_mode(Mode::Follower)
    }

    /// The observers that are connected now.
    pub fn observers(&self) -> Result<Vec<u64>> {
        self.with_mode(Mode::Observer)
    }

    /// Waits until every running server has applied what the leader has and nothing moves any more;
    /// gives the leader's zxid. In an epoch without a proposal the followers keep their old zxids.
    pub fn settled_zxid(&self) -> Result<u64> {
        let mut before: Option<u64> = None;
        let zxid = poll::until("all servers at the leader's zxid", PATIENCE, || {
            let mut statuses = Vec::new();
            for server in self.servers.iter().filter(|server| server.pid().is_some()) {
                match self.status(server.sid) {
                    Ok(status) => statuses.push(status),
                    Err(_) => return Ok(None),
                }
            }
            let leader = statuses.iter().find(|status| status.mode == Mode::Leader);
            let Some(zxid) = leader.map(|leader| leader.zxid) else {
                return Ok(None);
            };
            let same = zxid & COUNTER == 0 || statuses.iter().all(|status| status.zxid == zxid);
            let still = before.replace(zxid) == Some(zxid);
            Ok((same && still).then_some(zxid))
        })?;
        std::thread::sleep(LAST_ACK);
        Ok(zxid)
    }

    /// The end of every server's log.
    pub fn log_ends(&self) -> String {
        self.servers.iter().map(Server::log_end).collect::<Vec<_>>().join("\n")
    }

    /// The directory of everything that this ensemble writes.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn with_mode(&self, mode: Mode) -> Result<Vec<u64>> {
        let mut sids = Vec::new();
        for server in self.servers.iter().filter(|server| server.pid().is_some()) {
            let status = self.status(server.sid)?;
            if status.mode == mode {
                sids.push(server.sid);
            }
        }
        Ok(sids)
    }

    fn hub(&self) -> Result<Option<Namespace>> {
        self.fabric.as_ref().map(|fabric| fabric.hub().try_clone()).transpose()
    }

    fn index(&self, sid: u64) -> Result<usize> {
        let index = self.servers.iter().position(|server| server.sid == sid);
        index.with_context(|| format!("no server {sid}"))
    }
}

/// Fails with what to install where the ensemble's programs are missing.
pub fn require_host() -> Result<()> {
    for (path, package) in
        [("/usr/share/java/zookeeper.jar", "libzookeeper-java"), ("/usr/bin/java", "openjdk-17-jre-headless")]
    {
        ensure!(std::path::Path::new(path).exists(), "{path} is missing: apt-get install {package}");
    }
    require_root()
}

/// Fails where programs cannot be loaded.
pub fn require_root() -> Result<()> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!("these tests load kernel programs and capture packets: run them as root");
    }
    Ok(())
}
