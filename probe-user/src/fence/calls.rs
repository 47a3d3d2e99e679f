//! The system calls that a running probe may make.
//!
//! In: the probe's own ids. Out: a filter. Invariants: what is not listed is refused with EPERM; no listed call starts a
//! program or a thread, opens a file for writing, changes a file system, maps memory that can be executed, looks into or
//! signals another process, or brings a new program or map into the kernel. Deliberately absent: installing it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Calls that may be made with any arguments. Where a libc has two of a kind (musl: `open`, glibc: `openat`), both are here.
const ANY: &[libc::c_long] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // reading files, directories and links; what may be opened is in `opened`
    libc::SYS_access,
    libc::SYS_close,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_stat,
    libc::SYS_statx,
    // answers, lines and questions to a name server, on descriptors that are open; which sockets are made is in `sockets`
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    // waiting, and the clock where the vDSO has none
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_pidfd_open,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_time,
    // signals to itself, who it is, the end
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Commands of bpf(2) on what is loaded already: maps are read and written, programs asked for their account, programs
/// attached to a JVM that has come, tasks walked over. Values of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_COMMANDS: [u64; 7] = [1, 2, 3, 4, 15, 28, 33];

/// `PERF_EVENT_IOC_ENABLE`, `_DISABLE` and `_SET_BPF` of include/uapi/linux/perf_event.h: attaching to a JVM that has come.
const PERF_REQUESTS: [u64; 3] = [0x2400, 0x2401, 0x4004_2408];

/// `FIONBIO`, `FIOCLEX`, `TCGETS` and `TIOCGWINSZ` of include/uapi/asm-generic/ioctls.h, whose type depends on the libc:
/// descriptors that do not block and close on exec, and what the output is.
const PLAIN_REQUESTS: [u64; 4] = [0x5421, 0x5451, 0x5401, 0x5413];
/// The same by fcntl.
const DESCRIPTOR_COMMANDS: [libc::c_int; 6] =
    [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL, libc::F_SETFD, libc::F_SETFL];

/// `__O_TMPFILE` of include/uapi/asm-generic/fcntl.h: a file without a name. libc's `O_TMPFILE` holds `O_DIRECTORY` too.
const NAMELESS: libc::c_int = 0o20_000_000;
/// The kind of socket, without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`: `SOCK_TYPE_MASK`, include/linux/net.h.
const SOCKET_KIND: u64 = 0xf;
/// All processes, as perf_event_open says it.
const EVERY_PROCESS: u64 = -1_i32 as u32 as u64;

/// How many calls there are.
pub(super) fn count() -> usize {
    rules(0, 0).map_or(0, |rules| rules.len())
}

/// The filter for a process and its thread.
pub(super) fn filter(pid: u32, tid: u32) -> Result<BpfProgram, BackendError> {
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules(pid, tid)?, refuse, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(pid: u32, tid: u32) -> Result<Rules, BackendError> {
    let mut rules: Rules = ANY.iter().map(|call| (*call, Vec::new())).collect();
    opened(&mut rules)?;
    sockets(&mut rules)?;
    // A panic in a panic ends the probe by a signal to itself.
    rules.insert(libc::SYS_tgkill, one_of(0, &[pid.into()])?);
    rules.insert(libc::SYS_tkill, one_of(0, &[tid.into()])?);
    rules.insert(libc::SYS_bpf, one_of(0, &BPF_COMMANDS)?);
    rules.insert(libc::SYS_perf_event_open, one_of(1, &[EVERY_PROCESS])?);
    rules.insert(libc::SYS_ioctl, one_of(1, &[&PERF_REQUESTS[..], &PLAIN_REQUESTS].concat())?);
    rules.insert(libc::SYS_fcntl, one_of(1, &DESCRIPTOR_COMMANDS.map(|command| command as u64))?);
    let executable = libc::PROT_EXEC as u64;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![none_of(2, executable)?])?]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![none_of(2, executable)?])?]);
    Ok(rules)
}

/// Files that are there, for reading. `openat2` hands its flags over in memory, which a filter cannot see: it is refused.
fn opened(rules: &mut Rules) -> Result<(), BackendError> {
    let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | NAMELESS) as u64;
    rules.insert(libc::SYS_open, vec![SeccompRule::new(vec![none_of(1, writing)?])?]);
    rules.insert(libc::SYS_openat, vec![SeccompRule::new(vec![none_of(2, writing)?])?]);
    Ok(())
}

/// Datagrams over IP, for the names of servers in a zoo.cfg.
fn sockets(rules: &mut Rules) -> Result<(), BackendError> {
    let kind = || equal_under(1, SOCKET_KIND, libc::SOCK_DGRAM as u64);
    let family = |family: libc::c_int| SeccompRule::new(vec![equal(0, family as u64)?, kind()?]);
    rules.insert(libc::SYS_socket, vec![family(libc::AF_INET)?, family(libc::AF_INET6)?]);
    Ok(())
}

/// The argument has one of these values.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| SeccompRule::new(vec![equal(argument, *value)?])).collect()
}

/// The argument, of 32 bits, has this value.
fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The argument has none of these bits.
fn none_of(argument: u8, bits: u64) -> Result<SeccompCondition, BackendError> {
    equal_under(argument, bits, 0)
}

fn equal_under(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}
