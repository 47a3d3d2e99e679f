//! The probe on a host whose kernel describes other types than those it knows: refused in words, nothing is loaded.
//!
//! The description of the running kernel is covered by another one in a mount namespace of the probe's own.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::probe;

const TYPES: &str = "/sys/kernel/btf/vmlinux";
/// This host or these privileges cannot do it.
const NOT_ABLE: Option<i32> = Some(3);

const TRACE: [&str; 3] = ["trace", "--duration", "1s"];

/// The probe with these arguments where the kernel's types are what the file says.
fn under(types: &Path, arguments: &[&str]) -> Result<Output> {
    let cover = format!("mount --bind \"$1\" {TYPES} && shift && exec \"$@\"");
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &cover, "sh"])
        .arg(types)
        .arg(probe::binary()?)
        .args(arguments)
        .output()
        .context("cannot start unshare (Debian: util-linux)")
}

/// What the probe says of these types, on standard output and error together; it must refuse the host.
fn refused(types: &[u8], arguments: &[&str]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), types)?;
    let output = under(file.path(), arguments)?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(output.status.code() == NOT_ABLE, "{arguments:?}: {}: {text}", output.status);
    ensure!(!text.contains("panicked") && text.contains("cannot be measured: "), "{text}");
    Ok(text)
}

fn own_types() -> Result<Vec<u8>> {
    std::fs::read(TYPES)
        .with_context(|| format!("this kernel has no {TYPES}: build it with CONFIG_DEBUG_INFO_BTF=y"))
}

/// The same with every name that is this one changed to another of the same length.
fn renamed(name: &str, new: &str) -> Result<Vec<u8>> {
    let mut types = own_types()?;
    let [old, new] = [name, new].map(|name| format!("\0{name}\0").into_bytes());
    let at = types.windows(old.len()).position(|some| some == old).context("this kernel has no such name")?;
    types[at..at + new.len()].copy_from_slice(&new);
    Ok(types)
}

#[test]
fn a_field_that_is_not_there_is_named() -> Result<()> {
    let types = renamed("rcv_nxt", "rcv_nix")?;
    let what = "the place of kernel fields: tcp_sock has no rcv_nxt in this kernel";
    let remedy = "to get it: use a probe that knows this kernel, and report the lines above";
    let trace = refused(&types, &TRACE)?;
    ensure!(trace.contains(&format!("{what} {remedy}")), "{trace}");
    let doctor = refused(&types, &["doctor"])?;
    ensure!(doctor.contains(&format!("{what} {remedy}")), "{doctor}");
    ensure!(doctor.contains(&format!("not able: {what}")), "{doctor}");
    // No program was loaded, not even for a try.
    ensure!(doctor.contains("_tp (not tried): "), "{doctor}");
    Ok(())
}

#[test]
fn types_that_are_cut_short_are_unusable() -> Result<()> {
    let types = own_types()?;
    for arguments in [&TRACE[..], &["doctor"]] {
        let said = refused(&types[..types.len() / 2], arguments)?;
        let what = "not the BTF of this machine's kernel: a section lies outside of it";
        ensure!(said.contains(what) && said.contains("to get it: "), "{said}");
    }
    Ok(())
}

/// Well-formed types of another kernel, whose numbers mean nothing here: the running kernel refuses the programs.
#[test]
fn types_of_another_kernel_are_refused() -> Result<()> {
    let other = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/btf/6.1-rt.btf"))?;
    let said = refused(&other, &["doctor"])?;
    ensure!(
        said.contains("41 of 41 fields found") && said.contains("not able: a hook for the job receive"),
        "{said}"
    );
    Ok(())
}
