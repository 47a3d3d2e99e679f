//! Servers come and go while the probe looks on: every proposal outside a synchronisation is recorded
//! once, for the right follower and leader, and those of a synchronisation are counted apart.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::agreement::Window;
use termite_probe_tests::capture::Sync;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::probe::Run;
use termite_probe_tests::scene::{Judgement, Scene};

/// How long things are left as they are between two changes.
const REST: Duration = Duration::from_secs(2);
/// Longer than any of these tests: the load is ended by the test.
const UNTIL_STOPPED: Duration = Duration::from_secs(300);

#[test]
fn follower_back_by_diff() -> Result<()> {
    let (judgement, trace, sid) = follower_returns(&Spec::voters(3), false)?;
    check_sync(&judgement, sid, Sync::Diff)?;
    judgement.agreement.check_counts()?;
    judgement.check_replayed(&trace)
}

#[test]
fn follower_back_by_snap() -> Result<()> {
    let spec = Spec::voters(3).with_jvm_option("-Dzookeeper.forceSnapshotSync=true");
    let (judgement, trace, sid) = follower_returns(&spec, true)?;
    check_sync(&judgement, sid, Sync::Snap)?;
    judgement.agreement.check_counts()?;
    judgement.check_replayed(&trace)
}

#[test]
fn leadership_moves_twice() -> Result<()> {
    let mut scene = Scene::start(&Spec::voters(3))?;
    let probe = Run::trace(&[])?;
    let after = scene.ensemble.settled_zxid()?;
    let sids = scene.ensemble.sids();
    let endpoints = sids.iter().map(|sid| scene.ensemble.client(*sid)).collect::<Result<_>>()?;
    let load = Load::start(endpoints, Plan::steady(300, UNTIL_STOPPED))?;
    let mut leaders = vec![scene.ensemble.leader()?];
    for by_force in [true, false] {
        std::thread::sleep(REST);
        let leader = scene.ensemble.leader()?;
        if by_force {
            scene.ensemble.kill(leader)?
        } else {
            scene.ensemble.stop(leader)?
        }
        scene.ensemble.wait_until_serving()?;
        leaders.push(scene.ensemble.leader()?);
        std::thread::sleep(REST);
        scene.ensemble.launch(leader)?;
        scene.ensemble.wait_until_serving()?;
    }
    std::thread::sleep(REST);
    let report = load.stop()?;
    println!("{report:?}, leaders {leaders:?}");
    let last = scene.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;
    ensure!(leaders.windows(2).all(|pair| pair[0] != pair[1]), "leadership stayed: {leaders:?}");
    trace.check_nothing_lost()?;
    let mut judgement = scene.judge(&trace, Window { after, last })?;
    judgement.check_counts_but_expired(&trace)?;
    judgement.check_replayed(&trace)
}

/// A follower is killed and comes back, under load; with its data or without.
fn follower_returns(
    spec: &Spec,
    without_data: bool,
) -> Result<(Judgement, termite_probe_tests::probe::Trace, u64)> {
    let mut scene = Scene::start(spec)?;
    let probe = Run::trace(&[])?;
    let after = scene.ensemble.settled_zxid()?;
    let load = scene.load(Plan::steady(300, UNTIL_STOPPED))?;
    let sid = *scene.ensemble.followers()?.first().context("no follower")?;
    std::thread::sleep(REST);
    scene.ensemble.kill(sid)?;
    std::thread::sleep(REST);
    if without_data {
        scene.ensemble.wipe(sid)?;
    }
    scene.ensemble.launch(sid)?;
    scene.ensemble.wait_until_serving()?;
    std::thread::sleep(REST);
    println!("{:?}", load.stop()?);
    let last = scene.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;
    trace.check_nothing_lost()?;
    for entry in &trace.summary()?.of(&scene.ensemble.pids()).followers {
        println!("{entry:?}");
    }
    Ok((scene.judge(&trace, Window { after, last })?, trace, sid))
}

fn check_sync(judgement: &Judgement, sid: u64, expected: Sync) -> Result<()> {
    let links = judgement.links_of(sid);
    let synced = links.iter().filter(|link| link.sync.is_some()).count();
    ensure!(synced >= 2, "follower {sid} joined {synced} times");
    let last = links.iter().rev().find_map(|link| link.sync);
    ensure!(last == Some(expected), "follower {sid} came back by {last:?}");
    Ok(())
}
