//! The image of deploy/, built by buildah and run by podman with what the manifest grants.
//!
//! In: the binary under test, deploy/Containerfile, a [`Grant`]. Out: a running [`Container`]. Invariant:
//! images, containers and their storage are in a directory of the test's own, and go with it.

mod manifest;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

pub use self::manifest::{Grant, Security};
use crate::net::Namespace;
use crate::poll;
use crate::probe::{self, Outcome, Run};

const TAG: &str = "localhost/termite-probe:under-test";
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for images and containers, with the image of the binary under test in it.
#[derive(Debug)]
pub struct Image {
    place: TempDir,
}

/// A container that runs the image.
#[derive(Debug)]
pub struct Container<'a> {
    image: &'a Image,
    name: String,
    run: Option<Run>,
}

impl Image {
    /// Builds the image of the binary under test.
    pub fn build() -> Result<Self> {
        for program in ["buildah", "podman", "runc"] {
            ensure!(on_path(program), "{program} is missing: run `cargo xtask setup`");
        }
        let image = Self { place: tempfile::Builder::new().prefix("termite-image-").tempdir()? };
        let context = image.place.path().join("context");
        std::fs::create_dir(&context)?;
        std::fs::copy(probe::binary()?, context.join("termite-probe"))?;
        let project = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            std::fs::copy(project.join(licence), context.join(licence))?;
        }
        let mut command = image.command("buildah");
        command
            .args(["bud", "--isolation", "chroot", "--build-arg", "BINARY=termite-probe", "--tag", TAG])
            .arg("--file")
            .arg(project.join("deploy/Containerfile"))
            .arg(&context);
        said(command)?;
        Ok(image)
    }

    /// Starts a container with what is granted, and nothing else.
    pub fn run(&self, name: &str, grant: &Grant) -> Result<Container<'_>> {
        let name = format!("{name}-{}", std::process::id());
        let mut command = self.podman();
        // runc: crun refuses a host that mixes both versions of cgroups. The limits: podman would raise
        // them, which a container that is host to this test may not.
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "run", "--rm", "--name", &name]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]);
        command.args(options(grant)?).arg(TAG).args(&grant.args);
        Ok(Container { image: self, run: Some(Run::spawn(command)?), name })
    }

    fn podman(&self) -> Command {
        self.command("podman")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.place.path().join("root"));
        command.arg("--runroot").arg(self.place.path().join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }
}

/// The options of `podman run` that grant what the manifest grants.
fn options(grant: &Grant) -> Result<Vec<String>> {
    let security = &grant.security;
    ensure!(!security.privileged && !grant.host_network, "the manifest grants more than is tested");
    let memory = grant.memory.strip_suffix("Mi").context("a limit of memory that is not in Mi")?;
    let mut options = vec![
        "--cap-drop=ALL".to_owned(),
        format!("--user={}:{}", security.run_as_user, security.run_as_group),
        format!("--read-only={}", security.read_only_root_filesystem),
        "--read-only-tmpfs=false".to_owned(),
        // A network of its own, without a way out; the kubelet's way in is the test's, by the namespace.
        "--network=none".to_owned(),
        format!("--memory={memory}m"),
    ];
    options.extend(grant.capabilities.iter().map(|capability| format!("--cap-add=CAP_{capability}")));
    if grant.host_pid {
        options.push("--pid=host".to_owned());
    }
    if !security.allow_privilege_escalation {
        options.push("--security-opt=no-new-privileges".to_owned());
    }
    for (option, profile) in
        [("seccomp", &security.seccomp_profile), ("apparmor", &security.app_armor_profile)]
    {
        match profile.kind.as_str() {
            "Unconfined" => options.push(format!("--security-opt={option}=unconfined")),
            kind => ensure!(kind == "RuntimeDefault", "a profile that is not known: {kind}"),
        }
    }
    for (there, inside, read_only) in &grant.mounts {
        let mode = if *read_only { "ro" } else { "rw" };
        options.push(format!("--volume={}:{}:{mode}", there.display(), inside.display()));
    }
    Ok(options)
}

impl Container<'_> {
    /// Waits until the container runs, and gives the host's id of its process.
    pub fn pid(&mut self) -> Result<u32> {
        poll::until_ok("the container runs", PATIENCE, || {
            self.run.as_mut().context("the container has ended")?.check_alive()?;
            let mut command = self.image.podman();
            command.args(["inspect", "--format", "{{.State.Pid}}", &self.name]);
            let pid = said(command)?.trim().parse()?;
            ensure!(pid != 0, "it has no process yet");
            Ok(pid)
        })
    }

    /// The container's own network.
    pub fn network(&mut self) -> Result<Namespace> {
        Namespace::of(self.pid()?)
    }

    /// Fails if the container has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.run.as_mut().context("the container has ended")?.check_alive()
    }

    /// Waits until the container ends by itself.
    pub fn wait(mut self) -> Result<Outcome> {
        self.run.take().context("the container has ended")?.wait(PATIENCE)
    }

    /// Stops the container as Kubernetes does, by SIGTERM.
    pub fn stop(mut self) -> Result<Outcome> {
        let mut command = self.image.podman();
        command.args(["stop", "--time", "10", &self.name]);
        said(command)?;
        self.run.take().context("the container has ended")?.wait(PATIENCE)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.run.take().is_some() {
            let mut command = self.image.podman();
            command.args(["rm", "--force", "--time", "0", &self.name]);
            // It fails for a container that is gone already, which is what is wanted.
            let _ = said(command);
        }
    }
}

/// Runs a command to its end, and gives what it wrote.
fn said(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} failed ({}): {out}{err}", output.status);
    Ok(out.into_owned())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
