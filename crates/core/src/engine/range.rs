//! Re-pricing for a recalculation, or because prices expired.

use chrono::{DateTime, Utc};
use tokio::sync::OwnedSemaphorePermit;

use super::{Batch, Engine, EngineError, EventMoves, PublishedPrice, WRITE_BATCH, detached};
use crate::cache::{Cached, PutMode};
use crate::jobs::{PRICED_BEFORE, Range};
use crate::store::{RangeEnds, RangeOutcome, Unserved};

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

/// The prices of a range after the transaction that has read them.
type RangePrices = (Vec<PublishedPrice>, Unserved);

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
        let (published, unserved) = match published {
            Some(priced) => priced,
            // An earlier attempt may have failed between the commit and Redis, so the stored prices are
            // served, regardless of which process wrote them.
            None => self.stored_prices(range).await?,
        };
        drop(turn);
        let (written, unchanged): (Vec<_>, Vec<_>) = match done {
            RangeDone::Done { .. } => published.into_iter().partition(|published| published.is_written),
            RangeDone::Repeated => (published, Vec::new()),
            RangeDone::Superseded => (Vec::new(), published),
        };
        // What Redis holds is corrected, whatever made it differ; what it does not hold is not added.
        self.put_over_older(unchanged, unserved.catalogue()).await?;
        self.serve(written, PutMode::Insert, unserved).await?;
        Ok(done)
    }

    /// Re-prices a range in one transaction, unless that was done before. Returns the prices to serve, if
    /// this transaction has priced them.
    async fn price_range(
        &self,
        range: &Range,
        worker: String,
    ) -> Result<(RangeDone, Option<RangePrices>), RangeError> {
        let (Some(first), Some(last)) = (range.product_ids.first(), range.product_ids.last()) else {
            return Ok((RangeDone::Repeated, None));
        };
        if range.run_number == PRICED_BEFORE {
            return Ok((RangeDone::Repeated, None));
        }
        let mut transaction = self.store.begin().await?;
        if !transaction.lock_run(range.run_number).await? {
            transaction.commit().await?;
            return Ok((RangeDone::Superseded, None));
        }
        if !transaction.is_range_open(range.run_number, first).await? {
            transaction.commit().await?;
            return Ok((RangeDone::Repeated, None));
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
            return Ok((RangeDone::Repeated, None));
        }
        let unserved = transaction.commit_prices().await?;
        Ok((RangeDone::Done { products, changed }, Some((published, unserved))))
    }

    /// Returns the stored prices of a range; expired ones are re-priced first.
    async fn stored_prices(&self, range: &Range) -> Result<RangePrices, RangeError> {
        let mut transaction = self.store.begin().await?;
        let batch = Batch::named(&range.product_ids);
        let published = self
            .price_in(&mut transaction, batch, EventMoves::Kept, |_, _| false, |_| "fill".to_owned())
            .await?;
        Ok((published, transaction.commit_prices().await?))
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
        let unserved = transaction.commit_prices().await?;
        // Left-out products are not counted, or they would be retried at once.
        let priced = published.len();
        let written = published.into_iter().filter(|published| published.is_written).collect();
        self.serve(written, PutMode::Insert, unserved).await?;
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
