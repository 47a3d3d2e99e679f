//! Fuzz targets of the shared half: any bytes in, a panic out when a promise is broken.
//!
//! Invariant: a target is a plain function, so that the tests replay its corpus without a fuzzer. Deliberately absent:
//! the fuzzer (`tests/fuzz`).

extern crate std;

mod plain;
mod resync;

use crate::framer::{BUFFER, CallBytes, Framer, Turn};
use crate::testing::{Rng, cut};
use crate::zab::Direction;
use plain::{End, Packet};
use std::vec::Vec;

pub use resync::resync;

/// A target: panics when the bytes show that a promise is broken.
pub type Target = fn(&[u8]);

/// Every target of this crate by its name.
pub const TARGETS: [(&str, Target); 2] = [("framer", framer), ("resync", resync)];

/// Bytes of a call.
struct Call<'a>(&'a [u8]);

impl CallBytes for Call<'_> {
    fn copy(&self, offset: u32, into: &mut [u8; BUFFER], at: u32, len: u32) -> bool {
        let (offset, at, len) = (offset as usize, at as usize, len as usize);
        into[at..at + len].copy_from_slice(&self.0[offset..offset + len]);
        true
    }
}

/// What a framer made of the calls that it was shown.
#[derive(Default)]
struct Found {
    packets: Vec<Packet>,
    /// How many packets there were when the framing was lost for the first time.
    whole: Option<usize>,
    lost: u32,
    tls: bool,
}

impl Found {
    /// Shows the framer a call that begins at the offset `at` of its stream.
    fn call(&mut self, framer: &mut Framer, call: &[u8], at: usize, first_seq: u32, quiet_ns: u64) {
        if !framer.begin_call(first_seq.wrapping_add(at as u32), at == 0, quiet_ns) {
            self.lose();
        }
        framer.begin_chunk(call.len() as u32);
        loop {
            match framer.turn(&Call(call)) {
                Turn::More | Turn::Record => {}
                Turn::Done => break,
                Turn::Lost => self.lose(),
                Turn::Tls => self.tls = true,
                Turn::Packet => {
                    let end = framer.end_seq().wrapping_sub(first_seq) as usize;
                    assert!((at..=at + call.len()).contains(&end), "a packet ends outside of its call");
                    self.packets.push(Packet { kind: framer.kind, zxid: framer.zxid, end });
                }
            }
        }
    }

    fn lose(&mut self) {
        self.whole.get_or_insert(self.packets.len());
        self.lost += 1;
    }
}

/// A stream from its first byte on, in any calls: up to the first byte that no packet can have there, the framer finds
/// what a plain decoder finds that has the whole stream before it, and then it says that it is lost.
///
/// `data`: direction and way of cutting, seed (2 bytes), longest call, then the stream.
pub fn framer(data: &[u8]) {
    let Some((&[how, seed, more_seed, longest], stream)) = data.split_first_chunk::<4>() else { return };
    let direction = if how & 1 == 1 { Direction::Up } else { Direction::Down };
    let seed = u64::from(u16::from_le_bytes([seed, more_seed]));
    let longest = match how >> 1 & 3 {
        0 => 1,
        1 => usize::from(longest).max(1),
        2 => 16 * usize::from(longest) + 1,
        _ => stream.len().max(1),
    };
    // Sequence numbers wrap in the middle of some streams.
    let first_seq = if how & 8 == 0 { 1 } else { u32::MAX - (stream.len() / 2) as u32 };
    let mut framer = Framer::HUNTING;
    framer.set_direction(direction);
    let mut found = Found::default();
    let mut at = 0;
    for end in cut(&mut Rng(seed), 0, stream.len(), longest) {
        found.call(&mut framer, &stream[at..end], at, first_seq, 0);
        at = end;
    }
    let plain = plain::decode(stream, direction);
    let sure = &found.packets[..found.whole.unwrap_or(found.packets.len())];
    assert_eq!(sure, plain.packets, "{:?}", plain.end);
    assert_eq!(
        found.whole.is_some(),
        plain.end == End::Illegal,
        "lost where the plain decoder is not, or not lost"
    );
    match plain.end {
        // A stream of which nothing was understood may turn out to be TLS later.
        End::Illegal => assert!(!found.tls || sure.is_empty(), "packets, and then TLS"),
        end => assert_eq!(found.tls, end == End::Tls, "TLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use super::std::path::Path;
    use super::std::{fs, println};

    /// Every named input, among them one for each defect that fuzzing has found.
    #[test]
    fn the_corpora_are_replayed() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let directory = corpus.join(name);
            let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
            let mut count = 0;
            for file in files {
                let path = file.expect("an entry").path();
                println!("{}", path.display()); // shown when the target panics
                target(&fs::read(&path).expect("a file"));
                count += 1;
            }
            assert!(count > 5, "{name} has {count} inputs");
        }
    }
}
