//! Every proposal counts: what the probe recorded for each follower, at both vantages, is what the
//! leader's own counter says it proposed, exactly.

use std::time::Duration;

use anyhow::{Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{Run, Trace, Vantage};
use termite_probe_tests::scene;

/// How long the ensemble is written to.
const DURATION: Duration = Duration::from_secs(30);

#[test]
fn steady_writes_are_counted_exactly() -> Result<()> {
    check(&Spec::voters(3), Plan::steady(200, DURATION))
}

#[test]
fn bursts_are_counted_exactly_whatever_the_server_ids() -> Result<()> {
    check(&Spec::voters(3).with_sids(&[7, 2, 11]), Plan::bursts(2_000, 200, DURATION))
}

fn check(spec: &Spec, plan: Plan) -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(spec)?;
    let probe = Run::trace(&[])?;
    let (report, window) = scene::write(&ensemble, plan)?;
    println!("{report:?} {window:x?}");
    ensure!(report.acknowledged == report.sent, "the ensemble lost writes: {report:?}");
    let trace = probe.interrupt()?.trace()?;
    trace.check_nothing_lost()?;

    let expected: Vec<u64> = (window.after + 1..=window.last).collect();
    ensure!(u64::try_from(expected.len())? > report.acknowledged, "a session is two proposals more");
    let followers = ensemble.followers()?;
    assert_eq!(followers.len(), 2);
    for sid in followers {
        for vantage in [Vantage::Follower, Vantage::Leader] {
            check_follower(&ensemble, &trace, sid, vantage, &expected)?;
        }
    }
    let pids = ensemble.pids();
    let nameless = trace.proposals.iter().filter(|p| pids.contains(&p.pid) && p.sid.is_none()).count();
    ensure!(nameless == 0, "{nameless} records without a sid");
    Ok(())
}

fn check_follower(
    ensemble: &Ensemble,
    trace: &Trace,
    sid: u64,
    vantage: Vantage,
    expected: &[u64],
) -> Result<()> {
    let leader = ensemble.leader()?;
    let watched = ensemble.pid(if vantage == Vantage::Follower { sid } else { leader })?;
    let own: Vec<_> = trace
        .proposals
        .iter()
        .filter(|p| p.pid == watched && p.vantage == vantage && p.sid == Some(sid))
        .collect();
    ensure!(own.iter().all(|p| p.leader_sid == Some(leader)), "records of {sid} with a wrong leader");
    let mut zxids: Vec<u64> = own.iter().map(|p| p.zxid).filter(|zxid| *zxid >= expected[0]).collect();
    zxids.sort_unstable();
    let missing = expected.iter().filter(|zxid| zxids.binary_search(zxid).is_err()).count();
    ensure!(
        zxids == expected,
        "follower {sid} at {vantage:?}: {} records for {} proposals, {missing} missing",
        zxids.len(),
        expected.len()
    );

    let entry = trace.summary()?.of(&[watched]).follower(vantage, sid)?.clone();
    println!("{entry:?}");
    ensure!(entry.leader_sid == Some(leader), "a wrong leader: {entry:?}");
    ensure!(entry.matched == u64::try_from(own.len())?, "{} records beside {entry:?}", own.len());
    ensure!(entry.expired == 0 && entry.in_flight == 0, "unanswered proposals: {entry:?}");
    let (p50, p99, max) = (entry.p50_ns, entry.p99_ns, entry.max_ns);
    ensure!(p50.is_some() && p50 <= p99 && p99 <= max, "quantiles out of order: {entry:?}");
    Ok(())
}
