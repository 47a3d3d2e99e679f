//! The orchestrator: a number of nodes goes in, running server processes come out, with handles to wait
//! for them, to stall them and to read their counts.
//!
//! Invariant: dropping an `Ensemble` ends and reaps every process it started and removes every file;
//! should this process be killed, the kernel kills them. Deliberately not here: what servers do, when to
//! stall whom, what the probe makes of it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::config::Sid;
use super::process::{Signal, send};
use super::server::Counts;

/// Three servers on loopback are ready within a tenth of this, also on a loaded machine.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// A leader takes at most two seconds to finish.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// A termite-probe binary.
    pub(crate) exe: PathBuf,
    /// Servers; the one with the highest sid leads.
    pub(crate) nodes: usize,
    /// Proposals a second.
    pub(crate) rate: u32,
    /// Where a directory for the ensemble's files is made.
    pub(crate) dir: PathBuf,
    /// Further lines of zoo.cfg, for one server or for all.
    pub(crate) lines: Vec<(Option<Sid>, String)>,
}

impl Setup {
    /// Servers of this same binary, all alike.
    pub(crate) fn new(nodes: usize, rate: u32, dir: &Path) -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Self { exe, nodes, rate, dir: dir.to_owned(), lines: Vec::new() })
    }
}

/// Running servers.
pub(crate) struct Ensemble {
    servers: BTreeMap<Sid, Server>,
    said: mpsc::Receiver<Said>,
    files: Files,
    /// While it is held, the thread lives that started the servers, and with it they.
    _keeper: mpsc::Sender<()>,
}

/// One of them.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, should it lead.
    pub(crate) quorum_port: u16,
    /// Its zoo.cfg.
    pub(crate) config: PathBuf,
}

struct Files(PathBuf);

enum Said {
    Line(Sid, String),
    Ended(Sid),
}

impl Ensemble {
    /// Starts servers; they are processes when this returns, and take part after `wait_ready`.
    pub(crate) fn start(setup: &Setup) -> anyhow::Result<Self> {
        ensure!((1..=64).contains(&setup.nodes), "an ensemble has 1 to 64 servers, not {}", setup.nodes);
        let files = Files::create(&setup.dir)?;
        let ports = free_ports(setup.nodes * 2).context("cannot find free ports on the loopback")?;
        let mut commands = Vec::new();
        for sid in 1..=setup.nodes as Sid {
            let config = write_config(setup, &files.0, &ports, sid).with_context(|| {
                format!("cannot write the files of server {sid} under {}", files.0.display())
            })?;
            commands.push((sid, command(setup, &config)?, config));
        }
        let (keeper, started) = start_keeper(commands)?;
        let (lines, said) = mpsc::channel();
        let mut ensemble = Self { servers: BTreeMap::new(), said, files, _keeper: keeper };
        for (sid, child, config) in started {
            let quorum_port = ports[sid as usize - 1];
            let server = ensemble.servers.entry(sid).or_insert(Server { child, quorum_port, config });
            let stdout = server.child.stdout.take().context("a server has no output")?;
            listen(sid, stdout, lines.clone())?;
        }
        ensure!(ensemble.servers.len() == setup.nodes, "cannot start {}", setup.exe.display());
        Ok(ensemble)
    }

    /// The process of each server.
    pub(crate) fn pids(&self) -> BTreeMap<Sid, u32> {
        self.servers.iter().map(|(&sid, server)| (sid, server.child.id())).collect()
    }

    /// Each server's files and ports.
    pub(crate) fn servers(&self) -> &BTreeMap<Sid, Server> {
        &self.servers
    }

    /// All servers, in order.
    pub(crate) fn sids(&self) -> Vec<Sid> {
        self.servers.keys().copied().collect()
    }

    /// The one that leads.
    pub(crate) fn leader(&self) -> Sid {
        self.servers.keys().next_back().copied().unwrap_or_default()
    }

    /// The others, in order.
    pub(crate) fn followers(&self) -> Vec<Sid> {
        let leader = self.leader();
        self.sids().into_iter().filter(|&sid| sid != leader).collect()
    }

