//! A real ensemble for the guest: a JRE of the modules that ZooKeeper needs, Debian's jars, three configurations.
//!
//! In: this host's JDK and jars. Out: entries of an initramfs below `java/`, and the C library that a JVM loads.
//! Invariant: nothing is fetched; what `setup` installs is enough. Not here: starting it (`init.sh`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::archive::Archive;
use crate::invoke;

const MODULES: &str = "java.base,java.logging,java.management,java.naming,java.security.sasl,java.security.jgss,java.xml,\
                       jdk.unsupported";
const JARS: &str = "/usr/share/java";
/// What a server loads; the manifest of zookeeper.jar names more, for tools and the admin server.
const NAMES: [&str; 14] = [
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-log4j12",
    "log4j-1.2",
    "netty-buffer",
    "netty-common",
    "netty-handler",
    "netty-transport",
    "netty-transport-native-epoll",
    "metrics-core",
    "snappy-java",
    "commons-cli",
    "commons-io",
];
/// Where a distribution keeps the C library.
const LIBRARIES: [&str; 3] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64"];
const NEEDED: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1", "ld-linux-x86-64.so.2"];
const LOG4J: &str = "log4j.rootLogger=WARN, out\n\
                     log4j.appender.out=org.apache.log4j.ConsoleAppender\n\
                     log4j.appender.out.layout=org.apache.log4j.SimpleLayout\n";

/// Adds it all.
pub(super) fn add(archive: &mut Archive, cache: &Path) -> anyhow::Result<()> {
    let runtime = runtime(cache)?;
    for directory in ["java", "java/jars", "java/servers", "lib64", "lib"] {
        archive.directory(directory);
    }
    add_tree(archive, &runtime, "java/jre")?;
    for name in NAMES {
        let jar = Path::new(JARS).join(format!("{name}.jar"));
        archive.program(&format!("java/jars/{name}.jar"), &read(&jar)?);
    }
    archive.program("java/log4j.properties", LOG4J.as_bytes());
    for sid in 1..=3 {
        archive.directory(&format!("java/servers/{sid}"));
        archive.program(&format!("java/servers/{sid}/myid"), format!("{sid}\n").as_bytes());
        archive.program(&format!("java/servers/{sid}/zoo.cfg"), configuration(sid).as_bytes());
    }
    for name in NEEDED {
        let file = LIBRARIES
            .iter()
            .map(|directory| Path::new("/").join(directory).join(name))
            .find(|file| file.exists())
            .with_context(|| format!("there is no {name} in this host's library directories"))?;
        // The loader looks for itself in /lib64 and for the others in /lib.
        let directory = if name.starts_with("ld-") { "lib64" } else { "lib" };
        archive.program(&format!("{directory}/{name}"), &read(&file)?);
    }
    Ok(())
}

/// Loopback, and patience for JVMs that are interpreted under emulation.
fn configuration(sid: u32) -> String {
    let members: String =
        (1..=3).map(|sid| format!("server.{sid}=127.0.0.1:2288{sid}:2388{sid}\n")).collect();
    format!(
        "tickTime=2000\ninitLimit=30\nsyncLimit=15\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
         preAllocSize=1024\ndataDir=/java/servers/{sid}\nclientPort=218{sid}\nclientPortAddress=127.0.0.1\n{members}"
    )
}

/// The JRE, made once.
fn runtime(cache: &Path) -> anyhow::Result<PathBuf> {
    let place = cache.join("jre");
    if place.exists() {
        return Ok(place);
    }
    println!("      making a small JRE");
    let work = place.with_extension("new");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(cache)?;
    invoke::run(
        invoke::command("jlink")
            .args(["--add-modules", MODULES, "--strip-java-debug-attributes", "--vm", "server"])
            .args(["--no-header-files", "--no-man-pages", "--output"])
            .arg(&work),
    )?;
    // Classes that are mapped instead of parsed: a third of the time to a leader. The guest's collector needs the
    // same layout of objects.
    let java = work.join("bin/java");
    let dumped = invoke::command(&java.display().to_string())
        .args(["-Xshare:dump", "-XX:+UseSerialGC"])
        .output()
        .context("cannot start the JRE that was made")?;
    ensure!(dumped.status.success(), "java -Xshare:dump failed ({})", dumped.status);
    fs::rename(&work, &place)?;
    Ok(place)
}

/// Adds a directory with all that is in it; links as what they lead to.
fn add_tree(archive: &mut Archive, from: &Path, name: &str) -> anyhow::Result<()> {
    archive.directory(name);
    let mut entries = fs::read_dir(from)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("cannot list {}", from.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{name}/{}", entry.file_name().display());
        match entry.path().is_dir() {
            // Licences of many modules: nothing that runs.
            true if entry.file_name() == "legal" => {}
            true => add_tree(archive, &entry.path(), &name)?,
            false => archive.program(&name, &read(&entry.path())?),
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}; `cargo xtask setup` installs it", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_server_knows_itself_and_the_others() {
        let text = super::configuration(2);
        assert!(text.contains("dataDir=/java/servers/2\nclientPort=2182\n"));
        assert!(text.ends_with(
            "server.1=127.0.0.1:22881:23881\nserver.2=127.0.0.1:22882:23882\nserver.3=127.0.0.1:22883:23883\n"
        ));
    }
}
