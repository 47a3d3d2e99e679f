//! Fuzz targets: what the kernel says of itself.

mod plain;

use super::btf::Btf;
use super::facts::KernelShape;
use super::{offsets, read};

/// The kernel's types: an offset is given only when it is the only one that the bytes can mean, and all or none.
pub(crate) fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec()) else { return };
    let shape = KernelShape::of(&btf);
    assert_eq!(shape.offsets.is_some(), shape.lost_fields.is_empty());
    assert!(shape.lost_fields.iter().all(|lost| !lost.reason.is_empty() && !lost.needed_for.is_empty()));
    let Some(types) = plain::Types::read(data) else {
        panic!("the plain reader refuses what the other takes")
    };
    for (object, path, found) in offsets::found_by(&btf) {
        // Records inside one another give up on the way; what is asked for is not known then.
        if let (Some(bits), Some(all)) = (found, types.places(object, path)) {
            assert_eq!(all, [bits], "{object}.{path}");
        }
    }
}

/// Small files of /proc and /sys.
pub(crate) fn proc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (read::capabilities(&text), read::effective_uid(&text), read::lockdown(&text));
    let _ = (read::hidepid(&text), read::cgroups(&text));
    let mut lines = text.lines();
    let (first, own) = (lines.next().ok_or("none"), lines.next().ok_or("none"));
    let _ = read::process_view(first, own, &text);
}
