//! The parts of a delay for people: a bar of letters and a verdict in words.
//!
//! In: parts and clues. Out: text without colour. Invariants: the bar has [`CELLS`] cells, or none for a delay of
//! nothing; every cause has a letter of its own. Deliberately absent: the row around them.
#![forbid(unsafe_code)]

use std::sync::Arc;

use probe_ebpf::cause::{self, Parts};

use crate::evidence::{Clue, Other};

/// Cells of a bar: each stands for a tenth.
pub(crate) const CELLS: u64 = 10;
/// A letter for each cause.
const LETTERS: [char; cause::COUNT] =
    ['C', 'Q', 'T', 'G', 'P', 'F', 'D', 'M', 'K', 'L', 'S', 'I', 'X', 'N', 'R', '?'];
/// What the letters stand for.
pub(crate) const LEGEND: &str = "\
PARTS: a letter for each tenth of the delay
  C on_cpu  Q run_queue  T cpu_throttle  G gc  P safepoint  F fsync  D disk_io  M reclaim
  K kernel_wait  L lock  S sleep  I irq  X stopped  N network  R remote  ? unexplained";

/// Other parts than the largest are named from this share on, in percent; unexplained ones from 1 % on.
const NAMED_PERCENT: u64 = 2;
/// Parts that are named.
const NAMED: usize = 4;
/// Columns of a control group's path; of a longer one the end is shown.
const PATH_WIDTH: usize = 40;

/// The parts that are not zero, the largest first.
fn by_size(parts: &Parts) -> Vec<(usize, u64)> {
    let mut sorted: Vec<_> = parts.iter().copied().enumerate().filter(|(_, ns)| *ns > 0).collect();
    sorted.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    sorted
}

/// The bar: the largest part first, each as many cells as it has tenths; what rounding leaves over goes where most was
/// cut off.
pub(crate) fn bar(parts: &Parts) -> String {
    let sorted = by_size(parts);
    let whole: u128 = sorted.iter().map(|(_, ns)| u128::from(*ns)).sum();
    if whole == 0 {
        return " ".repeat(CELLS as usize);
    }
    let exact = |ns: u64| u128::from(ns) * u128::from(CELLS);
    let mut cells: Vec<u128> = sorted.iter().map(|(_, ns)| exact(*ns) / whole).collect();
    let mut by_rest: Vec<usize> = (0..sorted.len()).collect();
    by_rest.sort_by_key(|i| std::cmp::Reverse(exact(sorted[*i].1) % whole));
    let left = u128::from(CELLS) - cells.iter().sum::<u128>();
    by_rest.iter().take(left as usize).for_each(|i| cells[*i] += 1);
    sorted
        .iter()
        .zip(cells)
        .flat_map(|((cause, _), n)| std::iter::repeat_n(LETTERS[*cause], n as usize))
        .collect()
}

/// The verdict: the largest part with its evidence, then as many others as there is room for.
pub(crate) fn verdict(parts: &Parts, clues: &[Arc<Clue>], room: usize) -> String {
    let sorted = by_size(parts);
    let whole: u128 = sorted.iter().map(|(_, ns)| u128::from(*ns)).sum();
    let mut text = String::new();
    for (cause, ns) in sorted.into_iter().take(NAMED) {
        let percent = ((u128::from(ns) * 100 + whole / 2) / whole) as u64;
        let name = format!("{percent} % {}", cause::NAMES[cause]);
        let told = best(clues, cause).and_then(|clue| details(clue));
        let long = told.map_or_else(|| name.clone(), |told| format!("{name} ({told})"));
        if text.is_empty() {
            text = long;
            continue;
        }
        if percent < if cause == cause::UNEXPLAINED { 1 } else { NAMED_PERCENT } {
            continue;
        }
        let fits = |more: &str| text.chars().count() + 2 + more.chars().count() <= room;
        if fits(&long) {
            text = format!("{text}, {long}");
        } else if fits(&name) {
            text = format!("{text}, {name}");
        }
    }
    text
}

/// Of the clues of a cause the one that says most: the longest, but one with an operation before all.
fn best(clues: &[Arc<Clue>], cause: usize) -> Option<&Arc<Clue>> {
    let mut own = clues.iter().filter(|clue| clue.cause == cause);
    own.clone().find(|clue| clue.operation.is_some()).or_else(|| own.next())
}

