//! Programs in the kernel and what their runs cost: the probe's, and an empty one beside each.
//!
//! In: what the probe's `doctor` says about its programs, and its descriptors in /proc. Out: time and
//! number of the runs of each program and of its empty twin. Invariant: a program belongs to the probe
//! that was started here because that process holds its descriptor, never because of its name. An empty
//! program is two instructions, laid down here in an object file of its own: the product carries nothing
//! that only this bench needs.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{BtfTracePoint, FEntry, FExit, Program, RawTracePoint, TracePoint, loaded_programs};
use aya::{Btf, Ebpf};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use serde_json::Value;
use termite_probe_tests::holdings::{descriptors, number};

/// The kernel keeps this many bytes of a program's name (BPF_OBJ_NAME_LEN, one for the end).
const NAME_BYTES: usize = 15;
/// `r0 = 0; exit`
const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Runs of a program so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// Time that they took together.
    pub time_ns: u64,
    /// How many.
    pub count: u64,
}

impl Runs {
    /// Those since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self { time_ns: self.time_ns - earlier.time_ns, count: self.count - earlier.count }
    }
}

/// A program of the probe and its empty twin at one moment.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The probe's name for it.
    pub name: String,
    /// Where it is attached, as the kernel names it.
    pub hook: String,
    /// The probe's runs.
    pub ours: Runs,
    /// The twin's.
    pub empty: Runs,
}

/// A program as the probe would attach it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    name: String,
    /// The section that tells the loader how: `tp_btf/sk_data_ready`.
    section: String,
}

/// Programs by which the empty ones are attached, in the place of the probe's.
pub struct Twins {
    planned: Vec<Planned>,
    object: Ebpf,
}

impl Twins {
    /// Attaches an empty program wherever a probe on this host attaches one.
    pub fn attach() -> Result<Self> {
        Self::attach_all(planned(Wanted::Used)?)
    }

    /// The same, on tracepoints with typed arguments only.
    pub fn attach_typed() -> Result<Self> {
        let mut planned = planned(Wanted::Used)?;
        planned.retain(|one| one.section.starts_with("tp_btf/"));
        Self::attach_all(planned)
    }

    /// Attaches one on every tracepoint of a system call that the probe could use, whether it does or not.
    pub fn attach_system_calls() -> Result<Self> {
        let mut planned = planned(Wanted::Candidates)?;
        planned.retain(|one| one.section.starts_with("tracepoint/syscalls/"));
        Self::attach_all(planned)
    }

    fn attach_all(planned: Vec<Planned>) -> Result<Self> {
        let mut object = Ebpf::load(&object_file(&planned)?).context("cannot load the empty programs")?;
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        let mut attached = Vec::new();
        for one in planned {
            let program = object.program_mut(&one.name).context("the loader lost a program")?;
            // A variant that this kernel refuses is not the one that the probe uses either.
            if attach(program, &one.section, &btf).is_ok() {
                attached.push(one);
            }
        }
        ensure!(!attached.is_empty(), "no empty program could be attached");
        Ok(Self { planned: attached, object })
    }

    /// The runs of the programs of the probe that is process `pid`, and of their twins.
    pub fn look(&self, pid: u32, names: &BTreeMap<u32, String>) -> Result<Vec<Pair>> {
        let ours = runs_of_process(pid)?;
        let mut pairs = Vec::new();
        for one in &self.planned {
            let short = &one.name[..one.name.len().min(NAME_BYTES)];
            let Some((_, runs)) = ours.iter().find(|(id, _)| names.get(id).is_some_and(|n| n == short))
            else {
                continue;
            };
            let info = self.object.program(&one.name).context("the loader lost a program")?.info()?;
            let time_ns = u64::try_from(info.run_time().as_nanos())?;
            let empty = Runs { time_ns, count: info.run_count() };
            let hook = one.section.split_once('/').map_or("", |(_, hook)| hook).to_owned();
            pairs.push(Pair { name: one.name.clone(), hook, ours: *runs, empty });
        }
        ensure!(!pairs.is_empty(), "process {pid} holds no program that `doctor` told of");
        Ok(pairs)
    }
}

