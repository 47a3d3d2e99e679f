//! JVMs and their clocks in the kernel: processes in, attachments and clocks out.
//!
//! Invariants: a libjvm that several processes share is attached once, and detached when the last of them
//! ends; a clock is given to one process at a time. Deliberately absent: which places of a libjvm are the
//! right ones, and what a clock's numbers mean.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, HashMap as Map, MapData, MapError};
use aya::programs::UProbe;
use probe_ebpf::abi::{JVM_LIMIT, OperationKey};
use probe_ebpf::safepoint::{NAME_BYTES, SafepointClock, stop};

use super::hsperfdata::{self, Counters};
use super::image::Image;
use super::libjvm::{self, FileId, Mapping};
use super::{Offers, Operation, Points, Rung, Sight, Way, ladder, symbols, uprobe, usdt};
use crate::discover::Tgid;
use crate::kernel::Plain;
use crate::model::HookReport;

/// Programs of the kernel object. The end is attached first, so that no begin is seen without its end.
const PROGRAMS: [&str; 4] =
    ["safepoint_end", "safepoint_operation_usdt", "safepoint_operation_symbol", "safepoint_begin"];
/// Most bytes that are read of a file of counters: HotSpot makes it 32 KiB (`PerfDataMemorySize`).
const COUNTERS_BYTES: u64 = 1 << 20;
/// Most bytes that are read of a list of mappings; a JVM has some hundred KiB.
const MAPS_BYTES: u64 = 16 << 20;

/// Since Linux 6.16, and in stable kernels since July 2025 (docs/privileges.md).
const NEEDS_ADMIN: &str = "; this kernel wants CAP_SYS_ADMIN for it";

/// See the module.
pub(crate) struct Jvms {
    only: Option<Rung>,
    /// Programs that cannot be had, and why.
    refused: HashMap<&'static str, String>,
    clocks: Array<MapData, Plain<SafepointClock>>,
    kinds: Array<MapData, u32>,
    operations: Map<MapData, Plain<OperationKey>, [u8; NAME_BYTES]>,
    free: Vec<u32>,
    libraries: HashMap<FileId, Library>,
    next_library: u64,
    jvms: HashMap<Tgid, Jvm>,
}

/// A libjvm that is attached to.
struct Library {
    rung: Rung,
    reasons: Vec<String>,
    operations: Vec<OperationKey>,
    users: BTreeSet<Tgid>,
    /// Dropping them detaches.
    _links: Vec<OwnedFd>,
}

/// A process.
struct Jvm {
    index: u32,
    library: FileId,
    sight: Sight,
    /// Its counters, when they are needed.
    counters: Option<(PathBuf, Counters)>,
}

impl Jvms {
    /// Loads the programs and takes the maps.
    pub(crate) fn new(
        ebpf: &mut Ebpf,
        only: Option<Rung>,
        clocks: Array<MapData, Plain<SafepointClock>>,
        kinds: Array<MapData, u32>,
        operations: Map<MapData, Plain<OperationKey>, [u8; NAME_BYTES]>,
    ) -> Self {
        let mut refused = HashMap::new();
        for name in PROGRAMS {
            if let Err(error) =
                program(ebpf, name).and_then(|p| p.load().map_err(|e| crate::kernel::explain(&e)))
            {
                refused.insert(name, error);
            }
        }
        Self {
            only,
            refused,
            clocks,
            kinds,
            operations,
            free: (0..JVM_LIMIT).rev().collect(),
            libraries: HashMap::new(),
            next_library: 1,
            jvms: HashMap::new(),
        }
    }

    /// Whether programs can be attached to a libjvm at all.
    pub(crate) fn hook(&self) -> HookReport {
        let mut reasons: Vec<String> =
            self.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        reasons.sort_unstable();
        let state = if reasons.is_empty() { "attached" } else { "failed" };
        HookReport { hook: "safepoint", variant: "uprobe", state, reason: reasons.join("; ") }
    }

