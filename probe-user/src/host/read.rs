//! Meaning of the small files under /proc and /sys that facts come from.
//!
//! In: their text. Out: facts, or why the text does not tell. Invariant: total. Deliberately absent:
//! opening files.

use super::facts::{Capabilities, Cgroups, HidePid, Lockdown, ProcessView};

/// Inode of the first pid namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The value of a `Name:` line of /proc/PID/status.
pub(super) fn status_field<'a>(status: &'a str, name: &str) -> Result<&'a str, String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .ok_or_else(|| format!("/proc/self/status has no line {name}"))
}

/// The effective capabilities.
pub(super) fn capabilities(status: &str) -> Result<Capabilities, String> {
    let text = status_field(status, "CapEff")?;
    u64::from_str_radix(text, 16)
        .map(Capabilities)
        .map_err(|error| format!("CapEff {text:?} of /proc/self/status is not a number: {error}"))
}

/// The effective user id.
pub(super) fn effective_uid(status: &str) -> Result<u32, String> {
    // Real, effective, saved, file system.
    let text = status_field(status, "Uid")?;
    text.split_whitespace()
        .nth(1)
        .and_then(|uid| uid.parse().ok())
        .ok_or_else(|| format!("Uid {text:?} of /proc/self/status is not a list of numbers"))
}

/// The state in brackets, as in `none [integrity] confidentiality`.
pub(super) fn lockdown(text: &str) -> Result<Lockdown, String> {
    let chosen = text.split_whitespace().find(|word| word.starts_with('['));
    match chosen {
        Some("[none]") => Ok(Lockdown::None),
        Some("[integrity]") => Ok(Lockdown::Integrity),
        Some("[confidentiality]") => Ok(Lockdown::Confidentiality),
        _ => Err(format!("/sys/kernel/security/lockdown reads {:?}", text.trim())),
    }
}

/// The inode in a namespace link such as `pid:[4026531836]`.
fn namespace_inode(link: &str) -> Option<u64> {
    link.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}

/// Whose processes /proc shows.
///
/// `first` and `own` are the links /proc/1/ns/pid and /proc/self/ns/pid, `status` is /proc/self/status.
pub(super) fn process_view(
    first: Result<&str, &str>,
    own: Result<&str, &str>,
    status: &str,
) -> Result<ProcessView, String> {
    let is_first_namespace = |link| namespace_inode(link).map(|inode| inode == FIRST_PID_NAMESPACE);
    let own_is_first = own.ok().and_then(is_first_namespace);
    let shown_is_first = first.ok().and_then(is_first_namespace);
    // A process of the first namespace can see itself only in a /proc of that namespace.
    match (own_is_first, shown_is_first) {
        (Some(true), _) | (_, Some(true)) => return Ok(ProcessView::Host),
        (_, Some(false)) => return Ok(ProcessView::Container),
        _ => {}
    }
    // NSpid lists the ids from the namespace of this /proc down to the process's own.
    let ids = status_field(status, "NSpid").map_or(0, |ids| ids.split_whitespace().count());
    match (own_is_first, ids) {
        (Some(false), 1) => Ok(ProcessView::Container),
        _ => Err(format!(
            "/proc/1/ns/pid: {}; /proc/self/ns/pid: {}",
            first.unwrap_or_else(|error| error),
            own.unwrap_or_else(|error| error)
        )),
    }
}

/// One line of /proc/self/mounts.
struct Mount<'a> {
    on: &'a str,
    kind: &'a str,
    options: &'a str,
}

fn mounts(text: &str) -> impl Iterator<Item = Mount<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some(Mount { on: words.next()?, kind: words.next()?, options: words.next()? })
    })
}

/// The option hidepid of the last mount on /proc, by number or by name (proc(5)).
pub(super) fn hidepid(text: &str) -> Result<HidePid, String> {
    let proc = mounts(text)
        .filter(|mount| mount.on == "/proc" && mount.kind == "proc")
        .last()
        .ok_or("/proc/self/mounts lists no proc on /proc")?;
    let value = proc.options.split(',').find_map(|option| option.strip_prefix("hidepid="));
    match value {
        None | Some("0" | "off") => Ok(HidePid::Off),
        Some("1" | "noaccess") => Ok(HidePid::NoAccess),
        Some("2" | "invisible") => Ok(HidePid::Invisible),
        Some("4" | "ptraceable") => Ok(HidePid::Ptraceable),
        Some(other) => Err(format!("/proc is mounted with hidepid={other}")),
    }
}

