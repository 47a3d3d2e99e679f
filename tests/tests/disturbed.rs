//! The probe in bad company: stopped itself, among processes that come and go, where an id is used again, where tracefs is not
//! to be had. What it counts stays exact, and what it loses it counts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::demo::Demo;
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::load::Plan;
use termite_probe_tests::net::free_port;
use termite_probe_tests::probe::{self, Run, Serve, Vantage};
use termite_probe_tests::process::{Process, signal_pid};
use termite_probe_tests::reborn::Reborn;
use termite_probe_tests::{poll, scene};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long user space stands still. The ring is full after a second or two, so more of the same follows.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Servers that end before they have begun.
const STILLBORN: u64 = 40;
/// Proposals that may be under way between two looks at the two ends of a connection.
const UNDER_WAY: f64 = 20.0;

/// User space stands still while the ring overflows: the sums are exact, and every record was emitted or lost.
#[test]
fn while_it_is_stopped_the_aggregates_go_on() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let ports: Vec<String> = ensemble.quorum_ports().iter().map(u16::to_string).collect();
    let narrowed: Vec<&str> = ports.iter().flat_map(|port| ["--quorum-port", port]).collect();
    let probe = Run::trace(&narrowed)?;
    signal_pid(probe.pid(), libc::SIGSTOP)?;
    let written = scene::write(&ensemble, Plan::bursts(2_000, 200, STANDSTILL));
    signal_pid(probe.pid(), libc::SIGCONT)?;
    let (report, window) = written?;
    ensure!(report.acknowledged == report.sent, "the ensemble lost writes: {report:?}");
    let trace = probe.interrupt()?.trace()?;
    let summary = trace.summary()?;
    let proposed = window.last - window.after;
    for sid in ensemble.followers()? {
        for vantage in [Vantage::Follower, Vantage::Leader] {
            let entry = summary.follower(vantage, sid)?;
            ensure!(entry.matched == proposed, "{} of {proposed} of {sid} at {vantage:?}", entry.matched);
            ensure!(entry.expired == 0 && entry.in_flight == 0, "unanswered proposals: {entry:?}");
        }
    }
    let records = summary.records.get("proposal").context("no count of records")?;
    println!("{proposed} proposals, {records:?}");
    ensure!(records.lost > 0, "the ring was never full: {records:?}");
    ensure!(u64::try_from(trace.proposals.len())? == records.emitted, "{} lines", trace.proposals.len());
    // Every proposal was asked for, at both vantages of two followers.
    ensure!(records.emitted + records.lost == 4 * proposed, "{records:?} of 4 x {proposed}");
    ensure!(!trace.lost.is_empty(), "the loss was not told when it happened");
    Ok(())
}

/// Servers that end between being found and being watched disturb nobody and leave nothing.
#[test]
fn servers_that_end_at_once_leave_nothing() -> Result<()> {
    require_host()?;
    let demo = Demo::start(200)?;
    let narrowed = demo.narrowed();
    let mut serve = Serve::start(&narrowed.iter().map(String::as_str).collect::<Vec<_>>())?;
    let before = settled(&mut serve, &demo)?;
    let place = tempfile::tempdir()?;
    let config = stillborn(place.path(), demo.server(1)?.quorum_port)?;
    let config = config.to_str().context("a path that is no text")?;
    for age in 0..STILLBORN {
        let mut command = probe::command(&["demo-server", "--config", config])?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn("demo-server", &mut command, None)?;
        // From before it has a name to after it was found.
        std::thread::sleep(Duration::from_millis(age * 7 % 200));
        drop(process);
    }
    let after = settled(&mut serve, &demo)?;
    ensure!(after.descriptors <= before.descriptors + 2.0, "descriptors are left: {before:?}, {after:?}");
    for ((sid, now), (_, then)) in after.matched.iter().zip(&before.matched) {
        let (here, there) = (now[0] - then[0], now[1] - then[1]);
        ensure!(here > 100.0, "follower {sid} was not measured: {before:?}, {after:?}");
        ensure!((here - there).abs() <= UNDER_WAY, "{sid}: {here} at the follower, {there} at the leader");
    }
    for name in ["termite_proposals_expired_total", "termite_probe_stream_resyncs_total"] {
        let count = serve.sum(name, &[("ensemble", demo.name()?)])?;
        ensure!(count == 0.0, "{name} {count}");
    }
    serve.interrupt()?.expect(0, &[])?;
    demo.finish()?;
    Ok(())
}

