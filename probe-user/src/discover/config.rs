//! The configuration of one process, put together from its files.
//!
//! In: something that reads files, and the path of zoo.cfg. Out: servers, `myid`, notes. Invariant: what could
//! not be read is a note that says why and what to do; nothing stops the rest. Deliberately not here: the format
//! (see `zoo_cfg`) and where the path comes from (see `command`).
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use super::ids::{Sid, Tgid};
use super::procfs::{self, Procfs};
use super::server::Known;
use super::zoo_cfg::{self, Peer};

/// Reads files as somebody sees them.
pub(super) trait Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// As a process sees them: within its own root.
pub(super) struct Inside<'a>(pub(super) &'a Procfs, pub(super) Tgid);

/// As the user of the probe sees them.
pub(super) struct Here;

impl Files for Inside<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read_as(self.1, path)
    }
}

impl Files for Here {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        procfs::read_here(path)
    }
}

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) path: Option<PathBuf>,
    /// `None` while it could not be read.
    pub(super) servers: Option<Vec<Peer>>,
    pub(super) my_id: Known<Sid>,
    /// `tickTime`, ms, when it is set.
    pub(super) tick_ms: Option<u32>,
    /// Where the process keeps its log and its snapshots; empty while that is not known.
    pub(super) data_dirs: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
}

impl Configuration {
    /// Nothing is known, and why.
    pub(super) fn unknown(path: Option<PathBuf>, why: &str) -> Self {
        Self {
            path,
            servers: None,
            my_id: Known::Unknown(why.to_owned()),
            tick_ms: None,
            data_dirs: Vec::new(),
            notes: vec![format!("{why}; give --config, or --quorum-port")],
        }
    }
}

/// Reads a zoo.cfg, its dynamic part, and `myid`. `data` reads `myid`: a zoo.cfg that the user names is a file
/// of this host, but the directory it names belongs to the process.
pub(super) fn read(path: &Path, files: &dyn Files, data: &dyn Files) -> Configuration {
    let main = match files.read(path) {
        Ok(bytes) => zoo_cfg::parse(&bytes),
        Err(e) => {
            let why = format!("cannot read {}: {}", path.display(), reason(&e));
            return Configuration::unknown(Some(path.to_owned()), &why);
        }
    };
    let tick_ms = main.tick_ms;
    let mut notes = main.notes;
    let servers = match &main.dynamic_file {
        None => Some(main.servers),
        Some(dynamic) => match files.read(dynamic) {
            Ok(bytes) => {
                let part = zoo_cfg::parse(&bytes);
                notes.extend(part.notes.into_iter().map(|n| format!("dynamic part, {n}")));
                Some(part.servers)
            }
            Err(e) => {
                notes.push(format!("cannot read the dynamic part {}: {}", dynamic.display(), reason(&e)));
                None
            }
        },
    };
    let data_dirs = main.data_dir.iter().chain(&main.data_log_dir).cloned().collect();
    let my_id = match main.data_dir {
        Some(dir) => my_id(&dir.join("myid"), data),
        None => Known::Unknown("zoo.cfg names no dataDir".to_owned()),
    };
    Configuration { path: Some(path.to_owned()), servers, my_id, tick_ms, data_dirs, notes }
}

fn my_id(path: &Path, files: &dyn Files) -> Known<Sid> {
    match files.read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            match text.lines().next().and_then(|l| l.trim().parse().ok()) {
                Some(sid) => Known::Known { value: Sid(sid), source: "dataDir/myid" },
                None => Known::Unknown(format!("{} holds no number", path.display())),
            }
        }
        Err(e) => Known::Unknown(format!("cannot read {}: {}", path.display(), reason(&e))),
    }
}

/// Why a file could not be read, and what to do.
pub(super) fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            "not permitted; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH".to_owned()
        }
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Fixture(HashMap<&'static str, &'static str>);

    impl Files for Fixture {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match self.0.get(path.to_str().unwrap()) {
                Some(&"DENIED") => Err(io::ErrorKind::PermissionDenied.into()),
                Some(text) => Ok(text.as_bytes().to_vec()),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn configuration(files: &[(&'static str, &'static str)]) -> Configuration {
        let files = Fixture(files.iter().copied().collect());
        read(Path::new("zoo.cfg"), &files, &files)
    }

    fn sids(c: &Configuration) -> Option<Vec<i64>> {
        Some(c.servers.as_ref()?.iter().map(|p| p.sid.0).collect())
    }

    #[test]
    fn a_plain_configuration() {
        let c =
            configuration(&[("zoo.cfg", "dataDir=/d\nserver.1=a:1:2\nserver.2=b:1:2"), ("/d/myid", "2\n")]);
        assert_eq!(sids(&c), Some(vec![1, 2]));
        assert_eq!(c.my_id.value(), Some(&Sid(2)));
        assert_eq!(c.notes, Vec::<String>::new());
    }

    #[test]
    fn the_dynamic_part_counts_where_there_is_one() {
        let main = ("zoo.cfg", "dataDir=/d\ndynamicConfigFile=/c/dyn\nserver.9=x:1:2");
        let c = configuration(&[main, ("/c/dyn", "server.1=a:1:2;2181\nserver.2=b\nversion=100000000")]);
        assert_eq!(sids(&c), Some(vec![1]));
        assert!(c.notes[0].starts_with("dynamic part, line 2:"), "{:?}", c.notes);
        let c = configuration(&[main]);
        assert_eq!(sids(&c), None);
        assert_eq!(c.notes, ["cannot read the dynamic part /c/dyn: no such file"]);
    }

    #[test]
    fn absence_is_told() {
        let c = configuration(&[("zoo.cfg", "DENIED")]);
        assert_eq!(sids(&c), None);
        assert!(c.notes[0].contains("run as root") && c.notes[0].contains("--config"), "{:?}", c.notes);
        let my_id = |files| match configuration(files).my_id {
            Known::Unknown(why) => why,
            known @ Known::Known { .. } => panic!("{known:?}"),
        };
        assert_eq!(my_id(&[("zoo.cfg", "dataDir=/d")]), "cannot read /d/myid: no such file");
        assert_eq!(my_id(&[("zoo.cfg", "dataDir=/d"), ("/d/myid", "two")]), "/d/myid holds no number");
        assert_eq!(my_id(&[("zoo.cfg", "x=1")]), "zoo.cfg names no dataDir");
    }
}
