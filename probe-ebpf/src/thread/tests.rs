//! The clock against an oracle that keeps every nanosecond.

extern crate std;
use super::{Clock as _, Overlay, Thread, Woken, by, mode, state};
use crate::cause::{self, Parts};
use crate::history::FINE;
use proptest::prelude::*;
use std::boxed::Box;
use std::vec::Vec;

/// A clock, and its true segments in order.
struct Watched {
    thread: Box<Thread>,
    truth: Vec<(u64, u64, usize)>,
    throttled_ns: u64,
    gc_ns: u64,
}

const BORN: u64 = 1_000_000;

impl Watched {
    fn new(tid: u32) -> Self {
        let mut thread = Box::new(Thread::FREE);
        thread.begin(0, tid, 1, BORN, true);
        Self { thread, truth: Vec::new(), throttled_ns: 0, gc_ns: 0 }
    }

    fn overlay(&self) -> Overlay {
        Overlay { throttled_ns: self.throttled_ns, gc_ns: self.gc_ns, ..Overlay::default() }
    }

    fn mark(&mut self, from: u64, to: u64, cause: usize) {
        if to > from {
            self.truth.push((from, to, cause));
        }
    }

    fn true_parts(&self, from: u64, to: u64) -> Parts {
        let mut parts = [0; cause::COUNT];
        for (begin, end, cause) in &self.truth {
            parts[*cause] += end.min(&to).saturating_sub(*begin.max(&from));
        }
        parts
    }

    fn parts(&mut self, from: u64, to: u64) -> Parts {
        self.thread.parts(from, to);
        self.thread.scratch[0]
    }
}

/// One turn of a thread: runs, leaves the CPU for some reason, is woken, waits for a CPU.
#[derive(Clone, Debug)]
struct Turn {
    runs_ns: u64,
    state: u32,
    mode: u32,
    sleeps_ns: u64,
    waits_ns: u64,
    overlaid: bool,
    by: u32,
}

fn turn() -> impl Strategy<Value = Turn> {
    let length = || prop_oneof![1_u64..5_000, 1_u64..2_000_000, 1_u64..400_000_000];
    (length(), state::RUNNABLE..=state::SLEEP, 0_u32..4, length(), length(), any::<bool>(), 0_u32..2)
        .prop_map(|(runs_ns, state, mode, sleeps_ns, waits_ns, overlaid, by)| Turn {
            runs_ns,
            state,
            mode,
            sleeps_ns,
            waits_ns,
            overlaid,
            by,
        })
}

fn of_mode(mode: u32, otherwise: usize) -> usize {
    match mode {
        m if m & mode::RECLAIM != 0 => cause::RECLAIM,
        m if m & mode::FSYNC != 0 => cause::FSYNC,
        _ => otherwise,
    }
}

/// Plays a turn from `now` and gives the instant at which the thread has its CPU again.
fn play(w: &mut Watched, t: &Turn, now: u64) -> u64 {
    w.thread.settle(now, 0);
    w.thread.mode = t.mode;
    let out = now + t.runs_ns;
    w.mark(now, out, of_mode(t.mode, cause::ON_CPU));
    let overlay = w.overlay();
    w.thread.switch_out(out, t.state, &overlay);
    let mut woken = out;
    if w.thread.is_asleep() {
        woken = out + t.sleeps_ns;
        let overlaid = t.overlaid && t.state == state::FUTEX;
        let sleep = match t.state {
            state::STOPPED => cause::STOPPED,
            state::DISK_IO => of_mode(t.mode, cause::DISK_IO),
            state::KERNEL_WAIT => of_mode(t.mode, cause::KERNEL_WAIT),
            state::SLEEP => of_mode(t.mode, cause::SLEEP),
            _ if overlaid => cause::GC,
            _ if t.by == by::NOBODY => cause::SLEEP,
            _ => cause::LOCK,
        };
        if overlaid {
            w.gc_ns += t.sleeps_ns;
        }
        w.mark(out, woken, sleep);
        w.thread.woken = Woken { at: woken, by: t.by, carried: 0, overlay: w.overlay(), ..w.thread.woken };
    }
    let into = woken + t.waits_ns;
    let throttled = t.overlaid && t.state != state::FUTEX;
    if throttled {
        w.throttled_ns += t.waits_ns;
    }
    w.mark(woken, into, if throttled { cause::CPU_THROTTLE } else { cause::RUN_QUEUE });
    let overlay = w.overlay();
    w.thread.switch_in(into, &overlay);
    w.thread.mode = 0;
    into
}

