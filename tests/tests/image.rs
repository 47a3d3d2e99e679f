//! The image with what the manifest grants it, measuring an ensemble on its host: that is what a
//! DaemonSet does, with podman for the kubelet.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::container::{Container, Grant, Image};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::exposition::{count, values};
use termite_probe_tests::load::Plan;
use termite_probe_tests::net::Namespace;
use termite_probe_tests::{http, poll, scene};

const PATIENCE: Duration = Duration::from_secs(30);
/// Bits of include/uapi/linux/capability.h.
const CAPABILITIES: [(&str, u32); 5] =
    [("DAC_READ_SEARCH", 2), ("SYS_PTRACE", 19), ("SYSLOG", 34), ("PERFMON", 38), ("BPF", 39)];

#[test]
fn the_daemonset_measures_an_ensemble_of_its_host() -> Result<()> {
    require_host()?;
    let grant = Grant::of_the_daemonset()?;
    let image = Image::build()?;
    let ensemble = Ensemble::start(&Spec::voters(3).with_sids(&[4, 5, 6]))?;
    let mut container = image.run("termite-probe-measures", &grant)?;
    let network = container.network()?;
    check_grant(&mut container, &grant, false)?;
    let before = ready(&mut container, &network, &grant)?;
    check_grant(&mut container, &grant, true)?;

    let (_, window) = scene::write(&ensemble, Plan::steady(200, Duration::from_secs(5)))?;
    let after = http::get_inside(&network, grant.port, "/metrics")?.body;
    let proposed = count(window.last - window.after)?;
    // Other ensembles of the host are measured too.
    let name = ("ensemble", format!("127.0.0.1:{}", ensemble.server(4)?.quorum.port()));
    for sid in ensemble.followers()? {
        for vantage in ["follower", "leader"] {
            let labels = [name.clone(), ("sid", sid.to_string()), ("vantage", vantage.to_owned())];
            for series in ["termite_proposals_matched_total", "termite_proposal_delay_seconds_count"] {
                let sum = |metrics| values(metrics, series, &labels).into_iter().sum::<f64>();
                let counted = sum(&after) - sum(&before);
                ensure!(counted == proposed, "{series} of {sid} at {vantage}: {counted} of {proposed}");
            }
        }
    }
    let nameless = values(&after, "termite_proposals_total", &[name, ("sid", "unknown".to_owned())]);
    ensure!(nameless.iter().sum::<f64>() == 0.0, "proposals of nobody: {after}");
    container.stop()?.expect(0, &[])
}

#[test]
fn without_a_capability_that_it_needs_it_says_so() -> Result<()> {
    require_host()?;
    let grant = Grant::of_the_daemonset()?;
    let image = Image::build()?;
    for capability in ["BPF", "PERFMON"] {
        let container = image.run("termite-probe-refuses", &grant.without(capability)?)?;
        let missing = format!("CAP_{capability}");
        container.wait()?.expect(3, &[&missing]).with_context(|| format!("without {missing}"))?;
    }
    Ok(())
}

/// What a probe that measures keeps of the grant.
const KEPT: [&str; 3] = ["DAC_READ_SEARCH", "SYS_PTRACE", "PERFMON"];

/// What the kernel says of the process is what the manifest grants, no more and no less; once it is ready, what it keeps.
fn check_grant(container: &mut Container<'_>, grant: &Grant, is_ready: bool) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    let (mut granted, mut kept) = (0_u64, 0_u64);
    for name in &grant.capabilities {
        let bit = CAPABILITIES.iter().find(|(own, _)| own == name);
        let bit = 1 << bit.with_context(|| format!("{name} is no capability that this test knows"))?.1;
        granted |= bit;
        kept |= if KEPT.contains(&name.as_str()) { bit } else { 0 };
    }
    for (set, due) in [("CapPrm:", kept), ("CapEff:", kept), ("CapBnd:", granted)] {
        let has = u64::from_str_radix(field(set)?, 16)?;
        // Until it is ready it has either.
        let is_due = has == due || (!is_ready && has == granted);
        ensure!(is_due, "{set} {has:x} instead of {due:x}");
    }
    ensure!(!is_ready || field("Seccomp:")? == "2", "no filter of system calls");
    ensure!(field("NoNewPrivs:")? == "1", "it may gain privileges");
    ensure!(field("Uid:")?.split_whitespace().all(|id| id == "0"), "not the manifest's user");
    Ok(())
}

/// Waits until the probe is ready: from here every proposal counts. Gives the metrics of that moment.
fn ready(container: &mut Container<'_>, network: &Namespace, grant: &Grant) -> Result<String> {
    poll::until_ok("the probe is ready", PATIENCE, || {
        container.check_alive()?;
        for path in ["/healthz", "/readyz"] {
            let status = http::get_inside(network, grant.port, path)?.status;
            ensure!(status == 200, "{path} gives {status}");
        }
        Ok(http::get_inside(network, grant.port, "/metrics")?.body)
    })
}
