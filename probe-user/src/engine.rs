//! The engine: keeps the kernel side and the host's Termite processes together.
//!
//! In: a [`Kernel`], its record ring, a [`Filter`]. Out: [`Happening`]s with labels, and [`Report`]s.
//! Invariants: a process is watched from the moment it is found until it ends; a closed link is read once
//! more and only then given back. Deliberately absent: formats, sockets, terminals.

mod begin;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use probe_ebpf::abi::{
    HeartbeatRecord, Process, ProposalRecord, SafepointRecord, TransitionRecord, change, flag,
};
use probe_ebpf::link::Link;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock;
use crate::discover::{Change, Discovery, Filter, Procfs, Server, Tgid, Watch};
use crate::evidence::Clue;
use crate::explain::{Explainer, Stall};
use crate::flushes::Flushes;
use crate::jvm::Stops;
use crate::kernel::{Counters, Kernel};
use crate::labels::{Directory, Labels};
use crate::ledger::Ledger;
use crate::model::{FenceReport, FlushReport, HookReport, JvmReport, ProbeReport, Report, Vantage};
use crate::records::Record;
use crate::unproven::Unproven;

/// How long a closed link is kept: a reader may still take what was queued.
const GRACE: Duration = Duration::from_secs(1);
/// How often all processes are looked through: a new one is usually announced by its threads' names.
pub(crate) const SCAN_EVERY: Duration = Duration::from_secs(2);
/// A link that was silent this long before its first packet is framed from that packet on (twice the
/// framer's `QUIET_NS`, so that a packet in between does no harm): from then on every proposal counts.
pub(crate) const SETTLE: Duration = Duration::from_millis(45);
/// How often the ring is emptied when the kernel side does not ask for it.
pub(crate) const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often all links are looked through for a follower that is not known, ns.
const SEARCH_EVERY_NS: u64 = 100_000_000;

/// Records that are taken from the ring at a time.
const BATCH: usize = 8192;

/// Something to show.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A proposal's delay, and what explains it.
    Proposal(Box<ProposalRecord>, Labels, Vec<Arc<Clue>>),
    /// A heartbeat's delay.
    Heartbeat(HeartbeatRecord, Labels),
    /// A change of a link.
    Transition(TransitionRecord, Labels),
    /// A server's JVM stood still.
    Safepoint(SafepointRecord, Option<Box<Server>>),
    /// A thread of a server was kept from its work.
    Stall(Stall),
    /// A server was found, or found to be different.
    Appeared(Box<Server>),
    /// A server ended.
    Gone(Box<Server>),
}

/// See the module.
pub(crate) struct Engine {
    kernel: Kernel,
    records: AsyncFd<RingBuf<MapData>>,
    discovery: Discovery,
    filter: Filter,
    watch: Watch,
    /// A pidfd becomes readable when its process ends.
    endings: HashMap<Tgid, AsyncFd<OwnedFd>>,
    ports: BTreeSet<u16>,
    /// What the kernel side was told of each watched process.
    watched: HashMap<Tgid, Process>,
    stops: Stops,
    flushes: Flushes,
    directory: Directory,
    labels: HashMap<(u32, u32), Labels>,
    /// When all links were last looked through for a follower that was not known, monotonic ns.
    searched_at: u64,
    closed: Ledger,
    malformed: u64,
    /// The last batch was full: more may wait in the ring.
    is_behind: bool,
    rescan: bool,
    /// Who leads, by process.
    roles: HashMap<u32, Vantage>,
    explainer: Explainer,
    unproven: Unproven,
    fence: FenceReport,
}

impl Engine {
    /// Joins the two; nothing is watched yet. Waits of at least `slower_ns` are told.
    pub(crate) fn new(
        kernel: Kernel,
        records: RingBuf<MapData>,
        discovery: Discovery,
        filter: Filter,
        slower_ns: u64,
    ) -> anyhow::Result<Self> {
        let records = readable(records).context("cannot wait for records")?;
        Ok(Self {
            kernel,
            records,
            discovery,
            filter,
            watch: Watch::default(),
            endings: HashMap::new(),
            ports: BTreeSet::new(),
            watched: HashMap::new(),
            stops: Stops::default(),
            flushes: Flushes::default(),
            directory: Directory::default(),
            labels: HashMap::new(),
            searched_at: 0,
            closed: Ledger::default(),
            malformed: 0,
            is_behind: false,
            rescan: false,
            roles: HashMap::new(),
            explainer: Explainer::new(slower_ns),
            unproven: Unproven::default(),
            fence: FenceReport::default(),
        })
    }

