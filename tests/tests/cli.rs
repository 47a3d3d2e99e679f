//! How the probe ends: the exit codes of the contract, each with a message that says what is wrong.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{self, Outcome, Run};
use termite_probe_tests::process::Process;
use termite_probe_tests::scene;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn usage_errors_exit_2() -> Result<()> {
    for arguments in [
        &["trace", "--no-such-option"][..],
        &["no-such-command"],
        &["trace", "--slower", "quickly"],
        &["trace", "--duration", "-3s"],
        &["serve", "--listen", "nowhere"],
        &["trace", "--pid", "me"],
    ] {
        run(arguments)?.expect(2, &[]).with_context(|| format!("{arguments:?}"))?;
    }
    run(&["--help"])?.expect(0, &[])?;
    run(&["--version"])?.expect(0, &[])
}

/// Whatever else runs on the host, it is no part of this ensemble.
#[test]
fn no_termite_process_exits_4() -> Result<()> {
    require_host()?;
    run(&["trace", "--ensemble", "no-such-ensemble"])?.expect(4, &["no Termite process", "--pid"])?;
    run(&["trace", "--quorum-port", "1"])?.expect(4, &["no Termite process"])
}

/// Its own /proc shows it nothing of the host, whose kernel counts in other numbers.
#[test]
fn in_a_pid_namespace_it_exits_3() -> Result<()> {
    require_host()?;
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(probe::binary()?).arg("trace");
    Run::spawn(command)?.wait(PATIENCE)?.expect(3, &["--pid=host", "hostPID"])
}

#[test]
fn a_process_that_is_no_server_exits_4() -> Result<()> {
    require_host()?;
    let other = Process::spawn("sleep", Command::new("sleep").arg("60"), None)?;
    let pid = other.pid().to_string();
    run(&["trace", "--pid", &pid])?.expect(4, &[&pid, "--quorum-port", "--config"])?;
    // With a port there is something to look for: a Termite build may look like nothing that is known.
    let forced = ["trace", "--pid", &pid, "--quorum-port", "22999", "--duration", "1s"];
    run(&forced)?.expect(0, &["not recognised"])
}

#[test]
fn a_pid_that_is_gone_exits_4() -> Result<()> {
    require_host()?;
    let mut gone = Process::spawn("true", &mut Command::new("true"), None)?;
    gone.wait(PATIENCE)?;
    let pid = gone.pid().to_string();
    run(&["trace", "--pid", &pid])?.expect(4, &[&pid, "no such process"])
}

#[test]
fn without_privileges_exits_3() -> Result<()> {
    require_host()?;
    let place = tempfile::tempdir()?;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755))?;
    let binary = place.path().join("termite-probe");
    std::fs::copy(probe::binary()?, &binary)?;
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--bounding-set=-all",
                "--inh-caps=-all",
            ])
            .arg(&binary)
            .args(arguments);
        Run::spawn(command)?.wait(PATIENCE)
    };
    unprivileged(&["trace"])?.expect(3, &["CAP_BPF"])?;
    unprivileged(&["serve", "--listen", "127.0.0.1:0"])?.expect(3, &["CAP_BPF"])?;
    // The doctor is there to say what is missing, so that it is missing is no failure of its own.
    let doctor = unprivileged(&["doctor"])?;
    ensure!(doctor.stdout.contains("CAP_BPF"), "the doctor does not name CAP_BPF: {doctor:?}");
    ensure!(!doctor.stderr.contains("panicked"), "a panic: {doctor:?}");
    Ok(())
}

#[test]
fn without_btf_exits_3() -> Result<()> {
    require_host()?;
    let mut command = Command::new("unshare");
    let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" trace";
    command.args(["--mount", "sh", "-c", hide]).arg(probe::binary()?);
    Run::spawn(command)?.wait(PATIENCE)?.expect(3, &["BTF"])
}

