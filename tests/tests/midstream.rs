//! The probe comes while the stream flows: it finds its place, and invents nothing on the way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::agreement::Window;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::Run;
use termite_probe_tests::scene::Scene;

/// How long the probe may take from its readiness until it has found its place in each stream.
const LOCK: Duration = Duration::from_secs(1);
/// How long it is watched after that.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn started_under_load() -> Result<()> {
    check(Plan::bursts(2_000, 20, Duration::from_secs(60)))
}

#[test]
fn started_among_large_values() -> Result<()> {
    check(Plan::steady(20, Duration::from_secs(60)).with_value(vec![b'v'; 300_000]))
}

#[test]
fn started_among_values_that_look_like_packets() -> Result<()> {
    check(Plan::steady(20, Duration::from_secs(60)).with_value(forged_packets(300_000)))
}

#[test]
fn started_among_small_values_that_look_like_packets() -> Result<()> {
    check(Plan::bursts(1_000, 50, Duration::from_secs(60)).with_value(forged_packets(400)))
}

fn check(plan: Plan) -> Result<()> {
    let scene = Scene::start(&Spec::voters(3))?;
    let load = scene.load(plan)?;
    // So that the stream flows before the probe looks.
    let begun = scene.ensemble.status(scene.ensemble.leader()?)?.zxid;
    termite_probe_tests::poll::until("writes under way", Duration::from_secs(20), || {
        Ok((scene.ensemble.status(scene.ensemble.leader()?)?.zxid > begun + 20).then_some(()))
    })?;
    let probe = Run::trace(&[])?;
    std::thread::sleep(LOCK);
    // Proposed but not yet applied ones are due as well: they are after this zxid.
    let after = scene.ensemble.status(scene.ensemble.leader()?)?.zxid;
    std::thread::sleep(WATCHED);
    let report = load.stop()?;
    println!("{report:?}");
    let last = scene.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;
    trace.check_nothing_lost()?;
    ensure!(last > after + 50, "too few writes to judge: {report:?}");
    let summary = trace.summary()?.of(&scene.ensemble.pids());
    for entry in &summary.followers {
        println!("{entry:?}");
    }
    ensure!(summary.followers.len() == 4, "two followers at two vantages: {summary:?}");
    let judgement = scene.judge(&trace, Window { after, last })?;
    judgement.agreement.check_counts()?;
    judgement.agreement.differences_ns.values().next().context("nothing was compared")?;
    Ok(())
}

/// PROPOSALs of the first epoch, one after the other, that satisfy every rule of a mid-stream lock:
/// the zxid stands in both places, the length fits, the next one follows at once.
fn forged_packets(bytes: usize) -> Vec<u8> {
    const EPOCH: u64 = 1 << 32;
    const BODY: usize = 40;
    let mut value = Vec::new();
    for counter in 1_000_000_u64.. {
        if value.len() >= bytes {
            break;
        }
        value.extend(2_i32.to_be_bytes());
        value.extend((EPOCH + counter).to_be_bytes());
        value.extend(u32::try_from(BODY).unwrap_or(0).to_be_bytes());
        // Client, cxid, zxid, time, transaction type, and a body of nothing.
        value.extend(0x1234_5678_u64.to_be_bytes());
        value.extend(7_i32.to_be_bytes());
        value.extend((EPOCH + counter).to_be_bytes());
        value.extend(1_700_000_000_000_u64.to_be_bytes());
        value.extend(5_i32.to_be_bytes());
        value.extend([0; BODY - 32]);
        value.extend((-1_i32).to_be_bytes());
    }
    value.truncate(bytes);
    value
}
