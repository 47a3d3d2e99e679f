//! What interrupts take of one CPU.
//!
//! In: where interrupt handlers and softirqs begin and end on this CPU, with the instants. Out: the sum of their
//! time so far, the open one included. Invariants: time in a handler that interrupts a softirq counts once; each
//! of the two levels writes its own fields only, so that a handler may come in the middle of a softirq's hook. The
//! sum may be late by one handler when that happens, and readers take differences with a bound.
//! Deliberately absent: whose time it was (the thread clock asks while it is on CPU).

/// Interrupts of one CPU: the value of the per-CPU map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Time in interrupt handlers, ns.
    pub handlers_ns: u64,
    /// Begin of the open handler, monotonic ns; 0 when there is none. They do not nest.
    pub handler_began_at: u64,
    /// Time in softirqs without the handlers that interrupted them, ns.
    pub softirqs_ns: u64,
    /// Begin of the open softirq, monotonic ns; 0 when there is none. They do not nest.
    pub softirq_began_at: u64,
    /// `handlers_ns` at that moment.
    pub handlers_before_ns: u64,
    /// Begins and ends without each other, and instants out of order; their time is left out.
    pub discarded: u64,
}

impl Interrupts {
    /// A handler begins. One that is still open has ended unseen.
    #[inline(always)]
    pub fn enter_handler(&mut self, now: u64) {
        self.discarded += u64::from(self.handler_began_at != 0);
        self.handler_began_at = now;
    }

    /// The handler ends.
    #[inline(always)]
    pub fn leave_handler(&mut self, now: u64) {
        let began_at = self.handler_began_at;
        self.handler_began_at = 0;
        if began_at == 0 || now < began_at {
            self.discarded += 1;
            return;
        }
        self.handlers_ns = self.handlers_ns.wrapping_add(now - began_at);
    }

    /// A softirq begins. One that is still open has ended unseen.
    #[inline(always)]
    pub fn enter_softirq(&mut self, now: u64) {
        self.discarded += u64::from(self.softirq_began_at != 0);
        self.handlers_before_ns = self.handlers_ns;
        self.softirq_began_at = now;
    }

    /// The softirq ends.
    #[inline(always)]
    pub fn leave_softirq(&mut self, now: u64) {
        let began_at = self.softirq_began_at;
        self.softirq_began_at = 0;
        if began_at == 0 || now < began_at {
            self.discarded += 1;
            return;
        }
        let interrupted = self.handlers_ns.wrapping_sub(self.handlers_before_ns);
        self.softirqs_ns = self.softirqs_ns.wrapping_add((now - began_at).saturating_sub(interrupted));
    }

    /// What interrupts have taken so far, the open one included, ns.
    #[inline(always)]
    #[must_use]
    pub fn total_ns(&self, now: u64) -> u64 {
        if self.softirq_began_at != 0 {
            // An open handler is part of the open softirq.
            let open = now.saturating_sub(self.softirq_began_at);
            return self.softirqs_ns.wrapping_add(self.handlers_before_ns).wrapping_add(open);
        }
        let closed = self.softirqs_ns.wrapping_add(self.handlers_ns);
        if self.handler_began_at == 0 {
            return closed;
        }
        closed.wrapping_add(now.saturating_sub(self.handler_began_at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Interrupts;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        HandlerBegins,
        HandlerEnds,
        SoftirqBegins,
        SoftirqEnds,
    }
    use Step::{HandlerBegins, HandlerEnds, SoftirqBegins, SoftirqEnds};

    fn take(clock: &mut Interrupts, step: Step, now: u64) {
        match step {
            HandlerBegins => clock.enter_handler(now),
            HandlerEnds => clock.leave_handler(now),
            SoftirqBegins => clock.enter_softirq(now),
            SoftirqEnds => clock.leave_softirq(now),
        }
    }

    fn check(steps: &[(Step, u64)], total_ns: u64, discarded: u64) {
        let mut clock = Interrupts::default();
        for (step, now) in steps {
            take(&mut clock, *step, *now);
        }
        let last = steps.last().map_or(0, |(_, now)| *now);
        assert_eq!((clock.total_ns(last), clock.discarded), (total_ns, discarded), "{steps:?}");
    }

    #[test]
    fn handlers_and_softirqs_add_up() {
        check(&[(HandlerBegins, 10), (HandlerEnds, 15), (SoftirqBegins, 16), (SoftirqEnds, 36)], 25, 0);
    }

    #[test]
    fn a_handler_inside_a_softirq_counts_once() {
        check(&[(SoftirqBegins, 10), (HandlerBegins, 20), (HandlerEnds, 27), (SoftirqEnds, 50)], 40, 0);
    }

    #[test]
    fn what_is_open_is_included() {
        check(&[(HandlerBegins, 10), (HandlerEnds, 15), (SoftirqBegins, 20), (HandlerBegins, 32)], 17, 0);
        let mut clock = Interrupts::default();
        clock.enter_handler(10);
        assert_eq!(clock.total_ns(14), 4);
        assert_eq!(clock.total_ns(9), 0);
    }

    #[test]
    fn an_end_without_a_begin_adds_nothing() {
        check(&[(HandlerEnds, 10), (SoftirqEnds, 20), (HandlerBegins, 30), (HandlerEnds, 31)], 1, 2);
    }

    #[test]
    fn a_begin_after_a_missed_end_starts_anew() {
        check(&[(HandlerBegins, 10), (HandlerBegins, 1000), (HandlerEnds, 1002)], 2, 1);
        check(&[(SoftirqBegins, 10), (SoftirqBegins, 1000), (SoftirqEnds, 1002)], 2, 1);
    }

    #[test]
    fn a_clock_that_runs_backwards_adds_nothing() {
        check(&[(HandlerBegins, 10), (HandlerEnds, 9)], 0, 1);
        check(&[(SoftirqBegins, 10), (SoftirqEnds, 9)], 0, 1);
    }

    proptest! {
        /// The sum never grows by more than the time that passes and never shrinks, as long as nothing is missed.
        #[test]
        fn the_sum_grows_no_faster_than_time(gaps in prop::collection::vec((0_u64..50, any::<bool>()), 1..60)) {
            let mut clock = Interrupts::default();
            let (mut now, mut before) = (1_u64, 0_u64);
            for (gap, inner) in gaps {
                let step = match (clock.handler_began_at != 0, clock.softirq_began_at != 0, inner) {
                    (true, _, _) => HandlerEnds,
                    (false, _, true) => HandlerBegins,
                    (false, true, false) => SoftirqEnds,
                    (false, false, false) => SoftirqBegins,
                };
                now += gap;
                let total = clock.total_ns(now);
                prop_assert!(total >= before && total - before <= gap);
                take(&mut clock, step, now);
                prop_assert_eq!(clock.total_ns(now), total);
                before = total;
            }
            prop_assert_eq!(clock.discarded, 0);
        }
    }
}
