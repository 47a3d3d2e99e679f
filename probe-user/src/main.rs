//! `termite-probe`: per-follower proposal delay, measured in the kernel.

mod model;

fn main() {}
