//! Kernel addresses → names, from /proc/kallsyms.
//!
//! In: addresses. Out: the function that holds each, or nothing where the kernel hides them (kptr_restrict, no
//! CAP_SYSLOG). Invariant: the file is opened at once, because the kernel judges by what the opener may see, and read once,
//! at the first address; names are shared and take a few MB. Deliberately absent: user space's symbols.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, BufRead as _, Read as _};
use std::path::Path;

const KALLSYMS: &str = "/proc/kallsyms";

/// Functions of the kernel by address.
#[derive(Debug)]
pub(crate) struct Symbols {
    file: Option<fs::File>,
    table: Option<Table>,
}

/// Sorted by address.
#[derive(Debug, Default)]
struct Table {
    starts: Vec<u64>,
    /// Where the name of each begins in `names`; one more than there are.
    offsets: Vec<u32>,
    names: String,
}

impl Symbols {
    /// Those that this process may see now, even if they are asked for when it may see less.
    pub(crate) fn open() -> Self {
        Self { file: fs::File::open(KALLSYMS).ok(), table: None }
    }

    /// The function that holds `address`; `None` when it is not known.
    pub(crate) fn name(&mut self, address: u64) -> Option<&str> {
        let table = self.table.get_or_insert_with(|| {
            let mut text = String::new();
            // A file that cannot be read to its end tells what stood before.
            let _read = self.file.take().map(|mut file| file.read_to_string(&mut text));
            Table::parse(&text)
        });
        table.find(address)
    }
}

/// Whether the kernel shows this process where its functions are.
pub(crate) fn are_shown() -> bool {
    are_shown_by(Path::new(KALLSYMS)) == Ok(true)
}

/// Whether a file such as `/proc/kallsyms` tells addresses.
pub(crate) fn are_shown_by(file: &Path) -> Result<bool, String> {
    let cannot = |error: io::Error| format!("cannot read {KALLSYMS}: {error}");
    for line in io::BufReader::new(fs::File::open(file).map_err(cannot)?).lines() {
        let line = line.map_err(cannot)?;
        // Older kernels begin with data of each CPU, which lies at small addresses. The first function tells for all.
        if line.split_ascii_whitespace().nth(1).is_some_and(is_code) {
            return Ok(symbol(&line).is_some());
        }
    }
    Ok(false)
}

fn is_code(kind: &str) -> bool {
    matches!(kind, "t" | "T" | "w" | "W")
}

/// Address and name of a line that tells of a function: `ffffffff81000000 T _text`, with the module's name in brackets
/// behind it.
fn symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
    let is_code = is_code(words.next()?);
    // What the compiler made of a function goes by the function's own name.
    let name = words.next()?;
    let name = name.split_once('.').map_or(name, |(own, _)| own);
    (is_code && !name.is_empty()).then_some((address, name))
}

impl Table {
    fn parse(text: &str) -> Self {
        let mut symbols: Vec<(u64, &str)> = text.lines().filter_map(symbol).collect();
        // Several names of one address: the last is as good as the first, but always the same.
        symbols.sort_by_key(|(address, _)| *address);
        symbols.dedup_by_key(|(address, _)| *address);
        let mut table = Self::default();
        for (start, name) in symbols {
            table.starts.push(start);
            table.offsets.push(table.names.len() as u32);
            table.names.push_str(name);
        }
        table.offsets.push(table.names.len() as u32);
        table
    }

    fn find(&self, address: u64) -> Option<&str> {
        let index = self.starts.partition_point(|start| *start <= address).checked_sub(1)?;
        let (from, to) = (self.offsets[index] as usize, self.offsets[index + 1] as usize);
        self.names.get(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000000 T _text\n\
        ffffffff81000000 T startup_64\n\
        ffffffff81000200 t do_signal_stop.constprop.0\n\
        ffffffff81000180 D a_datum\n\
        ffffffff81000100 T io_schedule\n\
        ffffffffc0000000 t ext4_sync_file\t[ext4]\n";

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let table = Table::parse(TEXT);
        let name = |address| table.find(address);
        assert_eq!(name(0xffff_ffff_8100_0000), Some("_text"));
        assert_eq!(name(0xffff_ffff_8100_0100), Some("io_schedule"));
        assert_eq!(name(0xffff_ffff_8100_01ff), Some("io_schedule"));
        assert_eq!(name(0xffff_ffff_8100_0234), Some("do_signal_stop"));
        assert_eq!(name(0xffff_ffff_c000_0001), Some("ext4_sync_file"));
        assert_eq!(name(0x1000), None);
    }

    #[test]
    fn the_first_function_tells_whether_they_are_shown() {
        let file = std::env::temp_dir().join(format!("termite-kallsyms-{}", std::process::id()));
        let data: String = (0..500).map(|at| format!("{:016x} A per_cpu_{at}\n", at * 64)).collect();
        let shown = |text: &str| {
            fs::write(&file, text).unwrap();
            are_shown_by(&file)
        };
        assert_eq!(shown(&(data.clone() + TEXT)), Ok(true));
        assert_eq!(shown(&(data + "0000000000000000 T _text\n")), Ok(false));
        assert_eq!(shown(""), Ok(false));
        fs::remove_file(&file).unwrap();
        assert!(are_shown_by(&file).is_err());
    }

    #[test]
    fn hidden_addresses_are_no_symbols() {
        let hidden = TEXT.replace("ffffffff81", "0000000000").replace("ffffffffc0", "0000000000");
        let hidden: String = hidden.lines().map(|l| format!("0000000000000000{}\n", &l[16..])).collect();
        let table = Table::parse(&hidden);
        assert_eq!(table.find(0xffff_ffff_8100_0100), None);
        assert_eq!(Table::parse("").find(1), None);
        assert_eq!(symbol("not a line"), None);
    }

    #[test]
    fn this_kernel_knows_its_own_functions_when_it_shows_them() {
        let mut symbols = Symbols::open();
        let schedule = fs::read_to_string(KALLSYMS).unwrap_or_default();
        let shown = schedule.lines().filter_map(symbol).find(|(_, name)| *name == "schedule");
        assert_eq!(shown.is_some(), are_shown());
        if let Some((address, _)) = shown {
            assert_eq!(symbols.name(address + 1), Some("schedule"));
        }
    }
}
