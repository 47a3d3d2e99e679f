//! safepoint: begin, operation and end of a JVM's stops, at places of its libjvm that user space found.
//!
//! Attached to a file, so that one attachment serves every process that maps it; processes that are not
//! watched cost a system call's worth of time at each of their safepoints.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_attach_cookie, bpf_ktime_get_ns, bpf_probe_read_user_str};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use core::ffi::c_void;
use probe_ebpf::abi::OperationKey;
use probe_ebpf::safepoint::NAME_BYTES;
use probe_ebpf::usdt::{Operand, register};

use crate::kernel::{Task, read_kernel, read_user};
use crate::maps;
use crate::safepoints::{advance, clock_of, tell};

/// `hs_private:safepoint__begin`, or `RuntimeService::record_safepoint_begin`, which holds it.
#[uprobe]
fn safepoint_begin(_: ProbeContext) -> u32 {
    if let Some(clock) = clock_of(Task::current()) {
        // SAFETY: a helper without preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        advance(clock, |clock| clock.begin(now));
    }
    0
}

/// `hs_private:safepoint__end`, or `RuntimeService::record_safepoint_end`, which holds it.
#[uprobe]
fn safepoint_end(_: ProbeContext) -> u32 {
    if let Some(clock) = clock_of(Task::current()) {
        // SAFETY: a helper without preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        if let Some(over) = advance(clock, |clock| clock.end(now)) {
            tell(clock, &over);
        }
    }
    0
}

/// `hotspot:vmops__begin(char *name, size_t length, int outside)`; the cookie says where `name` is.
#[uprobe]
fn safepoint_operation_usdt(ctx: ProbeContext) -> u32 {
    let Some(clock) = clock_of(Task::current()) else {
        return 0;
    };
    let operand = Operand::unpack(cookie(&ctx));
    let Some(pointer) = value(&ctx, operand) else {
        return 0;
    };
    let mut name = [0_u8; NAME_BYTES];
    // SAFETY: the helper writes at most as many bytes as the array has. A name that cannot be read leaves
    // zeros: a stop without a name.
    unsafe { bpf_probe_read_user_str((&raw mut name).cast(), NAME_BYTES as u32, pointer as *const c_void) };
    if name[0] != 0 {
        advance(clock, |clock| clock.operation(&name));
    }
    0
}

/// `void VM_Operation::evaluate()`: the class of `this` tells the operation; the cookie names the libjvm.
#[uprobe]
fn safepoint_operation_symbol(ctx: ProbeContext) -> u32 {
    let Some(clock) = clock_of(Task::current()) else {
        return 0;
    };
    let this = register_of(&ctx, register::RDI);
    let Some(table) = read_user::<u64>(this) else {
        return 0;
    };
    let distance = table.wrapping_sub(register_of(&ctx, register::RIP));
    let key = OperationKey { library: cookie(&ctx), distance };
    // SAFETY: user space replaces no name, it only adds and removes them.
    if let Some(name) = unsafe { maps::OPERATIONS.get(key) } {
        let name = *name;
        advance(clock, |clock| clock.operation(&name));
    }
    0
}

/// What the attachment carries.
#[inline(always)]
fn cookie(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context of this very program.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// A register at the place that was hit. The verifier allows a context only constant offsets, the helper
/// takes any.
#[inline(always)]
fn register_of(ctx: &ProbeContext, offset: u32) -> u64 {
    // SAFETY: pointer arithmetic only; the copy checks the address, which lies in `struct pt_regs`.
    read_kernel(unsafe { ctx.as_ptr().cast_const().byte_add(offset as usize) }, 0)
}

/// The value of an argument.
#[inline(always)]
fn value(ctx: &ProbeContext, operand: Operand) -> Option<u64> {
    let register = register_of(ctx, operand.register);
    if operand.in_memory {
        read_user(register.wrapping_add_signed(operand.displacement.into()))
    } else {
        Some(register)
    }
}
