//! `termite-probe`: per-follower proposal delay, measured in the kernel.

mod discover;
mod model;

fn main() {}
