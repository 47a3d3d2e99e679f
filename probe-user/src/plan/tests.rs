//! The plan on host states as fixtures.

use std::collections::BTreeSet;
use std::path::Path;

use crate::host::facts::tests::{
    debian_6_1, debian_6_12, linux_6_18, unprivileged, without_btf, without_tracefs,
};
use crate::host::facts::{
    Capabilities, EVENTS, FUNCTIONS, Fact, HostFacts, KernelShape, KernelTypes, Lockdown, ProcessView,
    TRACEPOINTS, Tracefs,
};
use crate::host::offsets::LostField;

use super::{Attach, JOBS, plan, requirements};

/// One line a job: candidates in order, then what is left out.
fn check(facts: &HostFacts, expected: &str) {
    let mut lines = String::new();
    for job in plan(facts).jobs {
        let candidates: Vec<&str> = job.candidates.iter().map(|variant| variant.name).collect();
        lines += &format!("{}: {}", job.hook, candidates.join(" "));
        for out in job.left_out {
            lines += &format!(" | {}: {}", out.variant, out.reason);
        }
        lines += "\n";
    }
    assert_eq!(lines, expected);
}

fn change_shape(mut facts: HostFacts, change: impl FnOnce(&mut KernelShape)) -> HostFacts {
    match &mut facts.types {
        KernelTypes::Read(shape) => change(shape),
        other => panic!("{other:?}"),
    }
    facts
}

/// What is missing, one line each.
fn missing(facts: &HostFacts) -> Vec<String> {
    let list = requirements(facts).err().unwrap_or_default();
    assert!(list.iter().all(|missing| !missing.remedy.is_empty()));
    list.into_iter().map(|missing| missing.what).collect()
}

#[test]
fn linux_6_18_has_every_variant() {
    check(
        &linux_6_18(),
        "receive: receive_tp receive_fexit\n\
         send: send_tp send_fexit\n\
         handed: handed_tp handed_fentry\n\
         arrival: arrival_tp arrival_fentry\n\
         path: path_tp\n\
         close: close_tp\n\
         thread: thread_tp\n\
         sched: sched_tp\n\
         present: present_threads\n\
         reclaim: reclaim_tp\n\
         tick: tick_tp\n\
         irq: irq_tp\n\
         flush: flush_functions flush_ext4 flush_syscalls\n",
    );
    assert_eq!(requirements(&linux_6_18()), Ok(()));
}

#[test]
fn debian_6_12_hands_over_by_fentry() {
    check(
        &debian_6_12(),
        "receive: receive_tp receive_fexit\n\
         send: send_tp send_fexit\n\
         handed: handed_fentry | handed_tp: this kernel has no tracepoint tcp_sendmsg_locked\n\
         arrival: arrival_tp arrival_fentry\n\
         path: path_tp\n\
         close: close_tp\n\
         thread: thread_tp\n\
         sched: sched_tp\n\
         present: present_threads\n\
         reclaim: reclaim_tp\n\
         tick: tick_tp\n\
         irq: irq_tp\n\
         flush: flush_functions flush_ext4 flush_syscalls\n",
    );
    assert_eq!(requirements(&debian_6_12()), Ok(()));
}

#[test]
fn debian_6_1_uses_functions_only() {
    check(
        &debian_6_1(),
        "receive: receive_fexit | receive_tp: this kernel has no tracepoint sock_recv_length\n\
         send: send_fexit | send_tp: this kernel has no tracepoint sock_send_length\n\
         handed: handed_fentry | handed_tp: this kernel has no tracepoint tcp_sendmsg_locked\n\
         arrival: arrival_fentry | arrival_tp: this kernel has no tracepoint sk_data_ready\n\
         path: path_tp\n\
         close: close_tp\n\
         thread: thread_tp\n\
         sched: sched_tp\n\
         present: present_threads\n\
         reclaim: reclaim_tp\n\
         tick: tick_tp\n\
         irq: irq_tp\n\
         flush: flush_functions flush_ext4 flush_syscalls\n",
    );
    assert_eq!(requirements(&debian_6_1()), Ok(()));
}

#[test]
fn without_tracefs_only_the_flushes_of_one_file_system_may_be_seen() {
    let plan = plan(&without_tracefs());
    let flush = plan.jobs.last().expect("the last job");
    let names: Vec<&str> = flush.candidates.iter().map(|variant| variant.name).collect();
    assert_eq!((flush.hook, names), ("flush", vec!["flush_ext4"]), "which is tried");
    let reason = "flush_functions: this kernel has no function __x64_sys_fdatasync; \
                  flush_syscalls: tracefs is not mounted";
    assert_eq!(flush.reason_for_none(), reason);
    assert_eq!(requirements(&without_tracefs()), Ok(()));
}

#[test]
fn where_tracefs_tells_of_no_ext4_it_is_not_tried() {
    let mut facts = linux_6_18();
    if let Tracefs::Readable { events, .. } = &mut facts.tracefs {
        events.insert("ext4_sync_file_exit", false);
    }
    let plan = plan(&facts);
    let flush = plan.jobs.last().expect("the last job");
    let left_out: Vec<_> = flush.left_out.iter().map(|out| (out.variant, out.reason.as_str())).collect();
    let there_is_none = "there is no /sys/kernel/tracing/events/ext4/ext4_sync_file_exit/id";
    assert_eq!(left_out, [("flush_ext4", there_is_none)]);
}

