//! `serve`, asked by what will ask it: promtool and a real Prometheus, both from Debian.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::exposition::{count, values};
use termite_probe_tests::load::Plan;
use termite_probe_tests::net::free_port;
use termite_probe_tests::probe::Run;
use termite_probe_tests::process::Process;
use termite_probe_tests::{http, poll, scene};

const PATIENCE: Duration = Duration::from_secs(30);
/// The threshold of a stall unless another is asked for, in seconds.
const STALL: &str = "0.05";
/// What was promised to be there; see docs/metrics.md for all.
const CONTRACT: [&str; 14] = [
    "termite_proposal_delay_seconds_count",
    "termite_proposal_cause_seconds_total",
    "termite_proposal_stalls_total",
    "termite_heartbeat_delay_seconds_count",
    "termite_heartbeats_total",
    "termite_jvm_safepoint_seconds_count",
    "termite_jvm_rung_info",
    "termite_fsync_seconds_count",
    "termite_probe_build_info",
    "termite_probe_hook_info",
    "termite_probe_records_total",
    "termite_probe_records_lost_total",
    "termite_probe_stream_resyncs_total",
    "termite_probe_coverage_ratio",
];

#[test]
fn metrics_are_exact_and_to_promtools_taste() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3).with_sids(&[4, 5, 6]))?;
    let (serve, port) = start_serve()?;
    let before = http::get(port, "/metrics")?.body;
    ensure!(http::get(port, "/healthz")?.status == 200, "not healthy");
    ensure!(http::get(port, "/no-such-page")?.status == 404, "a page that is not there");
    let (_, window) = scene::write(&ensemble, Plan::steady(200, Duration::from_secs(5)))?;
    let after = http::get(port, "/metrics")?;
    ensure!(after.head.to_lowercase().contains("openmetrics") || after.head.contains("text/plain"));
    let proposed = window.last - window.after;
    // Other ensembles of the host are measured too, and may have servers of the same ids.
    let own = ("ensemble", format!("127.0.0.1:{}", ensemble.server(4)?.quorum.port()));
    for sid in ensemble.followers()? {
        for vantage in ["follower", "leader"] {
            let labels = [own.clone(), ("sid", sid.to_string()), ("vantage", vantage.to_owned())];
            let name = "termite_proposal_delay_seconds_count";
            let old: f64 = values(&before, name, &labels).into_iter().sum();
            let new: f64 = values(&after.body, name, &labels).into_iter().sum();
            ensure!(new - old == count(proposed)?, "{sid} at {vantage}: {old}, {new}, proposed {proposed}");
            check_parts(&after.body, &labels)?;
        }
    }
    for name in CONTRACT {
        ensure!(!values(&after.body, name, &[]).is_empty(), "no {name}");
    }
    for sid in ensemble.sids() {
        // Each server flushes its log, the leader too; some transactions share a flush.
        let labels = [own.clone(), ("sid", sid.to_string())];
        let flushes: f64 = values(&after.body, "termite_fsync_seconds_count", &labels).into_iter().sum();
        ensure!(flushes >= 20.0, "server {sid} has flushed {flushes} times");
    }
    let lost: f64 = values(&after.body, "termite_probe_records_lost_total", &[]).into_iter().sum();
    ensure!(lost == 0.0, "{lost} records lost");
    check_with_promtool(&after.body)?;
    serve.interrupt()?.expect(0, &[])
}

#[test]
fn prometheus_scrapes_it() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3).with_sids(&[4, 5, 6]))?;
    let (serve, port) = start_serve()?;
    scene::write(&ensemble, Plan::steady(200, Duration::from_secs(3)))?;
    let place = tempfile::tempdir()?;
    let (config, own_port) = (place.path().join("prometheus.yml"), free_port()?);
    std::fs::write(
        &config,
        format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: termite\n    static_configs:\n      \
             - targets: ['127.0.0.1:{port}']\n"
        ),
    )?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", place.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{own_port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _prometheus = Process::spawn("prometheus (package prometheus)", &mut command, None)?;
    let follower = *ensemble.followers()?.first().context("no follower")?;
    let query = format!("termite_proposal_delay_seconds_count%7Bsid%3D%22{follower}%22%7D");
    poll::until_ok("prometheus knows the delays", PATIENCE, || {
        let body = http::get(own_port, &format!("/api/v1/query?query={query}"))?.body;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let results = answer["data"]["result"].as_array().context("no result")?;
        ensure!(results.len() >= 2, "two vantages are due: {body}");
        for result in results {
            let value: f64 = result["value"][1].as_str().context("no value")?.parse()?;
            ensure!(value >= 600.0, "too few proposals: {body}");
        }
        Ok(())
    })?;
    serve.interrupt()?.expect(0, &[])
}

/// The causes of a follower's delays add up to them, and so do the stalls.
fn check_parts(metrics: &str, labels: &[(&str, String)]) -> Result<()> {
    let sum =
        |name: &str, labels: &[(&str, String)]| -> f64 { values(metrics, name, labels).into_iter().sum() };
    let delays = sum("termite_proposal_delay_seconds_sum", labels);
    let causes = sum("termite_proposal_cause_seconds_total", labels);
    ensure!((delays - causes).abs() < 1e-6, "{labels:?}: {causes} s of causes, {delays} s of delay");
    let within = [labels, &[("le", STALL.to_owned())]].concat();
    let slow = sum("termite_proposal_delay_seconds_count", labels)
        - sum("termite_proposal_delay_seconds_bucket", &within);
    let stalls = sum("termite_proposal_stalls_total", labels);
    ensure!(stalls == slow, "{labels:?}: {stalls} stalls, {slow} slower than {STALL} s");
    Ok(())
}

fn start_serve() -> Result<(Run, u16)> {
    let port = free_port()?;
    let mut serve = Run::start(&["serve", "--listen", &format!("127.0.0.1:{port}")])?;
    poll::until_ok("the probe is ready", PATIENCE, || {
        serve.check_alive()?;
        let status = http::get(port, "/readyz")?.status;
        ensure!(status == 200, "/readyz gives {status}");
        Ok(())
    })?;
    Ok((serve, port))
}

fn check_with_promtool(metrics: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start promtool: apt-get install prometheus")?;
    child.stdin.take().context("no stdin")?.write_all(metrics.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "promtool is not content: {said}\n{metrics}");
    Ok(())
}
