//! Agreement with an independent measurement of the same traffic, proposal by proposal. On loopback
//! both ends see a segment at practically the same time, so one capture judges both vantages.

use std::time::Duration;

use anyhow::{Result, ensure};
use termite_probe_tests::ensemble::Spec;
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::Run;
use termite_probe_tests::scene::Scene;

/// What the issue demands.
const MEDIAN_NS: u64 = 50_000;
const P99_NS: u64 = 1_000_000;

#[test]
fn steady_writes_agree_with_the_capture() -> Result<()> {
    check(Plan::steady(200, Duration::from_secs(15)))
}

#[test]
fn bursts_agree_with_the_capture() -> Result<()> {
    check(Plan::bursts(2_000, 200, Duration::from_secs(10)))
}

fn check(plan: Plan) -> Result<()> {
    let scene = Scene::start(&Spec::voters(3))?;
    let probe = Run::trace(&[])?;
    let (report, window) = scene.write(plan)?;
    let trace = probe.interrupt()?.trace()?;
    ensure!(report.acknowledged == report.sent, "the ensemble lost writes: {report:?}");
    let agreement = scene.judge(&trace, window)?.agreement;
    agreement.check_counts()?;
    agreement.check_differences(MEDIAN_NS, P99_NS)
}
