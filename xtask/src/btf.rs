//! Fixtures of kernels' types: what the probe asks of each kernel, and nothing else, in a few KB.
//!
//! In: stock kernels (or the BTF of the running one), and `tests/fixtures/btf/wanted`. Out: `tests/fixtures/btf/NAME.btf`.
//! Invariant: offsets, sizes and names are the kernel's own; only what is not wanted is left out. Not here: what the
//! fields are for. That the list is the probe's own is checked by the probe's tests.

mod trim;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::vm::{self, Kernel};
use crate::{elf, invoke};

/// The running kernel's description of its types.
const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// Options of `cargo xtask btf`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kernels, such as 6.12-rt
    #[arg(value_name = "KERNEL", value_parser = vm::parse)]
    kernels: Vec<&'static Kernel>,
    /// The running kernel too, under this name
    #[arg(long, value_name = "NAME")]
    running: Option<String>,
}

/// The task.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let place = invoke::workspace().join("tests/fixtures/btf");
    let wanted = read(&place.join("wanted"))?;
    let wanted = trim::Wanted::parse(&String::from_utf8_lossy(&wanted));
    for kernel in &options.kernels {
        let vmlinux = read(&vm::vmlinux_of(kernel)?)?;
        let btf = elf::section(&vmlinux, ".BTF")?;
        write(&place, kernel.name, btf, &wanted)?;
    }
    if let Some(name) = &options.running {
        write(&place, name, &read(Path::new(RUNNING))?, &wanted)?;
    }
    Ok(())
}

fn write(place: &Path, name: &str, btf: &[u8], wanted: &trim::Wanted) -> anyhow::Result<()> {
    let trimmed = trim::trim(btf, wanted).with_context(|| format!("cannot read the BTF of {name}"))?;
    let file: PathBuf = place.join(format!("{name}.btf"));
    fs::write(&file, &trimmed).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{name}: {} bytes of {}", trimmed.len(), btf.len());
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
