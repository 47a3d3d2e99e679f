//! Where an argument of a USDT probe lies when the probe is hit, packed into the 64 bits that the kernel
//! hands to a program with each hit (the attachment's cookie).
//!
//! Invariant: [`Operand::unpack`] of [`Operand::pack`] is the operand; any 64 bits unpack to something that
//! the kernel side can carry out. Deliberately absent: the text of a note, which user space parses.

/// Offsets of the registers in `struct pt_regs` of x86-64 (arch/x86/include/asm/ptrace.h), which user space
/// programs see too and which therefore never change.
pub mod register {
    /// rdi.
    pub const RDI: u32 = 112;
    /// The instruction pointer.
    pub const RIP: u32 = 128;
    /// The stack pointer, the last one that an operand can name.
    pub const RSP: u32 = 152;
}

/// An operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Offset of its register in `struct pt_regs`, at most [`register::RSP`] and a multiple of 8.
    pub register: u32,
    /// The value lies in memory, at the register plus the displacement; else the register is the value.
    pub in_memory: bool,
    /// Of a value in memory.
    pub displacement: i32,
}

impl Operand {
    /// As a cookie.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.register as u64 | (self.in_memory as u64) << 16 | (self.displacement as u32 as u64) << 32
    }

    /// From a cookie.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(cookie: u64) -> Self {
        let register = cookie as u32 & 0xf8;
        Self {
            register: if register > register::RSP { register::RSP } else { register },
            in_memory: (cookie >> 16) & 1 == 1,
            displacement: (cookie >> 32) as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(index in 0..20_u32, in_memory: bool, displacement: i32) {
            let operand = Operand { register: index * 8, in_memory, displacement };
            prop_assert_eq!(Operand::unpack(operand.pack()), operand);
        }

        #[test]
        fn any_cookie_names_a_register(cookie: u64) {
            let operand = Operand::unpack(cookie);
            prop_assert!(operand.register <= register::RSP && operand.register.is_multiple_of(8));
        }
    }
}
