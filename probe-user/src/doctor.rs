//! What this host offers, what is used of it and what is lost, in plain words.
//!
//! In: facts, plan, what attaching said, the servers found. Out: text of at most [`WIDTH`] columns, or
//! JSON of the same. Invariant: pure; the last line is the verdict. Deliberately absent: trying anything,
//! colour.
#![forbid(unsafe_code)]

use serde::{Serialize, Serializer};

use crate::discover::{Known, Server};
use crate::host::facts::{
    Capability, Cgroups, Fact, HidePid, HostFacts, KernelTypes, Lockdown, ProcessView, Tracefs,
};
use crate::host::offsets::FIELD_COUNT;
use crate::kernel::OFF;
use crate::model::{FenceReport, HookReport};
use crate::plan::{FIRST_CHOICE, Job, Missing, Plan};

/// Columns of the text.
const WIDTH: usize = 96;
/// Where the values of the host's list begin.
const HOST_INDENT: usize = 16;
/// Where the values of the hooks' list begin.
const HOOK_INDENT: usize = 12;
/// Where lines without a name begin.
const NOTE_INDENT: usize = 2;
/// The state of a hook that works, in [`HookReport::state`].
const ATTACHED: &str = "attached";

/// Everything that `doctor` knows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DoctorReport {
    /// The host.
    pub(crate) facts: HostFacts,
    /// What was planned for it.
    pub(crate) plan: Plan,
    /// What came of it, one for each job; empty when nothing was tried.
    #[serde(serialize_with = "hooks_as_objects")]
    pub(crate) hooks: Vec<HookReport>,
    /// What was given up once everything was attached; `None` when nothing was.
    pub(crate) fence: Option<FenceReport>,
    /// What makes the host unable.
    pub(crate) missing: Vec<Missing>,
    /// Termite processes.
    pub(crate) servers: Vec<ServerLine>,
}

/// A Termite process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServerLine {
    /// Process id.
    pub(crate) pid: u32,
    /// Server id, when known.
    pub(crate) sid: Option<i64>,
    /// Where the server id is from, or why it is not known.
    pub(crate) sid_source: String,
    /// Its ensemble.
    pub(crate) ensemble: String,
    /// The port on which it listens as leader, when known.
    pub(crate) quorum_port: Option<u16>,
    /// How the stops of its JVM are seen; `None` when nothing was tried.
    pub(crate) safepoints: Option<String>,
    /// What else was noticed.
    pub(crate) notes: Vec<String>,
}

impl From<&Server> for ServerLine {
    fn from(server: &Server) -> Self {
        let (sid, sid_source) = match &server.sid {
            Known::Known { value, source } => (Some(value.0), (*source).to_owned()),
            Known::Unknown(reason) => (None, reason.clone()),
        };
        Self {
            pid: server.tgid.0,
            sid,
            sid_source,
            ensemble: server.ensemble.to_string(),
            quorum_port: server.own_quorum_port,
            safepoints: None,
            notes: server.notes.clone(),
        }
    }
}

impl DoctorReport {
    /// Whether this host can measure: nothing is missing and every required job found its program.
    #[must_use]
    pub(crate) fn is_able(&self) -> bool {
        self.all_missing().is_empty()
    }

    /// What makes the host unable, and the required jobs that were tried in vain.
    pub(crate) fn all_missing(&self) -> Vec<Missing> {
        let mut missing = self.missing.clone();
        // A job without candidates is among the missing already.
        let tried = self.plan.jobs.iter().filter(|job| job.required && !job.candidates.is_empty());
        missing.extend(tried.filter_map(|job| {
            let outcome = self.outcome(job).filter(|outcome| outcome.state != ATTACHED)?;
            Some(Missing {
                what: format!("a hook for the job {}: {}", job.hook, refusal(outcome)),
                remedy: job.remedy.into(),
            })
        }));
        missing
    }

    /// Whether a job is done, or will be as far as can be told without trying.
    fn is_served(&self, job: &Job) -> bool {
        match self.outcome(job) {
            Some(outcome) => outcome.state == ATTACHED,
            None => !job.candidates.is_empty(),
        }
    }

    fn outcome(&self, job: &Job) -> Option<&HookReport> {
        self.hooks.iter().find(|report| report.hook == job.hook)
    }

    /// The report as JSON with a `ready` of its own.
    ///
    /// # Errors
    /// Never for this data; the serialiser's signature asks for it.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct WithVerdict<'a> {
            ready: bool,
            #[serde(flatten)]
            report: &'a DoctorReport,
        }
        serde_json::to_string_pretty(&WithVerdict { ready: self.is_able(), report: self })
    }
}

fn hooks_as_objects<S: Serializer>(hooks: &[HookReport], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object<'a> {
        hook: &'a str,
        variant: &'a str,
        state: &'a str,
        reason: &'a str,
    }
    serializer.collect_seq(hooks.iter().map(|report| Object {
        hook: report.hook,
        variant: report.variant,
        state: report.state,
        reason: &report.reason,
    }))
}