    /// Has the kernel time the programs.
    pub(crate) fn time_programs(&mut self) -> anyhow::Result<()> {
        self.kernel.time_programs().context("the kernel does not time its programs for us")
    }

    /// Gives up what measuring does not need, for good. What is still to be loaded or switched on has to come before.
    pub(crate) fn raise_fence(&mut self) {
        self.fence = self.kernel.raise_fence();
    }

    /// What was given up.
    pub(crate) fn fence(&self) -> &FenceReport {
        &self.fence
    }

    /// The servers watched now.
    pub(crate) fn servers(&self) -> &[Server] {
        self.watch.servers()
    }

    /// Looks through the processes and watches what is new.
    pub(crate) fn scan(&mut self) -> anyhow::Result<Vec<Happening>> {
        let scan = self.discovery.scan(&self.filter)?;
        self.adopt(scan.servers)
    }

    /// Takes the result of a scan: watches what is new, lets go of what ended.
    pub(crate) fn adopt(&mut self, servers: Vec<Server>) -> anyhow::Result<Vec<Happening>> {
        self.rescan = false;
        let (mut happenings, mut begun) = (Vec::new(), Vec::new());
        for change in self.watch.update(servers) {
            match change {
                Change::Appeared(server) | Change::Changed(server) => {
                    self.directory.addresses.resolve(&server);
                    self.begin(&server)?;
                    begun.push(server.clone());
                    happenings.push(Happening::Appeared(Box::new(server)));
                }
                Change::Gone { tgid, .. } => {
                    self.kernel.watch(tgid.0, None)?;
                    self.endings.remove(&tgid);
                    self.explainer.forget(tgid.0);
                    self.roles.remove(&tgid.0);
                    self.watched.remove(&tgid);
                    let clock = self.kernel.jvms.release(tgid);
                    let flushes = self.kernel.take_flushes(tgid.0);
                    if let Some(server) = self.directory.servers.get(&tgid.0) {
                        if let Some(clock) = clock {
                            self.stops.add(server, &clock, None);
                        }
                        if let Some(lengths) = flushes {
                            self.flushes.add(server, &lengths);
                        }
                        happenings.push(Happening::Gone(Box::new(server.clone())));
                    }
                    // Else it is forgotten with the last of its links.
                    if !self.has_links(tgid.0, None)? {
                        self.directory.servers.remove(&tgid.0);
                    }
                }
            }
        }
        self.open_connections(&begun)?;
        self.find_jvms()?;
        self.labels.clear();
        Ok(happenings)
    }

