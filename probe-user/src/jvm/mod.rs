//! The stops of JVMs: where they can be seen, and the hooks that see them.
//!
//! In: processes. Out: for each JVM the rung of the ladder that its stops are seen by, a clock that the
//! kernel side advances, what the clock counted. The ladder, best first: the USDT notes of its libjvm, the
//! symbols of its libjvm, its performance counters, the scheduler alone. Invariants: a rung that does not
//! work has a reason that is shown; the choice is pure, each rung is tried in turn. Deliberately absent: the
//! JVM's own interfaces (attach, JMX, agents): nothing is asked of the process.
//!
//! Pure: `usdt`, `symbols`, `hsperfdata`, the ladder below. Files: `libjvm`, `image`. The kernel: `clocks`.

mod clocks;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hsperfdata;
mod image;
mod libjvm;
mod stops;
mod symbols;
mod uprobe;
mod usdt;

use clap::ValueEnum;
use probe_ebpf::safepoint::{NAME_BYTES, rung};
use probe_ebpf::usdt::Operand;

pub(crate) use clocks::Jvms;
pub(crate) use stops::Stops;

/// How the stops of a JVM are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rung {
    /// By the USDT notes of its libjvm
    Usdt,
    /// By functions that the symbol table of its libjvm names
    Symbols,
    /// By the thread that wakes its sleepers; what for, by its performance counters
    Hsperfdata,
    /// By the thread that wakes its sleepers
    Scheduler,
}

impl Rung {
    /// As the kernel side calls it.
    pub(crate) fn index(self) -> u32 {
        match self {
            Self::Usdt => rung::USDT,
            Self::Symbols => rung::SYMBOLS,
            Self::Hsperfdata => rung::HSPERFDATA,
            Self::Scheduler => rung::SCHEDULER,
        }
    }

    /// Its name in records and metrics.
    pub(crate) fn name(self) -> &'static str {
        rung_name(self.index())
    }
}

/// The name of a rung as the kernel side counts them.
pub(crate) fn rung_name(index: u32) -> &'static str {
    rung::NAMES.get(index as usize).copied().unwrap_or("none")
}

/// How the stops of a process are seen, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The rung; `None` when no rung works or when it is no JVM.
    pub(crate) rung: Option<Rung>,
    /// The libjvm; empty when none was found.
    pub(crate) libjvm: String,
    /// What the JVM calls its version, when its counters can be read.
    pub(crate) version: Option<String>,
    /// Why no better rung.
    pub(crate) reasons: Vec<String>,
}

impl Sight {
    /// Of a process without a clock.
    fn none(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], ..Self::default() }
    }

    /// The rung's name.
    pub(crate) fn name(&self) -> &'static str {
        self.rung.map_or("none", Rung::name)
    }

    /// One line.
    pub(crate) fn describe(&self) -> String {
        let mut text = match self.rung {
            Some(rung @ (Rung::Usdt | Rung::Symbols)) => {
                let version = self.version.as_ref().map_or_else(String::new, |v| format!(" ({v})"));
                format!("gc and safepoints by {} of {}{version}", rung.name(), self.libjvm)
            }
            Some(rung) => format!("gc and safepoints by {}", rung.name()),
            None => "gc and safepoints: not seen".into(),
        };
        if !self.reasons.is_empty() {
            text += &format!("; {}", self.reasons.join("; "));
        }
        text
    }
}

/// Offsets in a libjvm's file at which its stops can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Points {
    begin: u64,
    end: u64,
    operation: Operation,
}

/// How the operation of a stop is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    /// Its name is an argument.
    Named { offset: u64, name: Operand },
    /// By its class.
    Classes { offset: u64, classes: Vec<Class> },
    /// Not at all.
    Unseen,
}

/// A class of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    /// Of its virtual table from the place that is probed.
    distance: u64,
    name: [u8; NAME_BYTES],
}

/// What a JVM offers to each rung but the last, which needs nothing of it.
#[derive(Clone, Debug)]
struct Offers {
    usdt: Result<Points, String>,
    symbols: Result<Points, String>,
    hsperfdata: Result<(), String>,
}

/// What to try on a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Programs at places of the libjvm.
    Attach(Points),
    /// Nothing of the JVM is touched; its counters are read.
    Read,
    /// Nothing.
    Watch,
}

/// The rungs to try, best first, each with what to try or why not. `only` leaves one of them.
fn ladder(offers: Offers, only: Option<Rung>) -> Vec<(Rung, Result<Way, String>)> {
    let all = [
        (Rung::Usdt, offers.usdt.map(Way::Attach)),
        (Rung::Symbols, offers.symbols.map(Way::Attach)),
        (Rung::Hsperfdata, offers.hsperfdata.map(|()| Way::Read)),
        (Rung::Scheduler, Ok(Way::Watch)),
    ];
    all.into_iter().filter(|(rung, _)| only.is_none_or(|only| only == *rung)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_come_in_their_order_or_alone() {
        let points = Points { begin: 1, end: 2, operation: Operation::Unseen };
        let offers = Offers {
            usdt: Err("no notes".into()),
            symbols: Ok(points.clone()),
            hsperfdata: Err("no file".into()),
        };
        let all = ladder(offers.clone(), None);
        let want = [
            (Rung::Usdt, Err("no notes".into())),
            (Rung::Symbols, Ok(Way::Attach(points))),
            (Rung::Hsperfdata, Err("no file".into())),
            (Rung::Scheduler, Ok(Way::Watch)),
        ];
        assert_eq!(all, want);
        assert_eq!(ladder(offers, Some(Rung::Usdt)), want[..1]);
    }

    #[test]
    fn a_sight_says_by_what_and_why_not_better() {
        let mut sight = Sight {
            rung: Some(Rung::Symbols),
            libjvm: "/jdk/libjvm.so".into(),
            version: Some("17.0.15+6".into()),
            reasons: vec!["libjvm has no USDT notes".into()],
        };
        assert_eq!(
            sight.describe(),
            "gc and safepoints by symbols of /jdk/libjvm.so (17.0.15+6); libjvm has no USDT notes"
        );
        sight.rung = Some(Rung::Scheduler);
        assert!(sight.describe().starts_with("gc and safepoints by scheduler; "));
        assert_eq!(Sight::none("it is no JVM").describe(), "gc and safepoints: not seen; it is no JVM");
    }
}
