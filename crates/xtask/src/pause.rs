//! Waits and polls for conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(100);

/// Polls until `ask` returns a value; returns it and the elapsed time. Errors are retried, too.
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let began = Instant::now();
    loop {
        let problem = match ask() {
            Ok(Some(found)) => return Ok((found, began.elapsed())),
            Ok(None) => "not so".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() > patience {
            bail!("{what}: not within {} s; last: {problem}", patience.as_secs());
        }
        pause(INTERVAL);
    }
}

#[expect(clippy::disallowed_methods, reason = "this program has no runtime that could be blocked")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn what_fails_at_first_is_asked_again() -> Result<()> {
        let mut answers = vec![Ok(Some(7)), Ok(None), Err(anyhow::anyhow!("away"))];
        let (found, _) = eventually("seven", Duration::from_secs(60), || answers.pop().unwrap())?;
        ensure!(found == 7 && answers.is_empty(), "found {found}, with {} left", answers.len());
        Ok(())
    }

    #[test]
    fn what_never_comes_is_given_up_with_the_last_problem() {
        let error = eventually("a price", Duration::ZERO, || -> Result<Option<()>> { bail!("away") });
        assert_eq!(error.unwrap_err().to_string(), "a price: not within 0 s; last: away");
    }
}
