//! A connection that is TLS is called so, whether the probe saw it begin or not: never a proposal, never
//! a hunt for packets in what cannot be read.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::require_host;
use termite_probe_tests::exposition::values;
use termite_probe_tests::net::free_port;
use termite_probe_tests::probe::{Run, Vantage};
use termite_probe_tests::tls::{Pair, Version};
use termite_probe_tests::{http, poll};

const PATIENCE: Duration = Duration::from_secs(30);
/// Packets each way after the probe has had its chance to see what they are.
const PACKETS: u64 = 300;

#[test]
fn tls_1_3_from_its_beginning() -> Result<()> {
    check(Version::V13, true)
}

#[test]
fn tls_1_3_in_mid_stream() -> Result<()> {
    check(Version::V13, false)
}

#[test]
fn tls_1_2_from_its_beginning() -> Result<()> {
    check(Version::V12, true)
}

#[test]
fn tls_1_2_in_mid_stream() -> Result<()> {
    check(Version::V12, false)
}

fn check(version: Version, from_the_beginning: bool) -> Result<()> {
    require_host()?;
    let mut pair = Pair::start(version)?;
    if !from_the_beginning {
        pair.connect()?;
    }
    let target = pair.target();
    let target: Vec<&str> = target.iter().map(String::as_str).collect();
    let trace = Run::trace(&target)?;
    let (mut serve, port) = serve(&target)?;
    if from_the_beginning {
        pair.connect()?;
    }
    pair.exchange(20)?;
    let metrics = poll::until("both ends are called TLS", PATIENCE, || {
        serve.check_alive()?;
        let metrics = http::get(port, "/metrics")?.body;
        let both = links(&metrics, "tls") == [1.0, 1.0];
        Ok(both.then_some(metrics))
    })?;
    pair.exchange(PACKETS)?;
    check_trace(&pair, trace)?;
    let after = http::get(port, "/metrics")?.body;
    for metrics in [metrics, after] {
        ensure!(links(&metrics, "tls") == [1.0, 1.0], "no longer TLS: {metrics}");
        for name in ["termite_proposals_total", "termite_probe_stream_resyncs_total"] {
            let sum: f64 = values(&metrics, name, &[]).into_iter().sum();
            ensure!(sum == 0.0, "{name} is {sum}: {metrics}");
        }
    }
    serve.interrupt()?.expect(0, &[])
}

fn check_trace(pair: &Pair, trace: Run) -> Result<()> {
    let trace = trace.interrupt()?.trace()?;
    ensure!(trace.proposals.is_empty(), "proposals out of nothing: {:?}", trace.proposals);
    let summary = trace.summary()?.of(&pair.pids());
    for vantage in [Vantage::Leader, Vantage::Follower] {
        let own: Vec<_> = summary.followers.iter().filter(|f| f.vantage == vantage).collect();
        ensure!(own.len() == 1, "one connection is due at {vantage:?}: {summary:?}");
        ensure!(own[0].wire == "tls", "not called TLS: {:?}", own[0]);
        ensure!(own[0].sid.is_none(), "a sid that nobody told: {:?}", own[0]);
        ensure!(own[0].proposals == 0 && own[0].matched == 0 && own[0].resyncs == 0, "{:?}", own[0]);
        ensure!(own[0].unframed_calls == 0, "calls that could not be followed: {:?}", own[0]);
    }
    for pid in pair.pids() {
        let told = trace.transitions.iter().filter(|t| t["pid"] == pid && t["change"] == "tls").count();
        ensure!((1..=2).contains(&told), "{told} times told of process {pid}: {:?}", trace.transitions);
    }
    Ok(())
}

fn serve(target: &[&str]) -> Result<(Run, u16)> {
    let port = free_port()?;
    let listen = format!("127.0.0.1:{port}");
    let mut serve = Run::start(&[&["serve", "--listen", &listen], target].concat())?;
    poll::until_ok("the probe is ready", PATIENCE, || {
        serve.check_alive()?;
        let status = http::get(port, "/readyz")?.status;
        ensure!(status == 200, "/readyz gives {status}");
        Ok(())
    })
    .context("serve")?;
    Ok((serve, port))
}

/// Connections with this on the wire, at the follower and at the leader.
fn links(metrics: &str, wire: &str) -> [f64; 2] {
    ["follower", "leader"].map(|vantage| {
        let labels = [("wire", wire.to_owned()), ("vantage", vantage.to_owned())];
        values(metrics, "termite_links", &labels).into_iter().sum()
    })
}
