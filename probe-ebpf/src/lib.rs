//! The shared half: wire framing, in-flight window, histogram and the types that cross the kernel's edge.
#![no_std]
#![forbid(unsafe_code)]
