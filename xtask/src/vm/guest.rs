//! What the guest runs: a shell of one static file, the probe, and the script of steps.
//!
//! In: the probe's binary, and whether a real ensemble is wanted. Out: an initramfs. Invariant: the probe and the
//! shell ask for no dynamic loader. Not here: the steps (`init.sh`), and what is made of them.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::archive::Archive;
use super::java;
use crate::elf;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/bin/busybox";

/// Packs it.
pub(super) fn initramfs(binary: &Path, real: bool, cache: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev", "tmp"] {
        archive.directory(directory);
    }
    archive.program("init", INIT.as_bytes());
    for (name, path) in [("bin/busybox", Path::new(BUSYBOX)), ("bin/termite-probe", binary)] {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_dynamic = elf::asks_for_loader(&bytes)
            .with_context(|| format!("cannot tell whether {} is static", path.display()))?;
        ensure!(
            !is_dynamic,
            "{} asks for a dynamic loader, which the guest does not have: install busybox-static",
            path.display()
        );
        archive.program(name, &bytes);
    }
    if real {
        java::add(&mut archive, cache)?;
    }
    Ok(archive.finish())
}
