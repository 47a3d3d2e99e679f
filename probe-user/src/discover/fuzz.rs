//! Fuzz targets: what a host's files and processes say of themselves.

use std::collections::BTreeMap;

use super::command::CommandLine;
use super::recognise::{self, Evidence};
use super::{properties, zoo_cfg};

/// A zoo.cfg: what it lists can be used, and no value of it shows in a note.
pub(crate) fn zoo_cfg(data: &[u8]) {
    let cfg = zoo_cfg::parse(data);
    assert!(cfg.servers.windows(2).all(|two| two[0].sid < two[1].sid), "sorted, each once");
    // The last entry of each server, by a plain reading.
    let mut last = BTreeMap::new();
    for entry in properties::parse(data) {
        if let Some(Ok(sid)) = entry.key.strip_prefix("server.").map(str::parse::<i64>) {
            last.entry(sid).or_insert_with(Vec::new).push(entry.value);
        }
    }
    for peer in &cfg.servers {
        let values = &last[&peer.sid.0];
        assert!(!peer.endpoints.is_empty() && !peer.quorum_ports().contains(&0));
        for end in &peer.endpoints {
            let is_name = |c: char| c.is_alphanumeric() || ".-_:%".contains(c);
            assert!(!end.host.is_empty() && end.host.chars().all(is_name), "{}", end.host);
            let [quorum, election] = [end.quorum_port, end.election_port].map(|port| port.to_string());
            let written = |value: &&String| {
                value.contains(&end.host) && value.contains(&quorum) && value.contains(&election)
            };
            assert!(values.iter().any(|value| written(&value)), "{peer:?} is nowhere in {values:?}");
        }
    }
    for note in &cfg.notes {
        let rest = note.strip_prefix("line ").expect("a line");
        let (number, text) = rest.split_once(": ").expect("a number");
        assert!(number.parse::<usize>().is_ok_and(|n| n > 0));
        let known = text.starts_with("a server entry was skipped: ")
            || (text.starts_with("server.") && text.ends_with(" again, the last one counts"));
        assert!(known && text.len() < 140, "{note}");
    }
}

/// A process by its command line and its threads' names, as /proc separates them.
pub(crate) fn proc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    let command = CommandLine::new(&words, &names[..].first().cloned().unwrap_or_default());
    if let Some(path) = command.config() {
        let path = path.to_string_lossy().into_owned();
        assert!(words.contains(&path), "{path} is no argument");
    }
    let pattern = words.last().map(String::as_str);
    for listed in [None, Some(0), Some(3)] {
        let pattern = recognise::matches_pattern(&words, pattern);
        recognise::standing(&Evidence { command: &command, threads: &names, pattern, listed });
    }
    assert!(pattern.is_none_or(str::is_empty) || recognise::worth_a_look(&words, pattern));
    recognise::named_sid(&names);
}
