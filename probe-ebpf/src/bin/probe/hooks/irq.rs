//! irq: what interrupts take of each CPU. Runs for every interrupt of the host, so it is attached on request only.
//!
//! Not seen: vectors without tracepoints of their own here (IPIs, which take a microsecond), and the way in and out.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use probe_ebpf::irq::Interrupts;

use crate::maps;
use crate::threads::now;

/// `void irq_handler_entry(int irq, struct irqaction *action)`
#[btf_tracepoint(function = "irq_handler_entry")]
fn irq_enter_handler(_: BtfTracePointContext) -> i32 {
    with(Interrupts::enter_handler)
}

/// `void irq_handler_exit(int irq, struct irqaction *action, int ret)`
#[btf_tracepoint(function = "irq_handler_exit")]
fn irq_leave_handler(_: BtfTracePointContext) -> i32 {
    with(Interrupts::leave_handler)
}

/// `void local_timer_entry(int vector)`: a vector of its own on x86, past the handlers.
#[btf_tracepoint(function = "local_timer_entry")]
fn irq_enter_timer(_: BtfTracePointContext) -> i32 {
    with(Interrupts::enter_handler)
}

/// `void local_timer_exit(int vector)`
#[btf_tracepoint(function = "local_timer_exit")]
fn irq_leave_timer(_: BtfTracePointContext) -> i32 {
    with(Interrupts::leave_handler)
}

/// `void softirq_entry(unsigned int vec_nr)`
#[btf_tracepoint(function = "softirq_entry")]
fn irq_enter_softirq(_: BtfTracePointContext) -> i32 {
    with(Interrupts::enter_softirq)
}

/// `void softirq_exit(unsigned int vec_nr)`
#[btf_tracepoint(function = "softirq_exit")]
fn irq_leave_softirq(_: BtfTracePointContext) -> i32 {
    with(Interrupts::leave_softirq)
}

#[inline(always)]
fn with(step: fn(&mut Interrupts, u64)) -> i32 {
    if let Some(clock) = maps::INTERRUPTS.get_ptr_mut(0) {
        // SAFETY: a map value of this CPU, which no other CPU writes; a handler that comes in between writes
        // other fields than the softirq it interrupts.
        step(unsafe { &mut *clock }, now());
    }
    0
}
