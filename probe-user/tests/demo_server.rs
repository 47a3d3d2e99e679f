//! The demo's ensemble as processes: proposals flow, counts agree, nothing is left behind.
//!
//! Needs no privileges, no probe and no Java.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const EXE: &str = env!("CARGO_BIN_EXE_termite-probe");
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of this test's own, gone afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("termite-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `demo-ensemble`, ready.
struct Ensemble {
    process: Child,
    output: BufReader<ChildStdout>,
    who: Value,
}

impl Ensemble {
    fn start(dir: &Dir, args: &[&str]) -> Self {
        let mut process = Command::new(EXE)
            .args(["demo-ensemble", "--dir"])
            .arg(&dir.0)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let who = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { process, output, who }
    }

    fn pid(&self, sid: u64) -> u32 {
        let servers = self.who["servers"].as_array().unwrap();
        let server = servers.iter().find(|server| server["sid"] == sid).unwrap();
        server["pid"].as_u64().unwrap() as u32
    }

    fn config(&self, sid: u64) -> PathBuf {
        let servers = self.who["servers"].as_array().unwrap();
        let server = servers.iter().find(|server| server["sid"] == sid).unwrap();
        server["config"].as_str().unwrap().into()
    }

    fn log(&self, sid: u64) -> PathBuf {
        self.config(sid).with_file_name("data").join("version-2/log.100000001")
    }

