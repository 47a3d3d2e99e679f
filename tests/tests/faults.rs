//! Every injector really delays the follower that it is aimed at, by about the size asked for. The judge
//! is the packet capture of the quorum ports; the probe is not there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use termite_probe_tests::capture::Link;
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::fault::{self, AllLinks, Episode, Fault, monotonic_ns};
use termite_probe_tests::load::{self, Pace, Plan};
use termite_probe_tests::scene::Scene;

const SIZE: Duration = Duration::from_millis(120);
const GAP: Duration = Duration::from_millis(300);
const TIMES: u32 = 3;
/// A write every 2 ms: one of them is on its way soon after an episode has begun.
const RATE: u32 = 500;
/// How much shorter than its truth the largest delay may be, in ns: until the next write, and a timer.
const SLACK_NS: u64 = 12_000_000;

/// A fault of the leader that is longer than anything else that holds a client's write.
const LONG: Duration = Duration::from_millis(600);

#[test]
fn faults_of_a_host_hold_the_follower() -> Result<()> {
    check(&fault::of_one_host(), a_follower)
}

#[test]
fn faults_of_the_network_hold_the_follower() -> Result<()> {
    check(&fault::of_the_network(), a_follower)
}

#[test]
fn faults_of_all_links_of_the_leader_hold_every_follower() -> Result<()> {
    check(&[Box::new(AllLinks(fault::Loss))], Ensemble::leader)
}

#[test]
fn other_faults_hold_the_follower() -> Result<()> {
    fault::of_their_own().into_iter().try_for_each(|fault| check(&[fault], a_follower))
}

/// The accuracy matrix has no such fault in the leader: a quorum acknowledges without it, and nobody waits.
#[test]
fn what_holds_the_leaders_log_holds_clients_only_where_its_own_acknowledgement_is_needed() -> Result<()> {
    require_host()?;
    let faults: [Box<dyn Fault + Sync>; 2] = [Box::new(fault::Lock), Box::new(fault::Sleep)];
    let spec = Spec::voters(3).in_directory(Path::new("/dev/shm"));
    let spec = faults.iter().try_fold(spec, |spec, fault| fault.prepare(spec))?;
    let mut ensemble = Ensemble::start(&spec)?;
    let leader = ensemble.leader()?;
    for fault in &faults {
        let slowest = slowest_write(&ensemble, leader, fault.as_ref())?;
        println!("{}: the slowest write took {slowest:?}", fault.name());
        ensure!(slowest < LONG / 2, "{} in the leader held a client for {slowest:?}", fault.name());
    }
    ensemble.stop(a_follower(&ensemble)?)?;
    for fault in &faults {
        let slowest = slowest_write(&ensemble, leader, fault.as_ref())?;
        println!("{}, one follower gone: the slowest write took {slowest:?}", fault.name());
        ensure!(slowest > LONG / 2, "{} held a client for {slowest:?} only", fault.name());
    }
    Ok(())
}

/// How long the slowest of a client's writes takes while a fault is injected into the leader.
fn slowest_write(ensemble: &Ensemble, leader: u64, fault: &(dyn Fault + Sync)) -> Result<Duration> {
    let client = ensemble.client(leader)?;
    let length = (GAP + LONG) * TIMES + GAP;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || load::time(client, Pace::Rate(RATE), length));
        std::thread::sleep(GAP);
        fault.inject(ensemble, leader, LONG, GAP, TIMES)?;
        let timed = writing.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
        Ok(timed.quantile(1000))
    })
}

fn a_follower(ensemble: &Ensemble) -> Result<u64> {
    ensemble.followers()?.first().copied().context("no follower")
}

/// Injects all of them into one server of one ensemble, then asks the capture.
fn check(faults: &[Box<dyn Fault>], victim: fn(&Ensemble) -> Result<u64>) -> Result<()> {
    let spec = faults.iter().try_fold(Spec::voters(3), |spec, fault| fault.prepare(spec))?;
    let scene = Scene::start(&spec)?;
    let victim = victim(&scene.ensemble)?;
    let followers: BTreeSet<u64> = scene.ensemble.followers()?.into_iter().collect();
    let held = if followers.contains(&victim) { BTreeSet::from([victim]) } else { followers };
    let load = scene.load(Plan::steady(RATE, Duration::from_secs(120)))?;
    let mut injected = Vec::new();
    for fault in faults {
        std::thread::sleep(GAP);
        let episodes = fault.inject(&scene.ensemble, victim, SIZE, GAP, TIMES);
        injected.push((fault, episodes.with_context(|| format!("cannot inject {}", fault.name()))?));
    }
    load.stop()?;
    scene.ensemble.settled_zxid()?;
    let links = scene.finish_capture()?;
    let offset_ns = wall_minus_monotonic_ns()?;
    let mut wrong = Vec::new();
    for (fault, episodes) in &injected {
        println!("{}: {:?}", fault.name(), fault.expected());
        for sid in &held {
            let own = episodes.iter().filter(|episode| episode.sid == *sid).count();
            ensure!(own >= usize::try_from(TIMES)?, "{} gave {own} of {sid}", fault.name());
        }
        let judged = episodes.iter().map(|episode| judge(episode, &links, offset_ns));
        // The machine is shared: one episode may have met something else.
        let good = judged.collect::<Result<Vec<bool>>>()?.iter().filter(|good| **good).count();
        if good + 1 < episodes.len() {
            wrong.push(format!("{}: {good} of {} are true", fault.name(), episodes.len()));
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        _ => bail!("{}", wrong.join("; ")),
    }
}

/// Whether the largest delay of the proposals that met an episode is its truth, or half the size asked for
/// where nobody else measured it.
fn judge(episode: &Episode, links: &[Link], offset_ns: u64) -> Result<bool> {
    let (from_ns, to_ns) = (episode.span.from_ns + offset_ns, episode.span.to_ns + offset_ns);
    let exchanges =
        links.iter().filter(|link| link.sid == Some(episode.sid)).flat_map(|link| &link.exchanges);
    let met = exchanges.filter_map(|exchange| {
        let acked_at_ns = exchange.acked_at_ns?;
        (exchange.sent_at_ns < to_ns && acked_at_ns > from_ns).then_some(acked_at_ns - exchange.sent_at_ns)
    });
    let largest_ns = met.max().unwrap_or(0);
    let size_ns = u64::try_from(SIZE.as_nanos())?;
    let least_ns = episode.truth_ns.unwrap_or(size_ns / 2).saturating_sub(SLACK_NS);
    let millis = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
    println!(
        "  server {}: lasted {:.1} ms, truth {:?} ms, largest delay {:.1} ms",
        episode.sid,
        millis(episode.span.length_ns()),
        episode.truth_ns.map(millis),
        millis(largest_ns)
    );
    Ok(largest_ns >= least_ns)
}

/// The capture's clock minus the episodes' one.
fn wall_minus_monotonic_ns() -> Result<u64> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(u64::try_from(wall)? - monotonic_ns()?)
}
