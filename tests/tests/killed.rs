//! The probe killed at any moment: nothing of it stays in the kernel or on the host, and it starts again at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::bpf::objects::{Object, held_by};
use termite_probe_tests::demo::Demo;
use termite_probe_tests::ensemble::require_host;
use termite_probe_tests::poll;
use termite_probe_tests::probe::{self, Run, Serve};

const PATIENCE: Duration = Duration::from_secs(30);
/// Kills while it starts, evenly over the time that this takes, each at a moment of chance within its part.
const STARTS: u32 = 5;
/// Kills while it measures, and while it ends.
const LATER: u32 = 2;
/// How long an end takes at least.
const END: Duration = Duration::from_millis(20);

#[test]
fn nothing_stays_and_it_starts_again() -> Result<()> {
    require_host()?;
    let demo = Demo::start(200)?;
    let pinned = pins(Path::new("/sys/fs/bpf"))?;
    let narrowed = demo.narrowed();
    let command = |own: &[&str]| {
        let mut command = probe::command(own)?;
        command.args(&narrowed);
        Ok(command)
    };
    let begun = Instant::now();
    let first = Serve::by(command)?;
    let start = begun.elapsed();
    let own = kill(first)?;
    ensure!(own.len() > 40, "a running probe holds only {} objects", own.len());

    let mut held = Vec::new();
    for part in 0..STARTS {
        let moment = start.mul_f64((f64::from(part) + chance()) / f64::from(STARTS));
        let serve = Serve::begin(command)?;
        std::thread::sleep(moment);
        held.push((moment, kill(serve)?.len()));
    }
    for _ in 0..LATER {
        let mut serve = Serve::by(command)?;
        std::thread::sleep(Duration::from_secs(1).mul_f64(chance()));
        serve.metrics()?;
        kill(serve)?;
        let ending = Serve::by(command)?;
        ending.signal(libc::SIGTERM)?;
        std::thread::sleep(END.mul_f64(chance()));
        kill(ending)?;
    }
    println!("a start takes {start:?}; objects held when it was killed: {held:?}");
    ensure!(held.iter().any(|(_, objects)| *objects > 0), "it was never killed while it was loading");
    ensure!(pins(Path::new("/sys/fs/bpf"))? == pinned, "something is pinned");

    // At once, and as good as ever.
    let arguments = [&["--duration".to_owned(), "2s".to_owned()], narrowed.as_slice()].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let trace = Run::trace(&arguments)?.wait(PATIENCE)?.trace()?;
    trace.check_nothing_lost()?;
    let followers = &trace.summary()?.followers;
    ensure!(followers.len() == 4, "two followers at two vantages are due: {followers:?}");
    ensure!(followers.iter().all(|f| f.matched > 100 && f.expired == 0), "not measured: {followers:?}");
    demo.finish()?;
    Ok(())
}

/// Kills a probe, and waits until the kernel has dropped all that it held at that moment; what that was. It ran where the test
/// runs: it had mounted nothing and moved into no group.
fn kill(serve: Serve) -> Result<BTreeSet<Object>> {
    let pid = serve.pid();
    // Stopped, it holds what it held when it was killed.
    serve.signal(libc::SIGSTOP)?;
    let is_still = poll::until("it stands still", PATIENCE, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        Ok(state.filter(|state| "TZ".contains(*state)))
    })?;
    // One that has ended by itself meanwhile holds nothing.
    let held = if is_still == 'T' { held_by(pid)? } else { BTreeSet::new() };
    if is_still == 'T' {
        for file in ["mountinfo", "cgroup"] {
            let of = |who: &str| fs::read_to_string(format!("/proc/{who}/{file}"));
            // Others on this host may mount something between the two looks.
            poll::until("it is where the test is", PATIENCE, || {
                Ok((of(&pid.to_string())? == of("self")?).then_some(()))
            })
            .with_context(|| file.to_owned())?;
        }
    }
    for object in &held {
        ensure!(object.is_there()?, "a look for {object:?}, which it holds, does not find it");
    }
    serve.signal(libc::SIGKILL)?;
    serve.wait()?;
    poll::until("the kernel drops everything", PATIENCE, || {
        for object in &held {
            if object.is_there()? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    Ok(held)
}

/// Everything below a directory.
fn pins(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    // A host without that file system has no pins.
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pins(&path)?);
        }
        found.insert(path);
    }
    Ok(found)
}

/// From 0 to 1, another one each time.
fn chance() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    f64::from(now.subsec_nanos() % 1_000_000) / 1e6
}
