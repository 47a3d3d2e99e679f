//! What a running probe may still do: by the kernel's own account, and by what it goes on to measure. What is refused is
//! tried in its unit tests.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use termite_probe_tests::demo::Demo;
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::exposition::{count, values};
use termite_probe_tests::load::Plan;
use termite_probe_tests::probe::{self, Serve};
use termite_probe_tests::{poll, scene};

const PATIENCE: Duration = Duration::from_secs(60);
/// Bits of include/uapi/linux/capability.h.
const CAPABILITIES: [(&str, u32); 7] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_CHECKPOINT_RESTORE", 40),
];
/// What deploy/daemonset.yaml grants, as setpriv(1) calls it, and as a set.
const GRANTED: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search,+syslog";
const GRANTED_SET: u64 = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2 | 1 << 34;
/// What of it is kept.
const KEPT: [&str; 3] = ["CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];

/// Servers in containers of their own, which the probe meets when the fence is up: found, read and measured like any others.
#[test]
fn a_server_that_comes_later_in_a_container_is_measured() -> Result<()> {
    require_host()?;
    let mut serve = Serve::start(&[])?;
    // Those that it may have needed are named by the probe, and are what the kernel says.
    let kept = check_fence(&mut serve, true)?;
    ensure!(KEPT.iter().all(|name| kept.contains(name)), "something needed is missing: {kept:?}");
    let may = [&KEPT[..], &["CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]].concat();
    ensure!(kept.iter().all(|name| may.contains(name)), "more than is needed: {kept:?}");

    let place = tempfile::tempdir()?;
    // A stop of the JVM twice a second shows whether they are seen.
    let spec = Spec::voters(3)
        .with_sids(&[4, 5, 6])
        .with_java(&contained_java(place.path())?)
        .with_jvm_option("-XX:+UnlockDiagnosticVMOptions")
        .with_jvm_option("-XX:GuaranteedSafepointInterval=500");
    let ensemble = Ensemble::start(&spec)?;
    let name = ("ensemble", format!("127.0.0.1:{}", ensemble.server(4)?.quorum.port()));
    let rungs = poll::until("the three JVMs are seen", PATIENCE, || {
        let rungs = serve.sum("termite_jvm_rung_info", &[name.clone(), ("rung", "usdt".to_owned())])?;
        Ok((rungs == 3.0).then_some(rungs))
    });
    rungs.with_context(|| serve.metrics().unwrap_or_default())?;
    let before = serve.metrics()?;
    let (_, window) = scene::write(&ensemble, Plan::steady(200, Duration::from_secs(3)))?;
    let after = serve.metrics()?;
    for sid in ensemble.followers()? {
        for vantage in ["follower", "leader"] {
            let labels = [name.clone(), ("sid", sid.to_string()), ("vantage", vantage.to_owned())];
            let sum =
                |metrics| values(metrics, "termite_proposals_matched_total", &labels).iter().sum::<f64>();
            let (counted, due) = (sum(&after) - sum(&before), count(window.last - window.after)?);
            ensure!(counted == due, "{counted} of {due} of {sid} at {vantage}");
        }
    }
    for sid in ensemble.sids() {
        let labels = [name.clone(), ("sid", sid.to_string())];
        let stops =
            |metrics| values(metrics, "termite_jvm_safepoint_seconds_count", &labels).iter().sum::<f64>();
        ensure!(stops(&after) > stops(&before), "no stop of the JVM of {sid} was seen");
    }
    serve.interrupt()?.expect(0, &["fence: keeps CAP_PERFMON", "files for reading only"])
}

/// Root in a container, a user with ambient capabilities, a user with a binary that has them: as little is left of each.
#[test]
fn whoever_starts_it_keeps_as_little() -> Result<()> {
    require_host()?;
    let demo = Demo::start(200)?;
    let narrowed = demo.narrowed();
    let place = tempfile::tempdir()?;
    let (plain, capable) = (copy(place.path(), "plain")?, copy(place.path(), "capable")?);
    set_file_capabilities(&capable, GRANTED_SET)?;
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
    let bounding = format!("--bounding-set=-all,{GRANTED}");
    let (inherited, ambient) =
        (format!("--inh-caps=-all,{GRANTED}"), format!("--ambient-caps=-all,{GRANTED}"));
    let ways = [
        ("root with few", vec![bounding, "--inh-caps=-all".to_owned()], &plain),
        ("a user with ambient ones", [&nobody[..], &[inherited, ambient]].concat(), &plain),
        ("a user with those of the file", [&nobody[..], &["--inh-caps=-all".to_owned()]].concat(), &capable),
    ];
    for (who, options, binary) in ways {
        println!("{who}");
        let command = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(options).arg(binary).args(arguments).args(&narrowed);
            Ok(command)
        };
        let mut serve = Serve::by(command)?;
        let kept = check_fence(&mut serve, false).with_context(|| who.to_owned())?;
        ensure!(kept == KEPT, "{who} keeps {kept:?}");
        let name = ("ensemble", demo.name()?);
        poll::until("proposals are measured", PATIENCE, || {
            let matched = |serve: &mut Serve, vantage: &str| {
                let labels = [name.clone(), ("vantage", vantage.to_owned())];
                serve.sum("termite_proposals_matched_total", &labels)
            };
            let both = [matched(&mut serve, "follower")?, matched(&mut serve, "leader")?];
            Ok(both.iter().all(|matched| *matched > 100.0).then_some(()))
        })?;
        let causes = [name.clone(), ("cause", "unexplained".to_owned())];
        let unexplained = serve.sum("termite_proposal_cause_seconds_total", &causes)?;
        let all = serve.sum("termite_proposal_cause_seconds_total", &[name])?;
        ensure!(unexplained <= all / 20.0, "{who}: {unexplained} of {all} s are unexplained");
        serve.interrupt()?.expect(0, &["without bounding_set", "CAP_SETPCAP"])?;
    }
    demo.finish()?;
    Ok(())
}

/// What the kernel says of the process is what the probe says; the capabilities that it names. Where it could, the bounding set
/// is empty.
fn check_fence(serve: &mut Serve, is_emptied: bool) -> Result<Vec<&'static str>> {
    let metrics = serve.metrics()?;
    let set = |name: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(&serve.status(name)?, 16)?);
    let named = |name: &str| {
        let labels = [("capability", name.to_owned())];
        !values(&metrics, "termite_probe_capability_info", &labels).is_empty()
    };
    let kept: Vec<(&str, u32)> = CAPABILITIES.into_iter().filter(|(name, _)| named(name)).collect();
    let kept_set = kept.iter().fold(0_u64, |set, (_, bit)| set | 1 << bit);
    for name in ["CapEff", "CapPrm"] {
        ensure!(set(name)? == kept_set, "{name} {:x}, and the probe names {kept:?}", set(name)?);
    }
    ensure!(set("CapInh")? == 0 && set("CapAmb")? == 0, "capabilities to hand down");
    ensure!(serve.status("NoNewPrivs")? == "1", "it may gain privileges");
    ensure!(serve.status("Seccomp")? == "2", "no filter");
    ensure!(serve.status("Threads")? == "1", "threads beside the one that measures");
    ensure!((set("CapBnd")? == 0) == is_emptied, "a bounding set of {:x}", set("CapBnd")?);
    for part in ["capabilities", "bounding_set", "new_privileges", "system_calls"] {
        let state = if part == "bounding_set" && !is_emptied { "down" } else { "up" };
        let labels = [("part", part.to_owned()), ("state", state.to_owned())];
        ensure!(values(&metrics, "termite_probe_fence_info", &labels) == [1.0], "{part} is not {state}");
    }
    let mut names: Vec<&str> = kept.into_iter().map(|(name, _)| name).collect();
    names.sort_by_key(|name| KEPT.iter().position(|one| one == name).unwrap_or(KEPT.len()));
    Ok(names)
}

