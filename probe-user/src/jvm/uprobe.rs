//! A loaded program at a place of a file, with a cookie.
//!
//! In: a program, an open file, an offset in it. Out: a descriptor that keeps the program there. Invariant: nothing is loaded
//! for it, so it works inside the fence; the loader's own way tries out a program of its own for each cookie. Deliberately
//! absent: which places of which file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Where the kernel tells the type of uprobe events.
const TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
/// `BPF_LINK_CREATE` and `BPF_PERF_EVENT`, include/uapi/linux/bpf.h.
const LINK_CREATE: libc::c_int = 28;
const PERF_EVENT: u32 = 41;
/// `PERF_FLAG_FD_CLOEXEC`, include/uapi/linux/perf_event.h.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` up to its second version (`PERF_ATTR_SIZE_VER1`), as a uprobe uses it.
#[repr(C)]
#[derive(Default)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    sampling: [u64; 4],
    wakeup: u32,
    breakpoint: u32,
    path: u64,
    offset: u64,
}

/// The part of `union bpf_attr` that makes a link of a program and an event.
#[repr(C)]
struct Link {
    program: u32,
    event: u32,
    kind: u32,
    flags: u32,
    cookie: u64,
}

const _: () = assert!(size_of::<Event>() == 72 && size_of::<Link>() == 24);

/// Runs `program` whenever any process comes to `offset` of the file at `path`, until the result is closed.
pub(super) fn attach(program: BorrowedFd<'_>, path: &str, offset: u64, cookie: u64) -> io::Result<OwnedFd> {
    let event = event(path, offset)?;
    let raw = |fd: RawFd| fd.unsigned_abs();
    let link = Link {
        program: raw(program.as_raw_fd()),
        event: raw(event.as_raw_fd()),
        kind: PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the kernel reads `size_of::<Link>()` bytes of `link`, which is all of it, and takes the rest for zero.
    owned(unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, &raw const link, size_of::<Link>()) })
}

/// An event at a place of a file, of every process. The link keeps it alive.
fn event(path: &str, offset: u64) -> io::Result<OwnedFd> {
    let kind = std::fs::read_to_string(TYPE)?;
    let kind = kind.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let path = CString::new(path)?;
    let event = Event {
        kind,
        size: size_of::<Event>() as u32,
        path: path.as_ptr() as u64,
        offset,
        ..Event::default()
    };
    let (every_process, any_cpu, no_group) = (-1, 0, -1);
    // SAFETY: the kernel reads `size` bytes of `event` and a string that ends in a zero byte, both alive through the call.
    owned(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            every_process,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the call before succeeded, so this is a fresh descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