#[test]
fn a_taken_port_exits_1() -> Result<()> {
    require_host()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    run(&["serve", "--listen", &address])?.expect(1, &[&address])
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    for arguments in [&["trace", "--json", "--slower", "0s"][..], &["trace", "--slower", "0s"]] {
        let mut command = probe::command(arguments)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::spawn("termite-probe", &mut command, None)?;
        let mut stderr = BufReader::new(process.child_mut().stderr.take().context("no stderr")?);
        let mut said = String::new();
        while !said.lines().any(|line| line.starts_with("tracing")) {
            ensure!(stderr.read_line(&mut said)? > 0, "the probe ended: {said}");
        }
        let load = scene::load(&ensemble, Plan::steady(100, Duration::from_secs(60)))?;
        let mut stdout = BufReader::new(process.child_mut().stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "nothing traced");
        // This is what `| head -1` does.
        drop(stdout);
        let status = process.wait(PATIENCE)?;
        load.stop()?;
        stderr.read_line(&mut said)?;
        ensure!(status.code() == Some(0), "{arguments:?} ended with {status}: {said}");
        ensure!(!said.contains("panicked") && !said.contains("roken pipe"), "a complaint: {said}");
    }
    Ok(())
}

#[test]
fn processes_that_go_away_leave_a_summary() -> Result<()> {
    require_host()?;
    let mut ensemble = Ensemble::start(&Spec::voters(3))?;
    let probe = Run::trace(&[])?;
    let (report, _) = scene::write(&ensemble, Plan::steady(100, Duration::from_secs(2)))?;
    for sid in ensemble.sids() {
        ensemble.kill(sid)?;
    }
    let outcome = probe.interrupt_if_running()?;
    let trace = outcome.trace()?;
    let summary = trace.summary()?.of(&ensemble.pids());
    ensure!(summary.followers.len() == 4, "two followers at two vantages: {summary:?}");
    ensure!(summary.followers.iter().all(|f| f.matched >= report.acknowledged), "too few: {summary:?}");
    Ok(())
}

#[test]
fn ctrl_c_and_the_end_of_the_duration_give_the_summary() -> Result<()> {
    require_host()?;
    let ensemble = Ensemble::start(&Spec::voters(3))?;
    let mut endless = Run::start(&["trace", "--slower", "0s"])?;
    endless.wait_for_line("tracing", PATIENCE)?;
    let timed = Run::trace(&["--duration", "4s"])?;
    scene::write(&ensemble, Plan::steady(100, Duration::from_secs(2)))?;
    let endless = endless.interrupt()?;
    endless.expect(0, &[])?;
    for word in ["p50", "p99", "max"] {
        let head = endless.stdout.to_lowercase();
        ensure!(head.contains(word), "no {word} in the summary: {}", endless.stdout);
    }
    let timed = timed.wait(PATIENCE)?;
    ensure!(!timed.trace()?.summary()?.of(&ensemble.pids()).followers.is_empty(), "an empty summary");
    Ok(())
}

#[test]
fn pids_and_ports_narrow() -> Result<()> {
    require_host()?;
    let (one, other) = (Ensemble::start(&Spec::voters(3))?, Ensemble::start(&Spec::voters(3))?);
    let follower = *one.followers()?.first().context("no follower")?;
    let pid = one.pid(follower)?.to_string();
    let by_pid = Run::trace(&["--pid", &pid])?;
    let ports: Vec<String> = one.quorum_ports().iter().map(u16::to_string).collect();
    let by_port: Vec<&str> = ports.iter().flat_map(|port| ["--quorum-port", port]).collect();
    let by_port = Run::trace(&by_port)?;
    for ensemble in [&one, &other] {
        scene::write(ensemble, Plan::steady(100, Duration::from_secs(2)))?;
    }
    let (by_pid, by_port) = (by_pid.interrupt()?.trace()?, by_port.interrupt()?.trace()?);
    ensure!(!by_pid.proposals.is_empty() && !by_port.proposals.is_empty(), "nothing traced");
    ensure!(by_pid.proposals.iter().all(|p| p.pid.to_string() == pid), "records of other processes");
    let own = one.pids();
    ensure!(by_port.proposals.iter().all(|p| own.contains(&p.pid)), "records of the other ensemble");
    Ok(())
}

fn run(arguments: &[&str]) -> Result<Outcome> {
    Run::start(arguments)?.wait(PATIENCE)
}
