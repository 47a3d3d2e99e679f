//! From facts about the host to the steps of `setup`.
//!
//! In: `Host` and how much is wanted. Out: the steps that are missing, each with its commands and,
//! where it may not be done here, the obstacle. Invariant: pure; what is there gives no step. Not
//! here: running anything.

use std::fmt;

use anyhow::bail;

use crate::host::{Host, MUSL_TARGET, Mount};
use crate::packages::{Package, Purpose};

/// The linker of the kernel half: 0.13.0 is the release that was tried with this compiler.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// The newest LLVM whose bitcode `BPF_LINKER`, built with llvm-22-dev, reads.
const BPF_LINKER_LLVM: u32 = 22;

/// Another apt-get or dpkg may be at work: wait this long for it (seconds).
const DPKG_LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// How much of it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What building the probe needs.
    Build,
    /// That, and what checking the sources needs.
    Check,
    /// That, and what the real tests need.
    Test,
    /// That, and what the bench compares with.
    All,
}

/// One command, as it is run and as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Variables for it.
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Whether the step goes on when it fails.
    pub(crate) may_fail: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={value} ")?;
        }
        f.write_str(&self.argv.join(" "))
    }
}

/// Why a step may not be done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It needs root.
    NotRoot,
    /// It needs apt-get.
    NoApt,
    /// It needs rustup.
    NoRustup,
    /// It needs the packages that may not be installed here.
    NoPackages,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRoot => "not root",
            Self::NoApt => "no apt-get",
            Self::NoRustup => "no rustup",
            Self::NoPackages => "needs the packages first",
        })
    }
}

/// Something that is missing, and how to get it.
#[derive(Debug)]
pub(crate) struct Step {
    /// What is done, as an imperative.
    pub(crate) what: String,
    /// Why it is needed: one or more lines.
    pub(crate) why: Vec<String>,
    /// How.
    pub(crate) lines: Vec<Line>,
    /// How often it is tried: twice where a network is known to hiccup.
    pub(crate) attempts: u32,
    /// Whether its commands are for root.
    pub(crate) root: bool,
    /// Whether building and testing can begin without it.
    pub(crate) optional: bool,
    /// Why it may not be done here.
    pub(crate) obstacle: Option<Obstacle>,
}

/// What to do on this host.
pub(crate) fn plan(host: &Host, scope: Scope) -> anyhow::Result<Vec<Step>> {
    if let Some(llvm) = host.toolchain.llvm
        && llvm > BPF_LINKER_LLVM
    {
        bail!(
            "the active rustc uses LLVM {llvm}, and bpf-linker reads the bitcode of LLVM \
             {BPF_LINKER_LLVM} at most: use the toolchain of Cargo.toml's rust-version, e.g. \
             `rustup toolchain install 1.95.0` and `cargo +1.95.0 xtask ...`"
        );
    }
    let mut steps = Vec::new();
    steps.extend(packages(host, scope));
    steps.extend(components(host, scope));
    if !host.toolchain.musl {
        steps.push(rustup(
            host,
            &["target", "add", MUSL_TARGET],
            "the binary is static, so that it runs on any node and in an empty image",
        ));
    }
    steps.extend(bpf_linker(host, &steps));
    steps.extend(mounts(host));
    Ok(steps)
}

