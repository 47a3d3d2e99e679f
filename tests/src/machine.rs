//! What a page of figures says of the machine that they are from.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// Kernel, CPUs, the moment, and how busy it is.
pub fn describe() -> Result<String> {
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?;
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let load = read("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    Ok(format!("Linux {kernel}, {cpus} CPUs ({model}), {date}, load average before the run {load}"))
}

/// What all CPUs did so far, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    idle: u64,
    all: u64,
}

impl CpuTime {
    /// Until now.
    pub fn now() -> Result<Self> {
        let text = read("/proc/stat")?;
        let line = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("cpu "))
            .context("/proc/stat has no sums")?;
        // user nice system idle iowait irq softirq steal; those of guests are in user and nice already.
        let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
        let [_, _, _, idle, iowait, ..] = ticks.as_slice() else {
            bail!("too few numbers in /proc/stat: {line}")
        };
        Ok(Self { idle: idle + iowait, all: ticks.iter().sum() })
    }

    /// The part of the time since an earlier look in which nobody had anything to do.
    pub fn idle_since(self, earlier: Self) -> f64 {
        let (idle, all) = (self.idle.saturating_sub(earlier.idle), self.all.saturating_sub(earlier.all));
        idle as f64 / all.max(1) as f64
    }
}

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
}
