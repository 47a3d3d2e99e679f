//! No byte of a payload leaves the kernel: a marker, written as a znode's path and value, is in no
//! output of the probe and nowhere in its memory, the ring buffers that it maps included.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::load::Plan;
use termite_probe_tests::net::free_port;
use termite_probe_tests::probe::Run;
use termite_probe_tests::{http, poll, scene};

/// Put together at run time, so that no file and no command line holds it in one piece.
fn marker() -> String {
    ["pay", "load-", "marker-", "7f3a9c"].concat()
}

#[test]
fn no_output_and_no_memory_holds_a_payload() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let marker = marker();
    let port = free_port()?;
    let mut serve = Run::start(&["serve", "--listen", &format!("127.0.0.1:{port}"), "-v"])?;
    poll::until_ok("the probe is ready", Duration::from_secs(30), || {
        serve.check_alive()?;
        let status = http::get(port, "/readyz")?.status;
        ensure!(status == 200, "/readyz gives {status}");
        Ok(())
    })?;
    let json = Run::trace(&["-v"])?;
    let mut lines = Run::start(&["trace", "--slower", "0s"])?;
    lines.wait_for_line("tracing", Duration::from_secs(30))?;

    let value = marker.repeat(40).into_bytes();
    let plan = Plan::steady(200, Duration::from_secs(5)).with_path(&format!("/{marker}")).with_value(value);
    let (report, _) = scene::write(&ensemble, plan)?;
    ensure!(report.acknowledged > 500, "too few writes to judge: {report:?}");

    for (name, pid) in [("serve", serve.pid()), ("trace --json", json.pid()), ("trace", lines.pid())] {
        let (found, bytes, rings) = search_memory(pid, marker.as_bytes())?;
        println!("{name}: searched {bytes} bytes of memory, {rings} of them rings");
        ensure!(rings > 1 << 20, "only {rings} bytes of the rings of {name} could be read");
        ensure!(!found, "the memory of {name} holds the marker");
    }
    let metrics = http::get(port, "/metrics")?.body;
    ensure!(metrics.contains("termite_proposal_delay_seconds"), "no delays in the metrics: {metrics}");
    let mut texts = vec![("/metrics".to_owned(), metrics)];
    let doctor = Run::start(&["doctor", "-v"])?.wait(Duration::from_secs(30))?;
    for (name, outcome) in [
        ("trace --json", json.interrupt()?),
        ("trace", lines.interrupt()?),
        ("serve", serve.interrupt()?),
        ("doctor", doctor),
    ] {
        texts.push((format!("stdout of {name}"), outcome.stdout));
        texts.push((format!("stderr of {name}"), outcome.stderr));
    }
    ensure!(texts.iter().any(|(_, text)| text.contains("\"proposal\"")), "nothing was traced");
    for (name, text) in texts {
        ensure!(!text.contains(&marker), "{name} holds the marker");
    }
    Ok(())
}

/// The search itself finds what is there.
#[test]
fn the_search_finds_a_marker_in_memory() -> Result<()> {
    let held = marker();
    let (found, ..) = search_memory(std::process::id(), held.as_bytes())?;
    ensure!(found, "the test's own memory holds the marker");
    Ok(())
}

/// Searches every readable mapping of a process; says how much could be read, and how much of the kernel
/// side's rings.
fn search_memory(pid: u32, needle: &[u8]) -> Result<(bool, u64, u64)> {
    let memory = File::open(format!("/proc/{pid}/mem")).context("cannot open the probe's memory")?;
    let (mut found, mut total, mut rings) = (false, 0, 0);
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().context("no range")?, fields.next().context("no rights")?);
        let (from, to) = range.split_once('-').context("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // A mapping that went away meanwhile is no place to hide.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            total += to - from;
            rings += u64::from(line.ends_with("anon_inode:bpf-map")) * (to - from);
            found |= bytes.windows(needle.len()).any(|window| window == needle);
        }
    }
    Ok((found, total, rings))
}
