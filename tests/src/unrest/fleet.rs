//! Many servers on one host: the probe's own embedded servers, which are cheap, in ensembles of four.
//!
//! Invariant: each server is a process of this one, and ends with it. Any of them can be ended and started again, the
//! leaders too.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::Process;
use crate::{net, poll, probe};

/// Servers of an ensemble; the last one leads.
const NODES: usize = 4;
/// A restarted server may take its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Five of them in silence end a connection; on a busy machine none should.
const TICK_MS: u32 = 6000;
/// The files are kept in memory where the host has such a place: the servers flush their logs.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp"];

/// All servers.
#[derive(Debug)]
pub struct Fleet {
    servers: Vec<Server>,
    restarts: usize,
    _files: TempDir,
}

#[derive(Debug)]
struct Server {
    config: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Fleet {
    /// Starts so many servers, each ensemble with so many proposals a second.
    pub fn start(servers: usize, rate: u32) -> Result<Self> {
        ensure!(servers.is_multiple_of(NODES), "servers come in ensembles of {NODES}");
        let place =
            PLACES.into_iter().find(|place| fs::metadata(place).is_ok()).context("no place for files")?;
        let files = tempfile::Builder::new().prefix("termite-fleet-").tempdir_in(place)?;
        let mut all = Vec::new();
        for ensemble in 0..servers / NODES {
            let ports = (0..NODES).map(|_| net::reserved_port()).collect::<Result<Vec<_>>>()?;
            for (index, port) in ports.iter().enumerate() {
                let directory = files.path().join(format!("{ensemble}-{index}"));
                fs::create_dir(&directory)?;
                fs::write(directory.join("myid"), format!("{}\n", index + 1))?;
                let mut text =
                    format!("tickTime={TICK_MS}\ndataDir={}\ndemo.rate={rate}\n", directory.display());
                for (peer, port) in ports.iter().enumerate() {
                    // Nobody listens on the election port: these servers hold no elections.
                    writeln!(text, "server.{}=127.0.0.1:{port}:{}", peer + 1, port + 1000)?;
                }
                let config = directory.join("zoo.cfg");
                fs::write(&config, text)?;
                all.push(Server { config, port: *port, process: None });
            }
        }
        let mut fleet = Self { servers: all, restarts: 0, _files: files };
        let ready = fleet.servers.iter_mut().map(Server::start).collect::<Result<Vec<_>>>()?;
        ready.iter().try_for_each(await_ready)?;
        Ok(fleet)
    }

    /// Their quorum ports.
    pub fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(|server| server.port).collect()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Ends of connections that they have among themselves when all are joined.
    pub fn links(&self) -> usize {
        self.servers.len() / NODES * (NODES - 1) * 2
    }

    /// Ends one server, by turns with a signal that it can heed and with one that it cannot, and starts it again, until it has
    /// joined. Each has its turn.
    pub fn restart(&mut self) -> Result<()> {
        let turn = self.restarts;
        self.restarts += 1;
        // Neighbours share an ensemble: those in the same place of each ensemble follow one another.
        let ensembles = self.servers.len() / NODES;
        let server = &mut self.servers[turn % ensembles * NODES + turn / ensembles % NODES];
        let mut process = server.process.take().context("the server does not run")?;
        process.signal(if turn.is_multiple_of(2) { libc::SIGTERM } else { libc::SIGKILL })?;
        process.wait(PATIENCE)?;
        await_ready(&server.start()?).with_context(|| fs::read_to_string(server.log()).unwrap_or_default())
    }

    /// How many restarts there were.
    pub fn restarts(&self) -> usize {
        self.restarts
    }
}

impl Server {
    /// What it said.
    fn log(&self) -> PathBuf {
        self.config.with_extension("log")
    }

    /// Who listens learns when it has joined its leader, or its followers have joined it.
    fn start(&mut self) -> Result<Receiver<()>> {
        let config = self.config.to_str().context("a path that is no UTF-8")?;
        let parent = std::process::id().to_string();
        let mut command = probe::command(&["demo-server", "--config", config, "--parent", &parent])?;
        let said = File::options().create(true).append(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
        let mut process = Process::spawn("an embedded server", &mut command, None)?;
        let stdout = process.child_mut().stdout.take().context("no stdout")?;
        let (sender, ready) = channel();
        std::thread::spawn(move || {
            // At its end it says what it has counted: somebody has to listen until then.
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                if line == "ready" {
                    let _nobody_waits = sender.send(());
                }
            }
        });
        self.process = Some(process);
        Ok(ready)
    }
}

fn await_ready(ready: &Receiver<()>) -> Result<()> {
    ready.recv_timeout(PATIENCE).context("an embedded server does not join its ensemble")
}

/// Waits until a number is what it should be.
pub(super) fn wait_for(what: &str, expected: u64, mut look: impl FnMut() -> Result<u64>) -> Result<()> {
    let mut last = 0;
    poll::until(what, PATIENCE, || {
        last = look()?;
        Ok((last == expected).then_some(()))
    })
    .with_context(|| format!("{what}: {last} instead of {expected}"))
}
