//! How long proposals and their ACKs were on their way, from what was captured at both ends of it.
//!
//! In: two captures of one connection, which may have been there long before. Out: a [`Passage`] for each proposal
//! that all four looks at the connection have in common. Invariants: bytes are sent when the first segment with them
//! leaves, and they have arrived when everything before them has: what comes behind a hole waits for it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Segment;
use super::packet::{ACK, Decoder, PROPOSAL};
use super::stream::Stream;

/// One proposal on its way to a learner, and its ACK on the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Its zxid.
    pub zxid: u64,
    /// When its last byte left the leader's host for the first time,
    pub sent_at_ns: u64,
    /// and when it had arrived at the learner's.
    pub arrived_at_ns: u64,
    /// When the last byte of its ACK left the learner's host for the first time,
    pub acked_at_ns: u64,
    /// and when it had arrived at the leader's.
    pub ack_arrived_at_ns: u64,
}

impl Passage {
    /// How long both were on their way.
    pub fn away_ns(&self) -> u64 {
        self.arrived_at_ns.saturating_sub(self.sent_at_ns)
            + self.ack_arrived_at_ns.saturating_sub(self.acked_at_ns)
    }
}

/// Where a capture stands to the direction that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Sending,
    Receiving,
}

/// Of all proposals whose way is known, by zxid. The leader's side of the connection is `port`.
pub(super) fn passages(
    at_leader: &[Segment<'_>],
    at_learner: &[Segment<'_>],
    port: u16,
) -> Result<Vec<Passage>> {
    let proposals = |segments, end| packets(segments, PROPOSAL, end, |segment| segment.from.port() == port);
    let acks = |segments, end| packets(segments, ACK, end, |segment| segment.to.port() == port);
    let sent = proposals(at_leader, End::Sending).context("from the leader")?;
    let arrived = proposals(at_learner, End::Receiving).context("to the learner")?;
    let acked = acks(at_learner, End::Sending).context("from the learner")?;
    let ack_arrived = acks(at_leader, End::Receiving).context("to the leader")?;
    let passage = |(zxid, sent_at_ns): (&u64, &u64)| {
        Some(Passage {
            zxid: *zxid,
            sent_at_ns: *sent_at_ns,
            arrived_at_ns: *arrived.get(zxid)?,
            acked_at_ns: *acked.get(zxid)?,
            ack_arrived_at_ns: *ack_arrived.get(zxid)?,
        })
    };
    Ok(sent.iter().filter_map(passage).collect())
}

/// When the packets of one kind passed in one direction, by zxid.
fn packets(
    segments: &[Segment<'_>],
    kind: i32,
    end: End,
    is_of_direction: impl Fn(&Segment<'_>) -> bool,
) -> Result<BTreeMap<u64, u64>> {
    let (mut stream, mut decoder) = (None, Decoder::from_the_middle());
    let mut passed = BTreeMap::new();
    let with_data = segments.iter().filter(|segment| !segment.payload.is_empty() && is_of_direction(segment));
    for segment in with_data {
        let stream = stream.get_or_insert_with(|| Stream::after_syn(segment.sequence.wrapping_sub(1)));
        stream.take(segment.at_ns, segment.sequence, segment.payload, |first_at_ns, bytes| {
            let at_ns = match end {
                End::Sending => first_at_ns,
                End::Receiving => segment.at_ns,
            };
            let packets = decoder.take(at_ns, bytes)?.into_iter().filter(|packet| packet.kind == kind);
            passed.extend(packets.map(|packet| (packet.zxid, packet.at_ns)));
            anyhow::Ok(())
        })?;
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::{ACK, PROPOSAL, Passage, Segment, passages};

    const LEADER: u16 = 1000;
    const LEARNER: u16 = 2000;
    const ZXID: u64 = 0x1_0000_0000;

    /// Without ids.
    fn packet(kind: i32, zxid: u64, data: Option<&[u8]>) -> Vec<u8> {
        let length = data.map_or(-1, |data| i32::try_from(data.len()).expect("a length"));
        let data = data.unwrap_or_default();
        [&kind.to_be_bytes()[..], &zxid.to_be_bytes(), &length.to_be_bytes(), data, &[0xff; 4]].concat()
    }

    fn proposal(counter: u64) -> Vec<u8> {
        let zxid = ZXID + counter;
        packet(PROPOSAL, zxid, Some(&[&[7; 12][..], &zxid.to_be_bytes()].concat()))
    }

    fn ack(counter: u64) -> Vec<u8> {
        packet(ACK, ZXID + counter, None)
    }

    fn segment(from: u16, at_ns: u64, sequence: u32, payload: &[u8]) -> Segment<'_> {
        let to = if from == LEADER { LEARNER } else { LEADER };
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Segment { at_ns, from: address(from), to: address(to), sequence, syn: false, closing: false, payload }
    }

    #[test]
    fn what_was_lost_and_what_came_behind_it_was_on_its_way_until_the_hole_was_filled() {
        let [one, two, three] = [1, 2, 3].map(proposal);
        let of_one = u32::try_from(one.len()).expect("a length");
        let down = |at_ns, index: u32, bytes| segment(LEADER, at_ns, 500 + index * of_one, bytes);
        let [first, second, third] = [1, 2, 3].map(ack);
        let up = |at_ns, index: u32, bytes| segment(LEARNER, at_ns, 9_000 + index * 20, bytes);
        let at_leader = [
            down(10, 0, &one),
            up(15, 0, &first),
            down(20, 1, &two),
            down(25, 2, &three),
            down(220, 1, &two), // a second time
            up(233, 1, &second),
            up(235, 2, &third),
        ];
        let at_learner = [
            down(11, 0, &one),
            up(14, 0, &first),
            down(26, 2, &three), // the second was lost
            down(221, 1, &two),
            up(232, 1, &second),
            up(234, 2, &third),
        ];
        let found = passages(&at_leader, &at_learner, LEADER).expect("packets");
        let passage = |counter, sent_at_ns, arrived_at_ns, acked_at_ns, ack_arrived_at_ns| Passage {
            zxid: ZXID + counter,
            sent_at_ns,
            arrived_at_ns,
            acked_at_ns,
            ack_arrived_at_ns,
        };
        let expected =
            [passage(1, 10, 11, 14, 15), passage(2, 20, 221, 232, 233), passage(3, 25, 221, 234, 235)];
        assert_eq!(found, expected);
        assert_eq!(found.iter().map(Passage::away_ns).collect::<Vec<_>>(), [2, 202, 197]);
    }

    #[test]
    fn a_connection_that_was_met_in_its_middle_is_known_from_its_first_sure_packet_on() {
        let (one, two) = (proposal(1), proposal(2));
        let down = [&one[9..], &two].concat();
        let up = [&ack(1)[3..], &ack(2)].concat();
        let both = [segment(LEADER, 10, 7, &down), segment(LEARNER, 20, 8, &up)];
        let found = passages(&both, &both, LEADER).expect("packets");
        let told: Vec<_> = found.iter().map(|passage| (passage.zxid, passage.away_ns())).collect();
        assert_eq!(told, [(ZXID + 2, 0)]);
    }
}
