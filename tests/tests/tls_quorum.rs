//! A real ensemble whose quorum speaks TLS: what is told of it is true, and what is not known is told to be unknown.
//!
//! Nothing but the ensemble's own zxids and the stops that the test makes is known of such traffic. So that is what is
//! held against the probe: never more proposals than there were, each of them when nothing was in doubt, and the true
//! length of a stop.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::fault::{Span, Stops};
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::probe::{Proposal, Run, Summary, Trace, Vantage};
use termite_probe_tests::tls::Version;

const STOP: Duration = Duration::from_millis(300);
const TIMES: u32 = 8;
const COUNTER: u64 = 0xffff_ffff;
/// What was measured last is proven two PINGs later, which come each second; and one more for a busy machine.
const PROOF: Duration = Duration::from_millis(3500);

#[test]
fn a_stopped_follower_is_found_inside_tls_1_2() -> Result<()> {
    let (ensemble, probe) = start(Version::V12)?;
    let victim = *ensemble.followers()?.first().context("no follower")?;
    let load = load(&ensemble, Plan::steady(40, Duration::from_secs(u64::from(2 * TIMES) + 3)))?;
    let stops = Stops::start(ensemble.pid(victim)?, STOP, Duration::from_secs(2), TIMES).finish()?;
    load.finish()?;
    let (trace, summary, written) = end(&ensemble, probe)?;
    check(&trace, &summary, written)?;
    let stopped = |p: &&Proposal| p.causes_ns.get("stopped").is_some_and(|ns| *ns > 10_000_000);
    let mut found = 0;
    for stop in &stops {
        let within = |p: &&Proposal| p.began_at() < stop.to_ns && p.mono_ns > stop.from_ns;
        let held = trace
            .proposals
            .iter()
            .filter(|p| p.sid == Some(victim) && p.vantage == Vantage::Follower)
            .filter(within)
            .filter_map(|p| p.causes_ns.get("stopped"))
            .max()
            .copied()
            .unwrap_or(0);
        println!("stopped for {} ns: {held} ns told", stop.length_ns());
        found += usize::from(is_close(held, stop));
    }
    // On a busy machine a queue shares records now and then, and what was measured just then is withdrawn.
    ensure!(found >= 1, "none of {} stops was found", stops.len());
    let pids = ensemble.pids();
    let others: Vec<_> = trace
        .proposals
        .iter()
        .filter(|p| pids.contains(&p.pid) && p.sid != Some(victim))
        .filter(stopped)
        .collect();
    ensure!(others.is_empty(), "stops of servers that nobody stopped: {others:?}");
    Ok(())
}

#[test]
fn proposals_are_inferred_inside_tls_1_3_and_heavy_load_is_exact_or_unknown() -> Result<()> {
    let (ensemble, probe) = start(Version::V13)?;
    load(&ensemble, Plan::steady(40, Duration::from_secs(8)))?.finish()?;
    let (trace, summary, written) = end(&ensemble, probe)?;
    check(&trace, &summary, written)?;

    let probe = Run::trace(&[])?;
    let before = ensemble.settled_zxid()?;
    load(&ensemble, Plan::bursts(3000, 50, Duration::from_secs(4)))?.finish()?;
    let (_, summary, after) = end(&ensemble, probe)?;
    for follower in &summary.followers {
        println!("{follower:?}");
        let seen = after - (before & COUNTER);
        let exact = follower.matched == seen;
        ensure!(
            exact || (follower.matched < seen && follower.unknown > 0),
            "{seen} there were: {follower:?}"
        );
    }
    Ok(())
}

/// An ensemble and a trace of everything that it does from now on.
fn start(version: Version) -> Result<(Ensemble, Run)> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3).with_tls(version))?;
    let probe = Run::trace(&[])?;
    Ok((ensemble, probe))
}

/// Writes through the leader: the connections carry proposals and their ACKs alone.
fn load(ensemble: &Ensemble, plan: Plan) -> Result<Load> {
    Load::start(vec![ensemble.client(ensemble.leader()?)?], plan)
}

/// What was told, of this ensemble alone, and how many proposals there have been.
fn end(ensemble: &Ensemble, probe: Run) -> Result<(Trace, Summary, u64)> {
    let zxid = ensemble.settled_zxid()?;
    std::thread::sleep(PROOF);
    let mut trace = probe.interrupt()?.trace()?;
    let pids = ensemble.pids();
    trace.proposals.retain(|p| pids.contains(&p.pid));
    let summary = trace.summary()?.of(&pids);
    Ok((trace, summary, zxid & COUNTER))
}

fn check(trace: &Trace, summary: &Summary, written: u64) -> Result<()> {
    summary.check()?;
    for proposal in &trace.proposals {
        proposal.check()?;
        ensure!(proposal.inferred && proposal.zxid == 0, "not called inferred: {proposal:?}");
    }
    ensure!(summary.followers.len() == 4, "two connections, seen from both ends, are due: {summary:?}");
    for follower in &summary.followers {
        println!("{written} written: {follower:?}");
        ensure!(follower.wire == "tls", "not called TLS: {follower:?}");
        ensure!(follower.matched <= written, "more than the {written} there were: {follower:?}");
        // Behind a doubt a record that is counted as unknown may be more than one proposal, or none.
        let told = follower.matched + follower.unknown;
        ensure!(!follower.doubts.is_empty() || told <= written, "{written} there were: {follower:?}");
        let lines =
            trace.proposals.iter().filter(|p| p.sid == follower.sid && p.vantage == follower.vantage).count();
        ensure!(u64::try_from(lines)? == follower.matched, "{lines} lines: {follower:?}");
        let least = if follower.vantage == Vantage::Follower { written / 20 } else { 0 };
        ensure!(follower.matched >= least, "too little is known: {follower:?}");
    }
    Ok(())
}

/// See `stop.rs`: between a stop's nominal and its noted length.
fn is_close(told_ns: u64, stop: &Span) -> bool {
    let nominal = u64::try_from(STOP.as_nanos()).unwrap_or(u64::MAX);
    told_ns * 100 >= nominal * 85 && told_ns * 100 <= stop.length_ns() * 105
}
