//! The case that this project is for: five servers, one follower that spends some 150 ms of each second in
//! its garbage collector, a cluster that stays green. The probe on that node has to name the follower, the
//! cause and the size within ten seconds of its start. What ZooKeeper itself tells of the same seconds is
//! printed beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::fault::{Collector, Episode, Fault as _, Gc, monotonic_ns};
use termite_probe_tests::judgement::{Finding, Injection, Place, Score, Stop, judge};
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{Run, Trace};
use termite_probe_tests::scene;

/// How long the probe has, from its start on.
const PATIENCE: Duration = Duration::from_secs(10);
/// The collector's part of each second, and the rest of it.
const PAUSE: Duration = Duration::from_millis(150);
const REST: Duration = Duration::from_millis(850);
/// Enough for the time that the probe has, however few trials the size takes.
const COLLECTIONS: u32 = 12;
const RATE: u32 = 250;
/// The machine is shared: one in so many collections may meet something that is longer.
const MEETS_OTHERS: usize = 10;

/// What the probe wrote, from when to when it looked, and what two servers say of that time.
type Watched = (Trace, (u64, u64), Vec<(String, String)>);

/// What of `mntr` tells of latencies.
const OWN_METRICS: [&str; 8] = [
    "zk_avg_latency",
    "zk_max_latency",
    "zk_synced_followers",
    "_ack_latency",
    "follower_sync_time",
    "fsynctime",
    "quorum_ack_latency",
    "jvm_pause_time",
];

#[test]
fn the_cause_is_named_within_ten_seconds() -> Result<()> {
    require_host()?;
    let fault = Gc(Collector::Serial);
    // The disk of this host is not what is looked for.
    let spec = fault.prepare(Spec::voters(5).in_directory(Path::new("/dev/shm")))?;
    let ensemble = Ensemble::start(&spec)?;
    let (leader, victim) = (ensemble.leader()?, *ensemble.followers()?.first().context("no follower")?);
    let load = scene::load(&ensemble, Plan::steady(RATE, Duration::from_secs(120)))?;
    let epoch = ensemble.status(leader)?.zxid >> 32;

    let (trace, window, own, episodes) = std::thread::scope(|scope| -> Result<_> {
        let pauses = scope.spawn(|| fault.inject(&ensemble, victim, PAUSE, REST, COLLECTIONS));
        let watched = watch(&ensemble, victim, leader);
        let episodes = pauses.join().map_err(|_| anyhow::anyhow!("the thread that injects panicked"))??;
        let (trace, window, own) = watched?;
        Ok((trace, window, own, episodes))
    })?;

    check_green(&ensemble, leader, epoch)?;
    let report = load.stop()?;
    ensure!(report.reconnects == 0, "a client lost its server: {report:?}");
    let findings = findings(&trace, &window, &episodes, victim);
    show(&findings, victim, &own);
    check(&findings)
}

/// Runs the probe on the follower's node for as long as it has; gives what it wrote, when it looked, and what
/// the follower and the leader say of the same time.
fn watch(ensemble: &Ensemble, victim: u64, leader: u64) -> Result<Watched> {
    for sid in ensemble.sids() {
        ensemble.word(sid, "srst")?;
    }
    let begin = Instant::now();
    let probe = Run::trace(&["--pid", &ensemble.pid(victim)?.to_string()])?;
    let from_ns = monotonic_ns()?;
    std::thread::sleep(PATIENCE.saturating_sub(begin.elapsed()));
    let to_ns = monotonic_ns()?;
    let trace = probe.interrupt()?.trace()?;
    let mut own = Vec::new();
    for (who, sid) in [("follower", victim), ("leader", leader)] {
        let answer = ensemble.word(sid, "mntr")?;
        let told = answer.lines().filter_map(|line| line.split_once('\t'));
        let told = told.filter(|(name, _)| OWN_METRICS.iter().any(|part| name.contains(part)));
        own.extend(told.map(|(name, value)| (format!("{who} {sid}: {name}"), value.to_owned())));
    }
    trace.check_nothing_lost()?;
    Ok((trace, (from_ns, to_ns), own))
}

/// Green: nobody noticed. The same leader in the same epoch, and everybody with it.
fn check_green(ensemble: &Ensemble, leader: u64, epoch: u64) -> Result<()> {
    ensure!(ensemble.leader()? == leader, "there was an election");
    ensure!(ensemble.status(leader)?.zxid >> 32 == epoch, "there was a new epoch");
    let followers = ensemble.followers()?.len();
    ensure!(followers == 4, "{followers} servers follow");
    Ok(())
}

/// Judges the collections of which the probe could see all.
fn findings(trace: &Trace, window: &(u64, u64), episodes: &[Episode], victim: u64) -> Vec<Finding> {
    let fault = Gc(Collector::Serial);
    let seen = episodes.iter().filter(|e| e.span.from_ns > window.0 && e.span.to_ns + 50_000_000 < window.1);
    let faulted = BTreeSet::from([victim]);
    let stops: Vec<Stop> = trace.safepoints.iter().map(Stop::from).collect();
    let judged = seen.map(|episode| {
        let injection = Injection::of(&fault, Place::Follower, *episode);
        judge(&injection, &faulted, &trace.proposals, &stops)
    });
    judged.collect()
}

fn show(findings: &[Finding], victim: u64, own: &[(String, String)]) {
    println!("The probe, within {PATIENCE:?} of its start, on the node of follower {victim}:");
    for finding in findings {
        let millis = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
        let Some(said) = &finding.said else { continue };
        println!(
            "  {} of follower {}: {:.1} ms; the JVM's safepoint log: {:.1} ms",
            said.verdict,
            said.sid.map_or_else(|| "?".to_owned(), |sid| sid.to_string()),
            millis(said.size_ns),
            finding.truth_ns.map_or(f64::NAN, millis)
        );
    }
    println!("ZooKeeper itself, in the same time (mntr; latencies in ms):");
    let by_name: BTreeMap<_, _> = own.iter().map(|(name, value)| (name, value)).collect();
    for (name, value) in by_name {
        println!("  {name} {value}");
    }
}

fn check(findings: &[Finding]) -> Result<()> {
    let score = Score::of(findings);
    let most = score.stalls - score.stalls / MEETS_OTHERS;
    ensure!(score.stalls >= 4, "only {} collections held up a proposal: {findings:?}", score.stalls);
    ensure!(score.right_server == score.stalls, "another server was named: {findings:?}");
    ensure!(score.right_cause >= most, "{} of {} are gc: {findings:?}", score.right_cause, score.stalls);
    let within = score.errors.within();
    ensure!(within + score.stalls / MEETS_OTHERS + 1 >= score.errors.count(), "sizes: {findings:?}");
    Ok(())
}
