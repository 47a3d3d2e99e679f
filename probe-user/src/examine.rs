//! `doctor`: looks at the host, tries every program, and tells.
//!
//! In: options. Out: a page or one JSON object on standard output; exit 3 when the host is not able.
#![forbid(unsafe_code)]

use std::io::Write as _;

use crate::cli::DoctorArgs;
use crate::doctor::{DoctorReport, ServerLine, render};
use crate::engine::discovery;
use crate::failure::Failure;
use crate::host::facts::HostFacts;
use crate::kernel::{Kernel, KernelError, Settings};
use crate::model::HookReport;
use crate::plan;

/// Runs `doctor`.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let facts = HostFacts::gather();
    let mut plan = plan::plan(&facts);
    if args.hooks.functions {
        plan.prefer_functions();
    }
    let mut missing = plan::requirements(&facts).err().unwrap_or_default();
    let mut hooks = Vec::new();
    let mut attached = None;
    if let (true, Some(offsets)) = (missing.is_empty(), facts.offsets()) {
        // Everything is really attached, and detached again when this ends.
        match Kernel::attach(&plan, offsets, &Settings { links: 1, hooks: args.hooks, ..Settings::default() })
        {
            Ok((kernel, _)) => {
                attached = Some(kernel);
            }
            Err(KernelError::Required { job, reason }) => {
                hooks.push(HookReport { hook: job, variant: "", state: "failed", reason });
            }
            Err(error) => missing.push(plan::Missing {
                what: error.to_string(),
                remedy: "look at the message above; nothing can be loaded on this host".into(),
            }),
        }
    }
    // What follows is done with what a running probe has left.
    let fence = attached.as_mut().map(Kernel::raise_fence);
    let scan = discovery().scan(&(&args.target).into())?;
    let mut servers: Vec<_> = scan.servers.iter().map(ServerLine::from).collect();
    if let Some(kernel) = &mut attached {
        for (server, line) in scan.servers.iter().zip(&mut servers) {
            kernel.see_all_of(server);
            kernel.jvms.adopt(&mut kernel.ebpf, server.tgid)?;
            line.safepoints = Some(kernel.jvms.explain(server.tgid).describe());
        }
        hooks.clone_from(&kernel.hooks);
    }
    let report = DoctorReport { facts, plan, hooks, fence, missing, servers };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.to_json()?)?;
    } else {
        write!(out, "{}", render(&report))?;
    }
    out.flush()?;
    if report.is_able() { Ok(()) } else { Err(Failure::Host(report.all_missing()).into()) }
}
