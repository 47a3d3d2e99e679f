//! The kernel side as user space holds it: programs attached, maps open.
//!
//! In: a [`Plan`], [`Offsets`] and [`Settings`]. Out: [`Kernel`], with typed access to every map, and a
//! [`HookReport`] for each job. Invariants: a program that fails to load never stops the others; when
//! `Kernel` is dropped, nothing of it stays in the kernel. Deliberately absent: deciding which programs
//! fit this host (the plan), and what the numbers mean.

mod attach;
mod footprint;
mod ports;
mod programs;
mod proofs;
mod stand_in;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf, Stack};
use aya::programs::Iter;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, Pod};
use aya_log::EbpfLogger;
use probe_ebpf::abi::{Config, Offsets, Process, counter, kind};
use probe_ebpf::irq::Interrupts;
use probe_ebpf::link::Link;
use probe_ebpf::safepoint::Pauses;

use self::attach::attach_all;
pub(crate) use self::attach::explain;
pub(crate) use self::footprint::kernel_bytes;
use self::ports::Ports;
use self::programs::Timing;
use self::proofs::Proofs;
use self::stand_in::StandIn;
use crate::cli::Hooks;
use crate::discover::Server;
use crate::fence;
use crate::jvm::{Jvms, Rung};
use crate::model::{FenceReport, HookReport, ProbeReport};
use crate::plan::Plan;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// What the user asks of the kernel side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Proposals at least this slow become records; `u64::MAX` for none.
    pub(crate) slower_ns: u64,
    /// Proposals at least this slow count as stalls.
    pub(crate) stall_ns: u64,
    /// Heartbeats become records.
    pub(crate) heartbeats: bool,
    /// The kernel side's own log goes to standard error.
    pub(crate) verbose: bool,
    /// Connections that can be measured at a time.
    pub(crate) links: u32,
    /// Size of the record ring; a power of two.
    pub(crate) ring_bytes: u32,
    /// The only rung by which the stops of JVMs are to be seen; `None` for the best.
    pub(crate) safepoints: Option<Rung>,
    /// The hooks that are wanted.
    pub(crate) hooks: Hooks,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slower_ns: u64::MAX,
            stall_ns: 50_000_000,
            heartbeats: false,
            verbose: false,
            links: DEFAULT_LINKS,
            ring_bytes: 2 << 20,
            safepoints: None,
            hooks: Hooks::default(),
        }
    }
}

impl Settings {
    /// Threads that can have a clock at a time. Half of them are for those on a proposal's path: for each connection the
    /// one that reads, the one that writes, and two to spare; the others for whoever wakes one of them.
    fn threads(&self) -> u32 {
        (self.links * 8).min(4096)
    }
}

/// 32 connections are 20 MB of kernel memory: see [`kernel_bytes`].
pub(crate) const DEFAULT_LINKS: u32 = 32;

/// The state of a hook that nobody asked for, in [`HookReport::state`].
pub(crate) const OFF: &str = "off";
/// The walk over the tasks of the host.
const PRESENT: &str = "present_threads";

/// Readings of a link before a torn one is taken: some milliseconds. A call of hundreds of packets changes the link for half of one,
/// in which no two agree.
const READINGS: u32 = 1024;
/// Below every level of the kernel side's log: the verifier then drops the statements.
const LOG_NOTHING: u8 = 0;

/// The kernel side's log on standard error.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("kernel side: {}", record.args());
    }

    fn flush(&self) {}
}

