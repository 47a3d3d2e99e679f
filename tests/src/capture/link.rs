//! Connections: which segment belongs to which, and what its two directions say together.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::Segment;
use super::packet::{self, Decoder, Packet};
use super::stream::Stream;

/// How a learner was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// By the proposals that it lacked.
    Diff,
    /// By cutting its log.
    Trunc,
    /// By a whole snapshot.
    Snap,
}

/// One proposal on one link.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Its zxid.
    pub zxid: u64,
    /// When the segment with the last byte of the PROPOSAL passed.
    pub sent_at_ns: u64,
    /// When the segment with the last byte of the ACK passed, if one did.
    pub acked_at_ns: Option<u64>,
    /// Whether it came before UPTODATE: a part of the synchronisation, not of the stream.
    pub replayed: bool,
}

impl Exchange {
    /// From the PROPOSAL to its ACK.
    pub fn delay_ns(&self) -> Option<u64> {
        self.acked_at_ns.map(|acked_at| acked_at.saturating_sub(self.sent_at_ns))
    }
}

/// One connection of a learner to its leader.
#[derive(Clone, Debug)]
pub struct Link {
    /// The leader's end, which tells the leader.
    pub leader: SocketAddr,
    /// When its SYN passed.
    pub opened_at_ns: u64,
    /// When the leader closed it, if it did: whatever comes later arrives nowhere.
    pub leader_closed_at_ns: Option<u64>,
    /// The learner's id, from its own FOLLOWERINFO or OBSERVERINFO.
    pub sid: Option<u64>,
    /// Whether the learner has no vote.
    pub observer: bool,
    /// Whether SASL tokens went before the first packet.
    pub sasl: bool,
    /// How it was brought up to date.
    pub sync: Option<Sync>,
    /// INFORM packets.
    pub informs: u64,
    /// ACKs for which no PROPOSAL was seen (that of NEWLEADER and of UPTODATE have counter 0 and are
    /// not among them).
    pub stray_acks: u64,
    /// The proposals, in the order in which they were sent.
    pub exchanges: Vec<Exchange>,
    up_to_date: bool,
    by_zxid: BTreeMap<u64, usize>,
}

/// All connections of a capture.
#[derive(Debug)]
pub(super) struct Links {
    ports: Vec<u16>,
    /// The connections whose ends these addresses are now: learner, leader.
    open: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    done: Vec<Link>,
}

#[derive(Debug)]
struct Connection {
    link: Link,
    to_leader: Option<(Stream, Decoder)>,
    to_learner: Option<(Stream, Decoder)>,
}

impl Links {
    pub(super) fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), open: BTreeMap::new(), done: Vec::new() }
    }

    /// Takes the next segment of the capture. One of a connection that began before is left out.
    pub(super) fn take(&mut self, segment: &Segment<'_>) -> Result<()> {
        let to_leader = self.ports.contains(&segment.to.port());
        let key = if to_leader { (segment.from, segment.to) } else { (segment.to, segment.from) };
        if segment.syn {
            return self.begin(key, to_leader, segment);
        }
        let Some(connection) = self.open.get_mut(&key) else {
            return Ok(());
        };
        if segment.closing && !to_leader {
            connection.link.leader_closed_at_ns.get_or_insert(segment.at_ns);
        }
        // A refused connection is answered by a bare reset.
        if segment.payload.is_empty() {
            return Ok(());
        }
        let Connection { link, to_leader: up, to_learner: down } = connection;
        let (stream, decoder) = if to_leader { up } else { down }.as_mut().context("data before SYN")?;
        stream.take(segment.at_ns, segment.sequence, segment.payload, |at_ns, bytes| {
            for packet in decoder.take(at_ns, bytes).with_context(|| format!("on {key:?}"))? {
                if to_leader { link.take_from_learner(&packet)? } else { link.take_from_leader(&packet) }
            }
            link.sasl |= decoder.tokens > 0;
            Ok(())
        })
    }

    pub(super) fn finish(mut self) -> Vec<Link> {
        self.done.extend(self.open.into_values().map(|connection| connection.link));
        self.done.sort_by_key(|link| link.opened_at_ns);
        self.done
    }

    fn begin(&mut self, key: (SocketAddr, SocketAddr), to_leader: bool, segment: &Segment<'_>) -> Result<()> {
        let half = Some((Stream::after_syn(segment.sequence), Decoder::new()));
        if !to_leader {
            let connection = self.open.get_mut(&key).context("a SYN+ACK without a SYN")?;
            connection.to_learner = half;
            return Ok(());
        }
        let link = Link { opened_at_ns: segment.at_ns, ..Link::new(key.1) };
        let old = self.open.insert(key, Connection { link, to_leader: half, to_learner: None });
        self.done.extend(old.map(|connection| connection.link));
        Ok(())
    }
}

impl Link {
    /// A link of which nothing was seen yet.
    pub(crate) fn new(leader: SocketAddr) -> Self {
        Self {
            leader,
            opened_at_ns: 0,
            leader_closed_at_ns: None,
            sid: None,
            observer: false,
            sasl: false,
            sync: None,
            informs: 0,
            stray_acks: 0,
            exchanges: Vec::new(),
            up_to_date: false,
            by_zxid: BTreeMap::new(),
        }
    }

    fn take_from_learner(&mut self, packet: &Packet) -> Result<()> {
        match packet.kind {
            packet::FOLLOWER_INFO | packet::OBSERVER_INFO => {
                let sid = packet.data.get(..8).context("a learner's introduction without its id")?;
                self.sid = Some(u64::from_be_bytes(sid.try_into()?));
                self.observer = packet.kind == packet::OBSERVER_INFO;
            }
            // Counter 0 acknowledges NEWLEADER.
            packet::ACK if packet.zxid & 0xffff_ffff != 0 => match self.by_zxid.get(&packet.zxid) {
                Some(index) => {
                    self.exchanges[*index].acked_at_ns.get_or_insert(packet.at_ns);
                }
                None => self.stray_acks += 1,
            },
            _ => {}
        }
        Ok(())
    }

    fn take_from_leader(&mut self, packet: &Packet) {
        match packet.kind {
            packet::DIFF => self.sync = Some(Sync::Diff),
            packet::TRUNC => self.sync = Some(Sync::Trunc),
            packet::SNAP => self.sync = Some(Sync::Snap),
            packet::UP_TO_DATE => self.up_to_date = true,
            packet::INFORM => self.informs += 1,
            packet::PROPOSAL => {
                self.by_zxid.insert(packet.zxid, self.exchanges.len());
                self.exchanges.push(Exchange {
                    zxid: packet.zxid,
                    sent_at_ns: packet.at_ns,
                    acked_at_ns: None,
                    replayed: !self.up_to_date,
                });
            }
            _ => {}
        }
    }
}
