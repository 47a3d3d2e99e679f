//! Tells the linker of the kernel programs how to compile them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // Else each array that is set to zeros is a call of a function that goes byte by byte: bpf-linker keeps LLVM
        // from writing a few stores instead, for the sake of copies of packets, which are not made here.
        println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
