//! Ensembles of other shapes: each is measured as exactly as three servers on loopback.

use std::time::Duration;

use anyhow::{Result, ensure};
use termite_probe_tests::agreement::Window;
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{Run, Trace, Vantage};
use termite_probe_tests::scene::{Judgement, Scene};

const DURATION: Duration = Duration::from_secs(5);

#[test]
fn observers_are_no_followers() -> Result<()> {
    let (judgement, trace) = check(&Spec::voters(3).with_observer(4), Plan::steady(200, DURATION), 4)?;
    let informs: u64 = judgement.links_of(4).iter().map(|link| link.informs).sum();
    ensure!(informs > 0, "the observer got nothing");
    ensure!(trace.proposals.iter().all(|p| p.sid != Some(4)), "an observer with proposals");
    Ok(())
}

#[test]
fn values_of_300_kilobytes() -> Result<()> {
    let plan = Plan::steady(20, DURATION).with_value(vec![b'v'; 300_000]);
    check(&Spec::voters(3), plan, 4).map(drop)
}

#[test]
fn five_servers_in_namespaces() -> Result<()> {
    check(&Spec::voters(5).in_namespaces(), Plan::steady(200, DURATION), 8).map(drop)
}

#[test]
fn jvm_that_prefers_ipv4() -> Result<()> {
    let spec = Spec::voters(3).with_jvm_option("-Djava.net.preferIPv4Stack=true");
    check(&spec, Plan::steady(200, DURATION), 4).map(drop)
}

#[test]
fn ipv6() -> Result<()> {
    check(&Spec::voters(3).on_ipv6(), Plan::steady(200, DURATION), 4).map(drop)
}

#[test]
fn sasl_between_the_servers() -> Result<()> {
    let (judgement, _) = check(&Spec::voters(3).with_sasl(), Plan::steady(200, DURATION), 4)?;
    let measured = judgement.links.iter().filter(|link| !link.exchanges.is_empty());
    ensure!(measured.clone().count() >= 2, "too few links");
    ensure!(measured.into_iter().all(|link| link.sasl), "a link without SASL");
    Ok(())
}

/// Every read of the follower finds nothing first and polls; with ticks this short some polls end by
/// SO_TIMEOUT's clock.
#[test]
fn a_quiet_ensemble_with_short_timeouts() -> Result<()> {
    let spec = Spec::voters(3).with_setting("tickTime", "300").with_setting("syncLimit", "8");
    check(&spec, Plan::steady(2, Duration::from_secs(8)), 4).map(drop)
}

#[test]
fn batched_acknowledgements_by_a_sender_thread() -> Result<()> {
    let spec = Spec::voters(3).with_jvm_option("-Dzookeeper.learner.asyncSending=true");
    check(&spec, Plan::bursts(1_000, 100, DURATION), 4).map(drop)
}

#[test]
fn two_ensembles_with_the_same_server_ids() -> Result<()> {
    let one = Scene::start(&Spec::voters(3))?;
    let other = Scene::start(&Spec::voters(3))?;
    let probe = Run::trace(&[])?;
    let load = other.load(Plan::steady(100, DURATION))?;
    let (_, window) = one.write(Plan::steady(200, DURATION))?;
    load.finish()?;
    other.ensemble.settled_zxid()?;
    let trace = probe.interrupt()?.trace()?;
    trace.check_nothing_lost()?;
    let names = |scene: &Scene| {
        let pids = scene.ensemble.pids();
        let own = trace.proposals.iter().filter(|p| pids.contains(&p.pid));
        own.map(|p| p.ensemble.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let (first, second) = (names(&one), names(&other));
    ensure!(first.len() == 1 && second.len() == 1, "names change: {first:?}, {second:?}");
    ensure!(first != second, "two ensembles of one name: {first:?}");
    one.judge(&trace, window)?.agreement.check_counts()?;
    other.judge(&trace, Window { after: u64::MAX, last: u64::MAX })?.agreement.check_counts()
}

/// Writes to an ensemble of this shape under the eye of the probe, which must show so many followers.
fn check(spec: &Spec, plan: Plan, entries: usize) -> Result<(Judgement, Trace)> {
    let scene = Scene::start(spec)?;
    let probe = Run::trace(&[])?;
    let (report, window) = scene.write(plan)?;
    println!("{report:?}");
    let trace = probe.interrupt()?.trace()?;
    trace.check_nothing_lost()?;
    let summary = trace.summary()?.of(&scene.ensemble.pids());
    for sid in scene.ensemble.followers()? {
        for vantage in [Vantage::Follower, Vantage::Leader] {
            println!("{:?}", summary.follower(vantage, sid)?);
        }
    }
    ensure!(summary.followers.len() == entries, "{} entries: {summary:?}", summary.followers.len());
    let judgement = scene.judge(&trace, window)?;
    judgement.agreement.check_counts()?;
    Ok((judgement, trace))
}
