//! Stops of known lengths, and stops in any order.

extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

#[test]
fn operations_that_collect_are_told_from_the_others() {
    // As `_names` of the libjvm of JDK 17 and 25 has them, and of JDK 8, 11 and 21 where they differ.
    let collect = "G1CollectForAllocation G1CollectFull G1PauseCleanup G1PauseConcurrent G1PauseRemark \
        G1TryInitiateConcMark G1IncCollectionPause G1Concurrent GenCollectForAllocation GenCollectFull \
        GenCollectFullConcurrent SerialCollectForAllocation SerialGCCollect ParallelGCFailedAllocation \
        ParallelGCSystemGC ParallelCollectForAllocation ParallelGCCollect CollectForMetadataAllocation \
        CollectForCodeCacheAllocation CGC_Operation CMS_Initial_Mark CMS_Final_Remark ZMarkStart ZMarkEnd \
        ZRelocateStart ZMarkEndOld ZMarkEndYoung ZMarkStartYoung ZMarkStartYoungAndOld ZRelocateStartOld \
        ZRelocateStartYoung ZVerify XMarkStart XMarkEnd XRelocateStart ShenandoahFullGC ShenandoahInitMark \
        ShenandoahFinalMarkStartEvac ShenandoahInitUpdateRefs ShenandoahFinalUpdateRefs \
        ShenandoahFinalRoots ShenandoahDegeneratedGC";
    for operation in collect.split_whitespace() {
        assert!(is_gc(&name(operation)), "{operation}");
    }
    let others = "Halt SafepointALot Cleanup ThreadDump PrintThreads FindDeadlocks ClearICs ForceSafepoint \
        DeoptimizeFrame DeoptimizeAll ZombieAll Verify HeapDumper GC_HeapInspection HandshakeAllThreads \
        PopulateDumpSharedSpace RedefineClasses GetObjectMonitorUsage GetAllStackTraces GetOrSetLocal \
        GetThreadListStackTraces ChangeBreakpoints ChangeSingleStep HeapWalkOperation JFRCheckpoint Exit \
        ReportJavaOutOfMemory ICBufferFull PrintMetadata BulkRevokeBias RendezvousGCThreads RevokeBias \
        CleanClassLoaderDataMetaspaces ClassLoaderStatsOperation";
    for operation in others.split_whitespace() {
        assert!(!is_gc(&name(operation)), "{operation}");
    }
    assert!(!is_gc(&[0; NAME_BYTES]));
}

#[test]
fn a_collection_is_charged_from_its_begin_though_it_is_named_later() {
    let mut clock = SafepointClock::ZERO;
    clock.begin(100);
    let asleep = clock.at(110);
    assert_eq!(asleep, Totals { gc_ns: 0, other_ns: 10 });
    clock.operation(&name("G1CollectForAllocation"));
    assert_eq!(clock.at(150), Totals { gc_ns: 50, other_ns: 0 });
    // Threads wake before the end is seen.
    assert_eq!(clock.at(190).since(&asleep), Totals { gc_ns: 80, other_ns: 0 });
    let over = clock.end(200).expect("it had begun");
    assert_eq!((over.began_at, over.ended_at, over.kind), (100, 200, stop::GC));
    assert_eq!(over.name, name("G1CollectForAllocation"));
    assert_eq!(clock.at(900), Totals { gc_ns: 100, other_ns: 0 });
    assert_eq!((clock.gc.count, clock.gc.sum_ns, clock.other.count), (1, 100, 0));
}

#[test]
fn the_first_operation_of_a_stop_names_it() {
    let mut clock = SafepointClock::ZERO;
    clock.operation(&name("ICBufferFull")); // outside of a stop
    clock.begin(10);
    clock.operation(&name("HeapDumper"));
    clock.operation(&name("G1CollectFull"));
    let over = clock.end(30).expect("it had begun");
    assert_eq!((over.kind, over.name), (stop::OTHER, name("HeapDumper")));
    clock.begin(40);
    assert_eq!(clock.end(50).map(|s| (s.kind, s.name)), Some((stop::UNKNOWN, [0; NAME_BYTES])));
    assert_eq!(clock.at(60), Totals { gc_ns: 0, other_ns: 30 });
}

