//! Hosts that we do not have here, and what the plan makes of them.

use super::*;
use crate::host::Toolchain;
use crate::packages::PACKAGES;

/// A Debian host, root, where nothing is missing.
fn complete() -> Host {
    Host {
        root: true,
        apt: true,
        rustup: true,
        missing: Vec::new(),
        toolchain: Toolchain { rust_src: true, musl: true, clippy: true, rustfmt: true, llvm: Some(22) },
        bpf_linker: Some(BPF_LINKER.to_owned()),
        tracefs: Mount::Present,
        bpffs: Mount::Present,
    }
}

/// A Debian host, root, where everything is missing.
fn fresh() -> Host {
    Host {
        missing: PACKAGES.iter().collect(),
        toolchain: Toolchain { rust_src: false, musl: false, clippy: false, rustfmt: false, llvm: Some(22) },
        bpf_linker: None,
        tracefs: Mount::Absent,
        bpffs: Mount::Absent,
        ..complete()
    }
}

/// The plan as text: one line a command, the obstacle in front.
fn check(host: &Host, scope: Scope, expected: &[&str]) {
    let steps = plan(host, scope).expect("a plan");
    let commands: Vec<String> = steps
        .iter()
        .flat_map(|step| {
            step.lines.iter().map(|line| match step.obstacle {
                Some(obstacle) => format!("[{obstacle}] {line}"),
                None => line.to_string(),
            })
        })
        .collect();
    assert_eq!(commands, expected);
}

const LINKER: &str = "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 \
     --no-default-features --features llvm-22 --locked --force";

#[test]
fn nothing_missing_gives_no_step() {
    check(&complete(), Scope::All, &[]);
}

#[test]
fn building_needs_neither_java_nor_clippy() {
    check(
        &fresh(),
        Scope::Build,
        &[
            "apt-get update",
            "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
             -o DPkg::Lock::Timeout=300 gcc libc6-dev llvm-22-dev",
            "rustup component add rust-src",
            "rustup target add x86_64-unknown-linux-musl",
            LINKER,
            "mount -t tracefs tracefs /sys/kernel/tracing",
            "mount -t bpf bpf /sys/fs/bpf",
        ],
    );
}

#[test]
fn testing_leaves_services_out() {
    let steps = plan(&fresh(), Scope::All).expect("a plan");
    let install = steps[0].lines[1].to_string();
    assert!(install.contains("--path-exclude=/lib/systemd/system/prometheus.service"));
    assert!(install.contains("libzookeeper-java"));
    assert_eq!(steps[0].why.len(), PACKAGES.len(), "a reason for each");
}

#[test]
fn testing_does_without_what_the_bench_compares_with() {
    let steps = plan(&fresh(), Scope::Test).expect("a plan");
    assert!(!steps[0].what.contains("bpftrace"), "{}", steps[0].what);
    let steps = plan(&fresh(), Scope::All).expect("a plan");
    assert!(steps[0].what.contains("bpftrace"), "{}", steps[0].what);
}

#[test]
fn an_installed_linker_needs_no_llvm() {
    let host = Host { missing: PACKAGES.iter().filter(|p| p.name == "llvm-22-dev").collect(), ..complete() };
    check(&host, Scope::All, &[]);
}

#[test]
fn another_linker_is_replaced() {
    let host = Host { bpf_linker: Some("0.9.15".to_owned()), ..complete() };
    check(&host, Scope::Build, &[LINKER]);
}

#[test]
fn who_is_not_root_gets_commands() {
    let host = Host {
        root: false,
        missing: PACKAGES.iter().filter(|p| p.name == "llvm-22-dev").collect(),
        bpf_linker: None,
        tracefs: Mount::Absent,
        ..complete()
    };
    check(
        &host,
        Scope::Build,
        &[
            "[not root] apt-get update",
            "[not root] DEBIAN_FRONTEND=noninteractive apt-get install -y \
             --no-install-recommends -o DPkg::Lock::Timeout=300 llvm-22-dev",
            &format!("[needs the packages first] {LINKER}"),
            "[not root] mount -t tracefs tracefs /sys/kernel/tracing",
        ],
    );
}

#[test]
fn obstacles_are_told_apart() {
    let host = Host { apt: false, rustup: false, ..fresh() };
    let steps = plan(&host, Scope::All).expect("a plan");
    assert_eq!(steps[0].obstacle, Some(Obstacle::NoApt));
    assert_eq!(steps[1].obstacle, Some(Obstacle::NoRustup));
}

#[test]
fn a_newer_llvm_than_the_linker_reads_is_refused() {
    let mut host = complete();
    host.toolchain.llvm = Some(23);
    let error = plan(&host, Scope::Build).expect_err("no plan");
    assert!(error.to_string().contains("LLVM 23"), "{error}");
}

#[test]
fn an_unsupported_mount_is_left_alone() {
    let host = Host { bpffs: Mount::Unsupported, ..complete() };
    check(&host, Scope::All, &[]);
}