    /// Waits until there is something to do: records, the end of a process, or `DRAIN_EVERY`.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ready = self.records.readable() => { ready?.clear_ready(); }
            tgid = ended(&self.endings) => {
                self.endings.remove(&tgid);
                self.rescan = true;
            }
            () = tokio::time::sleep(DRAIN_EVERY) => {}
        }
        Ok(())
    }

    /// Empties the ring, and scans when a process began or ended.
    pub(crate) fn drain(&mut self) -> anyhow::Result<Vec<Happening>> {
        self.kernel.flush_log();
        self.kernel.jvms.poll()?;
        let mut happenings = Vec::new();
        let mut batch = Vec::new();
        let ring = self.records.get_mut();
        // Bounded, so that what was drained is shown even while more comes faster than it can be taken.
        while batch.len() < BATCH
            && let Some(item) = ring.next()
        {
            match Record::decode(Bytes::copy_from_slice(&item)) {
                Ok(record) => batch.push(record),
                Err(_) => self.malformed += 1,
            }
        }
        self.is_behind = batch.len() == BATCH;
        // What explains a proposal may stand behind it: it came from another CPU.
        for record in &batch {
            if let Record::Safepoint(r) = record {
                self.explainer.safepoint(r);
            }
        }
        for record in &batch {
            if let Record::Segment(r) = record {
                let stall = self.explainer.segment(r);
                happenings.extend(stall.and_then(|clue| self.stall(clue)));
            }
        }
        for record in batch {
            self.on_record(record, &mut happenings)?;
        }
        if self.rescan {
            happenings.extend(self.scan()?);
        }
        Ok(happenings)
    }

    fn on_record(&mut self, record: Record, happenings: &mut Vec<Happening>) -> anyhow::Result<()> {
        match record {
            Record::Proposal(r) => {
                let labels = self.labels(r.slot, r.generation)?;
                let clues = self.explainer.explain(&r, labels.pid, labels.key.vantage);
                let happening = Happening::Proposal(Box::new(r), labels, clues);
                match r.flags & flag::BY_SIZE {
                    0 => happenings.push(happening),
                    _ => self.unproven.add((r.slot, r.generation), r.zxid, happening),
                }
            }
            Record::Heartbeat(r) => {
                let labels = self.labels(r.slot, r.generation)?;
                happenings.push(Happening::Heartbeat(r, labels));
            }
            Record::Transition(r) if r.change == change::PROVEN => {
                happenings.extend(self.unproven.prove(&r));
            }
            Record::Transition(r) => {
                self.labels.remove(&(r.slot, r.generation));
                let labels = self.labels(r.slot, r.generation)?;
                happenings.push(Happening::Transition(r, labels));
            }
            Record::Segment(_) => {} // taken before
            Record::Safepoint(r) => {
                let server = self.directory.servers.get(&r.tgid).cloned().map(Box::new);
                happenings.push(Happening::Safepoint(r, server));
            }
            Record::Thread(r) => {
                let known = self.servers().iter().find(|s| s.tgid.0 == r.tgid);
                self.rescan |= known.is_none_or(|s| s.sid.value().is_none());
            }
        }
        Ok(())
    }

    /// A long wait with the labels of its server.
    fn stall(&self, clue: Arc<Clue>) -> Option<Happening> {
        let server = self.directory.servers.get(&clue.pid)?;
        let sid = server.sid.value().map(|sid| sid.0);
        let role = self.roles.get(&clue.pid).copied();
        Some(Happening::Stall(Stall { clue, ensemble: server.ensemble.to_string(), sid, role }))
    }

    /// Labels of a link, remembered while its follower is known.
    fn labels(&mut self, slot: u32, generation: u32) -> anyhow::Result<Labels> {
        if let Some(labels) = self.labels.get(&(slot, generation)) {
            return Ok(labels.clone());
        }
        let Some(link) = self.kernel.link(slot)?.filter(|l| l.identity.generation == generation) else {
            return Ok(unknown_labels());
        };
        self.directory.note(&link.identity);
        let mut labels = self.directory.recall(&link);
        if labels.key.sid.is_none() && self.search()? {
            labels = self.directory.recall(&link);
        }
        self.roles.insert(labels.pid, labels.key.vantage);
        if labels.key.sid.is_some() {
            self.labels.insert((slot, generation), labels.clone());
        }
        Ok(labels)
    }

    /// A follower's own end of its connection may be on this host, and nothing of it have been told yet: looks through all
    /// links, now and then.
    fn search(&mut self) -> anyhow::Result<bool> {
        let now = clock::monotonic_ns();
        if now.saturating_sub(self.searched_at) < SEARCH_EVERY_NS {
            return Ok(false);
        }
        self.searched_at = now;
        for (_, link) in self.links()? {
            self.directory.note(&link.identity);
        }
        Ok(true)
    }

    /// Everything at this moment. Links that closed a while ago are entered for good and given back.
    pub(crate) fn report(&mut self) -> anyhow::Result<Report> {
        let links = self.links()?;
        for (_, link) in &links {
            self.directory.note(&link.identity);
        }
        let now = clock::monotonic_ns();
        let mut ledger_open = Vec::new();
        // All are labelled before the first is given back: the two ends of a connection name each other.
        let labels: Vec<Labels> = links.iter().map(|(_, link)| self.directory.recall(link)).collect();
        for ((slot, link), labels) in links.into_iter().zip(labels) {
            let ours = link.identity.tgid != 0; // else no watched process has used the connection
            if self.is_over(&link, now) {
                if ours {
                    self.closed.add_closed(&link, &labels);
                }
                self.give_back(slot, &link)?;
            } else if ours {
                if link.identity.closed_at == 0 {
                    self.roles.insert(labels.pid, labels.key.vantage);
                }
                ledger_open.push((link, labels));
            }
        }
        let mut ledger = self.closed.clone();
        for (link, labels) in &ledger_open {
            ledger.add_open(link, labels);
        }
        let probe = ProbeReport {
            hooks: self.kernel.hooks.clone(),
            programs: self.kernel.program_runs(),
            skips: self.kernel.program_skips(),
            servers: self.servers().len() as u64,
            fence: self.fence.clone(),
            ..ProbeReport::from(self.kernel.counters()?)
        };
        Ok(Report { followers: ledger.into_reports(), jvms: self.jvms(), flushes: self.flushes(), probe })
    }

    /// The stops of every server, those included that have ended.
    fn jvms(&self) -> Vec<JvmReport> {
        let mut stops = self.stops.clone();
        for server in self.servers() {
            if let (Some(clock), Some(sight)) =
                (self.kernel.jvms.clock(server.tgid), self.kernel.jvms.sight(server.tgid))
            {
                stops.add(server, &clock, Some(sight.name()));
            }
        }
        stops.into_reports()
    }

    /// The flushes of every server, those included that have ended.
    fn flushes(&self) -> Vec<FlushReport> {
        let mut flushes = self.flushes.clone();
        for server in self.servers() {
            if let Some(lengths) = self.kernel.flushes(server.tgid.0) {
                flushes.add(server, &lengths);
            }
        }
        flushes.into_reports()
    }

    fn sees_flushes(&self) -> bool {
        self.kernel.hooks.iter().any(|job| job.hook == "flush" && job.state == "attached")
    }

    fn links(&self) -> anyhow::Result<Vec<(u32, Box<Link>)>> {
        let mut links = Vec::new();
        for slot in 0..self.kernel.slots {
            if let Some(link) = self.kernel.link(slot)? {
                links.push((slot, link));
            }
        }
        Ok(links)
    }

    /// Closed, or its process is gone, for longer than the grace.
    fn is_over(&self, link: &Link, now: u64) -> bool {
        let closed_at = link.identity.closed_at;
        closed_at != 0 && now.saturating_sub(closed_at) > GRACE.as_nanos() as u64
    }

    fn give_back(&mut self, slot: u32, link: &Link) -> anyhow::Result<()> {
        self.directory.forget(&link.identity);
        self.labels.remove(&(slot, link.identity.generation));
        self.unproven.forget((slot, link.identity.generation));
        let tgid = link.identity.tgid;
        if !self.servers().iter().any(|s| s.tgid.0 == tgid) && !self.has_links(tgid, Some(slot))? {
            self.directory.servers.remove(&tgid);
        }
        let mut free = Box::new(Link::FREE);
        free.identity.generation = link.identity.generation.wrapping_add(1);
        self.kernel.free(slot, &free)?;
        Ok(())
    }

    fn has_links(&self, tgid: u32, except: Option<u32>) -> anyhow::Result<bool> {
        Ok(self.links()?.iter().any(|(slot, l)| Some(*slot) != except && l.identity.tgid == tgid))
    }

    /// Enters closed links for good, so that their slots are free again.
    pub(crate) fn tidy(&mut self) -> anyhow::Result<()> {
        self.report().map(|_| ())
    }

    /// What came of each job.
    pub(crate) fn hooks(&self) -> &[HookReport] {
        &self.kernel.hooks
    }

    /// The global counters.
    pub(crate) fn counters(&self) -> anyhow::Result<Counters> {
        Ok(self.kernel.counters()?)
    }

    /// Whether records may be left in the ring.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// How many records could not be understood: more than none is a defect of ours.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Completes when one of the processes ends, and names it.
async fn ended(endings: &HashMap<Tgid, AsyncFd<OwnedFd>>) -> Tgid {
    std::future::poll_fn(|cx| {
        let over = endings.iter().find(|(_, descriptor)| descriptor.poll_read_ready(cx).is_ready());
        over.map_or(std::task::Poll::Pending, |(tgid, _)| std::task::Poll::Ready(*tgid))
    })
    .await
}

/// Makes a descriptor one that can be waited for.
fn readable<T: AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: called with a ring buffer and with pidfds only; each owns its descriptor, keeps it open as
    // long as it lives and always names the same one.
    unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }.map_err(Into::into)
}

/// Labels of a link that is no more.
fn unknown_labels() -> Labels {
    Labels {
        key: crate::model::FollowerKey {
            ensemble: "unknown".into(),
            vantage: crate::model::Vantage::Follower,
            sid: None,
        },
        leader_sid: None,
        pid: 0,
        observer: false,
    }
}

/// A discovery of this host's processes.
pub(crate) fn discovery() -> Discovery {
    Discovery::new(Procfs::default(), Tgid(std::process::id()))
}