/// Why the kernel side cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// The object was refused as a whole.
    #[error("cannot load the kernel side: {0}")]
    Load(#[from] EbpfError),
    /// The type information of the running kernel was refused.
    #[error("cannot read the kernel's type information: {0}")]
    Btf(#[from] aya::BtfError),
    /// The log of the kernel side cannot be read.
    #[error("cannot read the kernel side's log: {0}")]
    Log(#[from] aya_log::Error),
    /// A map of the object is not what this half expects: a defect of ours.
    #[error("map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: MapError,
    },
    /// A job without which nothing can be measured has no variant that works.
    #[error("no program for the job \"{job}\" could be attached: {reason}")]
    Required {
        /// The job.
        job: &'static str,
        /// What was tried.
        reason: String,
    },
}

/// A shared type as a map's key or value. Sound for types of integers and byte arrays only.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

// SAFETY: used with the `repr(C)` types of probe-ebpf's abi, link and safepoint, whose fields are integers and byte
// arrays with explicit padding (asserted there).
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

/// Everything that is loaded. Dropping it detaches all programs and frees all maps.
pub(crate) struct Kernel {
    pub(crate) ebpf: Ebpf,
    /// JVMs and their stops.
    pub(crate) jvms: Jvms,
    timing: Option<Timing>,
    log: Option<EbpfLogger<StandardError>>,
    /// One for each job.
    pub(crate) hooks: Vec<HookReport>,
    /// For jobs whose variant does not see all of it.
    stand_ins: Vec<StandIn>,
    watched: Array<MapData, u64>,
    ports: Ports,
    processes: HashMap<MapData, u32, Plain<Process>>,
    flush_times: HashMap<MapData, u32, Plain<Pauses>>,
    links: Array<MapData, Plain<Link>>,
    proofs: Proofs,
    free_slots: Stack<MapData, u32>,
    counters: Array<MapData, u64>,
    interrupts: PerCpuArray<MapData, Plain<Interrupts>>,
    /// Number of link slots.
    pub(crate) slots: u32,
}

/// The global counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Records emitted, by kind.
    pub(crate) emitted: [u64; kind::COUNT],
    /// Records lost, by kind.
    pub(crate) lost: [u64; kind::COUNT],
    /// Connections without a slot.
    pub(crate) links_refused: u64,
    /// Threads without a clock.
    pub(crate) threads_refused: u64,
    /// Flushes that could not be remembered.
    pub(crate) flushes_lost: u64,
    /// Switches to threads with a clock that were not seen.
    pub(crate) switches_missed: u64,
    /// What clocks discarded.
    pub(crate) clock_discarded: u64,
    /// What the clocks of interrupts discarded.
    pub(crate) interrupts_discarded: u64,
}

impl From<Counters> for ProbeReport {
    /// The rest is left empty.
    fn from(counters: Counters) -> Self {
        Self {
            emitted: counters.emitted,
            lost: counters.lost,
            links_refused: counters.links_refused,
            threads_refused: counters.threads_refused,
            flushes_lost: counters.flushes_lost,
            switches_missed: counters.switches_missed,
            clock_discarded: counters.clock_discarded,
            interrupts_discarded: counters.interrupts_discarded,
            ..Self::default()
        }
    }
}

impl Kernel {
    /// Loads the object and attaches, for each job, the first variant that works.
    pub(crate) fn attach(
        plan: &Plan,
        offsets: &Offsets,
        settings: &Settings,
    ) -> Result<(Self, RingBuf<MapData>), KernelError> {
        let btf = Btf::from_sys_fs()?;
        let mut loaded = load(plan, offsets, settings, &btf, true)?;
        if loaded.hooks.iter().any(|h| h.hook == "arrival" && h.state != "attached") {
            // The programs must know that no arrival will be seen, and what they know is frozen at load.
            drop(loaded);
            loaded = load(plan, offsets, settings, &btf, false)?;
        }
        let Loaded { mut ebpf, mut hooks, stand_ins, log } = loaded;
        let records = take(&mut ebpf, "RECORDS")?;
        let clocks = take(&mut ebpf, "JVMS")?;
        let (kinds, operations) = (take(&mut ebpf, "JVM_KINDS")?, take(&mut ebpf, "OPERATIONS")?);
        let jvms = Jvms::new(&mut ebpf, settings.safepoints, clocks, kinds, operations);
        hooks.push(jvms.hook());
        let mut kernel = Self {
            hooks,
            stand_ins,
            watched: take(&mut ebpf, "WATCHED")?,
            ports: Ports::take(&mut ebpf, offsets)?,
            processes: take(&mut ebpf, "PROCESSES")?,
            flush_times: take(&mut ebpf, "FLUSH_TIMES")?,
            links: take(&mut ebpf, "LINKS")?,
            proofs: Proofs(take(&mut ebpf, "PROOFS")?),
            free_slots: take(&mut ebpf, "FREE_SLOTS")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            interrupts: take(&mut ebpf, "INTERRUPTS")?,
            slots: settings.links,
            log,
            jvms,
            timing: None,
            ebpf,
        };
        for slot in (0..settings.links).rev() {
            kernel
                .free_slots
                .push(slot, 0)
                .map_err(|source| KernelError::Map { name: "FREE_SLOTS", source })?;
        }
        // It stays where it is, so that this process holds every map of its own: who looks from outside finds them all.
        let free_threads = kernel.ebpf.map_mut("FREE_THREADS").ok_or_else(|| missing("FREE_THREADS"));
        let mut free_threads: Stack<&mut MapData, u32> = free_threads
            .and_then(Stack::try_from)
            .map_err(|source| KernelError::Map { name: "FREE_THREADS", source })?;
        for slot in (0..settings.threads()).rev() {
            free_threads.push(slot, 0).map_err(|source| KernelError::Map { name: "FREE_THREADS", source })?;
        }
        let ready_at = kernel.counters.set(counter::READY_AT, crate::clock::monotonic_ns(), 0);
        ready_at.map_err(|source| KernelError::Map { name: "COUNTERS", source })?;
        Ok((kernel, records))
    }

