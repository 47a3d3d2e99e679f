//! Every injector really delays the follower that it is aimed at, by about the size asked for. The judge
//! is the packet capture of the quorum ports; the probe is not there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use termite_probe_tests::capture::Link;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::fault::{self, Episode, Fault, monotonic_ns};
use termite_probe_tests::load::Plan;
use termite_probe_tests::scene::Scene;

const SIZE: Duration = Duration::from_millis(120);
const GAP: Duration = Duration::from_millis(300);
const TIMES: u32 = 3;
/// A write every 2 ms: one of them is on its way soon after an episode has begun.
const RATE: u32 = 500;
/// How much shorter than its truth the largest delay may be, in ns: until the next write, and a timer.
const SLACK_NS: u64 = 12_000_000;

#[test]
fn faults_of_a_host_hold_the_follower() -> Result<()> {
    check(&fault::of_one_host())
}

#[test]
fn faults_of_the_network_hold_the_follower() -> Result<()> {
    check(&fault::of_the_network())
}

#[test]
fn other_faults_hold_the_follower() -> Result<()> {
    fault::of_their_own().into_iter().try_for_each(|fault| check(&[fault]))
}

/// Injects all of them into one follower of one ensemble, then asks the capture.
fn check(faults: &[Box<dyn Fault>]) -> Result<()> {
    let spec = faults.iter().try_fold(Spec::voters(3), |spec, fault| fault.prepare(spec))?;
    let scene = Scene::start(&spec)?;
    let victim = *scene.ensemble.followers()?.first().context("no follower")?;
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
        ensure!(episodes.len() >= usize::try_from(TIMES)?, "{} gave {}", fault.name(), episodes.len());
        let judged = episodes.iter().map(|episode| judge(episode, &links, victim, offset_ns));
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
fn judge(episode: &Episode, links: &[Link], victim: u64, offset_ns: u64) -> Result<bool> {
    let (from_ns, to_ns) = (episode.span.from_ns + offset_ns, episode.span.to_ns + offset_ns);
    let exchanges = links.iter().filter(|link| link.sid == Some(victim)).flat_map(|link| &link.exchanges);
    let met = exchanges.filter_map(|exchange| {
        let acked_at_ns = exchange.acked_at_ns?;
        (exchange.sent_at_ns < to_ns && acked_at_ns > from_ns).then_some(acked_at_ns - exchange.sent_at_ns)
    });
    let largest_ns = met.max().unwrap_or(0);
    let size_ns = u64::try_from(SIZE.as_nanos())?;
    let least_ns = episode.truth_ns.unwrap_or(size_ns / 2).saturating_sub(SLACK_NS);
    let millis = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
    println!(
        "  lasted {:.1} ms, truth {:?} ms, largest delay {:.1} ms",
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
