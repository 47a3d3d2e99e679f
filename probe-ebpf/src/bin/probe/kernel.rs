//! Reading the kernel: fields at offsets that user space resolved, the current task, its system call.
//!
//! Invariant: an offset comes from `.rodata`, which the verifier folds, so a load through a typed pointer
//! is checked as a load of that very field.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user, bpf_skc_to_tcp_sock,
    bpf_task_pt_regs,
};
use core::ffi::c_void;
use probe_ebpf::abi::{Config, Offsets};

use crate::maps;

/// Patched by user space before load; read it with [`offset!`].
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    skc_num: 0,
    skc_dport: 0,
    skc_family: 0,
    skc_rcv_saddr: 0,
    skc_daddr: 0,
    skc_v6_rcv_saddr: 0,
    skc_v6_daddr: 0,
    skc_net: 0,
    skc_flags: 0,
    net_inum: 0,
    tcp_rcv_nxt: 0,
    tcp_copied_seq: 0,
    tcp_write_seq: 0,
    tcp_snd_una: 0,
    tcp_snd_nxt: 0,
    tcp_dsack_dups: 0,
    tcp_rtt_min: 0,
    tcp_rcv_tsval: 0,
    tcp_bytes_received: 0,
    tcp_bytes_acked: 0,
    skb_sk: 0,
    skb_head: 0,
    skb_data: 0,
    skb_len: 0,
    skb_transport_header: 0,
    task_pid: 0,
    task_tgid: 0,
    task_comm: 0,
    task_in_iowait_bit: 0,
    task_flags: 0,
    task_state: 0,
    task_jobctl: 0,
    task_run_delay: 0,
    task_group: 0,
    group_parent: 0,
    group_quota: 0,
    group_throttled_time: 0,
    regs_orig_ax: 0,
    regs_di: 0,
    regs_si: 0,
    regs_dx: 0,
};

#[unsafe(no_mangle)]
static CONFIG: Config =
    Config { slower_ns: 0, stall_ns: 0, heartbeats: 0, arrival_hook: 0, interrupts: 0, shared_clocks: 0 };

/// A field of [`Offsets`], read so that the compiler does not fold the zero it sees.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a static of this object, placed in `.rodata` and patched before load.
        unsafe { core::ptr::read_volatile(&raw const crate::kernel::OFFSETS.$field) as usize }
    }};
}
pub(crate) use offset;

/// What user space asked for.
#[inline(always)]
pub fn config() -> Config {
    // SAFETY: a static of this object, placed in `.rodata` and patched before load.
    unsafe { core::ptr::read_volatile(&raw const CONFIG) }
}

/// Are the hooks on interrupts in use? The field alone: the hooks of the scheduler ask at every switch.
#[inline(always)]
pub fn interrupts_are_watched() -> bool {
    // SAFETY: as for `config`.
    unsafe { (&raw const CONFIG.interrupts).read_volatile() != 0 }
}

/// A `struct sock *` that the verifier trusts.
#[derive(Clone, Copy)]
pub struct Sock(pub *const c_void);

/// A `struct tcp_sock *` that the verifier trusts.
#[derive(Clone, Copy)]
pub struct TcpSock(*const c_void);

impl Sock {
    /// Loads the field at `offset`. The kernel may change it meanwhile: loads are made as often and in the order as written.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the verifier checks that a field of this size stands at the folded offset.
        unsafe { self.0.byte_add(offset).cast::<T>().read_volatile() }
    }

    /// Copies `N` bytes at `offset`, or zeros.
    #[inline(always)]
    pub fn bytes<const N: usize>(self, offset: usize) -> [u8; N] {
        // SAFETY: pointer arithmetic only; the copy below checks the address.
        read_kernel(unsafe { self.0.byte_add(offset) }, [0; N])
    }

    /// The TCP socket behind it, if it is one.
    #[inline(always)]
    pub fn tcp(self) -> Option<TcpSock> {
        // SAFETY: the helper takes any socket that the verifier trusts and answers NULL for other kinds.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut()) };
        if tcp.is_null() { None } else { Some(TcpSock(tcp.cast())) }
    }
}

impl TcpSock {
    /// Loads the field at `offset`.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: as for `Sock::load`.
        unsafe { self.0.byte_add(offset).cast::<T>().read_volatile() }
    }
}