    /// Prints what the kernel side has logged since the last time.
    pub(crate) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Gives up what attaching took and what comes later does not.
    pub(crate) fn raise_fence(&mut self) -> FenceReport {
        let (jvms, stand_ins, ebpf) = (&self.jvms, &self.stand_ins, &mut self.ebpf);
        fence::raise(|| jvms.can_attach(ebpf) && stand_ins.iter().all(|one| one.can_take_over(ebpf)))
    }

    /// Sees to it that all of a server can be seen: where a job is done by programs that see one file system only, and its data is
    /// on another, those that see all take over, for every server and for good.
    pub(crate) fn see_all_of(&mut self, server: &Server) {
        let ebpf = &mut self.ebpf;
        let hooks = &mut self.hooks;
        self.stand_ins.retain(|one| {
            let Some(why) = one.shortcoming(server) else { return true };
            let report = one.take_over(ebpf, &why);
            if let Some(hook) = hooks.iter_mut().find(|hook| hook.hook == report.hook) {
                *hook = report;
            }
            false
        });
    }

    /// Begins or ends watching a process.
    pub(crate) fn watch(&mut self, tgid: u32, process: Option<Process>) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { name: "PROCESSES", source };
        match process {
            Some(process) => self.processes.insert(tgid, Plain(process), 0).map_err(failed)?,
            None => match self.processes.remove(&tgid) {
                Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            },
        }
        set_bit(&mut self.watched, "WATCHED", tgid, process.is_some())
    }

    /// The flushes of a process from now on are counted. Without this they are not.
    pub(crate) fn count_flushes(&mut self, tgid: u32) -> Result<(), KernelError> {
        let inserted = self.flush_times.insert(tgid, Plain(Pauses::NONE), 0);
        inserted.map_err(|source| KernelError::Map { name: "FLUSH_TIMES", source })
    }

    /// The flushes of a process; `None` when they are not counted.
    pub(crate) fn flushes(&self, tgid: u32) -> Option<Pauses> {
        self.flush_times.get(&tgid, 0).ok().map(|lengths| lengths.0)
    }

    /// The last of a process's flushes: it has ended.
    pub(crate) fn take_flushes(&mut self, tgid: u32) -> Option<Pauses> {
        let lengths = self.flushes(tgid)?;
        // It was there a moment ago, and nobody else takes it away.
        let _removed = self.flush_times.remove(&tgid);
        Some(lengths)
    }

    /// Gives a clock to the threads of watched processes that are on a proposal's path. Where the kernel refuses,
    /// the job counts as failed from then on.
    pub(crate) fn meet_threads(&mut self) {
        let Some(job) = self.hooks.iter_mut().find(|h| h.variant == PRESENT && h.state == "attached") else {
            return;
        };
        if let Err(reason) = walk(&mut self.ebpf, PRESENT) {
            job.state = "failed";
            job.reason = reason;
        }
    }

    /// The link in a slot; `None` when the slot is free.
    pub(crate) fn link(&self, slot: u32) -> Result<Option<Box<Link>>, KernelError> {
        let read = || {
            let link = self.links.get(&slot, 0).map_err(|source| KernelError::Map { name: "LINKS", source });
            link.map(|link| Box::new(link.0))
        };
        let mut link = read()?;
        if link.identity.generation % 2 == 0 {
            return Ok(None);
        }
        // The kernel side writes while this side copies: two readings that agree are of one moment.
        for _ in 0..READINGS {
            let again = read()?;
            let same = (again.counts, again.window, again.delay.count, again.causes_ns)
                == (link.counts, link.window, link.delay.count, link.causes_ns);
            link = again;
            if same {
                break;
            }
        }
        self.proofs.settle(slot, &mut link)?;
        Ok(Some(link))
    }

    /// Gives a slot back after its link was read for the last time. `zeroed` is the value of a free slot.
    pub(crate) fn free(&mut self, slot: u32, zeroed: &Link) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { name: "LINKS", source };
        self.proofs.clear(slot)?;
        self.links.set(slot, Plain(*zeroed), 0).map_err(failed)?;
        self.free_slots.push(slot, 0).map_err(|source| KernelError::Map { name: "FREE_SLOTS", source })
    }

    /// The global counters.
    pub(crate) fn counters(&self) -> Result<Counters, KernelError> {
        let get = |index: u32| {
            self.counters.get(&index, 0).map_err(|source| KernelError::Map { name: "COUNTERS", source })
        };
        let interrupts = self.interrupts.get(&0, 0);
        let interrupts = interrupts.map_err(|source| KernelError::Map { name: "INTERRUPTS", source })?;
        let mut counters = Counters {
            links_refused: get(counter::LINKS_REFUSED)?,
            threads_refused: get(counter::THREADS_REFUSED)?,
            flushes_lost: get(counter::FLUSHES_LOST)?,
            switches_missed: get(counter::SWITCHES_MISSED)?,
            clock_discarded: get(counter::CLOCK_DISCARDED)?,
            interrupts_discarded: interrupts.iter().map(|clock| clock.0.discarded).sum(),
            ..Counters::default()
        };
        for (index, (emitted, lost)) in counters.emitted.iter_mut().zip(&mut counters.lost).enumerate() {
            *emitted = get(counter::EMITTED + index as u32)?;
            *lost = get(counter::LOST + index as u32)?;
        }
        Ok(counters)
    }
}