/// What a clue adds to the name of its cause.
pub(super) fn details(clue: &Clue) -> Option<String> {
    match clue.cause {
        cause::GC | cause::SAFEPOINT => clue.operation.clone(),
        cause::RUN_QUEUE => clue.preemptor.as_ref().map(|other| behind(other, clue.pid)),
        cause::CPU_THROTTLE => clue.cgroup.as_ref().map(|path| format!("cgroup {}", end_of(path))),
        cause::LOCK => clue.waker.as_ref().map(|w| format!("released by {}[{}]", w.comm, w.tid)),
        cause::FSYNC => match (&clue.device, place(&clue.stack)) {
            (Some(device), Some(place)) => Some(format!("{device}, in {place}")),
            (Some(device), None) => Some(device.clone()),
            (None, place) => place.map(|place| format!("in {place}")),
        },
        cause::SLEEP => clue.call.as_ref().map(|call| format!("in {call}")),
        cause::STOPPED => stopped_by(&clue.stack).map(str::to_owned),
        _ => place(&clue.stack).map(|place| format!("in {place}")),
    }
}

fn behind(other: &Other, own_pid: u32) -> String {
    let who = format!("behind {}[{}]", other.comm, other.tid);
    match (other.pid, &other.cgroup) {
        (Some(0), _) => "its CPU was idle".to_owned(),
        (Some(pid), _) if pid == own_pid => format!("{who} of its own process"),
        (_, Some(path)) if path != "/" => format!("{who} in {}", end_of(path)),
        _ => who,
    }
}

/// The end of a long path.
fn end_of(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH_WIDTH {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length + 1 - PATH_WIDTH).collect();
    format!("…{end}")
}

/// Where a thread waited: the innermost functions before the way into the kernel.
fn place(stack: &[String]) -> Option<String> {
    const WAY_IN: [&str; 6] = ["do_syscall_", "entry_", "x64_sys_call", "__x64_sys_", "asm_", "exc_"];
    let inside = stack.iter().take_while(|f| !WAY_IN.iter().any(|start| f.starts_with(start)));
    let named: Vec<&str> = inside.map(String::as_str).filter(|f| !f.starts_with("0x")).take(2).collect();
    (!named.is_empty()).then(|| named.join(" < "))
}

