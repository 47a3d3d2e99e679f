//! Flushes are seen wherever a server keeps its log, each once, as ZooKeeper itself counts them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::exposition::count;
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::Serve;
use termite_probe_tests::scene;

/// The variants of the hook, best first; the names are those of docs/compatibility.md.
const VARIANTS: [&str; 3] = ["flush_functions", "flush_ext4", "flush_syscalls"];
/// A file system in memory, whose flushes no file system's own tracepoints tell.
const MEMORY: &str = "/dev/shm";

/// A server that comes later, inside of the fence, keeps its log where the probe sees no flush until then.
#[test]
fn flushes_are_those_that_zookeeper_counts_wherever_the_log_is() -> Result<()> {
    require_host()?;
    let on_disk = Ensemble::start(&Spec::voters(3))?;
    let mut serve = Serve::start(&[])?;
    let first = variant(&mut serve)?;
    let disk = kind_of(on_disk.directory())?;
    println!("the logs are on {disk}, the probe uses {first}");
    ensure!(disk == "ext4" || first != "flush_ext4", "{first} cannot see flushes on {disk}");
    check(&mut serve, &on_disk)?;

    let in_memory = Ensemble::start(&Spec::voters(3).in_directory(Path::new(MEMORY)))?;
    check(&mut serve, &in_memory)?;
    check(&mut serve, &on_disk)?;
    let then = variant(&mut serve)?;
    let expected = if first == "flush_ext4" { "flush_syscalls" } else { first };
    ensure!(then == expected, "{then} once a log is on {}", kind_of(in_memory.directory())?);
    serve.interrupt()?.expect(0, &[])
}

/// The variant of the hook that is attached.
fn variant(serve: &mut Serve) -> Result<&'static str> {
    let mut attached = Vec::new();
    for variant in VARIANTS {
        let labels =
            [("hook", "flush".to_owned()), ("variant", variant.to_owned()), ("state", "attached".to_owned())];
        if serve.sum("termite_probe_hook_info", &labels)? > 0.0 {
            attached.push(variant);
        }
    }
    ensure!(attached.len() == 1, "attached: {attached:?}");
    Ok(attached[0])
}

/// Every server of the ensemble has flushed as often as it says.
fn check(serve: &mut Serve, ensemble: &Ensemble) -> Result<()> {
    // The first write makes a new log, and with it flushes of another kind.
    scene::write(ensemble, Plan::steady(50, Duration::from_millis(500)))?;
    let name = ("ensemble", format!("127.0.0.1:{}", ensemble.server(1)?.quorum.port()));
    let mut told =
        |sid: u64| serve.sum("termite_fsync_seconds_count", &[name.clone(), ("sid", sid.to_string())]);
    let mut before = Vec::new();
    for sid in ensemble.sids() {
        before.push((sid, told(sid)?, own_count(ensemble, sid)?));
    }
    scene::write(ensemble, Plan::steady(200, Duration::from_secs(2)))?;
    for (sid, old, own) in before {
        let (told, counted) = (told(sid)? - old, own_count(ensemble, sid)? - own);
        println!("server {sid}: {told} flushes told, {counted} counted by ZooKeeper");
        ensure!(counted >= 20, "server {sid} has flushed {counted} times only");
        ensure!(told == count(counted)?, "server {sid}: {told} flushes told, {counted} counted");
    }
    Ok(())
}

/// How often a server has flushed its log, by its own account.
fn own_count(ensemble: &Ensemble, sid: u64) -> Result<u64> {
    let answer = ensemble.word(sid, "mntr")?;
    let line = answer.lines().find_map(|line| line.strip_prefix("zk_cnt_fsynctime"));
    Ok(line.with_context(|| format!("no zk_cnt_fsynctime in {answer}"))?.trim().parse::<f64>()? as u64)
}

/// The type of the file system that a directory is on, as util-linux knows it.
fn kind_of(directory: &Path) -> Result<String> {
    let output = std::process::Command::new("findmnt")
        .args(["--noheadings", "--output", "FSTYPE", "--target"])
        .arg(directory)
        .output()
        .context("findmnt: apt-get install util-linux")?;
    ensure!(output.status.success(), "findmnt: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
