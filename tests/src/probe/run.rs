//! One run of the probe, from its readiness to its last line.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::record::{Proposal, Record, Safepoint, Stall, Summary, Vantage};
use crate::process::{Process, is_own};

/// How long the probe may take to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long the probe may take to end once it was told to.
pub const END_PATIENCE: Duration = Duration::from_secs(20);
/// Largest part of all delay time that may be unexplained, in percent: where stops of JVMs are seen, and where the
/// scheduler alone tells of them.
const UNEXPLAINED_PERCENT: [u64; 2] = [1, 3];
/// Delays that are shown when too much is unexplained.
const WORST: usize = 5;
/// Delay time that a probe may leave unexplained besides: it meets threads in the middle of a proposal.
const MEETING_NS: u64 = 1_000_000;
/// How far back a thread's clock remembers: of longer delays, which only an overloaded host knows, the begin is
/// unexplained (docs/limitations.md).
const MEMORY_NS: u64 = 2_000_000_000;
/// How much of one switch that the kernel left untraced is forgiven (docs/limitations.md): a short trace may be unlucky.
const UNTRACED_NS: u64 = 10_000_000;
/// How the line on stderr starts by which a trace says that it is ready.
const READY: &str = "tracing";

/// A probe that runs. Its output is taken by threads, so it never waits for the test.
#[derive(Debug)]
pub struct Run {
    process: Process,
    stdout: JoinHandle<std::io::Result<String>>,
    lines: Receiver<String>,
    said: Vec<String>,
    unexplained_percent: u64,
}

/// A probe that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote.
    pub stdout: String,
    /// All that it said.
    pub stderr: String,
    /// Largest part of all delay time that it may leave unexplained.
    unexplained_percent: u64,
}

impl Run {
    /// Starts the probe with these arguments.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::spawn(super::command(arguments)?)
    }

    /// Starts the probe by another command, as a shell or `setpriv`.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let alone = command.get_args().any(|argument| argument == "scheduler");
        let unexplained_percent = UNEXPLAINED_PERCENT[usize::from(alone)];
        let mut process = Process::spawn("termite-probe", &mut command, None)?;
        let mut stdout = process.child_mut().stdout.take().context("no stdout")?;
        let stderr = process.child_mut().stderr.take().context("no stderr")?;
        let stdout = std::thread::spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        });
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, stdout, lines, said: Vec::new(), unexplained_percent })
    }

    /// Starts `trace --json --slower 0s` with these further arguments, and waits until it is ready.
    pub fn trace(arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["trace", "--json", "--slower", "0s"];
        all.extend(arguments);
        let mut run = Self::start(&all)?;
        run.wait_for_line(READY, READY_PATIENCE)?;
        Ok(run)
    }

    /// Waits for a line on stderr that starts so, and gives it.
    pub fn wait_for_line(&mut self, start: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.starts_with(start) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no line that starts with {start:?} within {patience:?}: {:?}", self.said)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait(END_PATIENCE)?;
                    bail!("the probe ended ({status}) without a line {start:?}: {:?}", self.said)
                }
            }
        }
    }

    /// Fails if the probe has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            self.said.extend(self.lines.iter());
            bail!("the probe has ended ({status}): {:?}", self.said);
        }
        Ok(())
    }

    /// The probe's pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(self) -> Result<Outcome> {
        self.process.signal(libc::SIGINT)?;
        self.wait(END_PATIENCE)
    }

    /// As [`Self::interrupt`], where the probe may have ended by itself already.
    pub fn interrupt_if_running(mut self) -> Result<Outcome> {
        match self.process.try_wait()? {
            Some(_) => self.wait(END_PATIENCE),
            None => self.interrupt(),
        }
    }

    /// Waits for the probe to end by itself.
    pub fn wait(mut self, patience: Duration) -> Result<Outcome> {
        let status = self.process.wait(patience)?;
        let stdout = self.stdout.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
        self.said.extend(self.lines.iter());
        let (stderr, unexplained_percent) = (self.said.join("\n"), self.unexplained_percent);
        Ok(Outcome { status, stdout, stderr, unexplained_percent })
    }
}

impl Outcome {
    /// What it said, and the end of what it wrote: all of that may be a million lines.
    fn end(&self) -> String {
        let lines: Vec<&str> = self.stdout.lines().rev().take(10).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("it said:\n{}\nand wrote at last:\n{}", self.stderr, lines.join("\n"))
    }

