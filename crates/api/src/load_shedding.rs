//! Load shedding: which requests are refused while the process is overloaded.
//!
//! The measure is the scheduling delay of the most delayed runtime of the process: a sleeping task is woken
//! late by as long as the tasks that were ready before it took. A short burst causes a delay that passes
//! without a refusal; while a delay persists, requests are refused, the most expensive first: batches, then
//! prices that are not in memory. A price in memory is always answered, as refusing it would take as long;
//! the bound on connections ([`crate::accept`]) limits those.
//!
//! Judging by the minimum of recent samples is the idea of CoDel (Nichols and Jacobson, 2012).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::metrics::{ApiMetrics, LoadSheddingMetrics};

/// How often the scheduling delay is sampled.
const INTERVAL: Duration = Duration::from_millis(10);
/// The minimum of this many samples counts.
const SAMPLES: usize = 10;
/// Batches are refused from this scheduling delay on.
const BATCH_DELAY_LIMIT_MS: u64 = 20;
/// Prices that are not in memory are refused from this scheduling delay on.
const LOOK_UP_DELAY_LIMIT_MS: u64 = 100;

/// The scheduling delay of the process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SchedulingDelay {
    /// The minimum of the recent samples of each runtime.
    minimum_us: Arc<[AtomicU64]>,
}

/// The kind of work that a request causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Many prices.
    Batch,
    /// A price that has to be looked up in Redis or the catalogue.
    LookUp,
}

impl Work {
    fn delay_limit_ms(self) -> u64 {
        match self {
            Self::Batch => BATCH_DELAY_LIMIT_MS,
            Self::LookUp => LOOK_UP_DELAY_LIMIT_MS,
        }
    }
}

impl SchedulingDelay {
    /// The delays of a process with this many runtimes, 0 at first.
    pub(crate) fn of(runtimes: usize) -> Self {
        Self { minimum_us: (0..runtimes).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Refuses this work while the scheduling delay is at or above its limit.
    pub(crate) fn admit(&self, work: Work, metrics: &LoadSheddingMetrics) -> Result<(), ApiError> {
        if self.worst_us() < work.delay_limit_ms() * 1_000 {
            return Ok(());
        }
        match work {
            Work::Batch => metrics.batches.increment(1),
            Work::LookUp => metrics.look_ups.increment(1),
        }
        Err(ApiError::Overloaded)
    }

    /// Samples the scheduling delay of the runtime that runs this, until shutdown.
    pub(crate) async fn measure(self, runtime: usize, metrics: Arc<ApiMetrics>, shutdown: CancellationToken) {
        let mut recent = RecentSamples::default();
        loop {
            let due = Instant::now() + INTERVAL;
            if shutdown.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
                return;
            }
            let minimum = recent.minimum_with(due.elapsed());
            if let Some(minimum_us) = self.minimum_us.get(runtime) {
                minimum_us.store(u64::try_from(minimum.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            metrics.load_shedding.scheduling_delay.set(Duration::from_micros(self.worst_us()).as_secs_f64());
        }
    }

    fn worst_us(&self) -> u64 {
        self.minimum_us.iter().map(|minimum_us| minimum_us.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

/// The most recent samples.
#[derive(Debug, Default)]
struct RecentSamples {
    samples: [Duration; SAMPLES],
    number: usize,
}

impl RecentSamples {
    /// Replaces the oldest sample, and returns the minimum.
    fn minimum_with(&mut self, sample: Duration) -> Duration {
        if let Some(oldest) = self.samples.get_mut(self.number % SAMPLES) {
            *oldest = sample;
        }
        self.number += 1;
        self.samples.iter().min().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use pricing_core::config::MetricsSwitch;
    use pricing_core::telemetry::registry::Registry;

    use super::*;

    fn delayed(ms: u64) -> SchedulingDelay {
        SchedulingDelay { minimum_us: [0, ms * 1_000, 0].into_iter().map(AtomicU64::new).collect() }
    }

    #[test]
    fn batches_are_refused_before_single_prices() {
        let metrics = LoadSheddingMetrics::new(&Registry::new("test", MetricsSwitch::On));
        for (ms, batch, look_up) in
            [(0, true, true), (19, true, true), (20, false, true), (100, false, false)]
        {
            assert_eq!(delayed(ms).admit(Work::Batch, &metrics).is_ok(), batch, "{ms}");
            assert_eq!(delayed(ms).admit(Work::LookUp, &metrics).is_ok(), look_up, "{ms}");
        }
        assert_eq!(delayed(100).admit(Work::Batch, &metrics), Err(ApiError::Overloaded));
    }

    #[test]
    fn a_short_burst_causes_no_refusal() {
        let mut recent = RecentSamples::default();
        let (calm, delayed) = (Duration::from_millis(1), Duration::from_millis(500));
        for _ in 0..SAMPLES {
            recent.minimum_with(calm);
        }
        for _ in 1..SAMPLES {
            assert_eq!(recent.minimum_with(delayed), calm);
        }
        assert_eq!(recent.minimum_with(delayed), delayed);
        assert_eq!(recent.minimum_with(calm), calm);
    }
}
