//! The static binary on other kernels, each in a virtual machine.
//!
//! In: names of kernels. Out: a verdict line for each thing tried on each of them, and with `--write` the table of
//! docs/compatibility.md. Invariant: what a guest did is judged by what it said on its channel, to the end, and by
//! nothing else: qemu succeeds after a kernel panic too. Not here: what the probe should do, which its own tests say.

mod archive;
mod guest;
mod java;
mod judge;
mod kernel;
mod machine;
mod page;
mod transcript;
mod vmlinux;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;

use self::judge::Verdict;
use self::kernel::KERNELS;
pub(crate) use self::kernel::{Kernel, parse};
use crate::plan::Scope;
use crate::{build, invoke, setup};

/// The kernels that every test run boots: the ends of the range, in the flavour of servers.
pub(crate) const TESTED: [&str; 2] = ["6.1-cloud", "6.12-cloud"];

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kernels, such as 6.1-cloud; all of them by default
    #[arg(value_name = "KERNEL", value_parser = kernel::parse)]
    kernels: Vec<&'static Kernel>,
    /// Without the real ensemble: what the test run does, for any kernel
    #[arg(long, conflicts_with = "write")]
    quick: bool,
    /// Put the table into docs/compatibility.md; wants all kernels
    #[arg(long, conflicts_with = "kernels")]
    write: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::ensure(Scope::Test)?;
    let binary = build::binary()?;
    let kernels = match options.kernels.as_slice() {
        [] => KERNELS.iter().collect(),
        some => some.to_vec(),
    };
    let (trials, failed) = try_all(&kernels, &binary, !options.quick);
    if options.write {
        page::write(&trials)?;
    } else {
        println!("\n{}", page::table(&trials));
    }
    conclude(failed)
}

/// What the test run boots.
pub(crate) fn check(binary: &Path) -> anyhow::Result<()> {
    let kernels: Vec<_> = KERNELS.iter().filter(|kernel| TESTED.contains(&kernel.name)).collect();
    conclude(try_all(&kernels, binary, false).1)
}

fn conclude(failed: usize) -> anyhow::Result<()> {
    match failed {
        0 => Ok(()),
        1 => bail!("1 verdict is a failure"),
        several => bail!("{several} verdicts are failures"),
    }
}

/// One kernel and what came of it.
pub(crate) struct Trial {
    kernel: &'static Kernel,
    /// As the guest's `uname -r` tells it.
    release: String,
    verdicts: Vec<Verdict>,
    cells: Vec<judge::Cell>,
}

/// Boots the kernels one after the other, each with a verdict line for all that was tried. Tells how many failed.
fn try_all(kernels: &[&'static Kernel], binary: &Path, real: bool) -> (Vec<Trial>, usize) {
    let mut trials = Vec::new();
    let mut failed = 0;
    for kernel in kernels {
        let started = Instant::now();
        // One that does not come up is a verdict too, and the others are tried all the same.
        let trial = try_one(kernel, binary, real).unwrap_or_else(|error| Trial {
            kernel,
            release: "not booted".to_owned(),
            verdicts: vec![Verdict { name: "boot", result: Err(error) }],
            cells: Vec::new(),
        });
        for verdict in &trial.verdicts {
            println!("{}", verdict.line(kernel.name));
            failed += usize::from(verdict.result.is_err());
        }
        println!("      {}: {}, {}", kernel.name, trial.release, invoke::seconds(started.elapsed()));
        trials.push(trial);
    }
    (trials, failed)
}

fn try_one(kernel: &'static Kernel, binary: &Path, real: bool) -> anyhow::Result<Trial> {
    let vmlinux = kernel::fetch(kernel, &cache())?;
    let initramfs = guest::initramfs(binary, real, &cache())?;
    let transcript = machine::boot(kernel.name, &vmlinux, &initramfs, &cache())?;
    let (verdicts, cells) = judge::judge(&transcript, real);
    let release = transcript.step("kernel").map_or("release unknown", |step| step.output.trim()).to_owned();
    Ok(Trial { kernel, release, verdicts, cells })
}

/// The kernel itself, an ELF file.
pub(crate) fn vmlinux_of(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    kernel::fetch(kernel, &cache())
}

/// Where kernels and logs are kept.
fn cache() -> PathBuf {
    invoke::target().join("vm")
}
