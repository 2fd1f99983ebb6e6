//! The wall clock of a process, compared with the database's.
//!
//! Prices and facts of all processes are ordered by time, so a process whose clock is wrong would freeze
//! facts or serve prices that are over. Each process compares its clock every five seconds: with the
//! database's, or with that of Redis if it has no database. An SQLite file has no clock, and its processes
//! share one. If the difference is larger than [`TOLERANCE`], the process says so and uses the other clock's
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use metrics::Gauge;
use tokio_util::sync::CancellationToken;

use crate::redis::{RedisConnection, RedisError};
use crate::store::{Store, StoreError};
use crate::telemetry::inventory::names::CLOCK_DIFFERENCE;
use crate::telemetry::registry::Registry;

/// The largest difference that is accepted: synchronised clocks differ by milliseconds.
pub const TOLERANCE: TimeDelta = TimeDelta::seconds(2);

/// The interval of comparisons.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
/// A comparison whose answer took longer says too little.
const LONGEST_ANSWER: Duration = Duration::from_secs(1);

/// What the clock of a process is compared with.
#[derive(Clone)]
pub enum Reference {
    /// The database's clock.
    Database(Store),
    /// Redis' clock, for a process without a database.
    Redis(Box<RedisConnection>),
}

/// A clock; clones share what is known about it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// How far the reference is ahead, in microseconds.
    difference_us: Arc<AtomicI64>,
    is_compared: Arc<AtomicBool>,
}

/// The reason that clocks could not be compared.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Reference {
    async fn time(&self) -> Result<Option<DateTime<Utc>>, CompareError> {
        Ok(match self {
            Self::Database(store) => store.time().await?,
            Self::Redis(redis) => Some(redis.time().await?),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Database(_) => "the database",
            Self::Redis(_) => "Redis",
        }
    }
}

impl Clock {
    /// The time: this process's, unless that is known to be wrong.
    pub fn now(&self) -> DateTime<Utc> {
        let difference = self.difference();
        let own = Utc::now();
        if difference.abs() <= TOLERANCE { own } else { own + difference }
    }

    /// How far the reference is ahead of this process; zero until they were compared.
    pub fn difference(&self) -> TimeDelta {
        TimeDelta::microseconds(self.difference_us.load(Ordering::Relaxed))
    }

    /// Describes the difference if it is larger than [`TOLERANCE`].
    pub fn fault(&self) -> Option<String> {
        let difference = self.difference();
        let side = if difference > TimeDelta::zero() { "behind" } else { "ahead" };
        let seconds = difference.num_seconds().abs();
        (difference.abs() > TOLERANCE).then(|| format!("this process's clock is {seconds} s {side}"))
    }

    /// Compares now. A failure changes nothing.
    pub async fn compare(&self, reference: &Reference) {
        let (sent_at, started) = (Utc::now(), Instant::now());
        let answer = tokio::time::timeout(LONGEST_ANSWER, reference.time()).await;
        let Ok(Ok(Some(time))) = answer else { return };
        // The reference was read at some instant between question and answer.
        let half = TimeDelta::from_std(started.elapsed() / 2).unwrap_or_default();
        let difference = time - (sent_at + half);
        self.difference_us.store(difference.num_microseconds().unwrap_or_default(), Ordering::Relaxed);
        self.is_compared.store(true, Ordering::Relaxed);
    }

    /// Compares every five seconds until shutdown, and logs when the difference becomes too large and when it
    /// is right again.
    pub async fn compare_periodically(
        self,
        reference: Reference,
        registry: Registry,
        shutdown: CancellationToken,
    ) {
        let gauge = registry.gauge(CLOCK_DIFFERENCE);
        let mut was_wrong = false;
        loop {
            self.compare(&reference).await;
            self.record(&gauge);
            let fault = self.fault();
            match &fault {
                Some(fault) if !was_wrong => {
                    tracing::error!("{fault}; until it is right, the time of {} is used", reference.name());
                }
                None if was_wrong => tracing::info!("this process's clock is right again"),
                _ => {}
            }
            was_wrong = fault.is_some();
            if shutdown.run_until_cancelled(tokio::time::sleep(COMPARE_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    fn record(&self, gauge: &Gauge) {
        if self.is_compared.load(Ordering::Relaxed) {
            gauge.set(self.difference().abs().to_std().unwrap_or_default().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing_by(difference: TimeDelta) -> Clock {
        let clock = Clock::default();
        clock.difference_us.store(difference.num_microseconds().unwrap(), Ordering::Relaxed);
        clock
    }

    #[test]
    fn a_clock_that_is_wrong_is_corrected_and_a_good_one_is_not() {
        for (difference, correction, fault) in [
            (TimeDelta::zero(), TimeDelta::zero(), None),
            (TimeDelta::milliseconds(-2_000), TimeDelta::zero(), None),
            (TimeDelta::days(-1), TimeDelta::days(-1), Some("this process's clock is 86400 s ahead")),
            (TimeDelta::seconds(3), TimeDelta::seconds(3), Some("this process's clock is 3 s behind")),
        ] {
            let clock = differing_by(difference);
            assert_eq!(clock.fault().as_deref(), fault);
            let before = Utc::now();
            let now = clock.now();
            assert!(before + correction <= now && now <= Utc::now() + correction, "{difference}");
        }
    }
}
