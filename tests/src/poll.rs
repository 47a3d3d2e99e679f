//! Waiting for a condition: the only way in which tests wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long one look at a condition is apart from the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` gives a value, at most for `patience`; `what` names the condition in the error.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`until`], where an error of the look means "not yet"; the last one is told.
pub fn until_ok<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    until(what, patience, || match look() {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            last = Some(format!("{error:#}"));
            Ok(None)
        }
    })
    .map_err(|error| match last {
        Some(last) => error.context(last),
        None => error,
    })
}
