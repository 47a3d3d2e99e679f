//! The page on host states, word for word.

use serde_json::Value;

use crate::discover::{EnsembleName, Known, Server, Sid, Tgid};
use crate::host::facts::tests::{debian_6_1, debian_6_12, linux_6_18, unprivileged, without_tracefs};
use crate::host::facts::{HostFacts, KernelTypes};
use crate::host::kernels::{Kernel, kernel};
use crate::kernel::OFF;
use crate::model::HookReport;
use crate::plan::{Job, Missing, plan, requirements};

use super::{DoctorReport, ServerLine, render};

fn untried(facts: HostFacts) -> DoctorReport {
    DoctorReport {
        plan: plan(&facts),
        missing: requirements(&facts).err().unwrap_or_default(),
        facts,
        hooks: Vec::new(),
        fence: None,
        servers: Vec::new(),
    }
}

/// Every candidate that comes first works.
fn tried(facts: HostFacts) -> DoctorReport {
    let mut report = untried(facts);
    report.hooks = report.plan.jobs.iter().map(outcome).collect();
    report
}

fn outcome(job: &Job) -> HookReport {
    if job.hook == "irq" {
        return HookReport { hook: job.hook, variant: "", state: OFF, reason: job.remedy.into() };
    }
    let (variant, state, reason) = match (job.candidates.first(), job.left_out.first()) {
        (Some(variant), _) => (variant.name, "attached", job.reason_for(variant.name)),
        (None, out) => (out.map_or("", |out| out.variant), "absent", job.reason_for_none()),
    };
    HookReport { hook: job.hook, variant, state, reason }
}

fn check(report: &DoctorReport, expected: &str) {
    let text = render(report);
    assert_eq!(text, expected);
}

fn follower() -> ServerLine {
    ServerLine {
        pid: 4242,
        sid: Some(2),
        sid_source: "myid".into(),
        ensemble: "orders".into(),
        quorum_port: Some(2888),
        safepoints: None,
        notes: Vec::new(),
    }
}

/// The same, as discovery knows it.
fn discovered(sid: Known<Sid>) -> Server {
    Server {
        tgid: Tgid(4242),
        started: 1,
        sid,
        ensemble: EnsembleName::given("orders"),
        own_quorum_port: Some(2888),
        tick_ms: None,
        quorum_ports: vec![2888],
        peers: Vec::new(),
        net_ns: None,
        writes_to: Known::unasked(),
        config_path: None,
        notes: Vec::new(),
    }
}

fn stranger() -> ServerLine {
    ServerLine {
        pid: 4711,
        sid: None,
        sid_source: "/proc/4711/root is not readable".into(),
        ensemble: "orders".into(),
        quorum_port: None,
        safepoints: None,
        notes: vec![
            "its zoo.cfg cannot be read: CAP_SYS_PTRACE is missing; its sid will be known when it joins"
                .into(),
        ],
    }
}

#[test]
fn a_discovered_server_is_shown_with_the_source_of_its_sid() {
    let known = discovered(Known::Known { value: Sid(2), source: "myid" });
    assert_eq!(ServerLine::from(&known), follower());
    let unknown = ServerLine::from(&discovered(Known::Unknown("no myid".into())));
    assert_eq!((unknown.sid, unknown.sid_source.as_str()), (None, "no myid"));
}