/// The report for people.
#[must_use]
pub(crate) fn render(report: &DoctorReport) -> String {
    let mut page = Page::default();
    host(&mut page, &report.facts);
    page.heading("hooks");
    for job in &report.plan.jobs {
        hook(&mut page, job, report.outcome(job));
    }
    if let Some(fence) = &report.fence {
        page.heading("fence, once all is attached");
        page.line(NOTE_INDENT, "", &fence.describe());
    }
    page.heading("servers");
    if report.servers.is_empty() {
        page.line(NOTE_INDENT, "", "no Termite process found");
    }
    for line in &report.servers {
        server(&mut page, line);
    }
    missing(&mut page, &report.all_missing());
    page.0 + "\n" + &verdict(report) + "\n"
}

/// Text with hanging indents.
#[derive(Default)]
struct Page(String);

impl Page {
    fn heading(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(title);
        self.0.push('\n');
    }

    /// A name at the margin and its value, wrapped, from a column on.
    fn line(&mut self, indent: usize, name: &str, value: &str) {
        let mut line = format!("  {name:<width$}", width = indent - 2);
        let mut is_empty = true;
        for word in value.split_whitespace() {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.0.push_str(&line);
                self.0.push('\n');
                line = " ".repeat(indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

fn host(page: &mut Page, facts: &HostFacts) {
    page.heading("host");
    let mut line = |name, value: String| page.line(HOST_INDENT, name, &value);
    let kernel = known(&facts.kernel, Clone::clone);
    line("kernel", format!("{kernel}, {}", facts.architecture));
    line("kernel types", types(&facts.types));
    line("privileges", privileges(facts));
    for loss in privileges_lost(facts) {
        line("", loss.into());
    }
    line("processes", known(&facts.processes, process_view));
    line("/proc hides", known(&facts.hidepid, hidepid));
    line("tracefs", tracefs(&facts.tracefs));
    line("kallsyms", known(&facts.function_names, |shown| function_names(*shown).into()));
    line("lockdown", known(&facts.lockdown, lockdown));
    line("cgroups", known(&facts.cgroups, cgroups));
}

fn known<T>(fact: &Fact<T>, say: impl FnOnce(&T) -> String) -> String {
    match fact {
        Fact::Known(value) => say(value),
        Fact::Unknown { unknown } => format!("unknown: {unknown}"),
    }
}

fn types(types: &KernelTypes) -> String {
    let shape = match types {
        KernelTypes::Read(shape) => shape,
        KernelTypes::Absent => return "none: /sys/kernel/btf/vmlinux does not exist".into(),
        KernelTypes::Unusable(reason) => return format!("unusable: /sys/kernel/btf/vmlinux: {reason}"),
    };
    let found = FIELD_COUNT.saturating_sub(shape.lost_fields.len());
    let mut text = format!("{} KiB, {found} of {FIELD_COUNT} fields found", shape.size_bytes / 1024);
    for lost in &shape.lost_fields {
        text += &format!("; {}, needed for {}", lost.reason, lost.needed_for);
    }
    text
}

fn privileges(facts: &HostFacts) -> String {
    let user = match facts.euid {
        Fact::Known(0) => "root".into(),
        Fact::Known(uid) => format!("user {uid}"),
        Fact::Unknown { .. } => "unknown user".into(),
    };
    let held = known(&facts.capabilities, |held| {
        let names = |wanted: bool| -> String {
            let those = Capability::ALL.into_iter().filter(|one| held.has(*one) == wanted);
            those.map(|one| format!(" {}", one.name())).collect()
        };
        match (names(true), names(false)) {
            (all, none) if none.is_empty() => format!("with{all}"),
            (none, lacking) if none.is_empty() => format!("without{lacking}"),
            (held, lacking) => format!("with{held}; without{lacking}"),
        }
    });
    // Whether others may load programs explains a refusal, so it stands beside the capabilities.
    let unprivileged = match facts.unprivileged_bpf_disabled {
        Fact::Known(0) => "; unprivileged users may load simple programs",
        _ => "",
    };
    format!("{user}, {held}{unprivileged}")
}

/// What the optional capabilities would add.
fn privileges_lost(facts: &HostFacts) -> impl Iterator<Item = &'static str> {
    let losses = [
        (Capability::SysPtrace, "CAP_SYS_PTRACE would open the zoo.cfg and myid of other users' servers"),
        (Capability::DacReadSearch, "CAP_DAC_READ_SEARCH would open files that only their owner may read"),
    ];
    let held = facts.capabilities.known().copied();
    let lacking = losses.into_iter().filter(move |(one, _)| held.is_some_and(|held| !held.has(*one)));
    lacking.map(|(_, loss)| loss)
}

fn process_view(view: &ProcessView) -> String {
    match view {
        ProcessView::Host => "all of the host".into(),
        ProcessView::Container => "those of a container only".into(),
    }
}

fn hidepid(hidden: &HidePid) -> String {
    match hidden {
        HidePid::Off => "nothing".into(),
        HidePid::NoAccess => "what other users' processes are (hidepid=noaccess)".into(),
        HidePid::Invisible => "other users' processes (hidepid=invisible)".into(),
        HidePid::Ptraceable => "processes that may not be traced (hidepid=ptraceable)".into(),
    }
}

fn tracefs(tracefs: &Tracefs) -> String {
    match tracefs {
        Tracefs::Readable { at, .. } => (*at).into(),
        Tracefs::Unreadable { at, reason } => format!("{at} cannot be read: {reason}"),
        Tracefs::Absent => "not mounted".into(),
    }
}

fn function_names(shown: bool) -> &'static str {
    if shown {
        "names the kernel's functions"
    } else {
        "hides where the kernel's functions are: stacks in the evidence have addresses in place of names; \
         CAP_SYSLOG would show them"
    }
}

fn lockdown(lockdown: &Lockdown) -> String {
    match lockdown {
        Lockdown::None => "none".into(),
        Lockdown::Integrity => "integrity: nothing that the probe needs".into(),
        Lockdown::Confidentiality => {
            "confidentiality: reading kernel memory and tracefs is refused; programs may fail to load".into()
        }
    }
}

fn cgroups(cgroups: &Cgroups) -> String {
    match cgroups {
        Cgroups::V1 => "version 1".into(),
        Cgroups::Hybrid => "version 1, with version 2 beside it".into(),
        Cgroups::V2 => "version 2".into(),
    }
}

fn hook(page: &mut Page, job: &Job, outcome: Option<&HookReport>) {
    let (used, reason) = match (outcome, job.candidates.first()) {
        (Some(report), _) if report.state == ATTACHED => {
            (Some(report.variant.to_owned()), report.reason.clone())
        }
        (Some(report), _) if report.state == OFF => {
            page.line(HOOK_INDENT, job.hook, &format!("off: {}", job.purpose));
            page.line(HOOK_INDENT, "", job.remedy);
            return;
        }
        (Some(report), _) => (None, refusal(report)),
        (None, Some(variant)) => {
            (Some(format!("{} (not tried)", variant.name)), job.reason_for(variant.name))
        }
        (None, None) => (None, job.reason_for_none()),
    };
    let heading = used.as_deref().unwrap_or("not in use");
    page.line(HOOK_INDENT, job.hook, &format!("{heading}: {}", job.purpose));
    if !reason.is_empty() && reason != FIRST_CHOICE {
        page.line(HOOK_INDENT, "", &format!("why: {}", reason.trim()));
    }
    if used.is_none() {
        page.line(HOOK_INDENT, "", &format!("lost: {}", job.loss));
        page.line(HOOK_INDENT, "", &format!("to get it: {}", job.remedy));
    }
}

/// Why a hook is not in use, with the variant's name once.
fn refusal(report: &HookReport) -> String {
    if report.variant.is_empty() || report.reason.contains(report.variant) {
        report.reason.clone()
    } else {
        format!("{} {}: {}", report.variant, report.state, report.reason)
    }
}

fn server(page: &mut Page, line: &ServerLine) {
    let sid = line.sid.map_or("unknown".into(), |sid| sid.to_string());
    let port = line.quorum_port.map_or("unknown".into(), |port| port.to_string());
    page.line(
        NOTE_INDENT,
        "",
        &format!(
            "pid {}: ensemble {}, sid {sid} ({}), quorum port {port}",
            line.pid, line.ensemble, line.sid_source
        ),
    );
    for note in line.safepoints.iter().chain(&line.notes) {
        page.line(2 * NOTE_INDENT, "", note);
    }
}

fn missing(page: &mut Page, list: &[Missing]) {
    if list.is_empty() {
        return;
    }
    page.heading("missing");
    for missing in list {
        page.line(NOTE_INDENT, "", &missing.what);
        page.line(2 * NOTE_INDENT, "", &format!("to get it: {}", missing.remedy));
    }
}

/// The last line. It is not wrapped: scripts read it.
fn verdict(report: &DoctorReport) -> String {
    let missing = report.all_missing();
    match missing.as_slice() {
        [] => {}
        [one] => return format!("not able: {}", one.what),
        several => return format!("not able: {} things are missing, see above", several.len()),
    }
    let is_off = |job: &&Job| report.outcome(job).is_some_and(|outcome| outcome.state == OFF);
    let jobs: Vec<&Job> = report.plan.jobs.iter().filter(|job| !is_off(job)).collect();
    let lost: Vec<&str> =
        jobs.iter().copied().filter(|job| !report.is_served(job)).map(|job| job.hook).collect();
    let hooks = if lost.is_empty() {
        format!("all {} hooks", jobs.len())
    } else {
        let served = jobs.len() - lost.len();
        format!("{served} of {} hooks (without {})", jobs.len(), lost.join(", "))
    };
    let servers = match report.servers.len() {
        0 => "no Termite process found".into(),
        1 => "1 Termite process".into(),
        count => format!("{count} Termite processes"),
    };
    format!("ready: {hooks}; {servers}")
}

#[cfg(test)]
mod tests;