#[test]
fn a_presumed_kind_holds_until_the_operation_is_seen() {
    let mut clock = SafepointClock::ZERO;
    clock.begin_as(10, stop::GC);
    assert_eq!(clock.at(15).gc_ns, 5);
    assert_eq!(clock.end(20).map(|s| s.kind), Some(stop::GC));
    clock.begin_as(30, stop::GC);
    clock.operation(&name("HeapDumper"));
    assert_eq!(clock.end(40).map(|s| s.kind), Some(stop::OTHER));
}

#[test]
fn what_cannot_be_measured_is_counted() {
    let mut clock = SafepointClock::ZERO;
    assert_eq!(clock.end(5), None);
    clock.begin(10);
    clock.begin(20);
    assert_eq!(clock.end(15), None);
    assert_eq!(clock.end(16), None);
    assert_eq!((clock.discarded, clock.begun), (4, 2));
    assert_eq!(clock.at(100), Totals::default());
    assert_eq!(Totals { gc_ns: 1, other_ns: 1 }.since(&Totals { gc_ns: 0, other_ns: 9 }), Totals::default());
}

const OPERATIONS: [&str; 4] = ["G1CollectFull", "HeapDumper", "ZMarkEndYoung", "Cleanup"];

/// A stop: pause before it, time until its operation, time until its end, operation.
fn stops() -> impl Strategy<Value = Vec<(u64, u64, u64, usize)>> {
    prop::collection::vec((1..1000_u64, 0..1000_u64, 0..1000_u64, 0..=OPERATIONS.len()), 1..20)
}

proptest! {
    #[test]
    fn the_total_only_grows_and_no_faster_than_time(stops in stops()) {
        let mut clock = SafepointClock::ZERO;
        let mut now = 1;
        let mut samples = vec![(now, clock.at(now))];
        let mut held = 0;
        for (pause, until_operation, until_end, operation) in stops {
            now += pause;
            clock.begin(now);
            samples.push((now + until_operation / 2, clock.at(now + until_operation / 2)));
            now += until_operation;
            if let Some(text) = OPERATIONS.get(operation) {
                clock.operation(&name(text));
            }
            samples.push((now + until_end / 2, clock.at(now + until_end / 2)));
            now += until_end;
            clock.end(now);
            held += until_operation + until_end;
            samples.push((now, clock.at(now)));
        }
        for (i, (from, before)) in samples.iter().enumerate() {
            for (to, after) in &samples[i..] {
                let part = after.since(before);
                let total = (after.gc_ns + after.other_ns).checked_sub(before.gc_ns + before.other_ns);
                prop_assert_eq!(Some(part.gc_ns + part.other_ns), total);
                prop_assert!(part.gc_ns + part.other_ns <= to - from);
            }
        }
        let end = clock.at(now);
        prop_assert_eq!(end.gc_ns + end.other_ns, held);
        prop_assert_eq!((end.gc_ns, end.other_ns), (clock.gc.sum_ns, clock.other.sum_ns));
        prop_assert_eq!(clock.begun, clock.gc.count + clock.other.count);
        prop_assert_eq!(clock.discarded, 0);
    }

    #[test]
    fn any_order_of_events_is_survived(events in prop::collection::vec((0..4_u8, 1..5000_u64), 0..60)) {
        let mut clock = SafepointClock::ZERO;
        let mut ended = 0;
        for (what, now) in events {
            match what {
                0 => clock.begin(now),
                1 => clock.operation(&name("G1CollectFull")),
                2 => ended += u64::from(clock.end(now).is_some()),
                _ => { let _totals = clock.at(now); }
            }
        }
        let open = u64::from(clock.stopped.open_since != 0);
        prop_assert_eq!(clock.gc.count + clock.other.count, ended);
        prop_assert!(clock.begun <= ended + open + clock.discarded);
    }
}
