//! Kernel programs: hooks that filter, read, call the shared logic, and emit.
//!
//! In: tracepoints and function hooks. Out: map values and ring-buffer records. Invariant: every hook
//! returns after a bitmap or socket-storage miss for what is not watched. Deliberately absent: logic,
//! which lives in the library half and is tested on the host.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Atomic instructions on the BPF target, see `atomic`.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), allow(internal_features))]
// Assembly on it, see `threads::unrelated`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod charge;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod proof;
#[cfg(target_arch = "bpf")]
mod safepoints;
#[cfg(target_arch = "bpf")]
mod sockets;
#[cfg(target_arch = "bpf")]
mod stream;
#[cfg(target_arch = "bpf")]
mod threads;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that read kernel memory and time are reserved to GPL-compatible programs.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
