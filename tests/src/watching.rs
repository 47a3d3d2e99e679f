//! A probe that looks on while something else is tested: its counts, its losses, and what it takes itself.
//!
//! In: options. Out: [`Seen`] for every follower, from the metrics of `serve` or from the summary of `trace`. Invariant:
//! lines of records are counted and thrown away, so a trace of millions costs no memory here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::exposition::values;
use crate::process::Process;
use crate::{holdings, http, net, probe};

/// The probe loads its programs in seconds, and in more on a busy machine.
const READY_PATIENCE: Duration = Duration::from_secs(120);
const END_PATIENCE: Duration = Duration::from_secs(60);

/// The programs that note arrivals, of which one is in use.
const ARRIVALS: [&str; 2] = ["arrival_tp", "arrival_fentry"];

/// A running probe.
#[derive(Debug)]
pub struct Watching {
    process: Process,
    /// The port of `serve`.
    port: Option<u16>,
    ready: String,
    lines: Option<JoinHandle<Result<Lines>>>,
}

/// What the probe counted of a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `follower` or `leader`.
    pub vantage: String,
    /// The follower's id, or `unknown`.
    pub sid: String,
    /// See docs/metrics.md for these.
    pub proposals: u64,
    /// Acknowledged.
    pub matched: u64,
    /// Given up.
    pub expired: u64,
    /// Under way.
    pub in_flight: u64,
    /// Whose delay is in the histogram.
    pub measured: u64,
    /// Heartbeats in the histogram.
    pub heartbeats: u64,
    /// Resyncs, gaps, unframed calls, unknown acknowledgements.
    pub odd: u64,
}

/// Records of proposals.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// As the kernel side counts them.
    pub emitted: u64,
    /// As the kernel side counts them.
    pub lost: u64,
    /// Lines that were written.
    pub written: u64,
    /// What the lines about losses add up to.
    pub told_lost: u64,
}

/// What a probe told at its end.
#[derive(Debug)]
pub struct End {
    /// Of every follower.
    pub seen: Vec<Seen>,
    /// Of `trace` alone.
    pub records: Option<Records>,
    /// Runs of its arrival program that the kernel skipped: so many arrivals at most were not seen.
    pub skipped: u64,
}

/// What is kept of the output of `trace`.
#[derive(Debug, Default)]
struct Lines {
    proposals: u64,
    told_lost: u64,
    summary: Option<Value>,
}

impl Watching {
    /// `serve` with these further options.
    pub fn serve(options: &[&str]) -> Result<Self> {
        let port = net::free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let mut watching = Self::start(&[&["serve", "--listen", &listen], options].concat(), "measuring")?;
        watching.port = Some(port);
        Ok(watching)
    }

    /// `trace --json --slower 0` with these further options.
    pub fn trace(options: &[&str]) -> Result<Self> {
        Self::start(&[&["trace", "--json", "--slower", "0"], options].concat(), "tracing")
    }

