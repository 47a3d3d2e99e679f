//! Link properties: both vantages of one true timeline.

extern crate std;
use super::{Call, Effect, Identity, Link, RECEIPTS, Receipt, Rings, Spent};
use crate::abi::{Config, ProposalRecord, change, flag, side};
use crate::arrivals::{self, Arrival};
use crate::cause;
use crate::framer::{BUFFER, CallBytes, Turn};
use crate::overtaken::{self, Overtaken};
use crate::testing::script::{Plot, Script, Sync};
use crate::testing::timeline::{Event, Timeline, Truth};
use crate::testing::{Filler, Rng};
use crate::thread::Thread;
use crate::window::{self, Entry, mode};
use crate::zab::{Direction, packet};
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

const DOWN_SEQ: u32 = 0xffff_f000;
const UP_SEQ: u32 = 77;
const SEEDS: u64 = 300;

/// A link as the kernel programs drive it.
struct Probe {
    link: Box<Link>,
    rings: Box<Rings>,
    config: Config,
    /// The one that sends, the one that receives.
    threads: [Box<Thread>; 2],
    records: Vec<ProposalRecord>,
    changes: Vec<u32>,
    heartbeats: u64,
    /// Silence before the next call.
    quiet_ns: u64,
}

struct Slice<'a>(&'a [u8]);

impl CallBytes for Slice<'_> {
    fn copy(&self, offset: u32, into: &mut [u8; BUFFER], at: u32, len: u32) -> bool {
        let (offset, at, len) = (offset as usize, at as usize, len as usize);
        into[at..at + len].copy_from_slice(&self.0[offset..offset + len]);
        true
    }
}

fn thread(tid: u32) -> Box<Thread> {
    let mut thread = Box::new(Thread::FREE);
    thread.begin(0, tid, 1, 1, true);
    thread
}

fn empty_link(leader: bool) -> Box<Link> {
    let identity = Identity {
        cookie: 1,
        opened_at: 1,
        closed_at: 0,
        tgid: 1,
        net_ns: 1,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        local_port: 1,
        remote_port: 2,
        side: if leader { side::LEADER } else { side::LEARNER },
        reserved: [0; 3],
        generation: 1,
        reserved_2: 0,
    };
    let mut link = Box::new(Link { identity, ..Link::FREE });
    link.down.set_direction(Direction::Down);
    link.up.set_direction(Direction::Up);
    link
}

impl Probe {
    fn new(leader: bool) -> Self {
        Self {
            link: empty_link(leader),
            rings: Box::new(Rings {
                window: [Entry::default(); window::CAPACITY as usize],
                arrivals: [Arrival::default(); arrivals::CAPACITY as usize],
                receipts: [Receipt::default(); RECEIPTS],
                path: crate::network::Path::NEW,
                overtaken: [Overtaken::default(); overtaken::CAPACITY as usize],
            }),
            config: Config { arrival_hook: 1, stall_ns: 2000, ..Config::default() },
            threads: [thread(1), thread(2)],
            records: Vec::new(),
            changes: Vec::new(),
            heartbeats: 0,
            quiet_ns: 0,
        }
    }

    fn event(&mut self, script: &Script, event: &Event) {
        let learner = self.link.identity.side == side::LEARNER;
        match *event {
            Event::Delivered { at, end } => {
                let base = if learner { DOWN_SEQ } else { UP_SEQ };
                self.link.arrivals.push(&mut self.rings.arrivals, base.wrapping_add(end as u32), at);
            }
            Event::Call { at, incoming, begin, end, flush } => {
                let down = incoming == learner;
                let (wire, base) = if down { (&script.down, DOWN_SEQ) } else { (&script.up, UP_SEQ) };
                let call = Call { now: at, incoming: incoming.into(), tid: 9, flush, ..Call::default() };
                self.call(&call, &wire.bytes[begin..end], base.wrapping_add(begin as u32), begin == 0);
            }
        }
        self.check();
    }