/// Copies a value from kernel memory; `zero` is kept when it cannot be read. The return code is not
/// looked at: on 6.1 each look forks the verifier's state.
#[inline(always)]
pub fn read_kernel<T>(from: *const c_void, zero: T) -> T {
    let mut value = zero;
    // SAFETY: the helper writes `size_of::<T>()` bytes or zeros; `T` is plain bytes at every call.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, from) };
    value
}

/// Copies a value from the current task's memory; `None` when it is not there.
#[inline(always)]
pub fn read_user<T: Default>(from: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: as for `read_kernel`.
    let code =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, from as *const c_void) };
    if code == 0 { Some(value) } else { None }
}

/// Process and thread of the current task.
#[derive(Clone, Copy)]
pub struct Task {
    /// Thread-group id: the process id of user space.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
}

impl Task {
    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        Self::from_both(bpf_get_current_pid_tgid())
    }

    /// From [`Self::both`].
    #[inline(always)]
    pub fn from_both(both: u64) -> Self {
        Self { tgid: (both >> 32) as u32, tid: both as u32 }
    }

    /// Both in one number, as the kernel's helper gives them.
    #[inline(always)]
    pub fn both(self) -> u64 {
        ((self.tgid as u64) << 32) | self.tid as u64
    }

    /// Is its process watched?
    #[inline(always)]
    pub fn is_watched(self) -> bool {
        bit(&maps::WATCHED, self.tgid)
    }
}

/// Is bit `index` of a bitmap set?
#[inline(always)]
pub fn bit(map: &aya_ebpf::maps::Array<u64>, index: u32) -> bool {
    match map.get(index >> 6) {
        Some(word) => (*word >> (index & 63)) & 1 == 1,
        None => false,
    }
}

/// A `struct task_struct *` that the verifier trusts.
#[derive(Clone, Copy)]
pub struct TaskStruct(pub *const c_void);

impl TaskStruct {
    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: a helper without preconditions.
        Self(unsafe { bpf_get_current_task_btf() } as *const c_void)
    }

    /// Loads the field at `offset`.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: as for `Sock::load`.
        unsafe { self.0.byte_add(offset).cast::<T>().read() }
    }

    /// Thread id.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.load(offset!(task_pid))
    }

    /// Process id.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.load(offset!(task_tgid))
    }

    /// The thread's name.
    #[inline(always)]
    pub fn comm(self) -> [u8; 16] {
        self.copy(offset!(task_comm), [0; 16])
    }

    /// Does it wait for I/O?
    #[inline(always)]
    pub fn is_in_iowait(self) -> bool {
        let bit = offset!(task_in_iowait_bit);
        let byte: u8 = self.copy(bit >> 3, 0);
        (byte >> (bit & 7)) & 1 == 1
    }

    /// Copies a value at `offset`.
    #[inline(always)]
    pub fn copy<T>(self, offset: usize, zero: T) -> T {
        // SAFETY: pointer arithmetic only; the copy checks the address.
        read_kernel(unsafe { self.0.byte_add(offset) }, zero)
    }
}

/// The system call that the current task is in: number and the two arguments that say where the bytes are.
#[derive(Clone, Copy)]
pub struct SystemCall {
    /// Its number.
    pub number: u64,
    /// First argument.
    pub first: u64,
    /// Second argument.
    pub second: u64,
    /// Third argument.
    pub third: u64,
}

impl SystemCall {
    /// The one in progress.
    #[inline(always)]
    pub fn current() -> Self {
        Self::of(TaskStruct::current())
    }

    /// The one in which `task` sleeps.
    #[inline(always)]
    pub fn of(task: TaskStruct) -> Self {
        let (number, first) = (offset!(regs_orig_ax), offset!(regs_di));
        let (second, third) = (offset!(regs_si), offset!(regs_dx));
        // SAFETY: both helpers take and return pointers that the verifier trusts; the loads are checked
        // against `struct pt_regs` at folded offsets.
        unsafe {
            let regs = bpf_task_pt_regs(task.0.cast_mut().cast()) as *const c_void;
            Self {
                number: regs.byte_add(number).cast::<u64>().read(),
                first: regs.byte_add(first).cast::<u64>().read(),
                second: regs.byte_add(second).cast::<u64>().read(),
                third: regs.byte_add(third).cast::<u64>().read(),
            }
        }
    }
}
