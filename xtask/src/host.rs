//! What this host has: the facts that the plan of `setup` is made from.
//!
//! In: PATH, a few files, the answers of rustc and bpf-linker. Out: `Host`, plain data. Invariant:
//! looking changes nothing and takes well under a second. Not here: what follows from the facts.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::invoke;
use crate::packages::{PACKAGES, Package};

/// The target of the release binary: static, so that it runs on any node and in an empty image.
pub(crate) const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// The part of the active Rust toolchain that can be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The sources of core, which are compiled for the BPF target.
    pub(crate) rust_src: bool,
    /// The standard library for `MUSL_TARGET`.
    pub(crate) musl: bool,
    /// `cargo clippy`.
    pub(crate) clippy: bool,
    /// `cargo fmt`.
    pub(crate) rustfmt: bool,
    /// The major version of rustc's LLVM; `None` when rustc does not tell.
    pub(crate) llvm: Option<u32>,
}

/// A file system that the kernel offers at a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// It is mounted.
    Present,
    /// It is not, and could be.
    Absent,
    /// This kernel has no such place.
    Unsupported,
}

/// What this host has.
#[derive(Debug)]
pub(crate) struct Host {
    /// Whether we are root.
    pub(crate) root: bool,
    /// Whether there is apt-get.
    pub(crate) apt: bool,
    /// Whether there is rustup.
    pub(crate) rustup: bool,
    /// The packages that are not there.
    pub(crate) missing: Vec<&'static Package>,
    /// The active toolchain.
    pub(crate) toolchain: Toolchain,
    /// The version of the bpf-linker that rustc would start; `None` when there is none that works.
    pub(crate) bpf_linker: Option<String>,
    /// /sys/kernel/tracing.
    pub(crate) tracefs: Mount,
    /// /sys/fs/bpf.
    pub(crate) bpffs: Mount,
}

impl Host {
    /// Looks at this host.
    pub(crate) fn inspect() -> anyhow::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Ok(Self {
            root: std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
            apt: program("apt-get").is_some(),
            rustup: program("rustup").is_some(),
            missing: PACKAGES.iter().filter(|package| !package.is_present()).collect(),
            toolchain: toolchain()?,
            bpf_linker: bpf_linker(),
            tracefs: mount(&mounts, "tracefs", "/sys/kernel/tracing"),
            bpffs: mount(&mounts, "bpf", "/sys/fs/bpf"),
        })
    }
}

/// Where in PATH the program is. The administrator's directories count even where a user's PATH
/// lacks them.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| {
            file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

fn toolchain() -> anyhow::Result<Toolchain> {
    let sysroot = PathBuf::from(answer("rustc", &["--print", "sysroot"])?.trim());
    let rustlib = sysroot.join("lib/rustlib");
    let has = |relative: &str| sysroot.join(relative).exists();
    Ok(Toolchain {
        rust_src: rustlib.join("src/rust/library/core/src/lib.rs").exists(),
        musl: rustlib.join(MUSL_TARGET).join("lib").exists(),
        clippy: has("bin/cargo-clippy"),
        rustfmt: has("bin/cargo-fmt"),
        llvm: llvm_major(&answer("rustc", &["-vV"])?),
    })
}

/// The major version in a line such as `LLVM version: 22.1.2`.
fn llvm_major(verbose_version: &str) -> Option<u32> {
    verbose_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn bpf_linker() -> Option<String> {
    // A linker whose libLLVM is gone does not start, and counts as absent.
    let answer = answer("bpf-linker", &["--version"]).ok()?;
    Some(answer.trim().strip_prefix("bpf-linker ")?.to_owned())
}

fn answer(name: &str, args: &[&str]) -> anyhow::Result<String> {
    let mut command: Command = invoke::command(name);
    command.args(args);
    let shown = invoke::typed(&command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a file system of this type is mounted there, by the lines of /proc/self/mounts.
fn mount(mounts: &str, kind: &str, place: &str) -> Mount {
    let mounted = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(place) && words.next() == Some(kind)
    });
    match mounted {
        true => Mount::Present,
        false if Path::new(place).is_dir() => Mount::Absent,
        false => Mount::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_version_of_rustc() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.95.0"), None);
    }

    #[test]
    fn mounts_are_told_by_place_and_type() {
        let mounts = "sysfs /sys sysfs rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n";
        assert_eq!(mount(mounts, "tracefs", "/sys/kernel/tracing"), Mount::Present);
        assert_eq!(mount(mounts, "bpf", "/"), Mount::Absent);
        assert_eq!(mount(mounts, "bpf", "/no/such/place"), Mount::Unsupported);
    }

    #[test]
    fn programs_are_found_in_path() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-anywhere").is_none());
    }
}
