//! The progress of an import: rows, counted by their line ends as they are sent.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// Counts rows and bytes that are sent. A quoted line end inside a CSV value counts as a row; the API's
/// summary is exact.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    header_lines: u64,
    line_ends: AtomicU64,
    /// The last byte so far was not a line end, so one more line has begun.
    line_begun: AtomicBool,
    bytes: AtomicU64,
    is_over: AtomicBool,
    bar: ProgressBar,
}

impl Progress {
    /// The progress before anything was sent.
    pub(super) fn new(header_lines: u64, bar: ProgressBar) -> Self {
        Self {
            started: Instant::now(),
            header_lines,
            line_ends: AtomicU64::new(0),
            line_begun: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            bar,
        }
    }

    /// Counts bytes that are being sent; called by one task, in order.
    pub(super) fn count(&self, chunk: &[u8]) {
        let Some(last) = chunk.last() else { return };
        let line_ends = chunk.iter().filter(|byte| **byte == b'\n').count();
        self.line_ends.fetch_add(as_u64(line_ends), Ordering::Relaxed);
        self.line_begun.store(*last != b'\n', Ordering::Relaxed);
        self.bytes.fetch_add(as_u64(chunk.len()), Ordering::Relaxed);
        self.bar.inc(as_u64(chunk.len()));
        self.bar.set_message(format!("{} rows/s", self.rows_per_second()));
    }

    /// Everything has been sent.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.bar.set_message("all rows are sent; waiting for the answer");
    }

    /// Completes with the limit when nothing was sent for this long; after the end, when there was no answer
    /// for the second limit.
    pub(super) async fn stalled(&self, limit: Duration, limit_after_end: Duration) -> Duration {
        let mut before = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let bytes = self.bytes.load(Ordering::Relaxed);
            if before == Some(bytes) {
                return limit;
            }
            before = Some(bytes);
            tokio::time::sleep(limit).await;
        }
        tokio::time::sleep(limit_after_end).await;
        limit_after_end
    }

    /// Removes the bar from the screen.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Rows that were sent.
    pub(super) fn rows(&self) -> u64 {
        let begun = u64::from(self.line_begun.load(Ordering::Relaxed));
        (self.line_ends.load(Ordering::Relaxed) + begun).saturating_sub(self.header_lines)
    }

    fn rows_per_second(&self) -> u64 {
        let elapsed_ms = self.started.elapsed().as_millis().max(1);
        u64::try_from(u128::from(self.rows()) * 1_000 / elapsed_ms).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, elapsed_ms) = (self.rows(), self.started.elapsed().as_millis());
        write!(
            formatter,
            "sent {rows} rows in {}.{:03} s, {} rows/s",
            elapsed_ms / 1_000,
            elapsed_ms % 1_000,
            self.rows_per_second()
        )
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_has_a_limit_of_its_own() {
        let (row, answer) = (Duration::ZERO, Duration::from_nanos(1));
        let progress = Progress::new(0, ProgressBar::hidden());
        progress.count(b"{}\n");
        assert_eq!(progress.stalled(row, answer).await, row);
        progress.end();
        assert_eq!(progress.stalled(row, answer).await, answer);
    }

    #[track_caller]
    fn check(header_lines: u64, chunks: &[&str], rows: u64) {
        let progress = Progress::new(header_lines, ProgressBar::hidden());
        for chunk in chunks {
            progress.count(chunk.as_bytes());
        }
        assert_eq!(progress.rows(), rows, "{chunks:?}");
    }

    #[test]
    fn rows_are_counted_across_chunks() {
        check(1, &[], 0);
        check(1, &["product_id\n"], 0);
        check(1, &["product_id\nP-1\nP-2\n"], 2);
        check(1, &["product_id\nP-1\nP-2"], 2);
        check(1, &["product", "_id\nP-", "1\n", "", "P-2"], 2);
        check(0, &["{}\n{}\n", "{}"], 3);
    }
}