    /// Closes its standard input and reads the counts of each server.
    fn finish(mut self) -> Vec<Value> {
        drop(self.process.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success());
        rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let comm = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap();
    let mut names: Vec<String> = tasks.map(|task| comm(task.unwrap()).trim_end().to_owned()).collect();
    names.sort();
    names
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in brackets; a zombie is not alive.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Every server counts the same proposals, and each follower acknowledged every one.
#[track_caller]
fn check_counts(counts: &[Value], proposals: u64) {
    assert_eq!(counts.len(), 3);
    for server in counts {
        assert_eq!(server["proposals"], proposals, "{server}");
        assert_eq!(server["logged"], proposals, "{server}");
        assert_eq!(server["commits"], proposals, "{server}");
        assert_eq!(server["last_zxid"], (1 << 32) + proposals, "{server}");
        let followers = if server["leads"] == true { 2 } else { 1 };
        assert_eq!(server["acks"], followers * proposals, "{server}");
    }
}

#[test]
fn every_proposal_is_logged_acknowledged_and_committed_by_all() {
    let dir = Dir::new("flow");
    let ensemble = Ensemble::start(&dir, &["--rate", "500", "--set", "demo.count=300"]);
    assert_eq!(ensemble.who["leader"], 3);
    assert_eq!(ensemble.who["followers"], serde_json::json!([1, 2]));
    let follower = threads(ensemble.pid(1));
    for name in ["QuorumPeer[myid", "SyncThread:1"] {
        assert!(follower.iter().any(|thread| thread == name), "{name} in {follower:?}");
    }
    let leader = threads(ensemble.pid(3));
    for (name, count) in
        [("QuorumPeer[myid", 1), ("SyncThread:3", 1), ("LearnerHandler-", 2), ("Sender-/127.0.0", 2)]
    {
        assert_eq!(leader.iter().filter(|thread| *thread == name).count(), count, "{name} in {leader:?}");
    }
    // length, header, path, value, version, digest, end of entry
    let entry = 8 + 32 + (4 + 13) + (4 + 64) + 4 + 12 + 1;
    wait_for("three logs of 300 entries", || (1..=3).all(|sid| size(&ensemble.log(sid)) == 300 * entry));
    check_counts(&ensemble.finish(), 300);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0, "files are left behind");
}

#[test]
fn bursts_of_large_values_and_a_slow_log_lose_nothing() {
    let dir = Dir::new("burst");
    let args = ["--rate", "2000", "--set", "demo.burst=500", "--set", "demo.count=1000"];
    let more = ["--set", "demo.value_bytes=10000", "--set", "2:demo.delay_log=20"];
    let ensemble = Ensemble::start(&dir, &[args.as_slice(), &more].concat());
    wait_for("three full logs", || (1..=3).all(|sid| size(&ensemble.log(sid)) > 10_000_000));
    let counts = ensemble.finish();
    check_counts(&counts, 1000);
    for server in &counts {
        let flushes = server["flushes"].as_u64().unwrap();
        assert!(flushes < 1000, "no group commit: {server}");
    }
}

#[test]
fn an_ensemble_ends_with_the_process_that_started_it() {
    let dir = Dir::new("orphans");
    let mut ensemble = Ensemble::start(&dir, &[]);
    let pids = [1, 2, 3].map(|sid| ensemble.pid(sid));
    assert!(pids.iter().all(|&pid| alive(pid)));
    ensemble.process.kill().unwrap();
    wait_for("the servers' end", || !pids.iter().any(|&pid| alive(pid)));
}

#[test]
fn a_follower_that_comes_back_joins_the_running_leader() {
    let dir = Dir::new("back");
    let ensemble = Ensemble::start(&dir, &[]);
    let copy = dir.0.join("copy");
    // A second server of the same sid takes the first one's place at the leader.
    fs::create_dir_all(copy.join("data")).unwrap();
    fs::write(copy.join("data/myid"), "1").unwrap();
    let text = fs::read_to_string(ensemble.config(1)).unwrap();
    let text: String =
        text.lines().filter(|line| !line.starts_with("dataDir")).map(|line| format!("{line}\n")).collect();
    fs::write(copy.join("zoo.cfg"), format!("{text}dataDir={}\n", copy.join("data").display())).unwrap();
    let mut late = Command::new(EXE)
        .args(["demo-server", "--config"])
        .arg(copy.join("zoo.cfg"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the late follower's log", || size(&copy.join("data/version-2/log.100000001")) > 0);
    late.kill().unwrap();
    late.wait().unwrap();
    let counts = ensemble.finish();
    assert_eq!(counts[1]["proposals"], counts[2]["proposals"], "follower 2 is not disturbed");
}

#[test]
fn mistakes_are_named() {
    let dir = Dir::new("mistakes");
    let config = dir.0.join("zoo.cfg");
    let serve = |text: &str| -> Output {
        fs::write(&config, text).unwrap();
        Command::new(EXE).args(["demo-server", "--config"]).arg(&config).output().unwrap()
    };
    let check = |text: &str, expected: &str| {
        let output = serve(text);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
    };
    let port =
        TcpListener::bind("[::ffff:127.0.0.1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
    let number = port.local_addr().unwrap().port();
    fs::write(dir.0.join("myid"), "1").unwrap();
    let data = dir.0.display();
    check("demo.rate=fast", "line 1: `demo.rate` cannot be `fast`");
    check(&format!("dataDir={data}/none\nserver.1=127.0.0.1:1:2"), "none/myid");
    check(&format!("dataDir={data}\nserver.2=127.0.0.1:1:2"), "no server.1 line");
    check(
        &format!("dataDir={data}\nserver.1=127.0.0.1:{number}:2"),
        &format!("cannot listen on 127.0.0.1:{number}"),
    );
    drop(port);
    let lonely =
        format!("dataDir={data}\ntickTime=10\nserver.1=127.0.0.1:{number}:2\nserver.2=127.0.0.1:{number}:2");
    check(&lonely, "cannot reach the leader");
}

#[test]
fn a_stranger_on_the_quorum_port_disturbs_nobody() {
    let dir = Dir::new("stranger");
    let ensemble = Ensemble::start(&dir, &[]);
    let port = ensemble.who["servers"][2]["quorum_port"].as_u64().unwrap() as u16;
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The leader hangs up, in one way or the other.
    let _ = stranger.read_to_end(&mut answer);
    assert!(answer.is_empty());
    let before = size(&ensemble.log(1));
    wait_for("more proposals", || size(&ensemble.log(1)) > before);
    let counts = ensemble.finish();
    check_counts(&counts, counts[2]["proposals"].as_u64().unwrap());
}
