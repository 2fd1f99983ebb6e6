//! Waits for a condition. Tests call this instead of sleeping: it returns as soon as the condition holds, and
//! reports the last failure if it never does.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds, and returns its result.
///
/// After `patience` the error names the `condition` and contains the failure of the last finished attempt. A
/// hanging attempt is abandoned then, so the wait is always bounded.
pub async fn eventually<T>(
    condition: &str,
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    let mut last_failure = anyhow!("no attempt finished");
    while let Ok(outcome) = timeout_at(deadline, attempt()).await {
        match outcome {
            Ok(value) => return Ok(value),
            Err(failure) => last_failure = failure,
        }
        if Instant::now() + POLL_INTERVAL >= deadline {
            break;
        }
        sleep(POLL_INTERVAL).await;
    }
    Err(gave_up(condition, patience, last_failure))
}

fn gave_up(condition: &str, patience: Duration, last_failure: Error) -> Error {
    last_failure.context(format!("waited {patience:?} in vain: {condition}"))
}
