//! The maps, and nothing else. Sizes marked "at load" are set by user space.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, Stack};
use probe_ebpf::abi::{Flush, JVM_LIMIT, OperationKey, PID_LIMIT, Process, SocketTag, counter};
use probe_ebpf::irq::Interrupts;
use probe_ebpf::link::{Link, Proof, Rings};
use probe_ebpf::ports::PortFilter;
use probe_ebpf::safepoint::{NAME_BYTES, Pauses, SafepointClock};
use probe_ebpf::thread::Thread;
use probe_ebpf::tids;

/// One bit a process id: is it watched? An array, so that the lookup is inlined and a miss costs two loads.
#[map]
pub static WATCHED: Array<u64> = Array::with_max_entries(PID_LIMIT / 64, 0);

/// In front of [`PORTS`]: global data, which is read without a lookup. The loader makes a map of one value
/// of the section.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.ports")]
static PORT_FILTER: PortFilter = PortFilter::NONE;

/// What sockets are passed over.
#[inline(always)]
pub fn port_filter() -> PortFilter {
    // SAFETY: a static of this object; user space changes it at any time, in one word.
    unsafe { (&raw const PORT_FILTER).read_volatile() }
}

/// One bit a port: is it a quorum port of a watched server?
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(65536 / 64, 0);

/// Watched processes by thread-group id. Filled by user space.
#[map]
pub static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(1024, 0);

/// Last flush of each thread of a watched process, by thread id.
#[map]
pub static FLUSHES: LruHashMap<u32, Flush> = LruHashMap::with_max_entries(4096, 0);

/// Lengths of the flushes of each watched process, by thread-group id. Filled by user space.
#[map]
pub static FLUSH_TIMES: HashMap<u32, Pauses> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Which link a socket belongs to. The kernel frees it with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketTag> = SkStorage::new();

/// Links, by slot. Entries at load.
#[map]
pub static LINKS: Array<Link> = Array::with_max_entries(1, 0);

/// Their rings. Entries at load.
#[map]
pub static RINGS: Array<Rings> = Array::with_max_entries(1, 0);

/// What is proven of those that are TLS. Entries at load.
#[map]
pub static PROOFS: Array<Proof> = Array::with_max_entries(1, 0);

/// Free slots. Entries at load; user space refills it.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1, 0);

/// One bit a thread id: has it a clock?
#[map]
pub static TRACKED: Array<u64> = Array::with_max_entries(PID_LIMIT / 64, 0);

/// Slots of the threads that have a clock.
#[map]
pub static TIDS: Array<tids::Set> = Array::with_max_entries(tids::SETS, 0);

/// Threads with their clocks, by slot. Entries at load.
#[map]
pub static THREADS: Array<Thread> = Array::with_max_entries(1, 0);

/// Free slots of threads. Entries at load; filled by user space.
#[map]
pub static FREE_THREADS: Stack<u32> = Stack::with_max_entries(1, 0);

/// Interrupts of each CPU.
#[map]
pub static INTERRUPTS: PerCpuArray<Interrupts> = PerCpuArray::with_max_entries(1, 0);

/// Global counters, see [`counter`].
#[map]
pub static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, 0);

/// Records. Size at load.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Clocks of JVMs, by the index that user space gave to their processes.
#[map]
pub static JVMS: Array<SafepointClock> = Array::with_max_entries(JVM_LIMIT, 0);

/// Kind of the stops of each JVM as far as user space can tell, one of [`probe_ebpf::safepoint::stop`]: for
/// those whose operations are not seen.
#[map]
pub static JVM_KINDS: Array<u32> = Array::with_max_entries(JVM_LIMIT, 0);

/// Names of operations by their class. Filled by user space, some eighty for each libjvm without USDT.
#[map]
pub static OPERATIONS: HashMap<OperationKey, [u8; NAME_BYTES]> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
