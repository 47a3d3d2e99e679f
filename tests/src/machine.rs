//! What a page of figures says of the machine that they are from.

use std::fs;

use anyhow::{Context as _, Result};

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

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
}
