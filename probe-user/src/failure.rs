//! Ends of the program: which exit code an error means, and how it is told.
//!
//! Exit codes: 0 done, 1 our own failure, 2 usage, 3 this host or these privileges cannot do it, 4 no Termite
//! process found. Deliberately absent: what the errors themselves say.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use crate::discover::{DiscoverError, SetAside};
use crate::kernel::KernelError;
use crate::plan::Missing;

/// Why the program ends without having done what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// This host or these privileges cannot do it: exit 3.
    #[error("this host cannot be measured:{}", list(.0))]
    Host(Vec<Missing>),
    /// The kernel refused: exit 3.
    #[error("this host cannot be measured: {0}; `termite-probe doctor` tells more")]
    Kernel(KernelError),
    /// Nothing to measure: exit 4.
    #[error("no Termite process found{}", aside(.0))]
    NoProcess(Vec<SetAside>),
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|m| format!("\n  {}\n    to get it: {}", m.what, m.remedy)).collect()
}

fn aside(set_aside: &[SetAside]) -> String {
    let mut text = String::from(
        ": no quorum peer runs on this host, or its command line and thread names are unknown to this probe; \
         name it with --pid PID, or a part of its command line with --pattern TEXT",
    );
    for process in set_aside {
        text.push_str(&format!("\n  left aside: pid {}: {}", process.tgid, process.why));
    }
    text
}

/// Prints an error and tells the exit code that it means. A broken pipe is the reader's choice, not an error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("termite-probe: {error:#}");
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Host(_) | Failure::Kernel(_)) => 3,
        Some(Failure::NoProcess(_)) => 4,
        None if matches!(error.downcast_ref::<DiscoverError>(), Some(DiscoverError::Config { .. })) => 2,
        None => 1,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    };
    error.chain().any(|cause| io(cause) == Some(std::io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let config = DiscoverError::Config { path: "zoo.cfg".into(), source };
        assert_eq!(code(&config.into()), 2);
        assert_eq!(code(&Failure::Host(Vec::new()).into()), 3);
        assert_eq!(code(&Failure::NoProcess(Vec::new()).into()), 4);
        assert_eq!(code(&anyhow::anyhow!("x")), 1);
    }

    #[test]
    fn a_broken_pipe_is_no_error() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::new(error).context("cannot write")));
    }
}