    /// Gives a process a clock if it is a JVM; the clock's index plus one, 0 for none. A process that has one
    /// keeps it.
    pub(crate) fn adopt(&mut self, ebpf: &mut Ebpf, tgid: Tgid) -> Result<u32, MapError> {
        if let Some(jvm) = self.jvms.get(&tgid) {
            return Ok(if jvm.sight.rung.is_some() { jvm.index + 1 } else { 0 });
        }
        let process = PathBuf::from(format!("/proc/{tgid}"));
        // A process that is gone has no mappings; one whose mappings may not be read is as if it had none.
        let maps = read(&process.join("maps"), MAPS_BYTES).unwrap_or_default();
        let maps = String::from_utf8_lossy(&maps);
        let Some(mapping) = libjvm::find(&maps) else {
            return Ok(0);
        };
        let Some(index) = self.free.pop() else {
            return Ok(0);
        };
        let counters = counters_of(&process, &maps);
        let (mut sight, needs_counters) = self.climb(ebpf, tgid, &process, &mapping, &counters);
        sight.version = counters.as_ref().ok().and_then(|(_, counters)| counters.version.clone());
        let rung = sight.rung.map_or(0, Rung::index);
        self.clocks.set(index, Plain(SafepointClock { tgid: tgid.0, rung, ..SafepointClock::ZERO }), 0)?;
        let seen = sight.rung.is_some();
        let counters = counters.ok().filter(|_| needs_counters);
        let kind = counters.as_ref().map_or(stop::UNKNOWN, |(_, counters)| counters.usual_kind());
        self.kinds.set(index, kind, 0)?;
        self.jvms.insert(tgid, Jvm { index, library: mapping.id(), sight, counters });
        Ok(if seen { index + 1 } else { 0 })
    }

    /// Tries the rungs.
    fn climb(
        &mut self,
        ebpf: &mut Ebpf,
        tgid: Tgid,
        process: &Path,
        mapping: &Mapping,
        counters: &Result<(PathBuf, Counters), String>,
    ) -> (Sight, bool) {
        let libjvm = mapping.path.clone();
        if let Some(library) = self.libraries.get_mut(&mapping.id()) {
            library.users.insert(tgid);
            let (rung, reasons) = (Some(library.rung), library.reasons.clone());
            return (Sight { rung, libjvm, reasons, ..Sight::default() }, false);
        }
        let (file, offers) = offers(process, mapping, counters);
        let mut reasons = Vec::new();
        for (rung, way) in ladder(offers, self.only) {
            let outcome = match (way, &file) {
                (Ok(Way::Attach(points)), Some(file)) => self.attach(ebpf, file, &points).map(Some),
                (Ok(Way::Attach(_)), None) => Err("libjvm cannot be opened".into()),
                (Ok(Way::Read | Way::Watch), _) => Ok(None),
                (Err(reason), _) => Err(reason),
            };
            match outcome {
                Ok(Some((links, operations))) => {
                    let library = Library {
                        rung,
                        reasons: reasons.clone(),
                        operations,
                        users: BTreeSet::from([tgid]),
                        _links: links,
                    };
                    self.libraries.insert(mapping.id(), library);
                    return (Sight { rung: Some(rung), libjvm, reasons, ..Sight::default() }, false);
                }
                Ok(None) => {
                    return (
                        Sight { rung: Some(rung), libjvm, reasons, ..Sight::default() },
                        rung == Rung::Hsperfdata,
                    );
                }
                Err(reason) => reasons.push(format!("not by {}: {reason}", rung.name())),
            }
        }
        (Sight { rung: None, libjvm, reasons, ..Sight::default() }, false)
    }

    /// Attaches to the places of a libjvm. What was attached before one of them failed is detached.
    fn attach(
        &mut self,
        ebpf: &mut Ebpf,
        file: &File,
        points: &Points,
    ) -> Result<(Vec<OwnedFd>, Vec<OperationKey>), String> {
        let library = self.next_library;
        self.next_library += 1;
        let mut places = vec![("safepoint_end", points.end, 0)];
        let mut operations = Vec::new();
        match &points.operation {
            Operation::Named { offset, name } => {
                places.push(("safepoint_operation_usdt", *offset, name.pack()));
            }
            Operation::Classes { offset, classes } => {
                places.push(("safepoint_operation_symbol", *offset, library));
                for class in classes {
                    let key = OperationKey { library, distance: class.distance };
                    self.operations.insert(Plain(key), class.name, 0).map_err(|e| e.to_string())?;
                    operations.push(key);
                }
            }
            Operation::Unseen => {}
        }
        places.push(("safepoint_begin", points.begin, 0));
        // The very file that was looked at, whatever its path leads to by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut links = Vec::new();
        for (name, offset, cookie) in places {
            if let Some(reason) = self.refused.get(name) {
                return Err(format!("{name}: {reason}"));
            }
            let link = place(ebpf, name, &path, offset, cookie).map_err(|why| format!("{name}: {why}"))?;
            links.push(link);
        }
        Ok((links, operations))
    }

    /// Whether programs can be attached to a libjvm with the capabilities of this moment: some kernels want CAP_SYS_ADMIN. Where
    /// nobody wants to attach any, nothing is missing.
    pub(crate) fn can_attach(&self, ebpf: &mut Ebpf) -> bool {
        let [first, ..] = PROGRAMS;
        if self.refused.contains_key(first) || matches!(self.only, Some(Rung::Hsperfdata | Rung::Scheduler)) {
            return true;
        }
        // The kernel looks at the capabilities before it looks for the file, and there is none.
        let nowhere = place(ebpf, first, "/proc/self/fd/none", 0, 0);
        !nowhere.is_err_and(|why| why.ends_with(NEEDS_ADMIN))
    }