struct Loaded {
    ebpf: Ebpf,
    hooks: Vec<HookReport>,
    stand_ins: Vec<StandIn>,
    log: Option<EbpfLogger<StandardError>>,
}

/// Loads the object and attaches the programs. `arrival` tells them whether to count on the arrival hook.
fn load(
    plan: &Plan,
    offsets: &Offsets,
    settings: &Settings,
    btf: &Btf,
    arrival: bool,
) -> Result<Loaded, KernelError> {
    let config = Plain(Config {
        slower_ns: settings.slower_ns,
        stall_ns: settings.stall_ns,
        heartbeats: settings.heartbeats.into(),
        arrival_hook: arrival.into(),
        interrupts: settings.hooks.irq.into(),
        shared_clocks: settings.threads() / 2,
    });
    let offsets = Plain(*offsets);
    let log_level = if settings.verbose { aya_log::Level::Debug as u8 } else { LOG_NOTHING };
    let mut ebpf = EbpfLoader::new()
        .btf(Some(btf))
        .allow_unsupported_maps()
        .override_global("OFFSETS", &offsets, true)
        .override_global("CONFIG", &config, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .map_max_entries("LINKS", settings.links)
        .map_max_entries("RINGS", settings.links)
        .map_max_entries("PROOFS", settings.links)
        .map_max_entries("FREE_SLOTS", settings.links)
        .map_max_entries("THREADS", settings.threads())
        .map_max_entries("FREE_THREADS", settings.threads())
        .map_max_entries("RECORDS", settings.ring_bytes)
        .load(OBJECT)?;
    let log = match settings.verbose {
        true => Some(EbpfLogger::init_with_logger(&mut ebpf, StandardError)?),
        false => None,
    };
    let (hooks, stand_ins) = attach_all(plan, settings, &mut ebpf, btf)?;
    Ok(Loaded { ebpf, hooks, stand_ins, log })
}

fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    let map = ebpf.take_map(name).ok_or_else(|| missing(name));
    map.and_then(M::try_from).map_err(|source| KernelError::Map { name, source })
}

fn missing(name: &str) -> MapError {
    MapError::InvalidName { name: name.into() }
}

/// Runs an iterator to its end.
fn walk(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    let program: &mut Iter = program.try_into().map_err(|error| explain(&error))?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(|error| explain(&error))?;
    let mut file = link.into_file().map_err(|error| format!("cannot open the iterator: {error}"))?;
    // It prints nothing: one read runs it over every task.
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|error| format!("the iterator failed: {error}"))?;
    Ok(())
}

fn set_bit(map: &mut Array<MapData, u64>, name: &'static str, bit: u32, on: bool) -> Result<(), KernelError> {
    let failed = |source| KernelError::Map { name, source };
    let word = map.get(&(bit / 64), 0).map_err(failed)?;
    let mask = 1_u64 << (bit % 64);
    map.set(bit / 64, if on { word | mask } else { word & !mask }, 0).map_err(failed)
}
