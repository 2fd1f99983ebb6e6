//! A bound on the log: of each kind of warning or error, at most [`LINES`] lines in each [`PERIOD`].
//!
//! A kind is a place in the code. While something is away, each request or job may fail for the same reason:
//! the first lines say which, and a line at the end of the period says how many more there were. Traces and
//! metrics have them all. Lines of lower levels are not limited, as no failure causes them.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// The lines of one kind in a period.
const LINES: u64 = 30;
/// How long a kind's lines are counted, from the first of them.
const PERIOD: Duration = Duration::from_secs(60);
/// How often the end of periods is looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The target of the lines that say how many were left out; they are not limited.
const TARGET: &str = "log_limit";

/// The filter of the log. Clones share their counts, which take memory for each place in the code.
#[derive(Debug, Clone, Default)]
pub(super) struct LogLimit {
    kinds: Arc<Mutex<HashMap<Identifier, Kind>>>,
}

/// One kind of line, in its present period.
#[derive(Debug)]
struct Kind {
    began: Instant,
    lines: u64,
    /// The text of the first line that was left out.
    message: String,
}

/// What is said of a period that is over.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    lines: u64,
    message: String,
}

impl LogLimit {
    /// Logs what was left out, whenever a period is over. Does not return.
    pub(super) async fn report(self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.report_ended(Instant::now());
        }
    }

    /// Logs what was left out in periods that are over by now.
    pub(super) fn report_ended(&self, now: Instant) {
        for LeftOut { lines, message } in self.ended(now) {
            let seconds = PERIOD.as_secs();
            tracing::warn!(target: TARGET, lines, "left out of the log in {seconds} s: {message}");
        }
    }

    /// What was left out so far, of periods that are not over either.
    pub(super) fn report_all(&self) {
        self.report_ended(Instant::now() + PERIOD);
    }

    /// Counts a line, and returns whether it is to be written.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Kind { began: now, lines: 0, message: String::new() };
        let kind = kinds.entry(event.metadata().callsite()).or_insert_with(new);
        kind.lines += 1;
        if kind.lines == LINES + 1 {
            event.record(&mut Message(&mut kind.message));
        }
        kind.lines <= LINES
    }

    /// Forgets the periods that are over, and returns what was left out in them.
    fn ended(&self, now: Instant) -> Vec<LeftOut> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = kinds.extract_if(|_, kind| now.saturating_duration_since(kind.began) >= PERIOD);
        let left_out = ended.filter(|(_, kind)| kind.lines > LINES);
        left_out.map(|(_, kind)| LeftOut { lines: kind.lines - LINES, message: kind.message }).collect()
    }
}

impl<S> Filter<S> for LogLimit {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Levels are ordered from ERROR, the least, to TRACE.
        *metadata.level() > Level::WARN || metadata.target() == TARGET || self.admits(event, Instant::now())
    }
}

/// Takes the text of a line, without its fields.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = fmt::write(self.0, format_args!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_thousand_failures_are_a_few_lines_and_a_count() {
        let (limit, lines) = (LogLimit::default(), Lines::default());
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(limit.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..1_000 {
                tracing::warn!(number, "a read has failed");
                tracing::info!("work goes on");
            }
            tracing::error!("another kind");
            limit.report_ended(Instant::now());
            limit.report_all();
            tracing::error!("the same kind again, in the next period");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let count = |wanted: &str| text.lines().filter(|line| line.contains(wanted)).count();
        assert_eq!((count("a read has failed number="), count("work goes on")), (30, 1_000), "{text}");
        assert_eq!(count("left out of the log in 60 s: a read has failed lines=970"), 1, "{text}");
        assert_eq!((count("another kind"), count("left out")), (1, 1), "{text}");
    }
}
