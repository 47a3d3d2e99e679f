//! Types that cross the kernel's edge: what user space hands to the programs ([`Offsets`], [`Config`])
//! and what the ring buffer carries back ([`Record`]s). Map values live beside their logic
//! ([`crate::link::Link`], [`crate::link::Rings`]).
//!
//! Invariant: fixed-width integers and byte arrays, explicit padding, sizes asserted at compile time, no
//! payload byte. Deliberately absent: `bool`, `Option` and enums with data.

use crate::cause::Parts;
use crate::network::Way;

/// How a link looks from its host: the value of [`crate::link::Identity::side`].
pub mod side {
    /// This host's process is the learner (follower or observer) and connected to the leader.
    pub const LEARNER: u8 = 1;
    /// This host's process is the leader and accepted a learner's connection.
    pub const LEADER: u8 = 2;
}

/// What is on the wire of a link: the value of [`crate::link::Link::wire`].
pub mod wire {
    /// Not decided yet: no packet was recognised.
    pub const UNKNOWN: u8 = 0;
    /// Zab in clear.
    pub const PLAIN: u8 = 1;
    /// Zab in clear after a SASL exchange.
    pub const SASL: u8 = 2;
    /// TLS records: only their sizes can be seen.
    pub const TLS: u8 = 3;
}

/// Byte offsets of the kernel fields that the programs read, resolved from the running kernel's BTF by
/// user space and frozen into `.rodata` before the programs are loaded.
///
/// Each comment names the C field; the resolver in the user half carries the same list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sock.__sk_common.skc_num`: local port, host order, u16.
    pub skc_num: u32,
    /// `sock.__sk_common.skc_dport`: remote port, network order, u16.
    pub skc_dport: u32,
    /// `sock.__sk_common.skc_family`: u16.
    pub skc_family: u32,
    /// `sock.__sk_common.skc_rcv_saddr`: local IPv4 address, network order.
    pub skc_rcv_saddr: u32,
    /// `sock.__sk_common.skc_daddr`: remote IPv4 address, network order.
    pub skc_daddr: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`: local IPv6 address.
    pub skc_v6_rcv_saddr: u32,
    /// `sock.__sk_common.skc_v6_daddr`: remote IPv6 address.
    pub skc_v6_daddr: u32,
    /// `sock.__sk_common.skc_net.net`: pointer to the network namespace.
    pub skc_net: u32,
    /// `sock.__sk_common.skc_flags`: bits of `enum sock_flags`, u64.
    pub skc_flags: u32,
    /// `net.ns.inum`: the inode number that /proc/PID/ns/net shows.
    pub net_inum: u32,
    /// `tcp_sock.rcv_nxt`: next sequence number expected, u32.
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.copied_seq`: first byte not yet read by the application, u32.
    pub tcp_copied_seq: u32,
    /// `tcp_sock.write_seq`: end of the data handed over by the application, u32.
    pub tcp_write_seq: u32,
    /// `tcp_sock.snd_una`: first byte not yet acknowledged by the peer, u32.
    pub tcp_snd_una: u32,
    /// `tcp_sock.snd_nxt`: end of the data sent, u32.
    pub tcp_snd_nxt: u32,
    /// `tcp_sock.dsack_dups`: segments that the peer reports to have had twice, u32.
    pub tcp_dsack_dups: u32,
    /// `tcp_sock.rtt_min`: a windowed minimum, µs; the value stands behind the u32 of its time.
    pub tcp_rtt_min: u32,
    /// `tcp_sock.rx_opt.rcv_tsval`: timestamp of the last segment, u32.
    pub tcp_rcv_tsval: u32,
    /// `tcp_sock.bytes_received`: stream bytes received in order, u64.
    pub tcp_bytes_received: u32,
    /// `tcp_sock.bytes_acked`: stream bytes acknowledged by the peer, u64.
    pub tcp_bytes_acked: u32,
    /// `sk_buff.sk`: the socket that sends it.
    pub skb_sk: u32,
    /// `sk_buff.head`: begin of its buffer.
    pub skb_head: u32,
    /// `sk_buff.data`: begin of what the present layer sees of it.
    pub skb_data: u32,
    /// `sk_buff.len`: bytes from there, u32.
    pub skb_len: u32,
    /// `sk_buff.transport_header`: offset of the TCP header from `head`, u16.
    pub skb_transport_header: u32,
    /// `task_struct.pid`: thread id.
    pub task_pid: u32,
    /// `task_struct.tgid`: process id.
    pub task_tgid: u32,
    /// `task_struct.comm`: the thread's name, 16 bytes.
    pub task_comm: u32,
    /// `task_struct.in_iowait`: a bit; counted in bits.
    pub task_in_iowait_bit: u32,
    /// `task_struct.flags`: u32.
    pub task_flags: u32,
    /// `task_struct.__state`: what the task waits for, u32.
    pub task_state: u32,
    /// `task_struct.jobctl`: u64.
    pub task_jobctl: u32,
    /// `task_struct.sched_info.run_delay`: waits for a CPU so far, ns, u64; 0 where the kernel does not count them.
    pub task_run_delay: u32,
    /// `task_struct.sched_task_group`: pointer; 0 where control groups have no quota.
    pub task_group: u32,
    /// `task_group.parent`: pointer; 0 as above.
    pub group_parent: u32,
    /// `task_group.cfs_bandwidth.quota`: u64, all ones for none; 0 as above.
    pub group_quota: u32,
    /// `task_group.cfs_bandwidth.throttled_time`: ns, u64; 0 as above.
    pub group_throttled_time: u32,
    /// `pt_regs.orig_ax`: number of the system call in progress.
    pub regs_orig_ax: u32,
    /// `pt_regs.di`: first argument of the system call.
    pub regs_di: u32,
    /// `pt_regs.si`: second argument of the system call.
    pub regs_si: u32,
    /// `pt_regs.dx`: third argument of the system call.
    pub regs_dx: u32,
}

