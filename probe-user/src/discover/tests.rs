//! Discovery on a proc file system that is a directory of files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{DiscoverError, Discovery, Filter, Known, Procfs, Scan, Sid, Tgid};

const JAVA: &str = "/usr/bin/java\0-cp\0x.jar\0org.apache.zookeeper.server.quorum.QuorumPeerMain\0";
const THREE: &str =
    "server.1=127.0.0.1:1001:2001\nserver.2=127.0.0.1:1002:2002\nserver.3=127.0.0.1:1003:2003\n";

/// A directory that looks like /proc and goes with the test.
struct Fixture(PathBuf);

impl Fixture {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("termite-probe-proc-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// A process whose root is where [`Fixture::inside`] says, and whose working directory is /run.
    fn process(&self, tgid: u32, cmdline: &str, threads: &[&str]) -> &Self {
        let dir = self.0.join(tgid.to_string());
        fs::create_dir_all(dir.join("ns")).unwrap();
        fs::create_dir_all(self.inside(tgid, "/run")).unwrap();
        fs::write(dir.join("cmdline"), cmdline).unwrap();
        let comm = threads.first().copied().unwrap_or("kthread");
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(dir.join("status"), format!("Name:\t{comm}\nTgid:\t{tgid}\n")).unwrap();
        let fields: Vec<String> =
            (4..30).map(|n| if n == 22 { "777".to_owned() } else { n.to_string() }).collect();
        fs::write(dir.join("stat"), format!("{tgid} (a b) c) S {}\n", fields.join(" "))).unwrap();
        for (n, name) in threads.iter().enumerate() {
            let task = dir.join(format!("task/{}", tgid as usize + n));
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("comm"), format!("{name}\n")).unwrap();
        }
        symlink("net:[4026531840]", dir.join("ns/net")).unwrap();
        symlink("/run", dir.join("cwd")).unwrap();
        self
    }

    /// Where a path of a process is on this host: below its root.
    fn inside(&self, tgid: u32, path: &str) -> PathBuf {
        self.0.join(format!("{tgid}/root{path}"))
    }

