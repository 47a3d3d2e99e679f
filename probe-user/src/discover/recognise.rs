//! Which processes are Termite servers of a quorum.
//!
//! In: a command line, thread names, how many servers the configuration lists. Out: a [`Standing`]. Invariant:
//! a wrapper (a shell, sudo, an init) that merely carries a server's command line is never taken for the
//! server. Deliberately not here: reading any of it, and what the user forces with `--pid`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::command::{CommandLine, DEMO_SERVER};
use super::ids::Sid;

/// The kernel keeps 15 characters of a thread's name (TASK_COMM_LEN is 16, with the zero byte).
const COMM_CHARS: usize = 15;

/// Thread names that only a server of a quorum has.
const SURE: [&str; 4] = ["QuorumPeer[myid", "LearnerHandler-", "LearnerSender:", "FollowerRequest"];
/// Thread names that other programs could have too: two kinds of them are needed.
const LIKELY: [&str; 4] = ["SyncThread:", "Sender-/", "SendWorker:", "RecvWorker:"];

/// What a process is to the probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A server of a quorum.
    Server,
    /// Close, but not one; the reason is worth telling.
    SetAside(&'static str),
    /// Something else.
    Other,
}

/// What the decision rests on.
pub(super) struct Evidence<'a> {
    pub(super) command: &'a CommandLine,
    pub(super) threads: &'a [String],
    /// The user's pattern is in the command line.
    pub(super) pattern: bool,
    /// How many servers the configuration lists; `None` if it could not be read.
    pub(super) listed: Option<usize>,
}

/// Whether a process deserves more than a look at its command line: most of a host's do not.
pub(super) fn worth_a_look(argv: &[String], pattern: Option<&str>) -> bool {
    let telling = ["java", "QuorumPeer", DEMO_SERVER];
    argv.iter().any(|a| telling.iter().any(|t| a.contains(t))) || matches_pattern(argv, pattern)
}

/// Whether the command line, its arguments joined by spaces, contains the pattern.
pub(super) fn matches_pattern(argv: &[String], pattern: Option<&str>) -> bool {
    pattern.is_some_and(|p| !p.is_empty() && argv.join(" ").contains(p))
}

/// Decides.
pub(super) fn standing(e: &Evidence<'_>) -> Standing {
    if has_quorum_threads(e.threads) || e.command.demo {
        return Standing::Server;
    }
    if e.command.runs("ZooKeeperServerMain") {
        return Standing::SetAside("a standalone server: it has no followers");
    }
    if e.command.runs("QuorumPeerMain") {
        return match e.listed {
            Some(0) => Standing::SetAside("a standalone server: its configuration lists no servers"),
            Some(1) => Standing::SetAside("a standalone server: its configuration lists one server"),
            _ => Standing::Server,
        };
    }
    match (e.pattern, e.command.jvm, e.listed) {
        (true, true, Some(2..)) => Standing::Server,
        (true, true, _) => Standing::SetAside(
            "matches the pattern, but has neither quorum threads nor a configuration that lists servers; \
             --pid forces it",
        ),
        (true, false, _) => Standing::SetAside(
            "matches the pattern, but is no JVM and has no quorum threads (a wrapper?); --pid forces it",
        ),
        (false, ..) => Standing::Other,
    }
}

fn has_quorum_threads(names: &[String]) -> bool {
    let has = |start: &&&str| names.iter().any(|n| n.starts_with(**start));
    SURE.iter().any(|s| has(&s)) || LIKELY.iter().filter(has).count() >= 2
}

/// What the names of the log threads (`SyncThread:N`) say about the server's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamedSid {
    /// No such thread: the server has not joined a quorum, or the build calls it otherwise.
    None,
    /// Whole.
    Whole(Sid),
    /// The kernel may have cut the number: it begins with these digits.
    BeginsWith(String),
    /// Several servers in one process.
    Several,
}