/// What user space asks of the programs, frozen into `.rodata` before they are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Proposals with a delay of at least this are emitted as records; `u64::MAX` for none.
    pub slower_ns: u64,
    /// A delay of at least this counts as a stall.
    pub stall_ns: u64,
    /// Heartbeats are emitted as records too.
    pub heartbeats: u32,
    /// 1 when an arrival hook is attached; else `arrived` falls back to `read` and is marked inferred.
    pub arrival_hook: u32,
    /// 1 when the interrupt hooks are wanted: else their sums are not even looked at.
    pub interrupts: u32,
    /// Slots of clocks below this one are for any thread, the others for those on a proposal's path alone.
    pub shared_clocks: u32,
}

/// Where a socket's state is kept: the value of the socket storage.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketTag {
    /// Index into the link maps, plus one; 0 while none is assigned.
    pub slot_plus_one: u64,
    /// Which use of the slot: a socket that outlives its link must not touch the next one.
    pub generation: u32,
    /// 1 when there was no free slot for this socket: it stays unmeasured and was counted.
    pub refused: u32,
}

/// What the kernel needs to know of a watched process: the value of the process map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Last completed fdatasync or fsync of any of its threads.
    pub flush: Flush,
    /// The port on which this server would listen as leader, 0 when unknown.
    pub own_quorum_port: u32,
    /// 1 when no bytes waited unread on its quorum connections after the hooks were attached: the first
    /// arrival that is seen on such a connection is then that of the first byte that is seen.
    pub drained: u32,
    /// Index into the clocks of JVMs, plus one; 0 for what is no JVM, or while none is assigned.
    pub jvm: u32,
    /// Its `tickTime`, ms; 0 when unknown.
    pub tick_ms: u32,
}

/// One fdatasync or fsync call of a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Entry of the call, monotonic ns.
    pub began_at: u64,
    /// Its return, monotonic ns; 0 while it runs.
    pub ended_at: u64,
}

/// Kinds of records; the index of their emitted and lost counters.
pub mod kind {
    /// [`super::ProposalRecord`].
    pub const PROPOSAL: u32 = 0;
    /// [`super::HeartbeatRecord`].
    pub const HEARTBEAT: u32 = 1;
    /// [`super::TransitionRecord`].
    pub const TRANSITION: u32 = 2;
    /// [`super::ThreadRecord`].
    pub const THREAD: u32 = 3;
    /// [`super::SafepointRecord`].
    pub const SAFEPOINT: u32 = 4;
    /// [`super::SegmentRecord`].
    pub const SEGMENT: u32 = 5;
    /// How many kinds there are.
    pub const COUNT: usize = 6;
    /// Their names in records and metrics.
    pub const NAMES: [&str; COUNT] =
        ["proposal", "heartbeat", "transition", "thread", "safepoint", "segment"];
}

