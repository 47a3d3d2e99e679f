//! What a command line says: a JVM or not, its main class, where its configuration is.
//!
//! In: the arguments and the name of the main thread. Out: a [`CommandLine`]. Invariant: total. Deliberately
//! not here: whether the process is a Termite server (see `recognise`). Arguments inside an `@file` and those
//! that JDK_JAVA_OPTIONS adds do not show in a command line, so they are not seen.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Options of the java launcher whose value is the next argument.
const WITH_VALUE: [&str; 13] = [
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--limit-modules",
    "--add-exports",
    "--add-opens",
    "--add-reads",
    "--patch-module",
    "--enable-native-access",
];

/// Endings of a configuration file; Kafka's bundle calls it zookeeper.properties.
const CONFIG_ENDINGS: [&str; 3] = ["cfg", "properties", "conf"];

/// The argument by which the embedded demo starts one of its servers.
pub(crate) const DEMO_SERVER: &str = "demo-server";

/// A command line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// Run by a java launcher.
    pub(super) jvm: bool,
    /// A server of the embedded demo.
    pub(super) demo: bool,
    /// Main class, module or jar of a JVM.
    pub(super) main: Option<String>,
    /// What the program itself gets: all arguments, if there is no main class.
    args: Vec<String>,
}

impl CommandLine {
    pub(super) fn new(argv: &[String], comm: &str) -> Self {
        let (program, rest) = match argv.split_first() {
            Some((first, rest)) => {
                (Path::new(first).file_name().and_then(|n| n.to_str()).unwrap_or(""), rest)
            }
            None => ("", argv),
        };
        let jvm = program == "java" || comm == "java";
        let demo = program.starts_with("termite-probe") && rest.iter().any(|a| a == DEMO_SERVER);
        let (main, args) = if jvm { main_class(rest) } else { (None, rest) };
        Self { jvm, demo, main, args: args.to_vec() }
    }

    /// The main class is one that ends so, whatever its package.
    pub(super) fn runs(&self, class: &str) -> bool {
        self.main.as_deref().is_some_and(|m| m.ends_with(class))
    }

    /// The path of zoo.cfg as the process was told it.
    pub(super) fn config(&self) -> Option<PathBuf> {
        let plain = |a: &&String| !a.starts_with('-');
        let looks_so = |a: &&String| {
            Path::new(a).extension().and_then(|e| e.to_str()).is_some_and(|e| CONFIG_ENDINGS.contains(&e))
        };
        // A main class with one argument that is no port number (a standalone server's first): that is it.
        let only = match (&self.main, self.args.as_slice()) {
            (Some(_), [only]) if only.parse::<u32>().is_err() => Some(only),
            _ => None,
        };
        let named = self.args.iter().filter(plain).rfind(looks_so);
        named.or(only.filter(plain)).map(PathBuf::from)
    }
}

fn main_class(args: &[String]) -> (Option<String>, &[String]) {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        at += 1;
        if WITH_VALUE.contains(&arg.as_str()) {
            at += 1;
        } else if matches!(arg.as_str(), "-jar" | "-m" | "--module") {
            break;
        } else if !arg.starts_with(['-', '@']) {
            at -= 1;
            break;
        }
    }
    (args.get(at).cloned(), args.get(at + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, comm: &str, jvm: bool, main: Option<&str>, config: Option<&str>) {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let got = CommandLine::new(&argv, comm);
        assert_eq!((got.jvm, got.main.as_deref()), (jvm, main), "{line}");
        assert_eq!(got.config(), config.map(PathBuf::from), "{line}");
    }

    #[test]
    fn java_command_lines() {
        let quorum = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        check(
            &format!("/usr/bin/java -Xmx128m -Dx=y -cp /etc/a.cfg:/b.jar {quorum} conf/zoo.cfg"),
            "java",
            true,
            Some(quorum),
            Some("conf/zoo.cfg"),
        );
        check(
            &format!("java --add-opens a/b=c {quorum} /etc/kafka/zookeeper.properties"),
            "java",
            true,
            Some(quorum),
            Some("/etc/kafka/zookeeper.properties"),
        );
        check(&format!("java {quorum} /conf/node"), "java", true, Some(quorum), Some("/conf/node"));
        check(&format!("java {quorum} 2181 /data"), "java", true, Some(quorum), None);
        check(&format!("java {quorum} 2181"), "java", true, Some(quorum), None);
        check("java -jar termite.jar --fast t.cfg", "java", true, Some("termite.jar"), Some("t.cfg"));
        check(
            "java @opts com.example.Termite t.cfg",
            "java",
            true,
            Some("com.example.Termite"),
            Some("t.cfg"),
        );
        check("java -cp", "java", true, None, None);
        check(
            "renamed -cp x com.example.Termite t.cfg",
            "java",
            true,
            Some("com.example.Termite"),
            Some("t.cfg"),
        );
    }

    #[test]
    fn others() {
        check("/opt/termite --x /etc/zoo.cfg", "termite", false, None, Some("/etc/zoo.cfg"));
        check("sudo java -cp x a.QuorumPeerMain zoo.cfg", "sudo", false, None, Some("zoo.cfg"));
        check("", "", false, None, None);
        let argv = ["/x/termite-probe", DEMO_SERVER, "/tmp/d/1/zoo.cfg"].map(str::to_owned);
        let demo = CommandLine::new(&argv, "termite-probe");
        assert!(demo.demo);
        assert_eq!(demo.config(), Some(PathBuf::from("/tmp/d/1/zoo.cfg")));
    }
}
