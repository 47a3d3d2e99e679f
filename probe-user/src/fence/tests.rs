//! The fence around a thread of this test program: what it says, what the kernel says, and what can still be done.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;

use super::*;

const ALL: u64 = (1 << 41) - 1;

/// Does something on a thread of its own, which takes the fence with it when it ends.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().unwrap()
}

/// A set in the kernel's words.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn names(set: u64) -> Vec<&'static str> {
    Capability::ALL.into_iter().filter(|one| set & mask(*one) != 0).map(Capability::name).collect()
}

#[test]
fn what_is_needed_is_kept() {
    let (sure, perhaps) = needed(ALL);
    assert_eq!(
        names(sure),
        ["CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"]
    );
    assert_eq!(names(perhaps), ["CAP_SYS_ADMIN"]);
    let (sure, perhaps) = needed(mask(Capability::SysAdmin) | mask(Capability::Bpf));
    assert_eq!((names(sure), perhaps), (vec!["CAP_SYS_ADMIN"], 0), "it stands in for CAP_PERFMON");
    assert_eq!(needed(mask(Capability::Bpf)), (0, 0));
}

#[test]
fn the_kernel_says_the_same_as_the_report() {
    for attaches in [true, false] {
        apart(move || {
            let (before, may_empty) = (status("CapPrm"), status("CapEff") >> 8 & 1 == 1); // CAP_SETPCAP
            let report = raise(|| {
                assert_eq!(status("CapEff") & mask(Capability::SysAdmin), 0, "it is laid aside");
                attaches
            });
            let (sure, perhaps) = needed(before);
            let kept = if attaches { sure } else { sure | perhaps };
            assert_eq!(report.kept, names(kept));
            assert_eq!(u64::from(report.dropped), u64::from((before & !kept).count_ones()));
            for set in ["CapEff", "CapPrm"] {
                assert_eq!(status(set), kept, "{set}");
            }
            assert_eq!((status("CapInh"), status("CapAmb")), (0, 0));
            assert_eq!((status("NoNewPrivs"), status("Seccomp")), (1, 2));
            let is_up = |name| report.parts.iter().any(|part| part.part == name && part.state == UP);
            assert!(["capabilities", "new_privileges", "system_calls"].into_iter().all(is_up));
            assert_eq!(is_up("bounding_set"), may_empty || status("CapBnd") == 0);
            assert_eq!(is_up("bounding_set"), status("CapBnd") == 0);
            assert!(report.describe().contains("files for reading only"), "{}", report.describe());
        });
    }
}

#[test]
fn within_the_fence_one_can_read_and_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    apart(move || {
        raise(|| true);
        assert!(fs::read_to_string("/proc/self/maps").unwrap().contains("[stack]"));
        assert!(fs::read_dir("/proc/self/task").unwrap().count() > 0);
        listener.accept().unwrap();
        drop(client);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"?", address).unwrap();
        thread::sleep(std::time::Duration::from_millis(1));
    });
}

#[test]
fn within_the_fence_one_can_change_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let place = std::env::temp_dir().join(format!("termite-fence-{}", std::process::id()));
    fs::write(&place, "as it was").unwrap();
    let file = place.clone();
    apart(move || {
        raise(|| true);
        let refused = |what: &str, kind| assert_eq!(kind, Some(ErrorKind::PermissionDenied), "{what}");
        refused("a program", Command::new("true").spawn().err().map(|e| e.kind()));
        refused("a thread", thread::Builder::new().spawn(|| ()).err().map(|e| e.kind()));
        refused("writing", File::options().write(true).open(&file).err().map(|e| e.kind()));
        refused("appending", File::options().append(true).open(&file).err().map(|e| e.kind()));
        refused("a new file", File::create(file.with_extension("new")).err().map(|e| e.kind()));
        refused("removing", fs::remove_file(&file).err().map(|e| e.kind()));
        refused("renaming", fs::rename(&file, file.with_extension("new")).err().map(|e| e.kind()));
        refused("connecting", TcpStream::connect(address).err().map(|e| e.kind()));
    });
    assert_eq!(fs::read_to_string(&place).unwrap(), "as it was");
    fs::remove_file(place).unwrap();
}

/// With arguments that harm nobody if the fence were open: the kernel then has another error for each.
#[test]
fn within_the_fence_these_calls_are_refused() {
    let calls = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_clone3,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_pidfd_send_signal,
        libc::SYS_pidfd_getfd,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_setns,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_openat2,
        libc::SYS_open_by_handle_at,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_memfd_create,
        libc::SYS_mknod,
        libc::SYS_symlink,
        libc::SYS_chmod,
        libc::SYS_setxattr,
        libc::SYS_truncate,
        libc::SYS_clock_settime,
        libc::SYS_prctl,
        libc::SYS_capset,
        libc::SYS_seccomp,
        libc::SYS_setsid,
        libc::SYS_bpf, // command 0 makes a map
    ];
    apart(move || {
        raise(|| true);
        for call in calls {
            // An invalid pid, descriptor, command or address, whatever the call takes.
            let first = if call == libc::SYS_bpf { 0 } else { -1_i64 };
            // SAFETY: no argument points to memory, and each of these calls fails for such arguments.
            let result = unsafe { libc::syscall(call, first, 0, 0, 0, 0) };
            let error = io::Error::last_os_error();
            assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EPERM)), "call {call}");
        }
    });
}

#[test]
fn a_fence_with_a_gap_says_so() {
    let parts = vec![
        FencePart { part: "capabilities", state: UP, reason: String::new() },
        FencePart { part: "system_calls", state: DOWN, reason: "this kernel filters no system calls".into() },
    ];
    let report = FenceReport { kept: vec!["CAP_PERFMON"], dropped: 3, calls: 70, parts };
    assert_eq!(
        report.describe(),
        "keeps CAP_PERFMON, gave up 3 others; without system_calls: this kernel filters no system calls"
    );
}