    /// Takes the clock of a process that ended; what it counted.
    pub(crate) fn release(&mut self, tgid: Tgid) -> Option<SafepointClock> {
        let jvm = self.jvms.remove(&tgid)?;
        let clock = self.clocks.get(&jvm.index, 0).ok().map(|clock| clock.0);
        self.free.push(jvm.index);
        if let Some(library) = self.libraries.get_mut(&jvm.library) {
            library.users.remove(&tgid);
            if library.users.is_empty() {
                for key in &library.operations {
                    // One that is not there need not be removed.
                    let _gone = self.operations.remove(&Plain(*key));
                }
                self.libraries.remove(&jvm.library);
            }
        }
        clock
    }

    /// How the stops of a process are seen, or why they are not.
    pub(crate) fn explain(&self, tgid: Tgid) -> Sight {
        if let Some(sight) = self.sight(tgid) {
            return sight.clone();
        }
        match File::open(format!("/proc/{tgid}/maps")) {
            Err(error) => Sight::none(&format!("cannot read its mappings: {error}; CAP_SYS_PTRACE helps")),
            Ok(_) if self.free.is_empty() => Sight::none(&format!("more than {JVM_LIMIT} JVMs")),
            Ok(_) => Sight::none("it has mapped no libjvm"),
        }
    }

    /// How the stops of a process are seen; `None` when it has no clock.
    pub(crate) fn sight(&self, tgid: Tgid) -> Option<&Sight> {
        self.jvms.get(&tgid).map(|jvm| &jvm.sight)
    }

    /// The clock of a process.
    pub(crate) fn clock(&self, tgid: Tgid) -> Option<SafepointClock> {
        let jvm = self.jvms.get(&tgid)?;
        self.clocks.get(&jvm.index, 0).ok().map(|clock| clock.0)
    }

    /// Reads the counters of those whose operations are not seen, and tells the kernel side what their stops
    /// are for: it then presumes the same of the next one.
    pub(crate) fn poll(&mut self) -> Result<(), MapError> {
        for jvm in self.jvms.values_mut() {
            let Some((path, before)) = &mut jvm.counters else { continue };
            let Some(now) = read(path, COUNTERS_BYTES).and_then(|bytes| hsperfdata::parse(&bytes)) else {
                continue; // being written, or its process is ending
            };
            if let Some(kind) = now.kind_since(before) {
                self.kinds.set(jvm.index, kind, 0)?;
            }
            *before = now;
        }
        Ok(())
    }
}

/// Puts a program at a place of a file.
fn place(ebpf: &mut Ebpf, name: &str, path: &str, offset: u64, cookie: u64) -> Result<OwnedFd, String> {
    let program = program(ebpf, name)?.fd().map_err(|error| crate::kernel::explain(&error))?;
    uprobe::attach(program.as_fd(), path, offset, cookie).map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES) => format!("{error}{NEEDS_ADMIN}"),
        _ => error.to_string(),
    })
}

/// What a JVM offers, and its libjvm.
fn offers(
    process: &Path,
    mapping: &Mapping,
    counters: &Result<(PathBuf, Counters), String>,
) -> (Option<File>, Offers) {
    let hsperfdata = counters.as_ref().map(|_| ()).map_err(Clone::clone);
    let none = |reason: String| Offers {
        usdt: Err(reason.clone()),
        symbols: Err(reason),
        hsperfdata: hsperfdata.clone(),
    };
    match mapping.open(process) {
        Err(error) => (None, none(format!("cannot open {}: {error}", mapping.path))),
        Ok(file) => match Image::read(&file) {
            Err(error) => (Some(file), none(format!("cannot read {}: {error}", mapping.path))),
            Ok(image) => {
                let (usdt, symbols) = (usdt::points(&image), symbols::points(&image));
                (Some(file), Offers { usdt, symbols, hsperfdata })
            }
        },
    }
}

/// The counters of a JVM, with the path to read them again.
fn counters_of(process: &Path, maps: &str) -> Result<(PathBuf, Counters), String> {
    let inside = libjvm::find_counters(maps)
        .ok_or("it has no performance counters: they are switched off (-XX:-UsePerfData) or private")?;
    let path = process.join("root").join(inside.strip_prefix("/").unwrap_or(&inside));
    let bytes = read(&path, COUNTERS_BYTES).ok_or_else(|| format!("cannot read {}", inside.display()))?;
    let counters =
        hsperfdata::parse(&bytes).ok_or_else(|| format!("{} is not understood", inside.display()))?;
    Ok((path, counters))
}

/// The bytes of a regular file, or of one of /proc.
fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe, String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| error.to_string())
}