    fn call(&mut self, call: &Call, bytes: &[u8], seq: u32, at_start: bool) {
        let incoming = call.incoming == 1;
        self.threads[call.incoming as usize].settle(call.now, 0);
        let framer = self.link.framer(incoming);
        self.link.counts.resyncs += u64::from(!framer.begin_call(seq, at_start, self.quiet_ns));
        self.link.framer(incoming).begin_chunk(bytes.len() as u32);
        loop {
            let framer = self.link.framer(incoming);
            match framer.turn(&Slice(bytes)) {
                Turn::More => {}
                Turn::Done => break,
                Turn::Lost => self.link.counts.resyncs += 1,
                Turn::Tls => self.changes.push(change::TLS),
                Turn::Record => self.link.on_record(call),
                Turn::Packet => {
                    let packet = (framer.kind, framer.zxid, framer.sid, framer.end_seq());
                    match self.link.on_packet(&mut self.rings, &self.config, call, packet) {
                        Effect::None => {}
                        Effect::Received => {
                            self.link.write_receipt(&mut self.rings, Some(&mut *self.threads[1]));
                        }
                        Effect::Measured { place, delay } => {
                            let (sender, reader) = self.threads.split_at_mut(1);
                            if place == 0
                                && self.link.lacks_what_the_reader_did(&self.rings, Some(&mut *sender[0]))
                            {
                                self.link.inherit(&mut *sender[0], &mut *reader[0]);
                                self.link.recall(&self.rings, &mut *sender[0], &mut *reader[0]);
                            }
                            let thread = Some(&mut *self.threads[call.incoming as usize]);
                            self.link.charge(&self.rings, thread, place as usize);
                            if delay >= self.config.stall_ns {
                                self.link.count_stall(place as usize);
                            }
                            self.records.push(self.link.records[place as usize]);
                        }
                        Effect::Heartbeat { began_at, ended_at } => {
                            assert!(began_at <= ended_at);
                            self.heartbeats += 1;
                        }
                        Effect::Transition(change) => self.changes.push(change),
                    }
                }
            }
        }
    }

    /// What holds after every call.
    fn check(&self) {
        let c = &self.link.counts;
        assert_eq!(
            self.link.window.seen(),
            c.matched + c.expired + u64::from(self.link.window.in_flight()),
            "{c:?}"
        );
        assert_eq!(c.matched, self.link.delay.count + c.unmeasured);
        assert_eq!(self.link.delay.count, self.records.len() as u64);
        if let Some(record) = self.records.last() {
            assert_eq!(cause::total(&record.causes_ns), record.ended_at - record.began_at);
        }
        assert_eq!(cause::total(&self.link.causes_ns), self.link.delay.sum_ns);
        assert!(self.link.window.in_flight() <= window::CAPACITY || c.expired == 0);
    }

    fn found(&self) -> BTreeMap<u64, Truth> {
        let found: BTreeMap<_, _> = self
            .records
            .iter()
            .map(|r| (r.zxid, Truth { began_at: r.began_at, read_at: r.read_at, ended_at: r.ended_at }))
            .collect();
        assert_eq!(found.len(), self.records.len(), "a proposal was measured twice");
        found
    }

    /// Nothing is measured that is not true; an instant that is marked coarse may be late.
    fn assert_true(&self, truth: &BTreeMap<u64, Truth>) {
        for (r, (zxid, found)) in self.records.iter().zip(self.found()) {
            assert_eq!(r.zxid, zxid, "out of order");
            let truth = truth.get(&zxid);
            if r.flags & flag::COARSE == 0 {
                assert_eq!(Some(&found), truth, "{zxid:x}");
            } else {
                assert!(truth.is_some_and(|t| found.began_at >= t.began_at && found.ended_at >= t.ended_at));
            }
        }
    }
}

fn plot(filler: impl Strategy<Value = Filler>, largest: usize) -> impl Strategy<Value = Plot> {
    let sync = prop_oneof![Just(Sync::Diff), Just(Sync::Trunc), Just(Sync::Snap)];
    (any::<u64>(), 1_u32..1000, sync, any::<bool>(), filler, 20_usize..150).prop_map(
        move |(seed, epoch, sync, sasl, filler, events)| Plot {
            seed,
            epoch,
            sync,
            sasl,
            observer: false,
            filler,
            events,
            largest,
        },
    )
}