proptest! {
    /// While its segments are remembered one by one, a span's parts are the truth; and always they sum to it.
    #[test]
    fn any_schedule_is_charged_exactly(
        turns in proptest::collection::vec(turn(), 1..120),
        spans in proptest::collection::vec((0_u64..1_000_000, 0_u64..1_000_000), 20),
    ) {
        let mut w = Watched::new(7);
        let mut now = BORN;
        for t in &turns {
            now = play(&mut w, t, now);
        }
        let fine_from = w.truth[w.truth.len().saturating_sub(100)].0;
        // What is remembered goes back this far at least.
        let known_from = w.truth[w.truth.len().saturating_sub(FINE - 1)].0;
        for (a, b) in spans {
            let place = |share: u64| BORN + (now - BORN) / 1_000_000 * share;
            let (from, to) = (place(a.min(b)), place(a.max(b)));
            let found = w.parts(from, to);
            prop_assert_eq!(cause::total(&found), to - from);
            prop_assert!(found[cause::UNEXPLAINED] <= known_from.saturating_sub(from));
            let place = |share: u64| fine_from + ((now - fine_from) / 1_000_000 * share);
            let (from, to) = (place(a.min(b)), place(a.max(b)));
            prop_assert_eq!(w.parts(from, to), w.true_parts(from, to));
        }
        prop_assert_eq!(w.thread.discarded, 0);
        let before = w.parts(BORN - 500, BORN);
        prop_assert_eq!(before[cause::UNEXPLAINED], 500);
    }

    /// Whatever comes in whatever order: no panic, and the parts of any span sum to its length.
    #[test]
    fn a_broken_schedule_still_adds_up(
        events in proptest::collection::vec((0_u8..5, 0_u64..3_000_000, any::<bool>(), 0_u32..8, 0_u32..4), 1..200),
    ) {
        let mut w = Watched::new(7);
        let mut now = BORN;
        for (what, step, back, state, by) in events {
            now = if back { now - step.min(now - BORN) / 8 } else { now + step };
            let overlay = Overlay { gc_ns: step, safepoint_ns: now, throttled_ns: step / 2, irq_ns: step };
            match what {
                0 => w.thread.settle(now, step),
                1 => w.thread.switch_out(now, state, &overlay),
                2 => { w.thread.switch_in(now, &overlay); }
                3 => w.thread.woken = Woken { at: now, by, carried: 0, overlay, ..w.thread.woken },
                _ => w.thread.mode = state & 3,
            }
            let last = w.thread.since;
            prop_assert_eq!(cause::total(&w.thread.sums), last - BORN);
            let from = BORN + (last - BORN) / 3;
            let parts = w.parts(from, last);
            prop_assert_eq!(cause::total(&parts), last - from);
        }
    }

    /// Three hands: while the last one waits, the clock is that of the one before, and so on.
    #[test]
    fn a_wait_for_work_is_the_workers_time(
        reader in proptest::collection::vec(turn(), 1..40),
        logger in proptest::collection::vec(turn(), 1..2),
    ) {
        let (mut r, mut s, mut l) = (Watched::new(1), Watched::new(2), Watched::new(3));
        let idle = BORN + 1000;
        let overlay = Overlay::default();
        for w in [&mut s, &mut l] {
            w.mark(BORN, idle, cause::ON_CPU);
            w.thread.switch_out(idle, state::FUTEX, &overlay);
        }
        let mut now = BORN;
        for t in &reader {
            now = play(&mut r, t, now);
        }
        let read_at = now;
        r.thread.settle(now, 0);
        now += 70_000;
        r.mark(read_at, now, cause::ON_CPU);
        wake(&mut r, &mut s, idle, now);
        s.thread.switch_in(now + 30, &overlay);
        s.mark(now, now + 30, cause::RUN_QUEUE);
        now += 30;
        for t in &logger {
            now = play(&mut s, t, now);
        }
        s.mark(now, now + 900, cause::ON_CPU);
        now += 900;
        wake(&mut s, &mut l, idle, now);
        l.thread.switch_in(now, &overlay);
        l.thread.settle(now + 10, 0);
        l.mark(now, now + 10, cause::ON_CPU);
        prop_assert_eq!(l.parts(read_at, now + 10), l.true_parts(read_at, now + 10));
    }
}

