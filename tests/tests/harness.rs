//! The measuring instruments themselves, without the probe: what a real ensemble proposed is what the
//! capture saw, and what the clients were told.

use std::time::Duration;

use anyhow::Result;
use termite_probe_tests::capture::{Capture, Sync};
use termite_probe_tests::ensemble::{Ensemble, Spec, require_host};
use termite_probe_tests::load::{Load, Plan};
use termite_probe_tests::net::Fabric;

#[test]
fn capture_sees_every_proposal_of_three_servers() -> Result<()> {
    require_host()?;
    let mut ensemble = Ensemble::prepare(&Spec::voters(3))?;
    let capture = Capture::start("lo", &ensemble.quorum_ports(), None)?;
    ensemble.start_all()?;
    let before = ensemble.settled_zxid()?;
    let leader = ensemble.leader()?;
    let load = Load::start(vec![ensemble.client(leader)?], Plan::bursts(2_000, 200, Duration::from_secs(3)))?;
    let report = load.finish()?;
    println!("{report:?}");
    assert_eq!((report.acknowledged, report.refused), (report.sent, 0));
    let after = ensemble.settled_zxid()?;
    let links = capture.finish()?;

    let followers = ensemble.followers()?;
    assert_eq!(followers.len(), 2);
    for sid in followers {
        let mut zxids = Vec::new();
        for link in links.iter().filter(|link| link.sid == Some(sid)) {
            assert_eq!(link.stray_acks, 0);
            zxids.extend(link.exchanges.iter().filter(|e| e.acked_at_ns.is_some()).map(|e| e.zxid));
        }
        let expected: Vec<u64> = (before + 1..=after).collect();
        zxids.retain(|zxid| *zxid > before);
        // Not assert_eq: nobody reads thousands of numbers.
        assert!(zxids == expected, "follower {sid}: {} of {}", zxids.len(), expected.len());
    }
    Ok(())
}

#[test]
fn capture_sees_five_servers_in_namespaces_and_their_observer() -> Result<()> {
    require_host()?;
    let mut ensemble = Ensemble::prepare(&Spec::voters(4).with_observer(5).in_namespaces())?;
    let hub = ensemble.fabric().map(Fabric::hub);
    let capture = Capture::start(Fabric::BRIDGE, &ensemble.quorum_ports(), hub)?;
    ensemble.start_all()?;
    let before = ensemble.settled_zxid()?;
    let leader = ensemble.leader()?;
    let load = Load::start(vec![ensemble.client(leader)?], Plan::steady(200, Duration::from_secs(2)))?;
    let report = load.finish()?;
    let after = ensemble.settled_zxid()?;
    assert!(after - before >= report.acknowledged);
    assert_eq!(ensemble.observers()?, [5]);
    // A learner that comes before the leader is ready goes away again without a word.
    for link in capture.finish()?.into_iter().filter(|link| link.sync.is_some()) {
        let acked = link.exchanges.iter().filter(|e| e.acked_at_ns.is_some()).count();
        println!("{:?} sync {:?} informs {} acked {acked}", link.sid, link.sync, link.informs);
        assert_eq!(link.observer, link.sid == Some(5));
        // A learner whose first leader gave up before it led may be sent the whole (empty) tree instead.
        assert!(matches!(link.sync, Some(Sync::Diff | Sync::Snap)), "{:?}", link.sync);
    }
    Ok(())
}
