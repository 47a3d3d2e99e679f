//! From a segment's record to a [`Clue`]: names for its numbers.
//!
//! In: records of the kernel side; /proc and /sys at the time they come. Out: clues. Invariants: what can no more be
//! asked (a process that is gone) is left out, never guessed; answers are remembered for [`FRESH_NS`], so that
//! a burst of records asks once. Deliberately absent: which delay a clue explains.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use probe_ebpf::abi::{SafepointRecord, SegmentRecord};
use probe_ebpf::cause;

use crate::evidence::{Clue, Other};
use crate::symbols::Symbols;

/// How long an answer is good for.
const FRESH_NS: u64 = 10_000_000_000;
/// Answers that are remembered.
const REMEMBERED: usize = 1024;

/// Asks for names and remembers the answers.
#[derive(Debug)]
pub(crate) struct Interpreter {
    symbols: Symbols,
    cgroups: Answers,
    devices: Answers,
    threads: Answers,
}

/// Answers by process or thread, with the instant of each.
#[derive(Debug, Default)]
struct Answers(HashMap<u32, (u64, Option<String>)>);

impl Answers {
    fn get(&mut self, pid: u32, now: u64, ask: impl FnOnce(u32) -> Option<String>) -> Option<String> {
        if let Some((at, answer)) = self.0.get(&pid)
            && now.saturating_sub(*at) < FRESH_NS
        {
            return answer.clone();
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let answer = ask(pid);
        self.0.insert(pid, (now, answer.clone()));
        answer
    }
}

impl Interpreter {
    /// Knows nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            symbols: Symbols::open(),
            cgroups: Answers::default(),
            devices: Answers::default(),
            threads: Answers::default(),
        }
    }

    /// The segment in words.
    pub(crate) fn clue(&mut self, r: &SegmentRecord) -> Clue {
        let cause = r.cause as usize;
        let mut clue = Clue {
            cause,
            pid: r.tgid,
            tid: r.tid,
            thread: name(&r.comm),
            from: r.began_at,
            to: r.ended_at,
            ..Clue::default()
        };
        match cause {
            cause::RUN_QUEUE => clue.preemptor = Some(self.preemptor(r)),
            cause::CPU_THROTTLE => clue.cgroup = self.cgroup(r.tgid, r.ended_at),
            cause::FSYNC => clue.device = self.devices.get(r.tgid, r.ended_at, device_of_log),
            cause::SLEEP => clue.call = Some(system_call(r.call)),
            _ => {}
        }
        if cause == cause::LOCK && r.other_tid != 0 {
            let pid = (r.other_tgid != 0).then_some(r.other_tgid);
            clue.waker = Some(Other { tid: r.other_tid, pid, comm: self.waker(r), cgroup: None });
        }
        let known = r.stack.iter().take_while(|address| **address != 0);
        clue.stack = known.map(|address| self.function(*address)).collect();
        // What a tick came upon lies behind the interrupt's own way in.
        if let Some(way_in) = clue.stack.iter().position(|function| function.starts_with("asm_sysvec_")) {
            clue.stack.drain(..=way_in);
        }
        let woken = clue.stack.iter().take_while(|function| is_scheduler(function)).count();
        clue.stack.drain(..woken);
        clue
    }

    /// The name of the thread of the same process that ended the wait. The kernel side knows the names of those that have a
    /// clock.
    fn waker(&mut self, r: &SegmentRecord) -> String {
        let known = name(&r.other_comm);
        if !known.is_empty() {
            return known;
        }
        let path = format!("/proc/{}/task/{}/comm", r.tgid, r.other_tid);
        let asked = self
            .threads
            .get(r.other_tid, r.ended_at, |_| Some(fs::read_to_string(path).ok()?.trim_end().to_owned()));
        asked.unwrap_or_default()
    }

    /// Who had the CPU; process 0 is the kernel's idle task.
    fn preemptor(&mut self, r: &SegmentRecord) -> Other {
        let cgroup = if r.other_tgid == 0 { None } else { self.cgroup(r.other_tgid, r.ended_at) };
        Other { tid: r.other_tid, pid: Some(r.other_tgid), comm: name(&r.other_comm), cgroup }
    }

    fn cgroup(&mut self, pid: u32, now: u64) -> Option<String> {
        self.cgroups.get(pid, now, |pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            cpu_cgroup(&text).map(str::to_owned)
        })
    }

    fn function(&mut self, address: u64) -> String {
        self.symbols.name(address).map_or_else(|| format!("{address:#x}"), str::to_owned)
    }
}

/// A stop of a JVM.
pub(crate) fn stop(r: &SafepointRecord) -> Clue {
    let operation = Some(name(&r.name)).filter(|name| !name.is_empty());
    Clue {
        cause: if r.gc == 1 { cause::GC } else { cause::SAFEPOINT },
        pid: r.tgid,
        thread: "VM Thread".to_owned(),
        from: r.began_at,
        to: r.ended_at,
        operation,
        ..Clue::default()
    }
}

/// A name padded with NUL.
fn name(comm: &[u8]) -> String {
    let length = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..length]).into_owned()
}

/// A system call's name, or its number where that is newer than the table.
fn system_call(number: u32) -> String {
    syscalls::Sysno::new(number as usize)
        .map_or_else(|| format!("system call {number}"), |call| call.name().to_owned())
}

/// Functions that every wait goes through.
fn is_scheduler(function: &str) -> bool {
    const NAMES: [&str; 6] =
        ["schedule", "__schedule", "io_schedule", "preempt_schedule", "__cond_resched", "dequeue_task"];
    NAMES.contains(&function)
        || ["schedule_", "__schedule_", "io_schedule_", "preempt_schedule_", "sched_"]
            .iter()
            .any(|start| function.starts_with(start))
}

