//! A limit on the write operations of the server's control group (blkio, v1) on the device under its log:
//! every fdatasync waits for its turn. A proposal waits for the rest of the call during which it comes, then for its
//! own, so the truth is that of a proposal: what of these calls lay between its arrival and its ACK. In the leader it is
//! that of the thread that makes them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::disk::Disks;
use super::held::Held;
use super::host::Group;
use super::{Episode, Expected, Fault, Span, repeat};
use crate::ensemble::{Ensemble, Spec};
use crate::probe::Vantage;

/// How long the limit is on, in sizes: the first operations are free until the group has used its share.
const SIZES: u32 = 3;

/// A limit on write operations.
#[derive(Clone, Debug)]
pub struct DiskQuota(pub Arc<Disks>);

impl Fault for DiskQuota {
    fn name(&self) -> &'static str {
        "limit on writes to the disk"
    }

    fn expected(&self) -> Expected {
        Expected { cause: "fsync", also: &[], vantage: Vantage::Follower }
    }

    fn prepare(&self, spec: Spec) -> Result<Spec> {
        self.0.prepare(spec)
    }

    fn inject(
        &self,
        ensemble: &Ensemble,
        sid: u64,
        size: Duration,
        gap: Duration,
        times: u32,
    ) -> Result<Vec<Episode>> {
        let device = self.0.device(sid)?;
        let held = Held::of(ensemble, sid)?;
        let per_second = (1_000 / size.as_millis().max(1)).max(1);
        let group = Group::around("blkio", ensemble.pid(sid)?, |_| Ok(()))?;
        let limit = |value| group.write("blkio.throttle.write_iops_device", &format!("{device} {value}"));
        let spans = repeat(times, gap, || {
            let (span, ()) = Span::of(|| {
                limit(per_second)?;
                std::thread::sleep(size * SIZES);
                limit(0)
            })?;
            Ok(span)
        })?;
        held.episodes(sid, &spans)
    }
}
