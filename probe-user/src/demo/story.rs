//! What the demo shows and when: a pure plan, nothing goes in, phases and stalls come out.
//!
//! Invariant: stalls do not overlap, and each lies inside the phase that announces it. Deliberately not
//! here: clocks, processes, screens; whoever plays the story owns those.

use std::time::Duration;

use super::config::Sid;

/// Servers of the story; the highest sid leads, so that the followers are 1 and 2.
pub(crate) const NODES: usize = 3;
/// Proposals a second.
pub(crate) const RATE: u32 = 200;
/// How long a follower stands still: inside the failure tolerance, so that no health check notices.
pub(crate) const STALL: Duration = Duration::from_millis(150);
/// From one stall to the next.
const STALL_EVERY: Duration = Duration::from_secs(1);
/// From the beginning of a phase to its first stall.
const FIRST_STALL: Duration = Duration::from_millis(500);

/// A stretch of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// A word for it.
    pub(crate) name: &'static str,
    /// A sentence for the screen.
    pub(crate) caption: &'static str,
    /// How long it lasts.
    pub(crate) duration: Duration,
    /// Who is stalled once a second meanwhile.
    pub(crate) stalled: Option<Sid>,
}

/// One stall, counted from the beginning of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    /// When it begins.
    pub(crate) at: Duration,
    /// Who stands still.
    pub(crate) sid: Sid,
    /// For how long.
    pub(crate) duration: Duration,
}

/// The story, told in fourteen seconds.
pub(crate) fn phases() -> Vec<Phase> {
    vec![
        Phase {
            name: "healthy",
            caption: "a leader and two followers at work: every proposal is logged and acknowledged at once",
            duration: Duration::from_secs(4),
            stalled: None,
        },
        Phase {
            name: "follower 1 stalls",
            caption: "follower 1 now stands still for 150 ms each second; no election, no check turns red",
            duration: Duration::from_secs(5),
            stalled: Some(1),
        },
        Phase {
            name: "follower 2 stalls",
            caption: "follower 1 is well again, and it is follower 2 that stands still",
            duration: Duration::from_secs(5),
            stalled: Some(2),
        },
    ]
}

/// When whom to stall, in order.
pub(crate) fn stalls(phases: &[Phase]) -> Vec<Stall> {
    let mut stalls = Vec::new();
    let mut begins = Duration::ZERO;
    for phase in phases {
        let mut within = FIRST_STALL;
        while let Some(sid) = phase.stalled
            && within + STALL <= phase.duration
        {
            stalls.push(Stall { at: begins + within, sid, duration: STALL });
            within += STALL_EVERY;
        }
        begins += phase.duration;
    }
    stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_takes_fourteen_seconds_and_stalls_each_follower_five_times() {
        let phases = phases();
        assert_eq!(phases.iter().map(|phase| phase.duration).sum::<Duration>(), Duration::from_secs(14));
        let stalls = stalls(&phases);
        let of = |sid| stalls.iter().filter(move |stall| stall.sid == sid).map(|stall| stall.at.as_millis());
        assert!(of(1).eq([4500, 5500, 6500, 7500, 8500]));
        assert!(of(2).eq([9500, 10500, 11500, 12500, 13500]));
        assert_eq!(stalls.len(), 10);
        for pair in stalls.windows(2) {
            assert!(pair[0].at + pair[0].duration < pair[1].at);
        }
    }
}