fn packages(host: &Host, scope: Scope) -> Option<Step> {
    let has_linker = host.bpf_linker.as_deref() == Some(BPF_LINKER);
    let wanted: Vec<&Package> = host
        .missing
        .iter()
        .copied()
        .filter(|package| match package.purpose {
            Purpose::Linker => !has_linker,
            Purpose::Build => true,
            Purpose::Test | Purpose::Deploy => matches!(scope, Scope::Test | Scope::All),
            Purpose::Bench => scope == Scope::All,
        })
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let names: Vec<&str> = wanted.iter().map(|package| package.name).collect();
    let mut install = words(&["apt-get", "install", "-y", "--no-install-recommends", "-o"]);
    install.push(DPKG_LOCK_TIMEOUT.to_owned());
    // A service that is never unpacked starts neither now nor at the next boot, with any init and
    // without a policy-rc.d that could be left behind.
    for service in wanted.iter().flat_map(|package| package.services) {
        install.push("-o".to_owned());
        install.push(format!("Dpkg::Options::=--path-exclude={service}"));
    }
    install.extend(names.iter().map(|&name| name.to_owned()));
    Some(Step {
        what: format!("install {}", names.join(" ")),
        why: wanted.iter().map(|package| format!("{}: {}", package.name, package.why)).collect(),
        lines: vec![
            Line {
                env: Vec::new(),
                argv: words(&["apt-get", "update"]),
                // A broken third-party source must not stop us: the install tells.
                may_fail: true,
            },
            Line { env: vec![("DEBIAN_FRONTEND", "noninteractive")], argv: install, may_fail: false },
        ],
        attempts: 2,
        root: true,
        optional: false,
        obstacle: match (host.apt, host.root) {
            (false, _) => Some(Obstacle::NoApt),
            (true, false) => Some(Obstacle::NotRoot),
            (true, true) => None,
        },
    })
}

fn components(host: &Host, scope: Scope) -> Vec<Step> {
    let checks = scope != Scope::Build;
    let toolchain = &host.toolchain;
    [
        ("rust-src", !toolchain.rust_src, "the kernel half compiles core for the BPF target"),
        ("clippy", checks && !toolchain.clippy, "the test run checks lints"),
        ("rustfmt", checks && !toolchain.rustfmt, "the test run checks formatting"),
    ]
    .into_iter()
    .filter(|&(_, is_missing, _)| is_missing)
    .map(|(name, _, why)| rustup(host, &["component", "add", name], why))
    .collect()
}

fn rustup(host: &Host, args: &[&str], why: &str) -> Step {
    let mut argv = words(&["rustup"]);
    argv.extend(words(args));
    Step {
        what: argv.join(" "),
        why: vec![why.to_owned()],
        lines: vec![Line { env: Vec::new(), argv, may_fail: false }],
        attempts: 2,
        root: false,
        optional: false,
        obstacle: (!host.rustup).then_some(Obstacle::NoRustup),
    }
}

fn bpf_linker(host: &Host, before: &[Step]) -> Option<Step> {
    if host.bpf_linker.as_deref() == Some(BPF_LINKER) {
        return None;
    }
    let no_packages = before.iter().any(|step| step.root && step.obstacle.is_some());
    let argv = words(&[
        "cargo",
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--no-default-features",
        "--features",
        "llvm-22",
        "--locked",
        // The one that is there is of another version, or does not start.
        "--force",
    ]);
    let found = match &host.bpf_linker {
        Some(version) => format!(" (found {version})"),
        None => String::new(),
    };
    Some(Step {
        what: format!("install bpf-linker {BPF_LINKER} (one to two minutes)"),
        why: vec![format!("rustc links the kernel half with it{found}")],
        lines: vec![Line { env: vec![("LLVM_PREFIX", "/usr/lib/llvm-22")], argv, may_fail: false }],
        attempts: 2,
        root: false,
        optional: false,
        obstacle: no_packages.then_some(Obstacle::NoPackages),
    })
}

fn mounts(host: &Host) -> Vec<Step> {
    [
        (host.tracefs, "tracefs", "/sys/kernel/tracing", "the probe finds its tracepoints there"),
        (host.bpffs, "bpf", "/sys/fs/bpf", "tools that look at the probe's programs expect it"),
    ]
    .into_iter()
    .filter(|&(state, ..)| state == Mount::Absent)
    .map(|(_, kind, place, why)| Step {
        what: format!("mount {place}"),
        why: vec![why.to_owned()],
        lines: vec![Line {
            env: Vec::new(),
            argv: words(&["mount", "-t", kind, kind, place]),
            may_fail: false,
        }],
        attempts: 1,
        root: true,
        // A container may refuse it; building and the unit tests do without.
        optional: true,
        obstacle: (!host.root).then_some(Obstacle::NotRoot),
    })
    .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