/// Flags of a [`ProposalRecord`].
pub mod flag {
    /// The arrival was not seen; `began_at` is the read (follower) and the delay is a lower bound.
    pub const NO_ARRIVAL: u32 = 1;
    /// The arrival ring was coarse at that point; `began_at` may be late by its quantum.
    pub const COARSE: u32 = 2;
    /// A flush that covers the proposal was seen.
    pub const FLUSHED: u32 = 4;
    /// Inside TLS: which ACK belongs to the proposal was inferred, and `zxid` is a number of ours. It may be shown once a
    /// [`TransitionRecord`] has proven it.
    pub const BY_SIZE: u32 = 8;
}

/// One proposal at one vantage. All instants are monotonic ns; 0 is "not known".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProposalRecord {
    /// [`kind::PROPOSAL`].
    pub kind: u32,
    /// Slot of the link.
    pub slot: u32,
    /// Which use of the slot: [`crate::link::Identity::generation`].
    pub generation: u32,
    /// [`flag`]s.
    pub flags: u32,
    /// The proposal.
    pub zxid: u64,
    /// Follower: `arrived`. Leader: `sent`.
    pub began_at: u64,
    /// Follower: `acked`. Leader: `ack_arrived`.
    pub ended_at: u64,
    /// Follower: `read`. Leader: `ack_read`.
    pub read_at: u64,
    /// Follower: entry of the flush that covers it.
    pub flush_began_at: u64,
    /// Follower: `logged`.
    pub flush_ended_at: u64,
    /// Thread that sent the ACK (follower) or read it (leader).
    pub tid: u32,
    /// Leader: sequence number after the ACK's last byte.
    pub ack_seq: u32,
    /// Follower: number of the receipt of its arrival. Leader: sequence number after the proposal's last byte.
    pub receipt: u64,
    /// Leader: segments that the connection had sent again so far.
    pub resent: u64,
    /// Leader: what of the delay is the network's.
    pub way: Way,
    /// The delay by cause, see [`crate::cause`]; the parts sum to it.
    pub causes_ns: Parts,
}

impl ProposalRecord {
    /// No proposal.
    pub const NONE: Self = Self {
        kind: kind::PROPOSAL,
        slot: 0,
        generation: 0,
        flags: 0,
        zxid: 0,
        began_at: 0,
        ended_at: 0,
        read_at: 0,
        flush_began_at: 0,
        flush_ended_at: 0,
        tid: 0,
        ack_seq: 0,
        receipt: 0,
        resent: 0,
        way: Way { unsent_ns: 0, resent_ns: 0, round_trip_ns: 0, held_ns: 0 },
        causes_ns: [0; crate::cause::COUNT],
    };
}

/// A long segment of the clock of a thread on a proposal's path, see [`crate::thread`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRecord {
    /// [`kind::SEGMENT`].
    pub kind: u32,
    /// Its main cause.
    pub cause: u32,
    /// Process of the thread.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Begin, monotonic ns.
    pub began_at: u64,
    /// End.
    pub ended_at: u64,
    /// System call in which it slept.
    pub call: u32,
    /// How it was woken: [`crate::thread::by`].
    pub by: u32,
    /// Thread that had the CPU when this one got it (run queue), or that woke it (lock); 0 when unknown.
    pub other_tid: u32,
    /// Its process, 0 when unknown.
    pub other_tgid: u32,
    /// Its name.
    pub other_comm: [u8; 16],
    /// Name of the thread itself.
    pub comm: [u8; 16],
    /// Kernel addresses at which it waited, the innermost first; 0 after the last.
    pub stack: [u64; STACK_FRAMES],
}

/// Frames of a kernel stack that are kept.
pub const STACK_FRAMES: usize = 16;

/// One PING and its answer, monotonic ns, as [`ProposalRecord`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatRecord {
    /// [`kind::HEARTBEAT`].
    pub kind: u32,
    /// Slot of the link.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Follower: PING arrived. Leader: PING sent.
    pub began_at: u64,
    /// Follower: answer handed to TCP. Leader: answer arrived.
    pub ended_at: u64,
}

