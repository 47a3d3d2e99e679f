//! A kernel that works for long in a system call of a follower: the delay is its time on the CPU, and the evidence says where in the
//! kernel it was.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::fault::{Episode, Fault as _, InKernel};
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{Proposal, Run, Vantage};
use termite_probe_tests::scene::Scene;

/// A disk that is shared has stalls of its own.
const MEMORY: &str = "/dev/shm";
const SIZE: Duration = Duration::from_millis(150);
const GAP: Duration = Duration::from_millis(300);
const TIMES: u32 = 6;
/// Of so many two may meet something else: the machine is shared, and the first ones meet a JVM that still compiles.
const RIGHT: usize = 4;
/// How far the part may be from what the kernel accounts to the thread for this work alone, in percent: a delay has other work too.
const TOLERANCE: u64 = 5;
/// What the library that is preloaded has the kernel do: drivers/char/random.c.
const FUNCTION: &str = "get_random_bytes_user";

#[test]
fn long_work_in_the_kernel_is_told_with_its_functions() -> Result<()> {
    let scene = Scene::start(&InKernel.prepare(Spec::voters(3).in_directory(Path::new(MEMORY)))?)?;
    let victim = *scene.ensemble.followers()?.first().context("no follower")?;
    let pid = scene.ensemble.pid(victim)?;
    let probe = Run::trace(&[])?;
    let load = scene.load(Plan::steady(200, Duration::from_secs(60)))?;
    let episodes = InKernel.inject(&scene.ensemble, victim, SIZE, GAP, TIMES)?;
    load.stop()?;
    scene.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;
    let own: Vec<&Proposal> =
        trace.proposals.iter().filter(|p| p.pid == pid && p.vantage == Vantage::Follower).collect();
    let right = episodes.iter().filter(|episode| is_right(episode, &own)).count();
    ensure!(right >= RIGHT, "only {right} of {} are told as what they were", episodes.len());
    Ok(())
}

/// Is the delay that met most of an episode told as it was?
fn is_right(episode: &Episode, own: &[&Proposal]) -> bool {
    let overlap = |p: &&&Proposal| {
        let began_at = p.mono_ns - p.delay_ns;
        p.mono_ns.min(episode.span.to_ns).saturating_sub(began_at.max(episode.span.from_ns))
    };
    let (Some(longest), Some(truth_ns)) = (own.iter().max_by_key(overlap), episode.truth_ns) else {
        println!("nothing is told of {episode:?}");
        return false;
    };
    let told_ns = longest.causes_ns.get("on_cpu").copied().unwrap_or(0);
    let segments = longest.evidence["segments"].as_array().map_or(&[][..], Vec::as_slice);
    let is_of_it =
        |segment: &&Value| segment["cause"] == "on_cpu" && segment["stack"].to_string().contains(FUNCTION);
    let evidence = segments.iter().find(is_of_it);
    println!("{:?}: {told_ns} ns of {truth_ns} ns, {evidence:?}", longest.verdict);
    longest.verdict.as_deref() == Some("on_cpu")
        && told_ns.abs_diff(truth_ns) <= truth_ns * TOLERANCE / 100
        && evidence.is_some()
}