/// The id of a server goes to a program that is none, then to a server again: each is what it is.
#[test]
fn an_id_that_is_used_again_is_another_process() -> Result<()> {
    require_host()?;
    let demo = Demo::start(200)?;
    let narrowed = demo.narrowed();
    let mut serve = Serve::start(&narrowed.iter().map(String::as_str).collect::<Vec<_>>())?;
    settled(&mut serve, &demo)?;
    let at_follower =
        [("ensemble", demo.name()?), ("sid", "1".to_owned()), ("vantage", "follower".to_owned())];
    // The ensemble's own follower is replaced by one that is this test's child, whose id is free when it has ended.
    let first = demo.server(1)?.clone();
    let place = tempfile::tempdir()?;
    let config = moved(&first.config, place.path())?;
    signal_pid(first.pid, libc::SIGKILL)?;
    watched(&mut serve, 2.0)?;
    let mut command = probe::command(&["demo-server", "--config", &config])?;
    let second = Process::spawn("demo-server", command.stdout(Stdio::null()), None)?;
    let pid = second.pid();
    watched(&mut serve, 3.0)?;
    drop(second);
    let other = Reborn::start(pid, "/bin/sleep", &["60"])?;
    watched(&mut serve, 2.0)?;
    let before = serve.sum("termite_proposals_matched_total", &at_follower)?;
    drop(other);

    let binary = probe::binary()?;
    let binary = binary.to_str().context("a path that is no text")?;
    let again = Reborn::start(pid, binary, &["demo-server", "--config", &config])?;
    watched(&mut serve, 3.0)?;
    poll::until("the server of the same id is measured", PATIENCE, || {
        let matched = serve.sum("termite_proposals_matched_total", &at_follower)? - before;
        Ok((matched > 100.0).then_some(()))
    })?;
    drop(again);
    watched(&mut serve, 2.0)?;
    serve.interrupt()?.expect(0, &[])?;
    Ok(())
}

/// Without tracefs the flushes are not seen, which is said, and all else is measured.
#[test]
fn without_tracefs_nothing_but_the_flushes_is_lost() -> Result<()> {
    require_host()?;
    let demo = Demo::start(200)?;
    let hide = "for at in /sys/kernel/tracing /sys/kernel/debug/tracing; do umount -l $at 2>/dev/null; done\n\
                exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide]).arg(probe::binary()?);
    command.args(["trace", "--json", "--slower", "0s", "--duration", "2s"]).args(demo.narrowed());
    let outcome = Run::spawn(command)?.wait(PATIENCE)?;
    outcome.expect(0, &[])?;
    // Where functions can be hooked, tracefs is not needed.
    let flushes_are_seen = !outcome.stderr.contains("without flush");
    ensure!(flushes_are_seen || outcome.stderr.contains("tracefs"), "no reason: {}", outcome.stderr);
    let trace = outcome.trace()?;
    let followers = &trace.summary()?.followers;
    ensure!(followers.len() == 4, "two followers at two vantages are due: {followers:?}");
    ensure!(followers.iter().all(|f| f.matched > 100 && f.expired == 0), "not measured: {followers:?}");
    let logged =
        trace.proposals.iter().filter(|p| p.stages_ns.is_some_and(|stages| stages.log.unwrap_or(0) > 0));
    ensure!((logged.count() > 0) == flushes_are_seen, "flushes are seen, or are not: {}", outcome.stderr);
    demo.finish()?;
    Ok(())
}

/// What is counted of an ensemble.
#[derive(Debug)]
struct Counted {
    descriptors: f64,
    /// Of each follower: at the follower, at the leader.
    matched: Vec<(u64, [f64; 2])>,
}

/// Waits until the probe watches the ensemble's own servers and no other; what it has counted then.
fn settled(serve: &mut Serve, demo: &Demo) -> Result<Counted> {
    watched(serve, 3.0)?;
    let name = ("ensemble", demo.name()?);
    let matched = |serve: &mut Serve, sid: u64| {
        let at = |vantage: &str| [name.clone(), ("sid", sid.to_string()), ("vantage", vantage.to_owned())];
        let family = "termite_proposals_matched_total";
        Ok::<_, anyhow::Error>([serve.sum(family, &at("follower"))?, serve.sum(family, &at("leader"))?])
    };
    let matched = [1, 2].map(|sid| Ok((sid, matched(serve, sid)?)));
    let matched = matched.into_iter().collect::<Result<_>>()?;
    Ok(Counted { descriptors: serve.sum("process_open_fds", &[])?, matched })
}

fn watched(serve: &mut Serve, servers: f64) -> Result<()> {
    let what = format!("{servers} servers are watched");
    poll::until(&what, PATIENCE, || {
        let watched = serve.sum("termite_probe_servers", &[])?;
        Ok((watched == servers).then_some(()))
    })
}

/// The zoo.cfg of a server whose ensemble shares a port with the one that is measured, and whose leader is nowhere.
fn stillborn(place: &Path, port: u16) -> Result<std::path::PathBuf> {
    fs::write(place.join("myid"), "1\n")?;
    let config = place.join("zoo.cfg");
    let (nowhere, place) = (free_port()?, place.display());
    fs::write(
        &config,
        format!(
            "dataDir={place}\ntickTime=2000\nserver.1=127.0.0.1:{port}:1\nserver.2=127.0.0.1:{nowhere}:2\n"
        ),
    )?;
    Ok(config)
}

/// A server's zoo.cfg with a data directory of its own.
fn moved(config: &Path, place: &Path) -> Result<String> {
    let text = fs::read_to_string(config)?;
    let kept = text.lines().filter(|line| !line.starts_with("dataDir"));
    let text: String = kept.map(|line| format!("{line}\n")).collect();
    fs::write(place.join("myid"), "1\n")?;
    let moved = place.join("zoo.cfg");
    fs::write(&moved, format!("{text}dataDir={}\n", place.display()))?;
    Ok(moved.to_str().context("a path that is no text")?.to_owned())
}
