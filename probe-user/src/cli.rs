//! The command line: words in, typed options out.
//!
//! Invariant: options that several commands share are declared once. Deliberately absent: doing anything.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;

use crate::demo;
use crate::discover::Filter;
use crate::jvm::Rung;
use crate::kernel::DEFAULT_LINKS;
use crate::lines;

const AFTER_HELP: &str = "Exit codes: 0 done, 1 failure of the probe, 2 usage, 3 this host or these privileges \
cannot do it, 4 no Termite process found.\n\nStart with `termite-probe doctor` on a host you do not know, and \
with `termite-probe demo` if you have no ensemble at hand.";

/// Per-follower proposal delay of a Termite ensemble, measured in the kernel.
#[derive(Debug, Parser)]
#[command(name = "termite-probe", version, about, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show one line for each proposal slower than a threshold, and a summary at the end
    ///
    /// Proposals that one thing delayed at the same time are one line, that of the largest delay: `20 more >= 12.0 ms`
    /// at its end tells of the others. With `--slower 0` and with `--json` each has its own.
    #[command(after_help = lines::LEGEND)]
    Trace(TraceArgs),
    /// Serve metrics for Prometheus
    Serve(ServeArgs),
    /// Tell what this host offers, what will be used, what is lost and how to get it
    Doctor(DoctorArgs),
    /// See the point in fifteen seconds: an ensemble of three, one follower made slow, the probe watching
    Demo,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// One server of the demo's ensemble
    #[command(hide = true)]
    DemoServer(demo::ServerArgs),
    /// The demo's ensemble without the probe
    #[command(hide = true)]
    DemoEnsemble(demo::EnsembleArgs),
}

/// Which processes to measure. Without any of these, all Termite processes of the host.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which processes")]
pub(crate) struct Target {
    /// Only these processes; one that is not recognised as Termite needs --quorum-port or a zoo.cfg too
    #[arg(short, long, value_name = "PID", num_args = 1..)]
    pub(crate) pid: Vec<u32>,
    /// Only ensembles with one of these quorum ports; stands in where the ports are not known
    #[arg(long, value_name = "PORT", num_args = 1.., value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) quorum_port: Vec<u16>,
    /// A zoo.cfg on this host: only its ensemble; stands in where a server's own cannot be read
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The ensemble's name: with another of these options what to call it, alone which one to measure
    #[arg(long, value_name = "NAME")]
    pub(crate) ensemble: Option<String>,
    /// Look also at processes whose command line contains this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) pattern: Option<String>,
}

impl From<&Target> for Filter {
    fn from(target: &Target) -> Self {
        Self {
            pids: target.pid.clone(),
            quorum_ports: target.quorum_port.clone(),
            config: target.config.clone(),
            ensemble: target.ensemble.clone(),
            pattern: target.pattern.clone(),
        }
    }
}

/// How much the kernel side may keep.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Kernel side")]
pub(crate) struct Limits {
    /// Quorum connections measured at a time; each takes 562 KiB of kernel memory
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LINKS,
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) links: u32,
    /// See the stops of JVMs by this rung of the ladder only, instead of the best that works
    #[arg(long, value_name = "RUNG", hide_short_help = true)]
    pub(crate) safepoints: Option<Rung>,
    #[command(flatten)]
    pub(crate) hooks: Hooks,
    /// Log what the kernel side does to standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Which hooks of the kernel are wanted.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Kernel side")]
pub(crate) struct Hooks {
    /// Tell the time that interrupts take from a thread; costs 250 to 550 ns at every interrupt of the host
    #[arg(long)]
    pub(crate) irq: bool,
    /// Hook kernel functions also where a tracepoint would be the first choice, to compare the two
    #[arg(long, hide_short_help = true)]
    pub(crate) functions: bool,
}

/// Options of `trace`.
#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// Show proposals at least this slow, such as 10ms; 0 shows every one
    #[arg(short, long, value_name = "TIME", default_value = "10ms", value_parser = time)]
    pub(crate) slower: Duration,
    /// Stop after this long, such as 30s; without it, at Ctrl-C
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// One JSON object for each line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen; anybody who can connect can read the metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,
    /// Count proposals at least this slow as stalls
    #[arg(short, long, value_name = "TIME", default_value = "50ms", value_parser = time)]
    pub(crate) slower: Duration,
    /// Have the kernel time the probe's programs, and all others of the host, some 50 ns a run: for
    /// termite_probe_program_seconds_total
    #[arg(long)]
    pub(crate) program_stats: bool,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hooks: Hooks,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `150ms`, `30s`, `1m 30s`, `0`.
fn time(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: SignedDuration =
        text.parse().map_err(|_| "not a time; write it like 150ms, 30s or 2m".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a time cannot be negative".to_owned())
}

/// A time as the kernel side counts it.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(time("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert!(time("150").is_err());
        assert!(time("-3s").is_err());
    }
}