/// The names of all programs of the host, by id.
pub fn names() -> BTreeMap<u32, String> {
    // Programs of others come and go meanwhile; one that is gone needs no name.
    let infos = loaded_programs().filter_map(Result::ok);
    infos.map(|info| (info.id(), info.name_as_str().unwrap_or_default().to_owned())).collect()
}

/// The runs of the programs that a process holds, by id.
pub fn runs_of_process(pid: u32) -> Result<BTreeMap<u32, Runs>> {
    let mut runs = BTreeMap::new();
    for fields in descriptors(pid)? {
        let Some(count) = number(&fields, "run_cnt") else { continue };
        let id = number(&fields, "prog_id").context("a program without an id")?;
        let time_ns = number(&fields, "run_time_ns").context("a program without run time")?;
        runs.insert(u32::try_from(id)?, Runs { time_ns, count });
    }
    Ok(runs)
}

/// Of the variants that could do a job on this host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The one in use: neither what could be, nor what has to be asked for.
    Used,
    /// All.
    Candidates,
}

fn planned(wanted: Wanted) -> Result<Vec<Planned>> {
    let mut command = termite_probe_tests::probe::command(&["doctor", "--json"])?;
    let output = command.stdin(Stdio::null()).output().context("cannot start the probe")?;
    let told: Value = serde_json::from_slice(&output.stdout).context("doctor wrote no JSON")?;
    let mut planned = Vec::new();
    for job in list(&told["plan"]["jobs"]) {
        let used = list(&told["hooks"]).iter().find(|one| one["hook"] == job["hook"]);
        let used = used.filter(|one| one["state"] == "attached").map_or(&Value::Null, |one| &one["variant"]);
        let is_wanted = |variant: &&Value| wanted == Wanted::Candidates || variant["name"] == *used;
        for variant in list(&job["candidates"]).iter().filter(is_wanted) {
            for program in list(&variant["programs"]) {
                let name = program["name"].as_str().context("a program without a name")?.to_owned();
                planned.push(Planned { name, section: section(&program["attach"])? });
            }
        }
    }
    ensure!(!planned.is_empty(), "doctor tells of no program");
    Ok(planned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn section(attach: &Value) -> Result<String> {
    let (kind, target) =
        attach.as_object().and_then(|object| object.iter().next()).context("no attachment")?;
    match target {
        Value::String(name) => Ok(format!("{kind}/{name}")),
        target => {
            let part = |name: &str| target[name].as_str().with_context(|| format!("no {name} in {target}"));
            Ok(format!("{kind}/{}/{}", part("category")?, part("name")?))
        }
    }
}

fn attach(program: &mut Program, section: &str, btf: &Btf) -> Result<()> {
    let (kind, target) = section.split_once('/').context("a section without a target")?;
    match kind {
        "tp_btf" => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        "fentry" => {
            let program: &mut FEntry = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        "fexit" => {
            let program: &mut FExit = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        "tracepoint" => {
            let program: &mut TracePoint = program.try_into()?;
            let (category, name) = target.split_once('/').context("a tracepoint without a category")?;
            program.load()?;
            program.attach(category, name)?;
        }
        "raw_tracepoint" => {
            let program: &mut RawTracePoint = program.try_into()?;
            let (_, name) = target.split_once('/').context("a tracepoint without a category")?;
            program.load()?;
            program.attach(name)?;
        }
        other => bail!("no empty program of kind {other} is known: add it here"),
    }
    Ok(())
}

/// An object file of empty programs, one to a section.
fn object_file(planned: &[Planned]) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::ReadOnlyData);
    file.append_section_data(license, b"GPL\0", 1);
    for one in planned {
        let section = file.add_section(Vec::new(), one.section.clone().into_bytes(), SectionKind::Text);
        file.append_section_data(section, &NOTHING, 8);
        file.add_symbol(Symbol {
            name: one.name.clone().into_bytes(),
            value: 0,
            size: NOTHING.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    file.write().context("cannot lay down the empty programs")
}
