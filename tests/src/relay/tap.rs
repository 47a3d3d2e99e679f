//! How long proposals were on their way beyond a relay, as the leader meets it.
//!
//! In: the packets that pass a relay, each with the instant at which it came or was passed on. Out: a [`Round`] for
//! each proposal that was acknowledged. Invariants: the latest rounds are kept, and no more than [`LATEST`]; what
//! cannot be decoded (TLS) has no rounds, and is passed on as everything else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::capture::packet::{ACK, Decoder, PROPOSAL, Packet};

/// More than a minute of the load of these tests.
const LATEST: usize = 1 << 14;

/// One proposal beyond the relay, on the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// When its last byte came from the leader.
    pub from_ns: u64,
    /// When its ACK was passed on to the leader.
    pub to_ns: u64,
}

/// What passed between a learner and its leader.
#[derive(Debug, Default)]
pub(super) struct Tap {
    /// Proposals that were not acknowledged yet: when each came from the leader, by zxid.
    open: BTreeMap<u64, u64>,
    rounds: VecDeque<Round>,
}

/// Where the bytes of one direction come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Leader,
    Learner,
}

/// Listens to one direction of one connection.
#[derive(Debug)]
pub(super) struct Ear {
    side: Side,
    /// None from the first byte on that is none of a packet.
    decoder: Option<Decoder>,
    tap: Arc<Mutex<Tap>>,
}

impl Tap {
    /// The latest rounds, in the order of their ends.
    pub(super) fn rounds(&self) -> Vec<Round> {
        self.rounds.iter().copied().collect()
    }

    fn take(&mut self, side: Side, packet: &Packet) {
        match (side, packet.kind) {
            (Side::Leader, PROPOSAL) => {
                self.open.insert(packet.zxid, packet.at_ns);
                if self.open.len() > LATEST {
                    self.open.pop_first();
                }
            }
            (Side::Learner, ACK) => {
                // ACKs come in order: those before have none, or it was missed.
                let later = self.open.split_off(&(packet.zxid + 1));
                let acked = std::mem::replace(&mut self.open, later);
                if let Some(from_ns) = acked.get(&packet.zxid) {
                    self.rounds.push_back(Round { from_ns: *from_ns, to_ns: packet.at_ns });
                    let surplus = self.rounds.len().saturating_sub(LATEST);
                    self.rounds.drain(..surplus);
                }
            }
            _ => {}
        }
    }
}

impl Ear {
    pub(super) fn new(side: Side, tap: Arc<Mutex<Tap>>) -> Self {
        Self { side, decoder: Some(Decoder::new()), tap }
    }

    /// Takes the next bytes, with the instants at which they came and were passed on.
    pub(super) fn hear(&mut self, came_ns: u64, passed_ns: u64, bytes: &[u8]) {
        let at_ns = match self.side {
            Side::Leader => came_ns,
            Side::Learner => passed_ns,
        };
        let Some(decoder) = &mut self.decoder else { return };
        let Ok(packets) = decoder.take(at_ns, bytes) else {
            self.decoder = None;
            return;
        };
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        packets.iter().for_each(|packet| tap.take(self.side, packet));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Ear, LATEST, Round, Side, Tap};
    use crate::capture::packet::{ACK, PROPOSAL};

    fn packet(kind: i32, zxid: u64) -> Vec<u8> {
        let mut bytes = Vec::from(kind.to_be_bytes());
        bytes.extend(zxid.to_be_bytes());
        // Neither data nor ids.
        bytes.extend([0xff; 8]);
        bytes
    }

    fn pair() -> (Arc<Mutex<Tap>>, Ear, Ear) {
        let tap = Arc::new(Mutex::new(Tap::default()));
        let ear = |side| Ear::new(side, Arc::clone(&tap));
        let (leader, learner) = (ear(Side::Leader), ear(Side::Learner));
        (tap, leader, learner)
    }

    fn rounds(tap: &Mutex<Tap>) -> Vec<Round> {
        tap.lock().expect("no panic").rounds()
    }

    #[test]
    fn a_round_is_from_the_coming_of_a_proposal_to_the_passing_on_of_its_ack() {
        let (tap, mut leader, mut learner) = pair();
        // In two pieces, of which the second counts.
        let proposal = packet(PROPOSAL, 7);
        leader.hear(100, 300, &proposal[..9]);
        leader.hear(110, 310, &proposal[9..]);
        leader.hear(120, 320, &[packet(PROPOSAL, 8), packet(PROPOSAL, 9)].concat());
        // NEWLEADER's, and one of no proposal that was heard.
        learner.hear(400, 500, &[packet(ACK, 0), packet(ACK, 5)].concat());
        learner.hear(410, 510, &packet(ACK, 7));
        learner.hear(420, 520, &packet(ACK, 9));
        learner.hear(430, 530, &packet(ACK, 8));
        assert_eq!(rounds(&tap), [Round { from_ns: 110, to_ns: 510 }, Round { from_ns: 120, to_ns: 520 }]);
    }

    #[test]
    fn what_is_no_packet_ends_the_listening() {
        let (tap, mut leader, mut learner) = pair();
        leader.hear(1, 2, &[22, 3, 3, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        leader.hear(3, 4, &packet(PROPOSAL, 7));
        learner.hear(5, 6, &packet(ACK, 7));
        assert_eq!(rounds(&tap), []);
    }

    #[test]
    fn the_latest_are_kept() {
        let (tap, mut leader, mut learner) = pair();
        let latest = u64::try_from(LATEST).expect("a size");
        for zxid in 1..=latest + 2 {
            leader.hear(zxid, 0, &packet(PROPOSAL, zxid));
        }
        assert_eq!(tap.lock().expect("no panic").open.len(), LATEST);
        for zxid in 1..=latest + 2 {
            learner.hear(0, latest + zxid, &packet(ACK, zxid));
        }
        let rounds = rounds(&tap);
        assert_eq!((rounds.len(), rounds[0].from_ns), (LATEST, 3));
    }
}
