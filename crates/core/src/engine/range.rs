//! Re-pricing for a recalculation, or because prices expired.

use chrono::{DateTime, Utc};
use tokio::sync::OwnedSemaphorePermit;

use super::{Batch, Engine, EngineError, EventMoves, PublishedPrice, WRITE_BATCH, detached};
use crate::cache::{Cached, PutMode};
use crate::jobs::{PRICED_BEFORE, Range};
use crate::store::{RangeEnds, RangeOutcome};

/// The result of re-pricing a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeDone {
    /// The range is priced and served.
    Done {
        /// The number of priced products.
        products: u64,
        /// The number of list prices that changed.
        changed: u64,
    },
    /// The range was done before, or its run has ended; the stored prices were only served again.
    Repeated,
    /// A newer run has begun: the range was not re-priced.
    Superseded,
}

/// The reason that a range was not done.
pub type RangeError = EngineError;

impl Engine {
    /// Prices a range of a run and serves the prices. The same transaction records the range as done. `turn`
    /// is the caller's permit to write; it is released before the prices are served.
    pub async fn recalculate_range(
        &self,
        range: Range,
        worker: String,
        turn: OwnedSemaphorePermit,
    ) -> Result<RangeDone, RangeError> {
        let engine = self.clone();
        detached(async move { engine.price_range_and_serve(&range, worker, turn).await }).await
    }

    async fn price_range_and_serve(
        &self,
        range: &Range,
        worker: String,
        turn: OwnedSemaphorePermit,
    ) -> Result<RangeDone, RangeError> {
        let (done, published) = self.price_range(range, worker).await?;
        let (published, mode) = match done {
            RangeDone::Done { .. } => (published, PutMode::Insert),
            // An earlier attempt may have failed between the commit and Redis, so the stored prices are
            // served, regardless of which process wrote them.
            RangeDone::Repeated => (self.stored_prices(range).await?, PutMode::Insert),
            RangeDone::Superseded => (self.stored_prices(range).await?, PutMode::Replace),
        };
        drop(turn);
        self.serve(published, mode).await?;
        Ok(done)
    }

    /// Re-prices a range in one transaction, unless that was done before. Returns the prices to serve.
    async fn price_range(
        &self,
        range: &Range,
        worker: String,
    ) -> Result<(RangeDone, Vec<PublishedPrice>), RangeError> {
        let (Some(first), Some(last)) = (range.product_ids.first(), range.product_ids.last()) else {
            return Ok((RangeDone::Repeated, Vec::new()));
        };
        if range.run_number == PRICED_BEFORE {
            return Ok((RangeDone::Repeated, Vec::new()));
        }
        let mut transaction = self.store.begin().await?;
        if !transaction.lock_run(range.run_number).await? {
            transaction.commit().await?;
            return Ok((RangeDone::Superseded, Vec::new()));
        }
        if !transaction.is_range_open(range.run_number, first).await? {
            transaction.commit().await?;
            return Ok((RangeDone::Repeated, Vec::new()));
        }
        self.current_policy(range.policy_version).await?;
        let cause = format!("recalculation {}", range.task_id);
        let batch = Batch::named(&range.product_ids);
        let batch = if range.release { batch.released() } else { batch };
        let published = self
            .price_in(&mut transaction, batch, EventMoves::Kept, |_, _| true, move |_| cause.clone())
            .await?;
        let changed = count(&published, |published| published.is_written && published.change.is_some());
        let products = count(&published, |_| true);
        let frozen = count(&published, |published| published.is_frozen);
        let outcome = RangeOutcome { worker, products, changed, frozen };
        let ends = RangeEnds { first: first.clone(), last: last.clone() };
        if !transaction.finish_range(range.run_number, &ends, &outcome, self.clock.now()).await? {
            // Another delivery was faster, so this one is rolled back: a rule that reads the price in effect
            // would move prices twice.
            return Ok((RangeDone::Repeated, Vec::new()));
        }
        transaction.commit().await?;
        let written = published.into_iter().filter(|published| published.is_written).collect();
        Ok((RangeDone::Done { products, changed }, written))
    }

    /// Returns the stored prices of a range; expired ones are re-priced first.
    async fn stored_prices(&self, range: &Range) -> Result<Vec<PublishedPrice>, RangeError> {
        let mut transaction = self.store.begin().await?;
        let batch = Batch::named(&range.product_ids);
        let published = self
            .price_in(&mut transaction, batch, EventMoves::Kept, |_, _| false, |_| "fill".to_owned())
            .await?;
        transaction.commit().await?;
        Ok(published)
    }

    /// Re-prices expired prices, oldest first. Returns how many are valid now; fewer than
    /// [`WRITE_BATCH`](super::WRITE_BATCH) means that none are left.
    pub async fn reprice_expired(&self, now: DateTime<Utc>) -> Result<usize, EngineError> {
        let engine = self.clone();
        detached(async move { engine.price_expired_and_serve(now).await }).await
    }

    async fn price_expired_and_serve(&self, now: DateTime<Utc>) -> Result<usize, EngineError> {
        let limit = u32::try_from(WRITE_BATCH).unwrap_or(u32::MAX);
        let ids = self.store.expired_prices(now, limit).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.store.begin().await?;
        // Prices that a read has renewed meanwhile are valid again and are kept.
        let batch = Batch::named(&ids);
        let published = self
            .price_in(&mut transaction, batch, EventMoves::Kept, |_, _| false, |_| "time".to_owned())
            .await?;
        transaction.commit().await?;
        // Left-out products are not counted, or they would be retried at once.
        let priced = published.len();
        let written = published.into_iter().filter(|published| published.is_written).collect();
        self.serve(written, PutMode::Insert).await?;
        Ok(priced)
    }
}

fn count(published: &[PublishedPrice], counts: impl Fn(&PublishedPrice) -> bool) -> u64 {
    let count = published
        .iter()
        .filter(|published| matches!(published.cached, Cached::Priced(_)) && counts(published))
        .count();
    u64::try_from(count).unwrap_or(u64::MAX)
}
