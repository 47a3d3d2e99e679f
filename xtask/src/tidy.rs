//! What no compiler lint covers.
//!
//! In: the sources of the workspace. Out: every finding as `file:line: what`, and a failure when there
//! is one. Invariant: reads only; the result depends on the sources alone. Not here: what rustfmt,
//! rustc or clippy check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::invoke;

/// A file longer than this holds more than one thing.
const MOST_LINES: usize = 500;

/// Written in two parts, so that this file does not contain them.
const FORBIDDEN: [(&str, &str); 3] = [
    (concat!("to", "do!"), "finish it, or describe what is missing as a limitation"),
    (concat!("#[ig", "nore"), "a test that cannot run says why and is counted"),
    (concat!("unimp", "lemented!"), "return an error that says so"),
];

/// Directories of people; a path into one works on one machine only.
const HOMES: [&str; 3] = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Directories that hold no sources of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// What kinds of file are read.
const SOURCES: [&str; 7] = ["rs", "toml", "md", "sh", "yaml", "yml", "json"];

/// The task.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = invoke::workspace();
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        let found = check(&text, file.extension().is_some_and(|ext| ext == "rs"));
        findings.extend(found.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    if findings.is_empty() {
        println!("tidy: {} files", files.len());
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    bail!("tidy found {} in {} files", findings.len(), files.len());
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
        let named = |names: &[&str], part: Option<&std::ffi::OsStr>| {
            part.is_some_and(|part| names.iter().any(|&name| part == name))
        };
        // A link leads to what is read elsewhere, or to what is not ours.
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            if !named(&SKIPPED, path.file_name()) {
                collect(&path, files)?;
            }
        } else if named(&SOURCES, path.extension()) || path.ends_with(".ci/run") {
            files.push(path);
        }
    }
    Ok(())
}

/// The findings in one file, each with its line.
fn check(text: &str, is_rust: bool) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let length = text.lines().count();
    if is_rust && length > MOST_LINES {
        findings.push((length, format!("{length} lines, more than {MOST_LINES}: split it")));
    }
    if is_rust && !text.starts_with("//!") {
        let what = "no `//!` in the first line: say what comes in, what goes out, what it keeps";
        findings.push((1, what.to_owned()));
    }
    for (at, line) in text.lines().enumerate() {
        for (word, instead) in FORBIDDEN {
            if is_rust && line.contains(word) {
                findings.push((at + 1, format!("`{word}`: {instead}")));
            }
        }
        if HOMES.iter().any(|home| names_home(line, home)) {
            let what = "a path of somebody's home directory works on one machine only";
            findings.push((at + 1, what.to_owned()));
        }
    }
    findings
}

/// Whether such a path begins in the line: the root of a process, as /proc shows it, is another thing.
fn names_home(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|before| before.is_whitespace() || "\"'`(=:<".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        check(text, true).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn clean_file_passes() {
        assert!(lines("//! What this is.\n\nfn main() {}\n").is_empty());
    }

    #[test]
    fn every_finding_has_its_line() {
        assert_eq!(lines("fn main() {}\n"), [1]);
        let text = format!("//! A.\nfn f() {{ {}() }}\n", FORBIDDEN[0].0);
        assert_eq!(lines(&text), [2]);
        let long = "//! A.\n".repeat(MOST_LINES + 1);
        assert_eq!(lines(&long), [MOST_LINES + 1]);
    }

    #[test]
    fn homes_are_told_from_the_root_of_a_process() {
        let home = HOMES[0];
        assert_eq!(lines(&format!("//! A.\nlet p = \"{home}x\";\n")), [2]);
        assert!(lines(&format!("//! A.\nlet p = \"/proc/1{home}x\";\n")).is_empty());
        assert_eq!(check(&format!("cd {home}x\n"), false).len(), 1);
    }
}
