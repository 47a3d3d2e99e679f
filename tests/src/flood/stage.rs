//! The processes of one flood, from their start to their tallies.
//!
//! Invariant: the tallies are of traffic that has come to rest while the connections were still open. Dropping it ends
//! both processes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Plan, Role, Tally};
use crate::net;
use crate::process::Process;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A leader and its followers.
pub struct Flood {
    leader: Actor,
    follower: Actor,
    /// The quorum port.
    pub port: u16,
}

/// One process.
pub(crate) struct Actor {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Flood {
    /// Both processes, not yet connected. `program` is the generator's binary, which cargo names to tests and benches alone.
    pub fn prepare(program: &Path, plan: &Plan) -> Result<Self> {
        let port = net::free_port()?;
        let leader = Actor::start(program, &Role::Leader { port, plan: plan.clone() })?;
        let follower = Actor::start(program, &Role::Follower { port, plan: plan.clone() })?;
        Ok(Self { leader, follower, port })
    }

    /// The leader's process and the followers'.
    pub fn pids(&self) -> [u32; 2] {
        [self.leader.pid(), self.follower.pid()]
    }

    /// Connects and begins.
    pub fn go(&mut self) -> Result<()> {
        self.leader.go()?;
        self.follower.go()
    }

    /// Waits until the last acknowledgement is back and every call has returned; what the leader and what the followers
    /// counted. The connections stay.
    pub fn settle(&mut self) -> Result<[Tally; 2]> {
        let leader = self.leader.tally().context("the leader failed")?;
        drop(self.follower.stdin.take());
        Ok([leader, self.follower.tally().context("the follower failed")?])
    }

    /// Ends both.
    pub fn finish(self) -> Result<()> {
        self.leader.finish()?;
        self.follower.finish()
    }
}

impl Actor {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(program: &Path, role: &Role) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(serde_json::to_string(role)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn("the generator", &mut command, None)?;
        let stdin = process.child_mut().stdin.take();
        let stdout = process.child_mut().stdout.take().context("no stdout")?;
        let mut actor = Self { process, stdin, stdout: BufReader::new(stdout) };
        ensure!(actor.line()? == "ready", "the generator is not ready");
        Ok(actor)
    }

    /// Has it begin.
    pub(crate) fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the generator was told to end")?;
        writeln!(stdin, "go").and_then(|()| stdin.flush()).context("the generator has ended")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it has ended, however: it was not told to.
    pub(crate) fn outlast(mut self, patience: Duration) -> Result<()> {
        self.process.wait(patience).context("the generator stays")?;
        Ok(())
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended without a word");
        Ok(line.trim_end().to_owned())
    }

    /// Ends it.
    pub(crate) fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.process.wait(PATIENCE)?;
        ensure!(status.success(), "the generator failed: {status}");
        Ok(())
    }

    fn tally(&mut self) -> Result<Tally> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("no tally: {line}"))
    }
}