/// Which cgroup hierarchies are mounted.
pub(super) fn cgroups(text: &str) -> Result<Cgroups, String> {
    let mut kinds = mounts(text).filter(|mount| mount.on.starts_with("/sys/fs/cgroup"));
    let (mut one, mut two) = (false, false);
    for mount in &mut kinds {
        one |= mount.kind == "cgroup";
        two |= mount.kind == "cgroup2";
    }
    match (one, two) {
        (true, true) => Ok(Cgroups::Hybrid),
        (true, false) => Ok(Cgroups::V1),
        (false, true) => Ok(Cgroups::V2),
        (false, false) => Err("no cgroup hierarchy is mounted under /sys/fs/cgroup".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Capability, Cgroups, HidePid, Lockdown, ProcessView};
    use super::{capabilities, cgroups, effective_uid, hidepid, lockdown, process_view};

    const STATUS: &str = "Name:\tx\nUid:\t1000\t0\t0\t0\nNSpid:\t12\nCapEff:\t000000c000080000\n";

    #[test]
    fn status_gives_the_effective_user_and_capabilities() {
        assert_eq!(effective_uid(STATUS), Ok(0));
        let held = capabilities(STATUS).expect("a mask");
        assert!(
            held.has(Capability::Bpf) && held.has(Capability::Perfmon) && held.has(Capability::SysPtrace)
        );
        assert!(!held.has(Capability::SysAdmin));
        assert_eq!(capabilities("Uid:\t1\n"), Err("/proc/self/status has no line CapEff".into()));
        assert!(capabilities("CapEff:\tzz\n").is_err());
        assert!(effective_uid("Uid:\t1\n").is_err());
    }

    #[test]
    fn lockdown_is_the_bracketed_word() {
        assert_eq!(lockdown("[none] integrity confidentiality\n"), Ok(Lockdown::None));
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Ok(Lockdown::Integrity));
        assert_eq!(lockdown("none integrity [confidentiality]\n"), Ok(Lockdown::Confidentiality));
        assert!(lockdown("").is_err());
    }

    #[test]
    fn the_process_view_is_told_from_either_link_or_from_nspid() {
        let (host, other) = (Ok("pid:[4026531836]"), Ok("pid:[4026532444]"));
        let denied = Err("permission denied");
        assert_eq!(process_view(host, host, STATUS), Ok(ProcessView::Host));
        assert_eq!(process_view(denied, host, STATUS), Ok(ProcessView::Host));
        assert_eq!(process_view(host, other, STATUS), Ok(ProcessView::Host));
        assert_eq!(process_view(other, other, STATUS), Ok(ProcessView::Container));
        assert_eq!(process_view(denied, other, STATUS), Ok(ProcessView::Container));
        let unclear = process_view(denied, other, "NSpid:\t812\t12\n").expect_err("either is possible");
        assert_eq!(unclear, "/proc/1/ns/pid: permission denied; /proc/self/ns/pid: pid:[4026532444]");
        assert!(process_view(denied, denied, STATUS).is_err());
    }

    #[test]
    fn mounts_tell_hidepid_and_cgroups() {
        let plain = "proc /proc proc rw,relatime 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(hidepid(plain), Ok(HidePid::Off));
        assert_eq!(cgroups(plain), Ok(Cgroups::V2));
        let hidden = "proc /proc proc rw 0 0\nproc /proc proc rw,hidepid=invisible 0 0\n\
            tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(hidepid(hidden), Ok(HidePid::Invisible));
        assert_eq!(cgroups(hidden), Ok(Cgroups::V1));
        let hybrid = format!("{hidden}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(cgroups(&hybrid), Ok(Cgroups::Hybrid));
        assert!(hidepid("").is_err());
        assert!(hidepid("proc /proc proc rw,hidepid=9 0 0").is_err());
        assert!(cgroups("").is_err());
    }
}