#[test]
fn a_host_with_everything() {
    let mut report = tried(linux_6_18());
    report.servers = vec![follower(), stranger()];
    check(
        &report,
        "\
host
  kernel        6.18.44, x86_64
  kernel types  5386 KiB, 41 of 41 fields found
  privileges    root, with CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
                CAP_SYSLOG CAP_CHECKPOINT_RESTORE CAP_NET_ADMIN; without CAP_SYS_RESOURCE
  processes     all of the host
  /proc hides   nothing
  tracefs       /sys/kernel/tracing
  kallsyms      names the kernel's functions
  lockdown      unknown: no /sys/kernel/security/lockdown: securityfs is not mounted
  cgroups       version 1, with version 2 beside it

hooks
  receive   receive_tp: sees what a server reads from its quorum connections
  send      send_tp: sees what a server writes to its quorum connections
  handed    handed_tp: marks the instant at which bytes are handed to TCP
  arrival   arrival_tp: marks the instant at which bytes reach the socket
  path      path_tp: tells the network from the other node at the leader
  close     close_tp: sees connections close
  thread    thread_tp: sees Termite processes start
  sched     sched_tp: tells what the threads on a proposal's path were doing
  present   present_threads: meets the threads that a server has when the probe comes
  reclaim   reclaim_tp: tells when a thread had to look for free memory itself
  tick      tick_tp: tells where in the kernel a thread is that stays there on the CPU
  irq       off: tells what interrupts took of a thread's time on the CPU
            ask for it with --irq: it costs a little at every interrupt of the host
  flush     flush_functions: times the flush of the transaction log

servers
  pid 4242: ensemble orders, sid 2 (myid), quorum port 2888
  pid 4711: ensemble orders, sid unknown (/proc/4711/root is not readable), quorum port unknown
    its zoo.cfg cannot be read: CAP_SYS_PTRACE is missing; its sid will be known when it joins

ready: all 12 hooks; 2 Termite processes
",
    );
}

#[test]
fn an_old_kernel_says_why_it_uses_the_second_choice() {
    check(
        &tried(debian_6_1()),
        "\
host
  kernel        6.1.0-39-amd64, x86_64
  kernel types  5386 KiB, 41 of 41 fields found
  privileges    root, with CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
                CAP_SYSLOG CAP_CHECKPOINT_RESTORE CAP_NET_ADMIN CAP_SYS_RESOURCE
  processes     all of the host
  /proc hides   nothing
  tracefs       /sys/kernel/tracing
  kallsyms      names the kernel's functions
  lockdown      none
  cgroups       version 2

hooks
  receive   receive_fexit: sees what a server reads from its quorum connections
            why: receive_tp: this kernel has no tracepoint sock_recv_length
  send      send_fexit: sees what a server writes to its quorum connections
            why: send_tp: this kernel has no tracepoint sock_send_length
  handed    handed_fentry: marks the instant at which bytes are handed to TCP
            why: handed_tp: this kernel has no tracepoint tcp_sendmsg_locked
  arrival   arrival_fentry: marks the instant at which bytes reach the socket
            why: arrival_tp: this kernel has no tracepoint sk_data_ready
  path      path_tp: tells the network from the other node at the leader
  close     close_tp: sees connections close
  thread    thread_tp: sees Termite processes start
  sched     sched_tp: tells what the threads on a proposal's path were doing
  present   present_threads: meets the threads that a server has when the probe comes
  reclaim   reclaim_tp: tells when a thread had to look for free memory itself
  tick      tick_tp: tells where in the kernel a thread is that stays there on the CPU
  irq       off: tells what interrupts took of a thread's time on the CPU
            ask for it with --irq: it costs a little at every interrupt of the host
  flush     flush_functions: times the flush of the transaction log

servers
  no Termite process found

ready: all 12 hooks; no Termite process found
",
    );
}

/// Without tracefs, and ext4's own tracepoints refused.
fn without_flush() -> DoctorReport {
    let mut report = tried(without_tracefs());
    let flush = report.hooks.last_mut().expect("the last job");
    flush.state = "failed";
    flush.reason = format!("flush_ext4: no such tracepoint; {}", report.plan.jobs[12].reason_for_none());
    report
}

