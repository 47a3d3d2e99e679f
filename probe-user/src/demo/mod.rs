//! The embedded ensemble of `termite-probe demo`: servers that speak real Zab between real processes.
//!
//! In: a zoo.cfg per server; out: packets, log flushes and threads which look to the kernel like those
//! of an ensemble on JVMs, so that the probe has something to measure where there is no Java. Invariant:
//! no server outlives the process that started it, and no file an `Ensemble` that was dropped. Deliberately not
//! here: the probe, elections, clients, recovery. It is a stage, not a coordination service.

mod ballots;
mod config;
pub(crate) mod ensemble;
mod follower;
mod leader;
mod packet;
mod process;
mod rehearsal;
mod server;
pub(crate) mod story;
mod txn_log;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;

pub(crate) use rehearsal::{EnsembleArgs, run_ensemble};

use config::Config;
use follower::Follower;
use leader::Leader;
use process::Endings;
use server::{Ending, Node, say};

/// How long a leader that is asked to end waits for the last acknowledgements.
const LEADER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a follower that is asked to end waits for its leader to hang up first.
const FOLLOWER_PATIENCE: Duration = Duration::from_millis(300);

/// One server of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// zoo.cfg of this server; its sid is in the dataDir's myid
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when the thread of this process that started the server ends
    #[arg(long, value_name = "PID")]
    parent: Option<u32>,
}

enum Role {
    Leader(Arc<Leader>),
    Follower(Arc<Follower>),
}

/// Serves until SIGTERM or SIGINT, prints `ready` when it takes part and its counts when it ends. To be
/// called before any other thread is started: the signals are kept from the threads started here only.
pub(crate) fn run_server(args: &ServerArgs) -> anyhow::Result<()> {
    if let Some(parent) = args.parent {
        process::die_with_parent(parent).context("cannot follow the parent's life")?;
    }
    let endings = Endings::block().context("cannot block signals")?;
    let (config, sid) = Config::load(&args.config)?;
    let (ending, end) = mpsc::channel();
    let node = Arc::new(Node::new(sid, config, ending.clone()));
    node.spawn("Signal Dispatcher".to_owned(), move || {
        endings.wait().context("cannot wait for signals")?;
        ending.send(Ending::Asked).context("the server has ended")
    })?;
    let role = start(&node)?;
    match end.recv().context("every thread has ended")? {
        Ending::Failed(error) => return Err(error),
        Ending::Asked => match role {
            Role::Leader(leader) => leader.finish(LEADER_PATIENCE),
            Role::Follower(follower) => follower.finish(FOLLOWER_PATIENCE),
        },
    }
    say(&serde_json::to_string(&node.counts())?);
    Ok(())
}

fn start(node: &Arc<Node>) -> anyhow::Result<Role> {
    let name = format!("QuorumPeer[myid={}](plain=disabled)(secure=disabled)", node.sid);
    if node.leads() {
        let leader = Arc::new(Leader::new(Arc::clone(node))?);
        let life = Arc::clone(&leader);
        node.spawn(name, move || life.lead())?;
        Ok(Role::Leader(leader))
    } else {
        let follower = Arc::new(Follower::new(Arc::clone(node)));
        let life = Arc::clone(&follower);
        node.spawn(name, move || life.follow())?;
        Ok(Role::Follower(follower))
    }
}