    fn start(arguments: &[&str], ready: &str) -> Result<Self> {
        let mut command = probe::command(arguments)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn("termite-probe", &mut command, None)?;
        let stdout = process.child_mut().stdout.take().context("no stdout")?;
        let stderr = process.child_mut().stderr.take().context("no stderr")?;
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
        let lines = Some(std::thread::spawn(move || Lines::read(stdout)));
        let mut before = Vec::new();
        loop {
            let line = said
                .recv_timeout(READY_PATIENCE)
                .with_context(|| format!("the probe is not ready, it said {before:?}"))?;
            if line.starts_with(ready) {
                return Ok(Self { process, port: None, ready: line, lines });
            }
            before.push(line);
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Result<u64> {
        holdings::memory(self.pid(), "VmRSS")
    }

    /// Kernel memory of its maps, in bytes.
    pub fn map_bytes(&self) -> Result<u64> {
        Ok(holdings::kernel_bytes(self.pid())?.0)
    }

    /// What it said that this is at most, in bytes: `kernel memory at most 20.8 MiB`.
    pub fn stated_bytes(&self) -> Option<u64> {
        let (_, rest) = self.ready.split_once("kernel memory at most ")?;
        let mebibytes: f64 = rest.strip_suffix(" MiB")?.parse().ok()?;
        Some((mebibytes * f64::from(1 << 20)) as u64)
    }

    /// A scrape; nothing of `trace`.
    pub fn metrics(&self) -> Result<Option<String>> {
        let Some(port) = self.port else { return Ok(None) };
        let answer = http::get(port, "/metrics")?;
        ensure!(answer.status == 200, "the probe answers {}", answer.status);
        Ok(Some(answer.body))
    }

    /// Its counts of an ensemble, and its end.
    pub fn finish(mut self, ensemble: &str) -> Result<End> {
        let metrics = self.metrics()?;
        self.process.signal(libc::SIGINT)?;
        let status = self.process.wait(END_PATIENCE)?;
        ensure!(status.success(), "the probe failed: {status}");
        let lines = self.lines.take().context("it has ended before")?.join();
        let lines = lines.map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
        match metrics {
            Some(metrics) => {
                let arrivals = ARRIVALS.map(|program| {
                    let own = [("program", program.to_owned())];
                    values(&metrics, "termite_probe_program_runs_skipped_total", &own)
                        .into_iter()
                        .sum::<f64>()
                });
                let skipped = arrivals.into_iter().sum::<f64>() as u64;
                Ok(End { seen: Seen::of_metrics(&metrics, ensemble), records: None, skipped })
            }
            None => lines.end(),
        }
    }
}

impl Lines {
    fn read(stdout: ChildStdout) -> Result<Self> {
        let (mut out, mut line, mut lines) =
            (BufReader::with_capacity(1 << 20, stdout), Vec::new(), Self::default());
        while out.read_until(b'\n', &mut line)? > 0 {
            if line.starts_with(br#"{"kind":"proposal""#) {
                lines.proposals += 1;
            } else {
                lines.other(serde_json::from_slice(&line).context("not a record")?);
            }
            line.clear();
        }
        Ok(lines)
    }

    fn other(&mut self, record: Value) {
        if record["kind"] == "lost" && record["record"] == "proposal" {
            self.told_lost += record["count"].as_u64().unwrap_or_default();
        } else if record["kind"] == "summary" {
            self.summary = Some(record);
        } else if record["kind"] == "proposal" {
            self.proposals += 1; // with its fields in another order
        }
    }

    fn end(&self) -> Result<End> {
        let summary = self.summary.as_ref().context("no summary")?;
        let records = &summary["records"]["proposal"];
        let count = |name: &str| records[name].as_u64().with_context(|| format!("no {name} in {records}"));
        Ok(End {
            seen: Seen::of_summary(summary)?,
            skipped: {
                let skips = summary["runs_skipped"].as_object().context("no count of skipped runs")?;
                ARRIVALS.iter().filter_map(|program| skips.get(*program)?.as_u64()).sum()
            },
            records: Some(Records {
                emitted: count("emitted")?,
                lost: count("lost")?,
                written: self.proposals,
                told_lost: self.told_lost,
            }),
        })
    }
}

impl Seen {
    /// Every follower of an ensemble, from a scrape.
    pub fn of_metrics(metrics: &str, ensemble: &str) -> Vec<Self> {
        let ensemble = ("ensemble", ensemble.to_owned());
        let label = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let rows = metrics.lines().filter(|line| line.starts_with("termite_proposals_total{"));
        let rows = rows.filter(|line| label(line, "ensemble").as_deref() == Some(&ensemble.1));
        let keys: BTreeSet<_> =
            rows.filter_map(|line| Some((label(line, "vantage")?, label(line, "sid")?))).collect();
        keys.into_iter()
            .map(|(vantage, sid)| {
                let own = [ensemble.clone(), ("vantage", vantage.clone()), ("sid", sid.clone())];
                let sum = |name: &str| values(metrics, name, &own).into_iter().sum::<f64>() as u64;
                let anomalies = sum("termite_probe_anomalies_total") - unmeasured(metrics, &own);
                Self {
                    proposals: sum("termite_proposals_total"),
                    matched: sum("termite_proposals_matched_total"),
                    expired: sum("termite_proposals_expired_total"),
                    in_flight: sum("termite_proposals_in_flight"),
                    measured: sum("termite_proposal_delay_seconds_count"),
                    heartbeats: sum("termite_heartbeat_delay_seconds_count"),
                    odd: sum("termite_probe_stream_resyncs_total") + anomalies,
                    vantage,
                    sid,
                }
            })
            .collect()
    }

    fn of_summary(summary: &Value) -> Result<Vec<Self>> {
        let followers = summary["followers"].as_array().context("no followers")?;
        let of = |follower: &Value| {
            let count =
                |name: &str| follower[name].as_u64().with_context(|| format!("no {name} in {follower}"));
            let odd = ["resyncs", "gaps", "unknown_acks", "unframed_calls"].map(count);
            Ok(Self {
                vantage: follower["vantage"].as_str().context("no vantage")?.to_owned(),
                sid: follower["sid"].as_u64().map_or_else(|| "unknown".to_owned(), |sid| sid.to_string()),
                proposals: count("proposals")?,
                matched: count("matched")?,
                expired: count("expired")?,
                in_flight: count("in_flight")?,
                measured: count("measured")?,
                heartbeats: count("heartbeats")?,
                odd: odd.into_iter().sum::<Result<u64>>()?,
            })
        };
        followers.iter().map(of).collect()
    }

    /// Each proposal is acknowledged, given up or under way.
    pub fn check_sum(&self) -> Result<()> {
        let sum = self.matched + self.expired + self.in_flight;
        ensure!(self.proposals == sum, "proposals are unaccounted for: {self:?}");
        Ok(())
    }
}

fn unmeasured(metrics: &str, own: &[(&str, String)]) -> u64 {
    let own: BTreeMap<_, _> = own.iter().cloned().chain([("kind", "unmeasured".to_owned())]).collect();
    let own: Vec<_> = own.into_iter().collect();
    values(metrics, "termite_probe_anomalies_total", &own).into_iter().sum::<f64>() as u64
}