#[test]
fn what_is_lost_comes_with_how_to_get_it() {
    check(
        &without_flush(),
        "\
host
  kernel        6.12.43-amd64, x86_64
  kernel types  5386 KiB, 41 of 41 fields found
  privileges    root, with CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
                CAP_SYSLOG CAP_CHECKPOINT_RESTORE CAP_NET_ADMIN CAP_SYS_RESOURCE
  processes     all of the host
  /proc hides   nothing
  tracefs       not mounted
  kallsyms      names the kernel's functions
  lockdown      none
  cgroups       version 2

hooks
  receive   receive_tp: sees what a server reads from its quorum connections
  send      send_tp: sees what a server writes to its quorum connections
  handed    handed_fentry: marks the instant at which bytes are handed to TCP
            why: handed_tp: this kernel has no tracepoint tcp_sendmsg_locked
  arrival   arrival_tp: marks the instant at which bytes reach the socket
  path      path_tp: tells the network from the other node at the leader
  close     close_tp: sees connections close
  thread    thread_tp: sees Termite processes start
  sched     sched_tp: tells what the threads on a proposal's path were doing
  present   present_threads: meets the threads that a server has when the probe comes
  reclaim   reclaim_tp: tells when a thread had to look for free memory itself
  tick      tick_tp: tells where in the kernel a thread is that stays there on the CPU
  irq       off: tells what interrupts took of a thread's time on the CPU
            ask for it with --irq: it costs a little at every interrupt of the host
  flush     not in use: times the flush of the transaction log
            why: flush_ext4: no such tracepoint; flush_functions: this kernel has no function
            __x64_sys_fdatasync; flush_syscalls: tracefs is not mounted
            lost: the stages process, log and send are not told apart
            to get it: mount -t tracefs nodev /sys/kernel/tracing (as root; in a container, the
            host's)

servers
  no Termite process found

ready: 11 of 12 hooks (without flush); no Termite process found
",
    );
}

#[test]
fn a_required_job_that_fails_makes_the_host_unable() {
    let mut report = tried(linux_6_18());
    report.hooks[0] = HookReport {
        hook: "receive",
        variant: "receive_fexit",
        state: "failed",
        reason: "receive_tp: operation not permitted; receive_fexit: operation not permitted".into(),
    };
    let text = render(&report);
    let (_, end) = text.split_once("\nmissing\n").expect("what is missing");
    assert_eq!(end, "\
\x20 a hook for the job receive: receive_tp: operation not permitted; receive_fexit: operation not
  permitted
    to get it: Linux 6.3 or newer, or a kernel that allows fexit programs

not able: a hook for the job receive: receive_tp: operation not permitted; receive_fexit: operation not permitted
");
    assert!(!report.is_able());
    report.missing.push(Missing { what: "x".into(), remedy: "y".into() });
    assert!(render(&report).ends_with("\n\nnot able: 2 things are missing, see above\n"));
}

/// Debian's 6.12 with these types.
fn with(kernel: &Kernel) -> HostFacts {
    HostFacts { types: KernelTypes::Read(Box::new(kernel.shape())), ..debian_6_12() }
}

#[test]
fn a_changed_layout_is_refused_by_the_names_of_its_fields() {
    let mut changed = kernel("6.12");
    changed.rename_field("tcp_sock", "rcv_nxt", "rcv_next");
    changed.rename_type("net", &[4], "netns");
    let report = untried(with(&changed));
    assert!(!report.is_able() && report.facts.offsets().is_none());
    let text = render(&report);
    let types = "\
\x20 kernel types  3 KiB, 39 of 41 fields found; this kernel has no struct net, needed for telling
                connections of different network namespaces apart; tcp_sock has no rcv_nxt in
                this kernel, needed for the instant at which a proposal's last byte arrived
";
    assert!(text.contains(types), "{text}");
    let (_, end) = text.split_once("\nmissing\n").expect("what is missing");
    assert_eq!(
        end,
        "\
\x20 the place of kernel fields: this kernel has no struct net; tcp_sock has no rcv_nxt in this
  kernel
    to get it: use a probe that knows this kernel, and report the lines above

not able: the place of kernel fields: this kernel has no struct net; tcp_sock has no rcv_nxt in this kernel
"
    );
}

#[test]
fn a_changed_hook_is_refused_by_its_name_and_arguments() {
    let mut changed = kernel("6.12");
    changed.rename_type("btf_trace_sock_recv_length", &[8], "btf_trace_sock_read_length");
    changed.change_prototype("tcp_recvmsg", "tcp_sendmsg");
    changed.rename_type("btf_trace_sched_waking", &[8], "btf_trace_sched_woken");
    let text = render(&untried(with(&changed)));
    let sched = "\
\x20 sched     not in use: tells what the threads on a proposal's path were doing
            why: sched_tp: this kernel has no tracepoint sched_waking
            lost: delays have no causes but the flush
";
    assert!(text.contains(sched), "{text}");
    let verdict = "\nnot able: a hook for the job receive: receive_tp: this kernel has no tracepoint \
                   sock_recv_length; receive_fexit: function tcp_recvmsg has 3 arguments in this kernel, which \
                   the program does not know\n";
    assert!(text.ends_with(verdict), "{text}");
}

/// The states of hosts that the other tests use have the hooks of the kernels that they are named after.
#[test]
fn kernels_as_they_are_give_the_plans_of_the_hosts_made_by_hand() {
    for (name, by_hand) in [("6.1", debian_6_1()), ("6.12-cloud", debian_6_12()), ("6.12-rt", debian_6_12())]
    {
        assert_eq!(plan(&with(&kernel(name))), plan(&by_hand), "{name}");
        assert_eq!(requirements(&with(&kernel(name))), Ok(()), "{name}");
    }
    assert_eq!(plan(&with(&kernel("6.18"))), plan(&linux_6_18()));
}

#[test]
fn json_holds_the_same() {
    let mut report = without_flush();
    report.servers.push(stranger());
    let json: Value = serde_json::from_str(&report.to_json().expect("plain data")).expect("JSON");
    assert_eq!(json["ready"], true);
    assert_eq!(json["facts"]["kernel"], "6.12.43-amd64");
    assert_eq!(json["facts"]["tracefs"], "absent");
    assert_eq!(json["facts"]["capabilities"][0], "CAP_BPF");
    assert_eq!(json["facts"]["types"]["read"]["functions"]["tcp_recvmsg"], 5);
    let jobs = &json["plan"]["jobs"];
    assert_eq!(jobs[0]["candidates"][0]["programs"][0]["attach"]["tp_btf"], "sock_recv_length");
    let flush =
        jobs.as_array().and_then(|jobs| jobs.iter().position(|job| job["hook"] == "flush")).expect("a job");
    assert_eq!(jobs[flush]["left_out"][1]["reason"], "tracefs is not mounted");
    assert_eq!(jobs[flush]["candidates"][0]["file_system"], "ext4");
    assert_eq!(json["hooks"][flush]["state"], "failed");
    assert_eq!(json["servers"][0]["sid"], Value::Null);
}

#[test]
fn an_ordinary_user_is_told_what_to_do() {
    check(
        &untried(unprivileged()),
        "\
host
  kernel        6.12.43-amd64, x86_64
  kernel types  5386 KiB, 41 of 41 fields found
  privileges    user 1000, without CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_PTRACE
                CAP_DAC_READ_SEARCH CAP_SYSLOG CAP_CHECKPOINT_RESTORE CAP_NET_ADMIN
                CAP_SYS_RESOURCE
                CAP_SYS_PTRACE would open the zoo.cfg and myid of other users' servers
                CAP_DAC_READ_SEARCH would open files that only their owner may read
  processes     all of the host
  /proc hides   nothing
  tracefs       /sys/kernel/tracing cannot be read: permission denied
  kallsyms      hides where the kernel's functions are: stacks in the evidence have addresses in
                place of names; CAP_SYSLOG would show them
  lockdown      none
  cgroups       version 2

hooks
  receive   receive_tp (not tried): sees what a server reads from its quorum connections
  send      send_tp (not tried): sees what a server writes to its quorum connections
  handed    handed_fentry (not tried): marks the instant at which bytes are handed to TCP
            why: handed_tp: this kernel has no tracepoint tcp_sendmsg_locked
  arrival   arrival_tp (not tried): marks the instant at which bytes reach the socket
  path      path_tp (not tried): tells the network from the other node at the leader
  close     close_tp (not tried): sees connections close
  thread    thread_tp (not tried): sees Termite processes start
  sched     sched_tp (not tried): tells what the threads on a proposal's path were doing
  present   present_threads (not tried): meets the threads that a server has when the probe
            comes
  reclaim   reclaim_tp (not tried): tells when a thread had to look for free memory itself
  tick      tick_tp (not tried): tells where in the kernel a thread is that stays there on the
            CPU
  irq       irq_tp (not tried): tells what interrupts took of a thread's time on the CPU
  flush     flush_functions (not tried): times the flush of the transaction log

servers
  no Termite process found

missing
  privileges to load kernel programs: CAP_BPF and CAP_PERFMON
    to get it: run it with sudo; or give the binary its capabilities once: setcap
    cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep FILE; or in Kubernetes add BPF,
    PERFMON and SYS_PTRACE to securityContext.capabilities

not able: privileges to load kernel programs: CAP_BPF and CAP_PERFMON
",
    );
}
