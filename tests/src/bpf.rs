//! bpf(2), as far as the tests look at what a probe has in the kernel.
//!
//! In: commands and their words. Out: what the kernel answered. Invariant: a descriptor that the kernel makes is owned at
//! once. Not here: what the probe itself asks of the kernel.

pub mod maps;
pub mod objects;

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
mod command {
    pub(super) const MAP_LOOKUP_ELEM: u32 = 1;
    pub(super) const MAP_GET_NEXT_KEY: u32 = 4;
    pub(super) const PROG_GET_FD_BY_ID: u32 = 13;
    pub(super) const MAP_GET_FD_BY_ID: u32 = 14;
    pub(super) const OBJ_GET_INFO_BY_FD: u32 = 15;
    pub(super) const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
    pub(super) const LINK_GET_FD_BY_ID: u32 = 30;
}

/// The first words of `union bpf_attr`; the kernel takes the rest as zeros.
#[repr(C, align(8))]
struct Attributes([u64; 8]);

/// The system call; a pointer among the words must be good for what the command reads and writes there.
fn call(command: u32, words: &mut [u64]) -> io::Result<i32> {
    let mut attributes = Attributes([0; 8]);
    attributes.0[..words.len()].copy_from_slice(words);
    // SAFETY: the callers pass buffers of the sizes that the map itself has, alive during the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<Attributes>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens an object by its id; `command` is that of its kind.
fn open(command: u32, id: u32) -> io::Result<OwnedFd> {
    let fd = call(command, &mut [id.into()])?;
    // SAFETY: the call has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
