//! From a bzImage to the ELF kernel in it, so that the guest need not unpack it (slow under emulation).
//!
//! In: the image's bytes. Out: the kernel's. Invariant: the header says where the payload is; nothing is searched.

use std::io::Write as _;
use std::ops::Range;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};

use crate::invoke;

// Offsets of the setup header: Documentation/arch/x86/boot.rst, protocol 2.08 and later.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

// Debian packs the cloud kernels of 6.1 in the first way, the others of 6.1 in the second, those of 6.12 in the third.
const LZ4_LEGACY: &[u8] = b"\x02\x21\x4c\x18";
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const ELF: &[u8] = b"\x7fELF";

/// The kernel in an image.
pub(super) fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let range = payload(image).context("this is no kernel image that says where its kernel is")?;
    let packed = &image[range];
    let kernel = if packed.starts_with(LZ4_LEGACY) {
        through("lz4", &["-d", "-c", "-q"], packed)?
    } else if packed.starts_with(XZ) {
        through("xz", &["-d", "-c", "-q"], packed)?
    } else if packed.starts_with(ZSTD) {
        through("zstd", &["-d", "-c", "-q"], packed)?
    } else {
        bail!("the kernel is packed in a way that is not known here");
    };
    ensure!(kernel.starts_with(ELF), "what the kernel image holds is no ELF file");
    Ok(kernel)
}

/// Where the packed kernel is in the image.
fn payload(image: &[u8]) -> Option<Range<usize>> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    // Behind the packed kernel stands its size, which is none of the stream.
    let from = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)?;
    let length = word(PAYLOAD_LENGTH)?;
    let to = from.checked_add(length)?.checked_sub(4)?;
    (length > 4 && to <= image.len()).then_some(from..to)
}

/// What a program makes of its input.
fn through(program: &str, args: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = invoke::command(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("no way to its input")?;
    let output = std::thread::scope(|scope| {
        // It may stop reading behind the end of its stream: what counts is what comes out.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program} failed ({})", output.status);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(length: u32) -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image
    }

    #[test]
    fn the_header_says_where_the_kernel_is() {
        assert_eq!(payload(&image(100)), Some(1040..1136));
        assert_eq!(payload(&image(4096)), None);
        assert_eq!(payload(&image(u32::MAX)), None);
        assert_eq!(payload(b"MZ"), None);
        assert_eq!(payload(&[0; 4096]), None);
    }
}
