//! The Java properties format, as far as a zoo.cfg can use it.
//!
//! In: the bytes of a file. Out: its entries in order, each with the line it began on. Invariant: total; any
//! bytes give entries, never an error or a panic. Deliberately not here: what a key means, and which of two
//! equal keys counts (the last; see `zoo_cfg`).
#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

/// One `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line on which the entry begins, from 1.
    pub(super) line: usize,
    pub(super) key: String,
    /// Without the white space around it, as Termite reads it.
    pub(super) value: String,
}

/// White space within a line, as `java.util.Properties` defines it.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

/// All entries of a file, in order.
pub(super) fn parse(bytes: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r']).enumerate();
    let mut entries = Vec::new();
    while let Some((at, first)) = lines.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(BLANK)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        entries.push(Entry { line: at + 1, key, value });
    }
    entries
}

/// An odd number of backslashes at the end: the last one escapes the line's end.
fn ends_in_continuation(line: &str) -> bool {
    line.chars().rev().take_while(|&c| c == '\\').count() % 2 == 1
}

fn split(line: &str) -> (String, String) {
    let mut rest = line.chars().peekable();
    let mut key = String::new();
    while let Some(&c) = rest.peek() {
        if c == '=' || c == ':' || BLANK.contains(&c) {
            break;
        }
        push_unescaped(&mut rest, &mut key);
    }
    skip_blank(&mut rest);
    if rest.next_if(|&c| c == '=' || c == ':').is_some() {
        skip_blank(&mut rest);
    }
    let mut value = String::new();
    while rest.peek().is_some() {
        push_unescaped(&mut rest, &mut value);
    }
    (key, value.trim().to_owned())
}

fn skip_blank(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| BLANK.contains(c)).is_some() {}
}

/// Moves one character, or one escape sequence, from `rest` to `out`.
fn push_unescaped(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.next() {
        Some('\\') => match rest.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let mut code = 0;
                for _ in 0..4 {
                    let Some(digit) = rest.peek().and_then(|c| c.to_digit(16)) else {
                        break;
                    };
                    rest.next();
                    code = code * 16 + digit;
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        },
        Some(plain) => out.push(plain),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &[(usize, &str, &str)]) {
        let got: Vec<_> = parse(text.as_bytes()).into_iter().map(|e| (e.line, e.key, e.value)).collect();
        let expect: Vec<_> = expect.iter().map(|&(n, k, v)| (n, k.to_owned(), v.to_owned())).collect();
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn entries_are_read_as_java_reads_them() {
        check("a=1\nb = 2 \n\tc:3\nd 4", &[(1, "a", "1"), (2, "b", "2"), (3, "c", "3"), (4, "d", "4")]);
        check("# x=1\n ! y=2\n\nz=3", &[(4, "z", "3")]);
        check("a=1\r\nb=2\rc=3", &[(1, "a", "1"), (2, "b", "2"), (3, "c", "3")]);
        check("server.1=h\\\n   :1:2\nb=2", &[(1, "server.1", "h:1:2"), (3, "b", "2")]);
        check("a\\=b=c\\\\", &[(1, "a=b", "c\\")]);
        check("a=\\u0041\\t1", &[(1, "a", "A\t1")]);
        check("alone", &[(1, "alone", "")]);
        check("a=b=c", &[(1, "a", "b=c")]);
        check("a=x\\", &[(1, "a", "x")]);
        check("", &[]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let lines = bytes.len() + 1;
            prop_assert!(parse(&bytes).iter().all(|e| e.line <= lines));
        }

        #[test]
        fn plain_pairs_come_back(pairs in proptest::collection::vec(("[a-z.0-9]{1,9}", "[a-z0-9:;|]{0,9}"), 0..9)) {
            let text: String = pairs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
            let got: Vec<_> = parse(text.as_bytes()).into_iter().map(|e| (e.key, e.value)).collect();
            prop_assert_eq!(got, pairs);
        }
    }
}