/// Reads the server's id from thread names.
pub(super) fn named_sid(names: &[String]) -> NamedSid {
    let of_log =
        |n: &String| Some((n.strip_prefix("SyncThread:")?.to_owned(), n.chars().count() >= COMM_CHARS));
    let found: BTreeSet<(String, bool)> = names.iter().filter_map(of_log).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((digits, cut)), None) => match digits.parse() {
            Ok(_) if cut => NamedSid::BeginsWith(digits),
            Ok(sid) => NamedSid::Whole(Sid(sid)),
            Err(_) => NamedSid::None,
        },
        (None, _) => NamedSid::None,
        (Some(_), Some(_)) => NamedSid::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUORUM: &str = "java -cp x org.apache.zookeeper.server.quorum.QuorumPeerMain zoo.cfg";

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn judge(
        line: &str,
        comm: &str,
        threads: &[&str],
        pattern: Option<&str>,
        listed: Option<usize>,
    ) -> Standing {
        let argv = words(line);
        let threads: Vec<String> = threads.iter().map(|&t| t.to_owned()).collect();
        let command = CommandLine::new(&argv, comm);
        let pattern = matches_pattern(&argv, pattern);
        standing(&Evidence { command: &command, threads: &threads, pattern, listed })
    }

    #[test]
    fn servers_are_found() {
        assert_eq!(judge(QUORUM, "java", &["java"], None, Some(3)), Standing::Server);
        assert_eq!(judge(QUORUM, "java", &["java"], None, None), Standing::Server);
        let own_class = "java com.example.Termite t.cfg";
        assert_eq!(judge(own_class, "java", &["QuorumPeer[myid"], None, None), Standing::Server);
        assert_eq!(judge(own_class, "java", &["SyncThread:1", "SendWorker:2"], None, None), Standing::Server);
        assert_eq!(judge(own_class, "java", &[], Some("example.Termite t"), Some(3)), Standing::Server);
        assert_eq!(judge("/opt/termited", "termited", &["QuorumPeer[myid"], None, None), Standing::Server);
        let demo = "target/termite-probe demo-server d/zoo.cfg";
        assert_eq!(judge(demo, "termite-probe", &[], None, Some(3)), Standing::Server);
    }

    #[test]
    fn standalone_servers_are_told() {
        let aside = |s| matches!(s, Standing::SetAside(why) if why.starts_with("a standalone server"));
        assert!(aside(judge(QUORUM, "java", &["SyncThread:0"], None, Some(0))));
        assert!(aside(judge(QUORUM, "java", &["SyncThread:0"], None, Some(1))));
        let main = "java org.apache.zookeeper.server.ZooKeeperServerMain 2181 /d";
        assert!(aside(judge(main, "java", &["SyncThread:0"], None, None)));
        // With standaloneEnabled=false one server is a quorum, and has its thread.
        assert_eq!(judge(QUORUM, "java", &["QuorumPeer[myid"], None, Some(1)), Standing::Server);
    }

    #[test]
    fn carriers_of_a_command_line_are_not_servers() {
        assert_eq!(judge(&format!("sudo {QUORUM}"), "sudo", &["sudo"], None, Some(3)), Standing::Other);
        assert_eq!(judge(&format!("sh -c {QUORUM}"), "sh", &["sh"], None, None), Standing::Other);
        assert_eq!(judge("grep QuorumPeerMain", "grep", &["grep"], None, None), Standing::Other);
        assert_eq!(judge("java Other QuorumPeerMain", "java", &["java"], None, None), Standing::Other);
        let aside = judge("sh -c termite", "sh", &["sh"], Some("termite"), None);
        assert!(matches!(aside, Standing::SetAside(why) if why.contains("wrapper")));
        let aside = judge("java termite.Client", "java", &["java"], Some("termite"), None);
        assert!(matches!(aside, Standing::SetAside(why) if why.contains("--pid")));
    }

    #[test]
    fn most_processes_are_passed_by() {
        assert!(worth_a_look(&words("/usr/lib/jvm/java-17/bin/java X"), None));
        assert!(!worth_a_look(&words("/usr/sbin/sshd -D"), None));
        assert!(worth_a_look(&words("/usr/sbin/sshd -D"), Some("sshd -D")));
        assert!(!worth_a_look(&words("/usr/sbin/sshd -D"), Some("")));
    }

    #[test]
    fn sid_in_thread_names() {
        let check = |names: &[&str], expect| {
            let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
            assert_eq!(named_sid(&names), expect, "{names:?}");
        };
        check(&["java", "SyncThread:7"], NamedSid::Whole(Sid(7)));
        check(&["SyncThread:7", "SyncThread:7"], NamedSid::Whole(Sid(7)));
        check(&["SyncThread:123"], NamedSid::Whole(Sid(123)));
        check(&["SyncThread:1234"], NamedSid::BeginsWith("1234".to_owned()));
        check(&["SyncThread:1", "SyncThread:2"], NamedSid::Several);
        check(&["SyncThread:x", "java"], NamedSid::None);
        check(&[], NamedSid::None);
    }
}