/// The control group that divides the CPU, from /proc/PID/cgroup: that of the v1 controller where
/// there is one (`2:cpu,cpuacct:/path`) and it is not the root, else that of v2 (`0::/path`).
fn cpu_cgroup(text: &str) -> Option<&str> {
    let groups = || {
        text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
    };
    let v1 = groups().find(|(controllers, path)| controllers.split(',').any(|c| c == "cpu") && *path != "/");
    let v2 = || groups().find(|(controllers, _)| controllers.is_empty());
    v1.or_else(v2).or_else(|| groups().next()).map(|(_, path)| path)
}

/// The device with the transaction log that a process has open (`log.` and a zxid), as `sda1 8:1`.
fn device_of_log(pid: u32) -> Option<String> {
    let is_log = |target: &Path| {
        let zxid =
            target.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("log."));
        zxid.is_some_and(|zxid| !zxid.is_empty() && zxid.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().map(|entry| entry.path());
    let log = descriptors.find(|path| fs::read_link(path).is_ok_and(|target| is_log(&target)))?;
    let device = fs::metadata(log).ok()?.dev();
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let name = fs::read_link(format!("/sys/dev/block/{number}")).ok();
    let name = name.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    Some(name.map_or_else(|| number.clone(), |name| format!("{name} {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cause: usize) -> SegmentRecord {
        let mut comm = [0; 16];
        comm[..12].copy_from_slice(b"SyncThread:3");
        let mut other_comm = [0; 16];
        other_comm[..4].copy_from_slice(b"busy");
        SegmentRecord {
            cause: cause as u32,
            tgid: std::process::id(),
            tid: 7,
            began_at: 10,
            ended_at: 20,
            call: 230,
            other_tid: 8,
            other_tgid: std::process::id(),
            comm,
            other_comm,
            ..SegmentRecord::default()
        }
    }

    #[test]
    fn each_cause_has_its_own_clue() {
        let mut interpreter = Interpreter::new();
        let clue = interpreter.clue(&record(cause::SLEEP));
        assert_eq!((clue.thread.as_str(), clue.call.as_deref()), ("SyncThread:3", Some("clock_nanosleep")));
        assert_eq!((clue.waker, clue.preemptor, clue.device), (None, None, None));
        let clue = interpreter.clue(&record(cause::LOCK));
        assert_eq!(clue.waker.map(|w| (w.comm, w.tid)), Some(("busy".into(), 8)));
        // One without a clock is asked for its name.
        let nameless =
            SegmentRecord { other_tid: std::process::id(), other_comm: [0; 16], ..record(cause::LOCK) };
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(interpreter.clue(&nameless).waker.map(|w| w.comm), Some(own.trim_end().to_owned()));
        assert_eq!(interpreter.clue(&SegmentRecord { other_tid: 0, ..record(cause::LOCK) }).waker, None);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = cpu_cgroup(&own).map(str::to_owned);
        let preemptor = interpreter.clue(&record(cause::RUN_QUEUE)).preemptor.unwrap();
        assert_eq!((preemptor.comm.as_str(), preemptor.cgroup), ("busy", own.clone()));
        assert_eq!(interpreter.clue(&record(cause::CPU_THROTTLE)).cgroup, own);
        // A process that is gone can no more be asked: ids end before this one.
        let gone = SegmentRecord { other_tgid: u32::MAX, ..record(cause::RUN_QUEUE) };
        assert_eq!(interpreter.clue(&gone).preemptor.unwrap().cgroup, None);
    }

    #[test]
    fn answers_are_good_for_a_while() {
        let mut answers = Answers::default();
        let mut asked = 0;
        for now in [0, FRESH_NS - 1, FRESH_NS, FRESH_NS + 1] {
            answers.get(1, now, |_| {
                asked += 1;
                None
            });
        }
        assert_eq!(asked, 2);
        (0..3 * REMEMBERED as u32).for_each(|pid| assert_eq!(answers.get(pid, 0, |_| None), None));
        assert!(answers.0.len() <= REMEMBERED);
    }

    #[test]
    fn the_scheduler_itself_is_no_place_to_wait() {
        for function in ["schedule", "__schedule", "io_schedule_timeout", "schedule_hrtimeout_range_clock"] {
            assert!(is_scheduler(function), "{function}");
        }
        for function in ["do_nanosleep", "futex_wait_queue", "jbd2_log_wait_commit", "do_signal_stop"] {
            assert!(!is_scheduler(function), "{function}");
        }
    }

    #[test]
    fn the_control_group_is_that_which_divides_the_cpu() {
        assert_eq!(cpu_cgroup("0::/system.slice/zk.service\n"), Some("/system.slice/zk.service"));
        assert_eq!(cpu_cgroup("3:memory:/a\n2:cpu,cpuacct:/b:c\n0::/d\n"), Some("/b:c"));
        assert_eq!(cpu_cgroup("2:cpu:/\n0::/d\n"), Some("/d"));
        assert_eq!(cpu_cgroup("2:cpu:/\n"), Some("/"));
        assert_eq!(cpu_cgroup(""), None);
    }

    #[test]
    fn the_device_is_that_of_the_open_log() {
        let dir = std::env::temp_dir().join(format!("clues-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log.100000001");
        let log = fs::File::create(&path).unwrap();
        let device = log.metadata().unwrap().dev();
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let told = device_of_log(std::process::id()).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(told == number || told.ends_with(&format!(" {number}")), "{told}");
        // Other tests of this process may have logs open too.
        assert_eq!(device_of_log(u32::MAX), None);
    }
}