/// A `java` that runs in a pid and a mount namespace of its own, and maps a libjvm that nobody else sees.
fn contained_java(place: &Path) -> Result<PathBuf> {
    let java = std::env::split_paths(&std::env::var_os("PATH").context("no PATH")?)
        .map(|directory| directory.join("java"))
        .find_map(|java| java.canonicalize().ok())
        .context("no java: run `cargo xtask setup`")?;
    let home = java.parent().and_then(Path::parent).context("java lies nowhere")?;
    let script = place.join("java");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --pid --fork --kill-child --mount-proc sh -c '\n\
         L={}/lib/server/libjvm.so\n\
         mount -t tmpfs none /mnt && cp \"$L\" /mnt/libjvm.so && mount --bind /mnt/libjvm.so \"$L\" && \
         exec {} \"$@\"' java \"$@\"\n",
        home.display(),
        java.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// The binary where any user may run it.
fn copy(place: &Path, name: &str) -> Result<PathBuf> {
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?;
    let binary = place.join(name);
    std::fs::copy(probe::binary()?, &binary)?;
    Ok(binary)
}

/// As `setcap CAPABILITIES+ep` does.
fn set_file_capabilities(file: &Path, set: u64) -> Result<()> {
    /// `VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE`, include/uapi/linux/capability.h.
    const MAGIC: u32 = 0x0200_0001;
    let half = |shift: u32| u32::try_from(set >> shift & 0xffff_ffff);
    let value: Vec<u8> =
        [MAGIC, half(0)?, 0, half(32)?, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: two strings that end in a zero byte and `len` bytes, all of which outlive the call.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    ensure!(result == 0, "cannot set the file's capabilities: {}", std::io::Error::last_os_error());
    Ok(())
}