    /// Fails unless the probe ended with this code and said something that contains each of `words`.
    pub fn expect(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.status.code() == Some(code), "exit {} instead of {code}: {}", self.status, self.end());
        for word in words {
            ensure!(self.stderr.contains(word), "no word of {word:?}: {}", self.end());
        }
        ensure!(!self.stderr.contains("panicked"), "a panic: {}", self.end());
        Ok(())
    }

    /// Every record, each of which must keep what the contract promises, ending in one summary.
    pub fn trace(&self) -> Result<Trace> {
        ensure!(self.status.success(), "the probe failed: {}: {}", self.status, self.stderr);
        let mut trace = Trace::default();
        for line in self.stdout.lines() {
            let record = serde_json::from_str(line).with_context(|| format!("not a record: {line}"))?;
            ensure!(trace.summary.is_none(), "a record after the summary: {line}");
            match record {
                Record::Proposal(proposal) => {
                    proposal.check()?;
                    trace.proposals.push(proposal);
                }
                Record::Safepoint(safepoint) => trace.safepoints.push(safepoint),
                Record::Stall(stall) => trace.stalls.push(stall),
                Record::Lost(_) => trace.lost.push(line.to_owned()),
                Record::Transition(value) => trace.transitions.push(value),
                Record::Summary(summary) => {
                    summary.check()?;
                    trace.summary = Some(summary);
                }
                Record::Heartbeat(_) | Record::Other => {}
            }
        }
        trace.check_explained(self.unexplained_percent)?;
        Ok(trace)
    }
}

/// What a trace wrote.
#[derive(Debug, Default)]
pub struct Trace {
    /// The proposals, in the order of the lines.
    pub proposals: Vec<Proposal>,
    /// The stops of JVMs, in the order of the lines.
    pub safepoints: Vec<Safepoint>,
    /// Stalls without a proposal, in the order of the lines.
    pub stalls: Vec<Stall>,
    /// Lines that tell of losses.
    pub lost: Vec<String>,
    /// Servers and links that came, went or changed.
    pub transitions: Vec<serde_json::Value>,
    summary: Option<Summary>,
}

impl Trace {
    /// Fails if too much of the delays has no cause. At the followers' vantage: at the leader's all that is not the
    /// network's is the other node's. Servers of others are not judged: nobody here knows what is done to them. Some kernels
    /// leave some switches untraced: what one of these hides from all proposals of a burst counts once, and one of
    /// ordinary length is forgiven.
    fn check_explained(&self, percent: u64) -> Result<()> {
        let here = self
            .proposals
            .iter()
            .filter(|p| p.vantage == Vantage::Follower && is_own(p.pid) && p.delay_ns < MEMORY_NS);
        let (mut delays_ns, mut unexplained_ns) = (0, 0);
        let mut alike: HashMap<(u32, u64), u64> = HashMap::new();
        for proposal in here {
            let unexplained = proposal.unexplained_ns();
            delays_ns += proposal.delay_ns;
            unexplained_ns += unexplained;
            *alike.entry((proposal.pid, unexplained)).or_default() += unexplained;
        }
        println!("unexplained: {unexplained_ns} ns of {delays_ns} ns of delay");
        let most = alike.iter().max_by_key(|(_, sum)| **sum);
        unexplained_ns -= most.map_or(0, |((_, once), sum)| sum - once + (*once).min(UNTRACED_NS));
        let limit_ns = delays_ns / 100 * percent + MEETING_NS;
        let mut worst: Vec<_> = self.proposals.iter().filter(|p| p.unexplained_ns() > 0).collect();
        worst.sort_by_key(|p| std::cmp::Reverse(p.unexplained_ns()));
        worst.truncate(WORST);
        ensure!(
            unexplained_ns <= limit_ns,
            "{unexplained_ns} ns of {delays_ns} ns have no cause: {worst:#?}"
        );
        Ok(())
    }

    /// The summary, which every trace ends in.
    pub fn summary(&self) -> Result<&Summary> {
        self.summary.as_ref().context("the trace has no summary")
    }

    /// Fails if any record was lost.
    pub fn check_nothing_lost(&self) -> Result<()> {
        ensure!(self.lost.is_empty(), "records were lost: {:?}", self.lost);
        for (kind, count) in &self.summary()?.records {
            ensure!(count.lost == 0, "{} records of kind {kind} were lost", count.lost);
        }
        Ok(())
    }
}
