//! Figures of runs: from libFuzzer's log, and kept from run to run.
//!
//! In: a log, times. Out: sums by target. Invariant: a run's line is written once and never changed; executions and
//! times add up, what was reached is that of the last run, which began with all that was learnt before.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::ByTarget;

/// Clock ticks of /proc in a second: `USER_HZ`, which is part of the kernel's interface.
const TICKS: u64 = 100;

/// Of one run, or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) executions: u64,
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
    /// Edges of the instrumented code that some input takes.
    pub(super) edges: u64,
    /// Inputs that are kept, each for something that no other reaches.
    pub(super) inputs: u64,
}

impl Figures {
    /// Of a log: lines such as `#4096 NEW cov: 421 ft: 1432 corp: 461/200Kb lim: …`.
    pub(super) fn of(log: &str, cpu: Duration, wall: Duration) -> Self {
        let mut figures = Self { cpu, wall, ..Self::default() };
        for line in log.lines().filter_map(|line| line.strip_prefix('#')) {
            let mut words = line.split_ascii_whitespace();
            let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { continue };
            figures.executions = executions;
            let number = |after: &str| {
                let rest = line.split_once(after)?.1;
                rest.split(['/', ' ']).next()?.parse().ok()
            };
            figures.edges = number(" cov: ").unwrap_or(figures.edges);
            figures.inputs = number(" corp: ").unwrap_or(figures.inputs);
        }
        figures
    }

    /// In words.
    pub(super) fn line(&self) -> String {
        format!(
            "{} executions, {} a second of CPU, {:.0} s of CPU in {:.0} s, {} edges, {} inputs",
            self.executions,
            self.rate(),
            self.cpu.as_secs_f64(),
            self.wall.as_secs_f64(),
            self.edges,
            self.inputs
        )
    }

    /// Executions in a second of CPU time.
    pub(super) fn rate(&self) -> u64 {
        let seconds = self.cpu.as_secs_f64();
        if seconds > 0.0 { (self.executions as f64 / seconds) as u64 } else { 0 }
    }

    /// Adds them to the file of all runs.
    pub(super) fn keep(&self, target: &str, work: &Path) -> anyhow::Result<()> {
        let line = json!({
            "target": target,
            "executions": self.executions,
            "cpu_seconds": self.cpu.as_secs_f64(),
            "wall_seconds": self.wall.as_secs_f64(),
            "edges": self.edges,
            "inputs": self.inputs,
        });
        let path = work.join("runs.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The sums of all runs.
pub(super) fn all(work: &Path) -> anyhow::Result<ByTarget<Figures>> {
    let path = work.join("runs.jsonl");
    if !path.exists() {
        return Ok(ByTarget::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    sum(&text).with_context(|| format!("{} has a line that is no run", path.display()))
}

fn sum(lines: &str) -> anyhow::Result<ByTarget<Figures>> {
    let mut sums = ByTarget::<Figures>::new();
    for line in lines.lines() {
        let run: Value = serde_json::from_str(line)?;
        let sum = sums.entry(run["target"].as_str().context("no target")?.to_owned()).or_default();
        let seconds = |name: &str| Duration::from_secs_f64(run[name].as_f64().unwrap_or_default().max(0.0));
        let count = |name: &str| run[name].as_u64().unwrap_or_default();
        sum.executions += count("executions");
        sum.cpu += seconds("cpu_seconds");
        sum.wall += seconds("wall_seconds");
        (sum.edges, sum.inputs) = (count("edges").max(sum.edges), count("inputs"));
    }
    Ok(sums)
}

/// What a process has used so far; `None` when it is not there.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime and stime are the fields 14 and 15 of proc(5); the second, a name in parentheses, can hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: seed corpus: files: 28\n#29\tINITED cov: 500 ft: 900 corp: 27/80Kb exec/s: 0 rss: 60Mb\n\
        #4096\tpulse  cov: 537 ft: 1551 corp: 300/1104Kb lim: 4013 exec/s: 1692 rss: 29Mb\n#15236\tDONE   cov: 538 ft: \
        1552 corp: 301/1104Kb lim: 4013 exec/s: 1692 rss: 29Mb\nstat::new_units_added: 317\n";

    #[test]
    fn the_last_line_of_a_log_counts() {
        let figures = Figures::of(LOG, Duration::from_secs(2), Duration::from_secs(9));
        assert_eq!((figures.executions, figures.edges, figures.inputs), (15236, 538, 301));
        assert_eq!(figures.rate(), 7618);
        assert_eq!(Figures::of("", Duration::ZERO, Duration::ZERO).rate(), 0);
    }

    #[test]
    fn runs_add_up() {
        let runs = "{\"target\":\"btf\",\"executions\":5,\"cpu_seconds\":1.5,\"wall_seconds\":2,\"edges\":7,\"inputs\":3}\n\
            {\"target\":\"btf\",\"executions\":6,\"cpu_seconds\":1.5,\"wall_seconds\":2,\"edges\":8,\"inputs\":2}\n";
        let sums = sum(runs).expect("two runs");
        let btf = &sums["btf"];
        assert_eq!((btf.executions, btf.cpu, btf.edges, btf.inputs), (11, Duration::from_secs(3), 8, 2));
        assert!(sum("no run\n").is_err());
    }

    #[test]
    fn a_process_has_a_cpu_time() {
        assert!(cpu_time(std::process::id()).is_some());
    }
}