    /// A file inside a process's root.
    fn file(&self, tgid: u32, path: &str, text: &str) -> &Self {
        let path = self.inside(tgid, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn discovery(&self) -> Discovery {
        Discovery::new(Procfs { root: self.0.clone() }, Tgid(9))
    }

    fn scan(&self, filter: &Filter) -> Scan {
        self.discovery().scan(filter).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pids(scan: &Scan) -> Vec<u32> {
    scan.servers.iter().map(|s| s.tgid.0).collect()
}

#[test]
fn servers_are_found_among_others() {
    let host = Fixture::new();
    host.process(1, "/sbin/init\0", &["init"])
        .process(2, "", &["kthreadd"])
        .process(9, &format!("{JAVA}zoo.cfg\0"), &["java"])
        .process(100, &format!("{JAVA}zoo.cfg\0"), &["java", "QuorumPeer[myid", "SyncThread:2"])
        .file(100, "/run/zoo.cfg", &format!("dataDir=data\n{THREE}"))
        .file(100, "/run/data/myid", "2\n")
        .process(101, &format!("sudo\0{JAVA}zoo.cfg\0"), &["sudo"])
        .process(102, &format!("{JAVA}/etc/zoo.cfg\0"), &["java", "SyncThread:0"])
        .file(102, "/etc/zoo.cfg", "dataDir=/d\nclientPort=2181")
        .process(103, "java\0Other\0", &["java"]);
    let scan = host.scan(&Filter::default());
    assert_eq!(pids(&scan), [100]);
    let server = &scan.servers[0];
    assert_eq!(server.sid, Known::Known { value: Sid(2), source: "thread SyncThread" });
    assert_eq!((server.started, server.net_ns), (777, Some(4_026_531_840)));
    assert_eq!((server.ensemble.as_str(), server.own_quorum_port), ("127.0.0.1:1001", Some(1002)));
    assert_eq!(server.config_path.as_deref(), Some(Path::new("zoo.cfg")));
    assert_eq!(server.notes, Vec::<String>::new());
    assert_eq!(scan.set_aside.len(), 1);
    assert!(scan.set_aside[0].why.starts_with("a standalone server"));
}

#[test]
fn what_a_server_writes_to_is_told_by_its_mounts() {
    let host = Fixture::new();
    let device = fs::metadata(&host.0).unwrap().dev();
    let mounts = |kind: &str| {
        format!("7 1 {}:{} / /d rw - {kind} /dev/x rw\n", libc::major(device), libc::minor(device))
    };
    host.process(100, &format!("{JAVA}zoo.cfg\0"), &["java"])
        .file(100, "/run/zoo.cfg", &format!("dataDir=/d\ndataLogDir=/not/yet/made\n{THREE}"))
        .file(100, "/d/myid", "2\n");
    let writes_to = || host.scan(&Filter::default()).servers.remove(0).writes_to;
    assert_eq!(writes_to(), Known::Unknown("no such file".to_owned()));
    fs::write(host.0.join("100/mountinfo"), mounts("xfs")).unwrap();
    assert_eq!(writes_to(), Known::Known { value: vec!["xfs".to_owned()], source: "mountinfo" });
    fs::write(host.0.join("100/mountinfo"), "7 1 0:1 / /d rw - btrfs /dev/x rw\n").unwrap();
    assert_eq!(writes_to(), Known::Unknown("no mount is of its device".to_owned()));
    host.file(100, "/run/zoo.cfg", THREE);
    assert_eq!(writes_to(), Known::Unknown("no configuration tells its directories".to_owned()));
}

#[test]
fn links_are_followed_inside_the_root_of_the_process() {
    let host = Fixture::new();
    host.process(100, &format!("{JAVA}/opt/bin/../conf/zoo.cfg\0"), &["java"])
        .file(100, "/etc/termite/zoo.cfg", "dataDir=/d\ndynamicConfigFile=/etc/termite/dyn\n")
        .file(100, "/etc/termite/dyn", THREE)
        .file(100, "/d/myid", "3");
    fs::create_dir_all(host.inside(100, "/opt/bin")).unwrap();
    symlink("/etc/termite", host.inside(100, "/opt/conf")).unwrap();
    let server = host.scan(&Filter::default()).servers.remove(0);
    assert_eq!(server.notes, Vec::<String>::new());
    assert_eq!(server.sid, Known::Known { value: Sid(3), source: "dataDir/myid" });
    assert_eq!(server.quorum_ports, [1001, 1002, 1003]);
}

#[test]
fn a_named_pipe_for_a_configuration_does_not_stop_the_scan() {
    let host = Fixture::new();
    host.process(100, &format!("{JAVA}zoo.cfg\0"), &["java"]);
    fs::create_dir(host.inside(100, "/run/zoo.cfg")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(host.inside(100, "/pipe.cfg")).status().unwrap();
    assert!(made.success());
    host.process(101, &format!("{JAVA}/pipe.cfg\0"), &["java"]);
    fs::rename(host.inside(100, "/pipe.cfg"), host.inside(101, "/pipe.cfg")).unwrap();
    let scan = host.scan(&Filter::default());
    assert_eq!(pids(&scan), [100, 101]);
    assert!(scan.servers.iter().all(|s| s.notes[0].contains("not a regular file")), "{scan:?}");
}

#[test]
fn pid_forces_and_keeps_others_out() {
    let host = Fixture::new();
    host.process(100, &format!("{JAVA}zoo.cfg\0"), &["java"]).process(200, "/opt/x\0", &["x", "worker"]);
    let asked = |pids: &[u32]| Filter { pids: pids.to_vec(), quorum_ports: vec![2888], ..Filter::default() };
    let scan = host.scan(&asked(&[200, 200]));
    assert_eq!(pids(&scan), [200]);
    assert!(scan.servers[0].notes.iter().any(|n| n.contains("not recognised")), "{scan:?}");
    let scan = host.scan(&asked(&[555]));
    assert_eq!(scan.set_aside[0].why, "no such process");
}

#[test]
fn pid_alone_does_not_make_a_server_of_any_process() {
    let host = Fixture::new();
    host.process(200, "/opt/x\0", &["x", "worker"]).process(300, "/opt/y\0/run/zoo.cfg\0", &["y"]).file(
        300,
        "/run/zoo.cfg",
        THREE,
    );
    let scan = host.scan(&Filter { pids: vec![200, 300], ..Filter::default() });
    let aside: Vec<_> = scan.set_aside.iter().map(|s| (s.tgid.0, s.why.as_str())).collect();
    let why = "not recognised as a Termite server, and no zoo.cfg of it tells its quorum port; add --quorum-port \
               PORT or --config FILE";
    assert_eq!(aside, [(200, why)]);
    assert_eq!(pids(&scan), [300]);
}

#[test]
fn config_narrows_and_stands_in() {
    let host = Fixture::new();
    let same = format!("dataDir=/d\n{THREE}");
    host.process(100, &format!("{JAVA}zoo.cfg\0"), &["java"])
        .file(100, "/run/zoo.cfg", &same)
        .file(100, "/d/myid", "1")
        .process(200, &format!("{JAVA}zoo.cfg\0"), &["java"])
        .file(200, "/run/zoo.cfg", "server.1=x:1:2\nserver.2=y:1:2")
        .process(300, "java\0-jar\0own.jar\0", &["java", "QuorumPeer[myid"])
        .file(300, "/d/myid", "3");
    let path = host.0.join("given.cfg");
    fs::write(&path, &same).unwrap();
    let mut filter = Filter { config: Some(path), ..Filter::default() };
    let scan = host.scan(&filter);
    assert_eq!(pids(&scan), [100, 300]);
    assert_eq!(scan.servers[1].sid.value(), Some(&Sid(3)));
    assert_eq!(scan.set_aside[0].tgid, Tgid(200));
    filter.pids = vec![200];
    assert_eq!(host.scan(&filter).servers[0].quorum_ports, [1001, 1002, 1003]);
    filter.config = Some(host.0.join("none.cfg"));
    assert!(matches!(host.discovery().scan(&filter), Err(DiscoverError::Config { .. })));
}

#[test]
fn a_server_that_begins_late_is_still_found() {
    let host = Fixture::new();
    host.process(100, "java\0-jar\0own.jar\0", &["java"]);
    let mut discovery = host.discovery();
    for _ in 0..20 {
        assert!(pids(&discovery.scan(&Filter::default()).unwrap()).is_empty());
    }
    fs::write(host.0.join("100/task/100/comm"), "QuorumPeer[myid\n").unwrap();
    let found = (0..16).position(|_| !discovery.scan(&Filter::default()).unwrap().servers.is_empty());
    assert!(found.is_some());
}

#[test]
fn no_proc_is_an_error() {
    let mut nowhere = Discovery::new(Procfs { root: PathBuf::from("/nonexistent") }, Tgid(1));
    assert!(matches!(nowhere.scan(&Filter::default()), Err(DiscoverError::Proc { .. })));
}