    /// Waits until every server takes part and the load runs.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        let mut missing = self.sids();
        while !missing.is_empty() {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Line(sid, line)) if line == "ready" => missing.retain(|&other| other != sid),
                Ok(Said::Line(..)) => {}
                Ok(Said::Ended(sid)) => bail!("server {sid} ended: {}", self.last_words(sid)),
                Err(_) => bail!("servers {missing:?} of the demo were not ready in {READY_PATIENCE:?}"),
            }
        }
        Ok(())
    }

    /// Makes a server stand still, as a process does whose host or hypervisor takes the CPU away.
    pub(crate) fn stall(&mut self, sid: Sid, duration: Duration) -> anyhow::Result<()> {
        self.signal(sid, Signal::Stop)?;
        thread::sleep(duration);
        self.signal(sid, Signal::Continue)
    }

    /// Ends the servers, the leader first so that the counts of all agree, and returns what they did.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<Counts>> {
        let mut counts = Vec::new();
        for sid in self.sids().into_iter().rev() {
            self.signal(sid, Signal::Terminate)?;
            counts.push(self.last_counts(sid)?);
        }
        counts.reverse();
        Ok(counts)
    }

    fn last_counts(&self, sid: Sid) -> anyhow::Result<Counts> {
        let deadline = Instant::now() + FINISH_PATIENCE;
        let mut last = String::new();
        loop {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Line(from, line)) if from == sid => last = line,
                Ok(Said::Ended(from)) if from == sid => break,
                Ok(_) => {}
                Err(_) => bail!("server {sid} did not end in {FINISH_PATIENCE:?}"),
            }
        }
        serde_json::from_str(&last)
            .with_context(|| format!("server {sid} ended without its counts: {}", self.last_words(sid)))
    }

    fn signal(&mut self, sid: Sid, signal: Signal) -> anyhow::Result<()> {
        let server = self.servers.get_mut(&sid).with_context(|| format!("there is no server {sid}"))?;
        send(&mut server.child, signal).with_context(|| format!("cannot send {signal:?} to server {sid}"))
    }

    fn last_words(&self, sid: Sid) -> String {
        let words = fs::read_to_string(stderr_of(&self.files.0, sid)).unwrap_or_default();
        let words = words.trim();
        if words.is_empty() { "it said nothing".to_owned() } else { words.to_owned() }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for server in self.servers.values_mut() {
            // One that has ended already is what is wanted.
            let _ = server.child.kill();
        }
        for server in self.servers.values_mut() {
            let _ = server.child.wait();
        }
    }
}

impl Files {
    fn create(under: &Path) -> anyhow::Result<Self> {
        for attempt in 0..100 {
            let path = under.join(format!("termite-demo-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot create {}", path.display())),
            }
        }
        bail!("{} holds the leftovers of a hundred demos: remove termite-demo-* there", under.display())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Nothing better can be done about a directory that somebody else has changed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports that were free together a moment ago.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners: io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn stderr_of(dir: &Path, sid: Sid) -> PathBuf {
    dir.join(sid.to_string()).join("stderr")
}

fn write_config(setup: &Setup, dir: &Path, ports: &[u16], sid: Sid) -> io::Result<PathBuf> {
    let home = dir.join(sid.to_string());
    let data = home.join("data");
    fs::create_dir_all(&data)?;
    fs::write(data.join("myid"), sid.to_string())?;
    let mut lines = vec![
        "tickTime=2000".to_owned(),
        "initLimit=10".to_owned(),
        "syncLimit=5".to_owned(),
        format!("dataDir={}", data.display()),
        format!("demo.rate={}", setup.rate),
    ];
    let (quorum, election) = ports.split_at(setup.nodes);
    for (member, (quorum, election)) in (1..).zip(quorum.iter().zip(election)) {
        lines.push(format!("server.{member}=127.0.0.1:{quorum}:{election}"));
    }
    let own = setup.lines.iter().filter(|(of, _)| of.is_none_or(|of| of == sid));
    lines.extend(own.map(|(_, line)| line.clone()));
    let config = home.join("zoo.cfg");
    fs::write(&config, lines.join("\n") + "\n")?;
    Ok(config)
}

fn command(setup: &Setup, config: &Path) -> anyhow::Result<Command> {
    let stderr = config.with_file_name("stderr");
    let stderr = File::create(&stderr).with_context(|| format!("cannot create {}", stderr.display()))?;
    let mut command = Command::new(&setup.exe);
    command
        .args(["demo-server", "--parent", &std::process::id().to_string(), "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        // A Ctrl-C is for the demo, which then ends its servers in order.
        .process_group(0);
    Ok(command)
}

type Started = Vec<(Sid, Child, PathBuf)>;

/// Starts the servers from a thread that lives until the sender is dropped: the kernel ties the life of
/// a child to the thread that started it, and the caller's may be one of a pool.
fn start_keeper(mut commands: Vec<(Sid, Command, PathBuf)>) -> anyhow::Result<(mpsc::Sender<()>, Started)> {
    let (keeper, dropped) = mpsc::channel::<()>();
    let (report, started) = mpsc::channel();
    thread::Builder::new()
        .name("demo-keeper".to_owned())
        .spawn(move || {
            for (sid, command, config) in &mut commands {
                // A receiver that is gone means that the ensemble is not wanted any more.
                let _ = report.send(command.spawn().map(|child| (*sid, child, std::mem::take(config))));
            }
            drop(report);
            // Ends with an error once the ensemble is dropped.
            let _ = dropped.recv();
        })
        .context("cannot start a thread")?;
    let mut children = Vec::new();
    let mut failure = None;
    for child in started {
        match child {
            Ok(child) => children.push(child),
            Err(error) => failure = Some(error),
        }
    }
    let Some(failure) = failure else {
        return Ok((keeper, children));
    };
    for (_, mut child, _) in children {
        // They are not wanted without the others.
        let _ = child.kill();
        let _ = child.wait();
    }
    Err(failure).context("cannot start a server of the demo")
}

/// Hands on what a server prints.
fn listen(sid: Sid, stdout: ChildStdout, lines: mpsc::Sender<Said>) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(format!("demo-output:{sid}"))
        .spawn(move || {
            // Nobody listens once the ensemble is dropped.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(Said::Line(sid, line));
            }
            let _ = lines.send(Said::Ended(sid));
        })
        .context("cannot start a thread")?;
    Ok(())
}
