//! A warning that many requests may cause: logged at its beginning and at its end, with a count.
//!
//! An outage would otherwise log a line for each request. A failure counts towards the same outage unless
//! none came for [`QUIET`], as a server that is only slow answers some requests meanwhile. While it lasts, a
//! line in each [`PERIOD`] says that it does.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An outage has ended once nothing has failed for so long.
const QUIET: Duration = Duration::from_secs(30);
/// How often an outage that lasts is logged again.
const PERIOD: Duration = Duration::from_secs(300);

/// One kind of warning. All users of the same thing share one.
#[derive(Debug)]
pub struct RepeatedWarning {
    message: &'static str,
    /// So that a success costs a load only.
    is_failing: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

/// Failures since the first.
#[derive(Debug)]
struct Outage {
    began: Instant,
    last: Instant,
    logged: Instant,
    failures: u64,
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Begins,
    Continues { failures: u64, seconds: u64 },
    Ended { failures: u64, seconds: u64 },
}

impl RepeatedWarning {
    /// A warning with this message.
    pub const fn new(message: &'static str) -> Self {
        Self { message, is_failing: AtomicBool::new(false), outage: Mutex::new(None) }
    }

    /// Counts a failure, and logs it if it begins an outage or that has lasted long; any other is logged on
    /// the level `debug` only.
    pub fn failed(&self, error: &dyn Display) {
        let lines = self.lines_of_failure(Instant::now());
        if lines == [None, None] {
            tracing::debug!(%error, "{}", self.message);
        }
        for line in lines.into_iter().flatten() {
            self.log(&line, error);
        }
    }

    /// Logs the end of an outage, if there was one and it is over.
    pub fn succeeded(&self) {
        if !self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        if let Some(line) = self.line_of_success(Instant::now()) {
            self.log(&line, &"");
        }
    }

    fn lines_of_failure(&self, now: Instant) -> [Option<Line>; 2] {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = outage.take_if(|outage| outage.is_over(now)).map(|outage| outage.ended());
        self.is_failing.store(true, Ordering::Relaxed);
        let Some(current) = outage.as_mut() else {
            *outage = Some(Outage { began: now, last: now, logged: now, failures: 1 });
            return [ended, Some(Line::Begins)];
        };
        current.failures += 1;
        current.last = now;
        if now.duration_since(current.logged) < PERIOD {
            return [None, None];
        }
        current.logged = now;
        let seconds = now.duration_since(current.began).as_secs();
        [None, Some(Line::Continues { failures: current.failures, seconds })]
    }

    fn line_of_success(&self, now: Instant) -> Option<Line> {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = outage.take_if(|outage| outage.is_over(now))?.ended();
        self.is_failing.store(false, Ordering::Relaxed);
        Some(ended)
    }

    fn log(&self, line: &Line, error: &dyn Display) {
        let message = self.message;
        match line {
            Line::Begins => tracing::warn!(%error, "{message}"),
            Line::Continues { failures, seconds } => {
                tracing::warn!(%error, failures, "{message}: for {seconds} s so far");
            }
            // A single failure has been logged.
            Line::Ended { failures: 1, .. } => {}
            Line::Ended { failures, seconds } => {
                tracing::warn!(failures, "{message}: this lasted {seconds} s and is over");
            }
        }
    }
}

impl Outage {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= QUIET
    }

    fn ended(self) -> Line {
        let seconds = self.last.duration_since(self.began).as_secs();
        Line::Ended { failures: self.failures, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_its_beginning_and_its_end_with_a_count() {
        let warning = RepeatedWarning::new("it does not answer");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(warning.lines_of_failure(start), [None, Some(Line::Begins)]);
        for second in 1..=20 {
            assert_eq!(warning.lines_of_failure(at(second)), [None, None]);
            assert_eq!(warning.line_of_success(at(second)), None, "it was only slow");
        }
        let ended = Line::Ended { failures: 21, seconds: 20 };
        assert_eq!(warning.line_of_success(at(50)), Some(ended));
        assert_eq!(warning.line_of_success(at(51)), None);
        assert_eq!(warning.lines_of_failure(at(52)), [None, Some(Line::Begins)]);
        let ended = Line::Ended { failures: 1, seconds: 0 };
        assert_eq!(warning.lines_of_failure(at(100)), [Some(ended), Some(Line::Begins)]);
    }

    #[test]
    fn an_outage_that_lasts_is_logged_once_in_a_period() {
        let warning = RepeatedWarning::new("it does not answer");
        let start = Instant::now();
        let lines =
            (0..=600).flat_map(|second| warning.lines_of_failure(start + Duration::from_secs(second)));
        let lines: Vec<Line> = lines.flatten().collect();
        let continues = |seconds| Line::Continues { failures: seconds + 1, seconds };
        assert_eq!(lines, [Line::Begins, continues(300), continues(600)]);
    }
}
