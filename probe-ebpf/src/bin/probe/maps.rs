//! The maps, and nothing else. Sizes marked "at load" are set by user space.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, RingBuf, Stack};
use probe_ebpf::abi::{Flush, PID_LIMIT, Process, SocketTag, counter};
use probe_ebpf::link::{Link, Rings};
use probe_ebpf::thread::Thread;

/// One bit a process id: is it watched? An array, so that the lookup is inlined and a miss costs two loads.
#[map]
pub static WATCHED: Array<u64> = Array::with_max_entries(PID_LIMIT / 64, 0);

/// One bit a port: is it a quorum port of a watched server?
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(65536 / 64, 0);

/// Watched processes by thread-group id. Filled by user space.
#[map]
pub static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(1024, 0);

/// Last flush of each thread of a watched process, by thread id.
#[map]
pub static FLUSHES: LruHashMap<u32, Flush> = LruHashMap::with_max_entries(4096, 0);

/// Which link a socket belongs to. The kernel frees it with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketTag> = SkStorage::new();

/// Links, by slot. Entries at load.
#[map]
pub static LINKS: Array<Link> = Array::with_max_entries(1, 0);

/// Their rings. Entries at load.
#[map]
pub static RINGS: Array<Rings> = Array::with_max_entries(1, 0);

/// Free slots. Entries at load; user space refills it.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1, 0);

/// One bit a thread id: has it a clock?
#[map]
pub static TRACKED: Array<u64> = Array::with_max_entries(PID_LIMIT / 64, 0);

/// Slot of each thread that has a clock, by thread id.
#[map]
pub static TIDS: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

/// Threads with their clocks, by slot. Entries at load.
#[map]
pub static THREADS: Array<Thread> = Array::with_max_entries(1, 0);

/// Free slots of threads. Entries at load; filled by user space.
#[map]
pub static FREE_THREADS: Stack<u32> = Stack::with_max_entries(1, 0);

/// Global counters, see [`counter`].
#[map]
pub static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, 0);

/// Records. Size at load.
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