/// What stopped a thread, by where in the kernel it stands.
fn stopped_by(stack: &[String]) -> Option<&'static str> {
    const PLACES: [(&str, &str); 5] = [
        ("do_signal_stop", "by a signal"),
        ("ptrace_stop", "by a tracer"),
        ("do_freezer_trap", "frozen"),
        ("__refrigerator", "frozen"),
        ("get_signal", "by a signal"),
    ];
    stack.iter().find_map(|f| PLACES.iter().find(|(start, _)| f.starts_with(start)).map(|(_, by)| *by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(some: &[(usize, u64)]) -> Parts {
        let mut parts = [0; cause::COUNT];
        some.iter().for_each(|(cause, ns)| parts[*cause] = *ns);
        parts
    }

    #[test]
    fn a_bar_shows_tenths() {
        let check = |some: &[(usize, u64)], expected: &str| assert_eq!(bar(&parts(some)), expected);
        check(&[(cause::GC, 98), (cause::RUN_QUEUE, 2)], "GGGGGGGGGG");
        check(&[(cause::ON_CPU, 30), (cause::FSYNC, 70)], "FFFFFFFCCC");
        check(&[(cause::ON_CPU, 1), (cause::LOCK, 1), (cause::SLEEP, 1)], "CCCCLLLSSS");
        check(&[(cause::UNEXPLAINED, u64::MAX), (cause::IRQ, 1)], "??????????");
        check(&[], "          ");
    }

    proptest! {
        #[test]
        fn a_bar_has_its_width(parts in prop::array::uniform16(any::<u64>())) {
            prop_assert_eq!(bar(&parts).chars().count() as u64, CELLS);
        }
    }

    #[test]
    fn every_letter_is_in_the_legend_and_means_one_cause() {
        for (index, (letter, name)) in LETTERS.iter().zip(cause::NAMES).enumerate() {
            assert!(LEGEND.contains(&format!("{letter} {name}")), "{letter} {name}");
            assert!(!LETTERS[..index].contains(letter), "{letter} twice");
        }
    }

    #[test]
    fn the_largest_part_has_its_evidence_and_small_ones_their_name() {
        let clue = |cause| Clue { cause, ..Clue::default() };
        let operation = Clue { operation: Some("G1 full, G1CollectForAllocation".into()), ..clue(cause::GC) };
        let clues = [Arc::new(clue(cause::GC)), Arc::new(operation)];
        let delay = parts(&[(cause::GC, 980), (cause::RUN_QUEUE, 20), (cause::ON_CPU, 9)]);
        assert_eq!(verdict(&delay, &clues, 90), "97 % gc (G1 full, G1CollectForAllocation), 2 % run_queue");
        assert_eq!(verdict(&delay, &clues, 50), "97 % gc (G1 full, G1CollectForAllocation)");
        assert_eq!(
            verdict(&parts(&[(cause::ON_CPU, 99), (cause::UNEXPLAINED, 1)]), &[], 90),
            "99 % on_cpu, 1 % unexplained"
        );
        assert_eq!(verdict(&parts(&[]), &[], 90), "");
    }

    #[test]
    fn each_cause_says_what_an_operator_looks_for() {
        let check =
            |clue: Clue, expected: Option<&str>| assert_eq!(details(&clue).as_deref(), expected, "{clue:?}");
        let of = |cause| Clue { cause, pid: 9, ..Clue::default() };
        let stack = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let other = |pid, cgroup: Option<&str>| {
            Some(Other {
                tid: 4711,
                pid: Some(pid),
                comm: "stress-ng".into(),
                cgroup: cgroup.map(str::to_owned),
            })
        };
        let behind = |pid, cgroup| Clue { preemptor: other(pid, cgroup), ..of(cause::RUN_QUEUE) };
        check(behind(5, Some("/user.slice")), Some("behind stress-ng[4711] in /user.slice"));
        check(behind(5, Some("/")), Some("behind stress-ng[4711]"));
        check(behind(5, None), Some("behind stress-ng[4711]"));
        check(behind(9, Some("/zk")), Some("behind stress-ng[4711] of its own process"));
        check(behind(0, None), Some("its CPU was idle"));
        let long = format!("/kubepods.slice/{}/zk.scope", "x".repeat(60));
        let cgroup = Clue { cgroup: Some(long), ..of(cause::CPU_THROTTLE) };
        assert!(details(&cgroup).unwrap().ends_with("xxx/zk.scope"));
        assert_eq!(details(&cgroup).unwrap().chars().count(), "cgroup ".len() + PATH_WIDTH);
        check(Clue { waker: other(9, None), ..of(cause::LOCK) }, Some("released by stress-ng[4711]"));
        check(Clue { call: Some("clock_nanosleep".into()), ..of(cause::SLEEP) }, Some("in clock_nanosleep"));
        let wait = stack(&["jbd2_log_wait_commit", "ext4_sync_file", "__x64_sys_fdatasync", "do_syscall_64"]);
        let flush = Clue { stack: wait.clone(), ..of(cause::FSYNC) };
        check(flush.clone(), Some("in jbd2_log_wait_commit < ext4_sync_file"));
        let flush = Clue { device: Some("sda1 8:1".into()), ..flush };
        check(flush, Some("sda1 8:1, in jbd2_log_wait_commit < ext4_sync_file"));
        check(
            Clue { stack: wait, ..of(cause::KERNEL_WAIT) },
            Some("in jbd2_log_wait_commit < ext4_sync_file"),
        );
        check(Clue { stack: stack(&["0xffffffff81000000"]), ..of(cause::KERNEL_WAIT) }, None);
        check(
            Clue { stack: stack(&["do_signal_stop", "get_signal"]), ..of(cause::STOPPED) },
            Some("by a signal"),
        );
        check(
            Clue { stack: stack(&["do_freezer_trap", "get_signal"]), ..of(cause::STOPPED) },
            Some("frozen"),
        );
        check(of(cause::STOPPED), None);
        check(of(cause::GC), None);
    }
}
