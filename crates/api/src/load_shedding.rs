//! What is refused when more is asked than can be answered.
//!
//! The measure is how late this process is, on whichever of its runtimes is the latest: a task that asks to
//! be woken at an instant is woken later by as long as everything that was ready before it took. Short bursts
//! make the process late for a moment and are left to pass; what has lasted is refused, dear requests first:
//! batches, then prices that are not in memory. A price in memory is always answered, as refusing it would
//! take as long. The bound on connections ([`crate::accept`]) limits those.
//!
//! That only the least of several measurements counts is the idea of CoDel (Nichols and Jacobson, 2012).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::metrics::{ApiMetrics, LoadSheddingMetrics};

/// How often lateness is measured.
const INTERVAL: Duration = Duration::from_millis(10);
/// Of so many measurements the least counts.
const KEPT: usize = 10;
/// Batches are refused while the process is this late.
const TOO_LATE_FOR_BATCHES_MS: u64 = 20;
/// Prices that are not in memory are refused while the process is this late.
const TOO_LATE_FOR_LOOK_UPS_MS: u64 = 100;

/// How late the process is; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SchedulingDelay {
    /// Of each of its runtimes.
    least_us: Arc<[AtomicU64]>,
}

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Many prices.
    Batch,
    /// A price that has to be looked up in Redis or the catalogue.
    LookUp,
}

impl Work {
    fn too_late_ms(self) -> u64 {
        match self {
            Self::Batch => TOO_LATE_FOR_BATCHES_MS,
            Self::LookUp => TOO_LATE_FOR_LOOK_UPS_MS,
        }
    }
}

impl SchedulingDelay {
    /// Of a process with so many runtimes, none of them late.
    pub(crate) fn of(runtimes: usize) -> Self {
        Self { least_us: (0..runtimes).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Refuses this work if the process has been too late for it for a while.
    pub(crate) fn admit(&self, work: Work, metrics: &LoadSheddingMetrics) -> Result<(), ApiError> {
        if self.latest_us() < work.too_late_ms() * 1_000 {
            return Ok(());
        }
        match work {
            Work::Batch => metrics.batches.increment(1),
            Work::LookUp => metrics.look_ups.increment(1),
        }
        Err(ApiError::Overloaded)
    }

    /// Measures the runtime that this runs in, until shutdown.
    pub(crate) async fn measure(self, runtime: usize, metrics: Arc<ApiMetrics>, shutdown: CancellationToken) {
        let mut latest = Latest::default();
        loop {
            let due = Instant::now() + INTERVAL;
            if shutdown.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
                return;
            }
            let least = latest.least_with(due.elapsed());
            if let Some(least_us) = self.least_us.get(runtime) {
                least_us.store(u64::try_from(least.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            metrics.load_shedding.scheduling_delay.set(Duration::from_micros(self.latest_us()).as_secs_f64());
        }
    }

    fn latest_us(&self) -> u64 {
        self.least_us.iter().map(|least_us| least_us.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

/// The latest measurements.
#[derive(Debug, Default)]
struct Latest {
    measured: [Duration; KEPT],
    number: usize,
}

impl Latest {
    /// Takes one in, in place of the oldest; the least of them.
    fn least_with(&mut self, measured: Duration) -> Duration {
        if let Some(oldest) = self.measured.get_mut(self.number % KEPT) {
            *oldest = measured;
        }
        self.number += 1;
        self.measured.iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use pricing_core::config::MetricsSwitch;
    use pricing_core::telemetry::registry::Registry;

    use super::*;

    fn late(ms: u64) -> SchedulingDelay {
        SchedulingDelay { least_us: [0, ms * 1_000, 0].into_iter().map(AtomicU64::new).collect() }
    }

    #[test]
    fn batches_are_refused_before_single_prices() {
        let metrics = LoadSheddingMetrics::new(&Registry::new("test", MetricsSwitch::On));
        for (ms, batch, look_up) in
            [(0, true, true), (19, true, true), (20, false, true), (100, false, false)]
        {
            assert_eq!(late(ms).admit(Work::Batch, &metrics).is_ok(), batch, "{ms}");
            assert_eq!(late(ms).admit(Work::LookUp, &metrics).is_ok(), look_up, "{ms}");
        }
        assert_eq!(late(100).admit(Work::Batch, &metrics), Err(ApiError::Overloaded));
    }

    #[test]
    fn a_moment_of_lateness_is_left_to_pass() {
        let mut latest = Latest::default();
        let (calm, late) = (Duration::from_millis(1), Duration::from_millis(500));
        for _ in 0..KEPT {
            latest.least_with(calm);
        }
        for _ in 1..KEPT {
            assert_eq!(latest.least_with(late), calm);
        }
        assert_eq!(latest.least_with(late), late);
        assert_eq!(latest.least_with(calm), calm);
    }
}
