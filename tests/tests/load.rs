//! The probe under far more than ZooKeeper can give: what it counts stays exact. The short form of `cargo xtask load`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::flood::Plan;
use termite_probe_tests::flood::trial::{self, RESIDENT_BYTES, Watcher};

#[test]
fn aggregates_are_exact_under_a_flood() -> Result<()> {
    check(&Plan::flood(2000), Watcher::Serve)
}

#[test]
fn records_are_emitted_or_counted_as_lost_in_bursts() -> Result<()> {
    check(&Plan::bursts(2000), Watcher::Trace)
}

#[test]
fn reads_smaller_than_a_packet_lose_nothing() -> Result<()> {
    check(&Plan::tiny_reads(2000), Watcher::Trace)
}

#[test]
fn megabytes_lose_nothing() -> Result<()> {
    check(&Plan::megabytes(2000), Watcher::Serve)
}

#[test]
fn what_overruns_the_window_is_counted_as_expired() -> Result<()> {
    check(&Plan::overrun(1000), Watcher::Serve)
}

fn check(plan: &Plan, watcher: Watcher) -> Result<()> {
    let trial = trial::run(Path::new(env!("CARGO_BIN_EXE_traffic")), plan, watcher)?;
    let probe = trial.probe.context("nobody looked on")?;
    println!("{}: {:.0} proposals/s, {probe:?}", plan.name, trial.tally.per_second());
    ensure!(trial.tally.proposals() > 0, "nothing was proposed");
    ensure!((probe.expired > 0) == plan.overruns(), "{} proposals were given up", probe.expired);
    ensure!(probe.resident > 0 && probe.resident < RESIDENT_BYTES, "{} bytes are resident", probe.resident);
    if let Some(stated) = probe.stated {
        ensure!(probe.maps <= stated, "the maps take {} bytes, {stated} are stated", probe.maps);
    }
    Ok(())
}
