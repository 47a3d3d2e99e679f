//! From a bare host to a running engine: facts → plan → attach → discovery.
//!
//! In: a target and settings. Out: an [`Engine`], or the [`Failure`] that says what is missing. Deliberately
//! absent: what is then done with it.
#![forbid(unsafe_code)]

use crate::discover::{Filter, Scan};
use crate::engine::{Engine, Happening, SETTLE, discovery};
use crate::failure::Failure;
use crate::host::facts::HostFacts;
use crate::kernel::{Kernel, Settings};
use crate::plan;

/// What to do when there is nothing to measure yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenNone {
    /// Fail.
    Fail,
    /// Wait for a process to start.
    Wait,
}

/// Opens an engine and finds the first servers.
pub(crate) async fn open(
    filter: Filter,
    settings: &Settings,
    when_none: WhenNone,
) -> anyhow::Result<(Engine, Vec<Happening>)> {
    let facts = HostFacts::gather();
    plan::requirements(&facts).map_err(Failure::Host)?;
    let Some(offsets) = facts.offsets() else {
        // `requirements` has refused this already; a host without offsets never comes here.
        return Err(Failure::Host(Vec::new()).into());
    };
    let mut discovery = discovery();
    let Scan { servers, set_aside } = discovery.scan(&filter)?;
    if servers.is_empty() && when_none == WhenNone::Fail {
        return Err(Failure::NoProcess(set_aside).into());
    }
    let mut plan = plan::plan(&facts);
    if settings.hooks.functions {
        plan.prefer_functions();
    }
    let (kernel, records) = Kernel::attach(&plan, offsets, settings).map_err(Failure::Kernel)?;
    let mut engine = Engine::new(kernel, records, discovery, filter, settings.slower_ns)?;
    let happenings = engine.adopt(servers)?;
    tokio::time::sleep(SETTLE).await;
    Ok((engine, happenings))
}