/// `hand` wakes `sleeper`, which has slept since `since`, at `now`.
fn wake(hand: &mut Watched, sleeper: &mut Watched, since: u64, now: u64) {
    hand.thread.settle(now, 0);
    if hand.thread.hand_over(since, &mut sleeper.thread.woken) {
        hand.thread.look_back(sleeper.thread.woken.carried_from, 0);
        hand.thread.look_back(since, 1);
        hand.thread.hand_over_earlier(&mut sleeper.thread.woken);
    }
    sleeper.thread.woken.by = by::HAND;
    sleeper.thread.woken.at = now;
    let work: Vec<_> = hand.truth.iter().filter(|(_, end, _)| *end > since).copied().collect();
    for (from, to, cause) in work {
        sleeper.mark(from.max(since), to, cause);
    }
}

#[test]
fn time_before_the_first_switch_is_unexplained() {
    let mut thread = Box::new(Thread::FREE);
    thread.begin(0, 7, 1, BORN, false);
    thread.switch_in(BORN + 100, &Overlay::default());
    thread.settle(BORN + 150, 0);
    thread.parts(BORN, BORN + 150);
    assert_eq!((thread.scratch[0][cause::UNEXPLAINED], thread.scratch[0][cause::ON_CPU]), (100, 50));
}

#[test]
fn interrupts_are_taken_out_of_the_time_on_cpu() {
    let mut w = Watched::new(7);
    w.thread.settle(BORN + 1000, 300);
    let parts = w.parts(BORN, BORN + 1000);
    assert_eq!((parts[cause::IRQ], parts[cause::ON_CPU]), (300, 700));
}

/// Sleeps on one futex, as `play` does: out at `now` for `ns`, ended by `who`.
fn sleep_on(w: &mut Watched, word: u64, now: u64, ns: u64, who: u32) -> u64 {
    w.thread.word = word;
    w.thread.switch_out(now, state::FUTEX, &Overlay::default());
    w.thread.woken.at = now + ns;
    w.thread.woken.by = who;
    w.thread.woken.carried = 0;
    w.thread.switch_in(now + ns + 10, &Overlay::default());
    now + ns + 30
}

#[test]
fn a_lock_that_is_waited_for_in_slices_is_a_lock_from_the_first_one_on() {
    let mut w = Watched::new(7);
    let begin = BORN + 100;
    let mut now = begin;
    for ns in [1_000_000, 8_000_000, 64_000_000] {
        now = sleep_on(&mut w, 64, now, ns, by::NOBODY);
    }
    w.thread.settle(now, 0);
    assert_eq!(w.parts(begin, now)[cause::SLEEP], 73_000_000, "nobody can know yet");
    now = sleep_on(&mut w, 64, now, 77_000_000, by::OTHER);
    w.thread.settle(now, 0);
    let parts = w.parts(begin, now);
    assert_eq!((parts[cause::LOCK], parts[cause::SLEEP]), (150_000_000, 0));
    assert_eq!(cause::total(&parts), now - begin);
    // From the middle of a slice as well, and up to the end of another one.
    assert_eq!(w.parts(begin + 400_000, now)[cause::LOCK], 149_600_000);
    assert_eq!(w.parts(begin + 400_000, begin + 5_000_000)[cause::SLEEP], 0);
    // The next wait for the same lock is one of its own.
    now = sleep_on(&mut w, 64, now, 5_000_000, by::NOBODY);
    w.thread.settle(now, 0);
    assert_eq!(w.parts(begin, now)[cause::SLEEP], 5_000_000);
}

#[test]
fn work_goes_away_from_the_reader() {
    let (mut sync, mut sender, mut agent) = (Watched::new(2), Watched::new(3), Watched::new(4));
    let reader = 1;
    assert!(!sync.thread.takes_work_of(0), "a stranger");
    assert!(sync.thread.takes_work_of(reader));
    assert!(sender.thread.takes_work_of(reader), "the answer to a ping");
    assert!(sender.thread.takes_work_of(sync.thread.hand), "an acknowledgement");
    assert!(agent.thread.takes_work_of(sync.thread.hand), "as far as anybody can tell");
    assert!(!sync.thread.takes_work_of(agent.thread.hand), "it gives a lock back");
}

