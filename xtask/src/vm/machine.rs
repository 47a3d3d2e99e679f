//! Boots a kernel in qemu and collects what the guest says.
//!
//! In: a kernel and an initramfs. Out: a [`Transcript`]. Invariant: the guest ends or is ended, and one that fell
//! silent gets a second try (emulation stalls once in a few dozen boots). Not here: what the guest should say.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::transcript::Transcript;
use crate::invoke;

/// A guest takes under a minute; a busy host makes it several.
const PATIENCE: Duration = Duration::from_secs(360);
/// Its longest step says nothing for some twenty seconds.
const SILENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ATTEMPTS: u32 = 2;
/// Lines of the guest's console that are shown when it did not come to its end.
const LAST_LINES: usize = 15;

/// Boots it, once more when it does not come to its end, and tells each step as it begins.
pub(super) fn boot(name: &str, vmlinux: &Path, initramfs: &[u8], cache: &Path) -> anyhow::Result<Transcript> {
    let place = cache.join("runs").join(name);
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    fs::write(place.join("initramfs"), initramfs)?;
    let mut attempt = 1;
    loop {
        let transcript = run(name, vmlinux, &place)?;
        if transcript.is_complete {
            return Ok(transcript);
        }
        let reached = transcript.unfinished.as_deref().unwrap_or("before its first step");
        if attempt == ATTEMPTS {
            bail!("{name} did not come to its end ({reached}); its console ended so:\n{}", console(&place));
        }
        println!("      {name}: did not come to its end ({reached}); once more");
        attempt += 1;
    }
}

/// The machine of one run.
fn command(vmlinux: &Path, place: &Path) -> Command {
    // noirqdebug: with interrupt threads (rt) the kernel takes the busy serial port for a broken one and shuts it off.
    // One thread for both CPUs: with one each, code patching under way on the other CPU made a guest oops. No
    // acceleration: nested virtualisation is rarely there, and where it is, not always sound.
    let mut command = invoke::command("nice");
    command
        .args(["-n", "10", "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max"])
        .args(["-M", "q35", "-m", "2048", "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"])
        .arg("-serial")
        .arg(format!("file:{}", place.join("console").display()))
        .arg("-serial")
        .arg(format!("file:{}", place.join("said").display()))
        .arg("-kernel")
        .arg(vmlinux)
        .arg("-initrd")
        .arg(place.join("initramfs"))
        .args(["-append", "console=ttyS0 panic=-1 nokaslr mitigations=off quiet noirqdebug"]);
    command
}

/// The process; it does not outlive us.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(name: &str, vmlinux: &Path, place: &Path) -> anyhow::Result<Transcript> {
    for file in ["console", "said"] {
        File::create(place.join(file))?;
    }
    let errors = File::create(place.join("errors"))?;
    let child = command(vmlinux, place)
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut guest = Guest(child);
    let mut watch = Watch::default();
    let started = Instant::now();
    loop {
        let status = guest.0.try_wait()?;
        let transcript = watch.look(name, &place.join("said"))?;
        if let Some(status) = status {
            if !status.success() {
                let errors = fs::read_to_string(place.join("errors")).unwrap_or_default();
                bail!("qemu-system-x86_64 failed ({status}): {}", errors.trim());
            }
            return Ok(transcript);
        }
        if started.elapsed() > PATIENCE || watch.heard_at.is_some_and(|at| at.elapsed() > SILENCE) {
            return Ok(transcript);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Shows the steps as they come.
#[derive(Default)]
struct Watch {
    bytes: usize,
    heard_at: Option<Instant>,
    shown: usize,
}

impl Watch {
    fn look(&mut self, name: &str, file: &Path) -> anyhow::Result<Transcript> {
        let said = fs::read(file)?;
        if said.len() != self.bytes || self.heard_at.is_none() {
            self.bytes = said.len();
            self.heard_at = Some(Instant::now());
        }
        let transcript = Transcript::of(&String::from_utf8_lossy(&said));
        let begun = transcript.steps.iter().map(|step| &step.name).chain(&transcript.unfinished);
        for step in begun.skip(self.shown) {
            println!("      {name}: {step}");
            self.shown += 1;
        }
        Ok(transcript)
    }
}

fn console(place: &Path) -> String {
    let bytes = fs::read(place.join("console")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
