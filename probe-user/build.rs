//! Builds the kernel half and leaves its object in OUT_DIR, from where the loader embeds it.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    // Stable builds the BPF target when it is told that unstable flags are meant; only this inner
    // build is told so.
    // SAFETY: a build script is single-threaded here; nobody reads the environment meanwhile.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    // The kernel half is built by the toolchain that builds this half: rustup names it to its children.
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf");
    aya_build::build_ebpf(
        [aya_build::Package { name: "probe-ebpf", root_dir: root, ..Default::default() }],
        aya_build::Toolchain::Custom(&toolchain),
    )
    .context("cannot build the kernel half: `cargo xtask setup` installs rust-src and bpf-linker")
}
