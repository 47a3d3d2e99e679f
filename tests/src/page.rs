//! docs/reliability.md: which part of it is whose.
//!
//! Invariant: what is hand-written stays, and so do the parts of others; only what stands between the two marks of a
//! part is replaced. Deliberately absent: what the parts say.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::markdown::with_part;

/// Replaces a part.
pub fn write(part: &str, text: &str) -> Result<()> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md"));
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (begin, end) = (format!("<!-- {part} -->"), format!("<!-- end of {part} -->"));
    anyhow::ensure!(old.contains(&begin), "{} has no {begin}", path.display());
    fs::write(&path, with_part(&old, &begin, &end, text))
        .with_context(|| format!("cannot write {}", path.display()))
}