fn any_filler() -> impl Strategy<Value = Filler> {
    proptest::sample::select(&Filler::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// From its start, a link measures each live proposal once and truly, whatever the values hold.
    #[test]
    fn from_the_start_everything_is_measured(plot in plot(any_filler(), 30_000), leader in any::<bool>()) {
        let script = plot.script();
        let mut rng = Rng(plot.seed ^ 5);
        let timeline = Timeline::of(&script, &mut rng);
        let mut probe = Probe::new(leader);
        for event in timeline.seen(leader) {
            probe.event(&script, &event);
        }
        // The last bytes may still be on their way in the timeline.
        let down = script.down.packets();
        let joined = down.iter().position(|p| p.kind == packet::UPTODATE).unwrap();
        let live: Vec<_> = down[joined..].iter().filter(|p| p.kind == packet::PROPOSAL).collect();
        let mut truth = timeline.truth(&script, leader);
        truth.retain(|zxid, _| live.iter().any(|p| p.zxid == *zxid));
        prop_assert_eq!(&probe.found(), &truth);
        let c = probe.link.counts;
        prop_assert_eq!(probe.link.window.seen(), live.len() as u64);
        prop_assert_eq!((c.matched, c.expired, c.unmeasured), (truth.len() as u64, 0, 0));
        let replayed = down[..joined].iter().filter(|p| p.kind == packet::PROPOSAL).count() as u64;
        prop_assert_eq!((c.replayed, c.gaps, c.resyncs, c.unknown_acks), (replayed, 0, 0, 0));
        let of = |wire: &crate::testing::Wire, kind| wire.packets().iter().filter(|p| p.kind == kind).count() as u64;
        prop_assert_eq!(c.requests, of(&script.up, packet::REQUEST));
        prop_assert_eq!(c.commits, of(&script.down, packet::COMMIT));
        prop_assert_eq!(c.pings, of(&script.down, packet::PING));
        prop_assert_eq!((c.pongs, c.pongs), (probe.heartbeats, probe.link.heartbeat.count));
        prop_assert_eq!(c.snapshots, u64::from(plot.sync == Sync::Snap));
        let mut changes = probe.changes.clone();
        changes.sort_unstable();
        prop_assert_eq!(changes, [change::UPTODATE, change::SID]);
        prop_assert_eq!((probe.link.sid_known, probe.link.announced_sid), (1, 3));
        prop_assert_eq!(probe.link.epoch, plot.epoch);
        // The parts of all delays are the delays.
        let delays: u64 = truth.values().map(|t| t.ended_at - t.began_at).sum();
        prop_assert_eq!(probe.link.delay.sum_ns, delays);
        let stalls = truth.values().filter(|t| t.ended_at - t.began_at >= 2000).count() as u64;
        prop_assert_eq!(probe.link.stalls_by_cause.iter().sum::<u64>(), stalls);
        let told = probe.records.iter().filter(|r| r.ended_at - r.began_at >= 2000);
        let mut by_cause = [0; cause::COUNT];
        told.for_each(|r| by_cause[cause::largest(&r.causes_ns)] += 1);
        prop_assert_eq!(probe.link.stalls_by_cause, by_cause);
        if !leader {
            prop_assert_eq!(probe.link.stages_ns.iter().sum::<u64>(), delays);
            for r in &probe.records {
                prop_assert!(r.began_at <= r.read_at && r.read_at <= r.ended_at);
                if r.flags & flag::FLUSHED != 0 {
                    prop_assert!(r.read_at <= r.flush_began_at && r.flush_began_at <= r.flush_ended_at);
                    prop_assert!(r.flush_ended_at <= r.ended_at);
                }
            }
        }
    }

    /// Met anywhere, what is measured is true, and with harmless values all is measured from some point on.
    #[test]
    fn met_in_the_middle_what_is_measured_is_true(
        plot in plot(Just(Filler::Random), 40_000),
        leader in any::<bool>(),
        from in 0.0_f64..0.8,
    ) {
        let script = plot.script();
        let timeline = Timeline::of(&script, &mut Rng(plot.seed ^ 5));
        let events = timeline.seen(leader);
        let mut probe = Probe::new(leader);
        for event in &events[(events.len() as f64 * from) as usize..] {
            probe.event(&script, event);
        }
        let truth = timeline.truth(&script, leader);
        probe.assert_true(&truth);
        if let Some(first) = probe.records.first() {
            let after: Vec<_> = truth.keys().filter(|z| **z >= first.zxid).collect();
            prop_assert_eq!(probe.records.iter().map(|r| &r.zxid).collect::<Vec<_>>(), after);
        }
        prop_assert_eq!(probe.link.counts.resyncs, 0);
    }

    /// Calls that were missed: what is measured stays true, and the counts add up (checked at each event).
    #[test]
    fn with_missed_calls_what_is_measured_is_true(
        plot in plot(Just(Filler::Random), 40_000),
        leader in any::<bool>(),
        missed in 2_usize..60,
    ) {
        let script = plot.script();
        let mut rng = Rng(plot.seed ^ 6);
        let timeline = Timeline::of(&script, &mut rng);
        let mut probe = Probe::new(leader);
        for event in timeline.seen(leader) {
            if !(matches!(event, Event::Call { .. }) && rng.one_in(missed)) {
                probe.event(&script, &event);
            }
        }
        probe.assert_true(&timeline.truth(&script, leader));
    }

    /// An observer is never counted.
    #[test]
    fn an_observer_is_not_measured(plot in plot(any_filler(), 5000), leader in any::<bool>()) {
        let plot = Plot { observer: true, ..plot };
        let script = plot.script();
        let timeline = Timeline::of(&script, &mut Rng(plot.seed ^ 5));
        let mut probe = Probe::new(leader);
        for event in timeline.seen(leader) {
            probe.event(&script, &event);
        }
        let c = probe.link.counts;
        prop_assert_eq!((probe.link.window.seen(), c.matched, c.resyncs), (0, 0, 0));
        prop_assert_eq!(probe.link.observer, 1);
    }

    /// Whatever packets come: no panic, and the counts add up.
    #[test]
    fn it_is_total(
        leader in any::<bool>(),
        packets in proptest::collection::vec((0_u32..20, 0_u8..4, 0_u32..9, any::<bool>(), 0_u64..50), 0..300),
    ) {
        let mut probe = Probe::new(leader);
        let mut now = 1000;
        for (kind, epoch, counter, incoming, pause) in packets {
            let counter = if counter == 8 { u32::MAX } else { counter };
            let zxid = (u64::from(epoch) << 32) | u64::from(counter);
            now += pause;
            let call = Call { now, incoming: incoming.into(), tid: 1, ..Call::default() };
            probe.link.arrivals.push(&mut probe.rings.arrivals, now as u32, now);
            let packet = (kind, zxid, 0, now as u32);
            let effect = probe.link.on_packet(&mut probe.rings, &probe.config, &call, packet);
            if let Effect::Measured { place, delay } = effect {
                probe.link.charge(&probe.rings, None::<&mut Thread>, place as usize);
                if delay >= probe.config.stall_ns {
                    probe.link.count_stall(place as usize);
                }
                probe.records.push(probe.link.records[place as usize]);
            }
            probe.check();
        }
    }
}

/// Values made of complete packets whose zxids are true, soon to be or just in flight, met in the middle
/// and with missed calls. Fixed seeds: a reader's calls could by chance fit such a value, and a link cannot
/// know; how often is counted here.
#[test]
fn hostile_values_are_not_measured() {
    let mut measured = 0;
    for seed in 0..SEEDS {
        let filler = if seed % 4 == 0 { Filler::Fixed } else { Filler::Plausible };
        let plot = Plot {
            seed,
            epoch: 3,
            sync: Sync::Diff,
            sasl: false,
            observer: false,
            filler,
            events: 80,
            largest: 400_000,
        };
        let script = plot.script();
        let mut rng = Rng(seed ^ 5);
        let timeline = Timeline::of(&script, &mut rng);
        for leader in [false, true] {
            let (events, truth) = (timeline.seen(leader), timeline.truth(&script, leader));
            let mut probe = Probe::new(leader);
            let missing = seed % 3 == 0;
            let from = if missing { 0 } else { rng.below(events.len() * 3 / 4) };
            for event in &events[from..] {
                if !(missing && matches!(event, Event::Call { .. }) && rng.one_in(100)) {
                    probe.event(&script, event);
                }
            }
            probe.assert_true(&truth);
            measured += probe.records.len();
        }
    }
    assert!(measured as u64 > 50 * SEEDS, "{measured}");
}

/// At the leader an ACK may be read before the send call of its proposal has ended.
#[test]
fn an_ack_that_overtakes_its_send_call_is_matched() {
    let mut link = Link::FREE;
    link.identity.side = side::LEADER;
    let mut rings = Rings {
        window: [Entry::default(); window::CAPACITY as usize],
        arrivals: [Arrival::default(); arrivals::CAPACITY as usize],
        receipts: [Receipt::default(); RECEIPTS],
        path: crate::network::Path::NEW,
        overtaken: [Overtaken::default(); overtaken::CAPACITY as usize],
    };
    link.window.mode = mode::JOINING;
    link.window.go_live(1);
    let config = Config { slower_ns: 0, stall_ns: u64::MAX, arrival_hook: 1, ..Config::default() };
    let mut seen = std::vec::Vec::new();
    let zxid = |counter: u64| (1 << 32) | counter;
    let mut go = |link: &mut Link, incoming, kind, counter, at: u64| {
        if incoming == 1 {
            link.arrivals.push(&mut rings.arrivals, at as u32, at);
        } else if link.handed.first_at == 0 {
            link.handed.turn(0, at);
        }
        let call = Call { now: at + 5, incoming, ..Call::default() };
        let packet = (kind, zxid(counter), 0, at as u32);
        if let Effect::Measured { place, .. } = link.on_packet(&mut rings, &config, &call, packet) {
            let r = link.records[place as usize];
            seen.push((r.zxid as u32, r.ended_at - r.began_at));
        }
        link.handed.first_at = 0;
    };
    link.drained = 1;
    go(&mut link, 0, packet::PROPOSAL, 1, 1000);
    go(&mut link, 1, packet::ACK, 1, 1400);
    link.handed.turn(0, 2000); // proposal 2 is handed over, but its call has not ended
    let handed = link.handed;
    go(&mut link, 1, packet::ACK, 2, 2400);
    assert_eq!(link.counts.unknown_acks, 0);
    link.handed = handed;
    go(&mut link, 0, packet::PROPOSAL, 2, 2800);
    go(&mut link, 0, packet::PROPOSAL, 3, 3000);
    go(&mut link, 1, packet::ACK, 3, 3400);
    assert_eq!(seen, [(1, 400), (2, 400), (3, 400)]);
    link.settle();
    let c = link.counts;
    assert_eq!((c.proposals, c.matched, c.expired, link.window.in_flight()), (3, 3, 0, 0));
}

#[test]
fn of_a_proposal_whose_receipt_is_overwritten_the_reader_knows() {
    let mut probe = Probe::new(false);
    let (mut sender, mut reader) = (thread(1), thread(2));
    let begin = reader.since;
    for (clock, now) in [(&mut sender, begin + 9_000), (&mut reader, begin + 8_000)] {
        clock.settle(now, 0);
    }
    let record = &mut probe.link.records[0];
    (record.began_at, record.read_at, record.ended_at) = (begin + 1_000, begin + 4_000, begin + 9_000);
    record.receipt = 7;
    probe.rings.receipts[7].number = 7 + RECEIPTS as u64;
    probe.link.recall(&probe.rings, &mut *sender, &mut *reader);
    probe.link.charge(&probe.rings, Some(&mut *sender), 0);
    let causes = probe.link.records[0].causes_ns;
    assert_eq!((causes[cause::ON_CPU], cause::total(&causes)), (8_000, 8_000));
    // Where the reader is another server's, or has not got so far, nobody knows.
    reader.tgid += 1;
    probe.link.recalled = Spent::NONE;
    probe.link.recall(&probe.rings, &mut *sender, &mut *reader);
    probe.link.charge(&probe.rings, Some(&mut *sender), 0);
    assert_eq!(probe.link.records[0].causes_ns[cause::UNEXPLAINED], 3_000);
}