/// What happened to a link: values of [`TransitionRecord::change`].
pub mod change {
    /// A connection on a quorum port was met.
    pub const OPENED: u32 = 0;
    /// The learner was told UPTODATE: its proposals count from here.
    pub const UPTODATE: u32 = 1;
    /// The framing was lost and is searched anew.
    pub const RESYNC: u32 = 2;
    /// The connection closed.
    pub const CLOSED: u32 = 3;
    /// The link is TLS.
    pub const TLS: u32 = 4;
    /// The learner introduced itself: its sid is known.
    pub const SID: u32 = 5;
    /// What was inferred of proposals up to a number is proven.
    pub const PROVEN: u32 = 6;
    /// How many there are.
    pub const COUNT: usize = 7;
    /// Their names in records.
    pub const NAMES: [&str; COUNT] = ["opened", "uptodate", "resync", "closed", "tls", "sid", "proven"];
}

/// A change in the life of a link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransitionRecord {
    /// [`kind::TRANSITION`].
    pub kind: u32,
    /// Slot of the link.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
    /// One of [`change`].
    pub change: u32,
    /// When, monotonic ns.
    pub at: u64,
    /// [`change::PROVEN`]: the number.
    pub number: u64,
}

/// A thread took a name that tells of a Termite process, or of a JVM that starts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadRecord {
    /// [`kind::THREAD`].
    pub kind: u32,
    /// Its process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// The new name, NUL-padded.
    pub comm: [u8; 16],
}

/// A stop of a JVM of at least [`SAFEPOINT_RECORD_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafepointRecord {
    /// [`kind::SAFEPOINT`].
    pub kind: u32,
    /// The JVM's process.
    pub tgid: u32,
    /// When its threads were told to stop, monotonic ns.
    pub began_at: u64,
    /// When they had been told to go on, monotonic ns.
    pub ended_at: u64,
    /// 1 when it was for garbage collection.
    pub gc: u32,
    /// How it was seen, one of [`crate::safepoint::rung`].
    pub rung: u32,
    /// What for, as HotSpot calls it; zeros when that was not seen.
    pub name: [u8; crate::safepoint::NAME_BYTES],
}

/// Stops at least this long become records.
pub const SAFEPOINT_RECORD_NS: u64 = 1_000_000;

/// JVMs that can have a clock at a time.
pub const JVM_LIMIT: u32 = 256;

/// An operation class of a libjvm: the key of the map that names them. Both are addresses in one
/// mapping, so their distance is the same in every process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationKey {
    /// Which libjvm: the attachment's cookie.
    pub library: u64,
    /// Its virtual table's address minus that of `VM_Operation::evaluate`, wrapping.
    pub distance: u64,
}

/// Global counters of the programs: indices of the counter map.
pub mod counter {
    /// First of [`super::kind::COUNT`] counters of emitted records.
    pub const EMITTED: u32 = 0;
    /// First of [`super::kind::COUNT`] counters of records that found the ring full.
    pub const LOST: u32 = 8;
    /// Sockets on a quorum port for which no slot was free.
    pub const LINKS_REFUSED: u32 = 16;
    /// Flushes that could not be remembered.
    pub const FLUSHES_LOST: u32 = 17;
    /// Not a counter: when all programs were attached, monotonic ns.
    pub const READY_AT: u32 = 18;
    /// Threads on a proposal's path for which no slot was free.
    pub const THREADS_REFUSED: u32 = 19;
    /// Not a counter: 1 while no thread gets a clock for waking another.
    pub const WAKERS_FULL: u32 = 20;
    /// Switches to threads with a clock that were not seen.
    pub const SWITCHES_MISSED: u32 = 21;
    /// Instants of clocks that were out of order, and spans that did not add up.
    pub const CLOCK_DISCARDED: u32 = 22;
    /// How many counters there are.
    pub const COUNT: u32 = 24;
}

/// Process ids that can be watched: the largest `kernel.pid_max` of a 64-bit kernel
/// (`PID_MAX_LIMIT`, include/linux/threads.h).
pub const PID_LIMIT: u32 = 4 << 20;

const _: () = {
    assert!(size_of::<Offsets>() == 41 * 4);
    assert!(size_of::<Config>() == 32);
    assert!(size_of::<Process>() == 32);
    assert!(size_of::<ProposalRecord>() == 248);
    assert!(size_of::<SegmentRecord>() == 208);
    assert!(size_of::<HeartbeatRecord>() == 32);
    assert!(size_of::<TransitionRecord>() == 32);
    assert!(size_of::<ThreadRecord>() == 32);
    assert!(size_of::<SafepointRecord>() == 64);
    assert!(size_of::<OperationKey>() == 16);
    assert!(kind::COUNT <= (counter::LOST - counter::EMITTED) as usize);
    assert!(kind::COUNT <= (counter::LINKS_REFUSED - counter::LOST) as usize);
};