#[test]
fn without_btf_the_host_is_unable_and_it_is_said_once() {
    let facts = without_btf();
    assert!(plan(&facts).jobs.iter().all(|job| job.candidates.is_empty()));
    assert_eq!(missing(&facts), ["the kernel's type information: /sys/kernel/btf/vmlinux does not exist"]);
}

#[test]
fn an_ordinary_user_is_told_which_capabilities_are_missing() {
    assert_eq!(missing(&unprivileged()), ["privileges to load kernel programs: CAP_BPF and CAP_PERFMON"]);
    let with = |bits: u64| HostFacts { capabilities: Fact::Known(Capabilities(bits)), ..unprivileged() };
    assert_eq!(missing(&with(1 << 39)), ["privileges to load kernel programs: CAP_PERFMON"]);
    assert!(missing(&with(1 << 39 | 1 << 38)).is_empty());
    assert!(missing(&with(1 << 21)).is_empty());
    let untold = Fact::Unknown { unknown: "no /proc".into() };
    assert!(missing(&HostFacts { capabilities: untold, ..unprivileged() }).is_empty());
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    let facts = HostFacts {
        architecture: "aarch64".into(),
        lockdown: Fact::Known(Lockdown::Confidentiality),
        processes: Fact::Known(ProcessView::Container),
        ..change_shape(debian_6_1(), |shape| {
            shape.functions.insert("tcp_recvmsg", None);
            shape.lost_fields.push(LostField {
                field: "tcp_sock.rcv_nxt".into(),
                reason: "tcp_sock has no rcv_nxt in this kernel".into(),
                needed_for: "arrivals",
            });
        })
    };
    assert_eq!(
        missing(&facts),
        [
            "an x86_64 host: this one is aarch64",
            "the place of kernel fields: tcp_sock has no rcv_nxt in this kernel",
            "permission to read kernel memory: this kernel is locked down for confidentiality",
            "the host's process ids: /proc shows those of a container",
            "a hook for the job receive: receive_tp: this kernel has no tracepoint sock_recv_length; \
             receive_fexit: this kernel has no function tcp_recvmsg",
        ]
    );
}

#[test]
fn a_changed_prototype_rules_a_variant_out() {
    let facts = change_shape(linux_6_18(), |shape| {
        shape.tracepoints.insert("sock_recv_length", Some(4));
        shape.functions.insert("tcp_recvmsg", Some(6));
    });
    let plan = plan(&facts);
    assert_eq!(
        plan.jobs[0].reason_for_none(),
        "receive_tp: tracepoint sock_recv_length has 4 arguments in this kernel, which the program does not \
         know; receive_fexit: function tcp_recvmsg has 6 arguments in this kernel, which the program does not \
         know"
    );
}

#[test]
fn the_reason_for_a_variant_names_only_better_ones() {
    let facts = change_shape(linux_6_18(), |shape| {
        shape.tracepoints.insert("sk_data_ready", None);
        shape.functions.insert("tcp_sendmsg", None);
    });
    let plan = plan(&facts);
    assert_eq!(plan.jobs[1].reason_for("send_tp"), "first choice");
    assert_eq!(
        plan.jobs[3].reason_for("arrival_fentry"),
        "arrival_tp: this kernel has no tracepoint sk_data_ready"
    );
}

#[test]
fn all_hooks_are_looked_up_and_all_names_are_unique() {
    let mut names = BTreeSet::new();
    for program in JOBS.iter().flat_map(|job| job.variants).flat_map(|variant| variant.programs) {
        assert!(names.insert(program.name), "{} is there twice", program.name);
        let known = match program.attach {
            Attach::TpBtf(name) => TRACEPOINTS.contains(&name),
            Attach::Fentry(name) | Attach::Fexit(name) | Attach::Iter(name) => FUNCTIONS.contains(&name),
            Attach::Tracepoint { category, name } | Attach::RawTracepoint { category, name } => {
                EVENTS.contains(&(category, name))
            }
        };
        assert!(known, "facts do not look up the hook of {}", program.name);
    }
}

/// The prototypes in the table are those of the kernel under the tests.
#[test]
fn the_running_kernel_has_the_prototypes() {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        eprintln!("SKIPPED the_running_kernel_has_the_prototypes: /sys/kernel/btf/vmlinux does not exist");
        return;
    }
    for job in plan(&HostFacts::gather()).jobs {
        for out in job.left_out {
            assert!(!out.reason.contains("arguments"), "{}: {}", out.variant, out.reason);
        }
    }
}

#[test]
fn functions_stand_in_for_tracepoints_on_request() {
    let mut plan = plan(&debian_6_12());
    plan.prefer_functions();
    let first: Vec<&str> =
        plan.jobs.iter().filter_map(|job| Some(job.candidates.first()?.name)).take(5).collect();
    assert_eq!(first, ["receive_fexit", "send_fexit", "handed_fentry", "arrival_fentry", "path_tp"]);
    assert_eq!(plan.jobs[0].reason_for("receive_fexit"), "receive_tp: kernel functions are asked for");
}
