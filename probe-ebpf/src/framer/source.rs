//! Where the bytes of the call in progress are in its caller's memory.
//!
//! In: what the system call was given. Out: plain data, kept with the framer because the loop over a call has no
//! stack to spare. Deliberately absent: reading it.

/// Address of the chunk that is being framed, and what of the call is not yet in a chunk.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Address of the chunk.
    pub address: u64,
    /// Next `struct iovec` of a vectored call.
    pub parts: u64,
    /// How many are left.
    pub parts_left: u64,
    /// Bytes of the call that are not yet in a chunk.
    pub bytes_left: u32,
    /// Explicit padding.
    pub reserved: u32,
}

impl Source {
    /// No call.
    pub const NONE: Self = Self { address: 0, parts: 0, parts_left: 0, bytes_left: 0, reserved: 0 };
}