/// The switch to the thread was not seen; the kernel's count of its waits was.
#[test]
fn an_unseen_switch_is_told_from_the_wait_that_the_kernel_counted() {
    let sleep = |w: &mut Watched| {
        w.thread.switch_out(BORN + 100, state::SLEEP, &Overlay::default());
        w.thread.woken = Woken { at: BORN + 700, run_delay_ns: 5_000, ..w.thread.woken };
    };
    let mut w = Watched::new(7);
    sleep(&mut w);
    let at = w.thread.arrived_at(BORN + 1000, 5_050);
    assert_eq!(at, BORN + 750);
    w.thread.switch_in(at, &Overlay::default());
    w.thread.settle(BORN + 1000, 0);
    let mut expected = [0; cause::COUNT];
    (expected[cause::ON_CPU], expected[cause::SLEEP], expected[cause::RUN_QUEUE]) = (350, 600, 50);
    assert_eq!(w.parts(BORN, BORN + 1000), expected);
    // What cannot be is not believed: a longer wait than there was time, and a count that went backwards.
    let mut w = Watched::new(7);
    sleep(&mut w);
    assert_eq!((w.thread.arrived_at(BORN + 1000, 5_301), w.thread.arrived_at(BORN + 1000, 4_999)), (0, 0));
    // Without a wake nobody knows.
    w.thread.woken.at = 0;
    assert_eq!(w.thread.arrived_at(BORN + 1000, 5_050), 0);
    // One that came while the thread was on its way to sleep will do.
    w.thread.woken.early_at = BORN + 99;
    assert_eq!(w.thread.arrived_at(BORN + 1000, 5_050), BORN + 150);
    // A thread that runs has no switch to make up for.
    w.thread.switch_in(BORN + 150, &Overlay::default());
    assert_eq!(w.thread.arrived_at(BORN + 1000, 5_050), 0);
}

#[test]
fn a_sleep_before_a_lock_stays_a_sleep() {
    let mut w = Watched::new(7);
    let begin = BORN + 100;
    let mut now = sleep_on(&mut w, 8, begin, 9_000_000, by::NOBODY);
    now = sleep_on(&mut w, 64, now, 2_000_000, by::OTHER);
    w.thread.settle(now, 0);
    let parts = w.parts(begin, now);
    assert_eq!((parts[cause::LOCK], parts[cause::SLEEP]), (2_000_000, 9_000_000));
}

#[test]
fn more_slices_than_are_remembered_are_no_negative_sleep() {
    let mut w = Watched::new(7);
    let begin = BORN + 100;
    let mut now = begin;
    for _ in 0..40 {
        now = sleep_on(&mut w, 64, now, 1_000_000, by::NOBODY);
    }
    now = sleep_on(&mut w, 64, now, 1_000_000, by::OTHER);
    w.thread.settle(now, 0);
    for from in (begin..now).step_by(700_000) {
        let parts = w.parts(from, now);
        assert_eq!(cause::total(&parts), now - from);
        assert!(parts.iter().all(|part| *part <= now - from), "{parts:?}");
    }
}

#[test]
fn the_time_before_a_thread_was_there_is_that_of_another() {
    let (mut parent, mut child) = (Watched::new(7), Box::new(Thread::FREE));
    parent.thread.switch_out(BORN + 100, state::DISK_IO, &Overlay::default());
    parent.thread.woken.at = BORN + 400;
    parent.thread.switch_in(BORN + 450, &Overlay::default());
    parent.thread.settle(BORN + 600, 0);
    child.begin(1, 8, 1, BORN + 500, true);
    child.settle(BORN + 700, 0);
    child.parts_of(&parent.thread, BORN + 50, BORN + 500);
    let mut expected = [0; cause::COUNT];
    (expected[cause::ON_CPU], expected[cause::DISK_IO], expected[cause::RUN_QUEUE]) = (100, 300, 50);
    assert_eq!((child.scratch[0], child.discarded), (expected, 0));
    // What the other has not settled yet is not known.
    child.parts_of(&parent.thread, BORN + 50, BORN + 650);
    assert_eq!((child.scratch[0][cause::UNEXPLAINED], child.discarded), (600, 1));
}
