//! Re-pricing for a recalculation, or because prices expired.

use chrono::{DateTime, Utc};
use tokio::sync::OwnedSemaphorePermit;

use super::{Batch, Engine, EngineError, PublishedPrice, WRITE_BATCH, detached};
use crate::cache::{Cached, PutMode};
use crate::jobs::Range;
use crate::store::RangeOutcome;
use pricing_domain::facts::product::ProductId;

/// What became of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeDone {
    /// Its prices are made and served.
    Done {
        /// Products that were priced.
        products: u64,
        /// List prices that are other ones now.
        changed: u64,
    },
    /// It had been done before; its prices were only served again.
    Repeated,
    /// A newer run has begun: nothing was written.
    Superseded,
}

/// Why a range was not done.
pub type RangeError = EngineError;

impl Engine {
    /// Prices a range of a run and serves the prices. That the range is done is recorded in the same
    /// transaction. `turn` is the caller's turn to write; it is given back before the prices are served.
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
        let mut transaction = self.store.begin().await?;
        if !transaction.lock_run(range.run_number).await? {
            // The first time, the worker may have died between the commit and Redis. What is stored is
            // published, whichever process wrote it.
            let batch = Batch::named(&range.product_ids);
            let published =
                self.price_in(&mut transaction, batch, |_, _| false, |_| "fill".to_owned()).await?;
            transaction.commit().await?;
            drop(turn);
            self.serve(published, PutMode::Replace).await?;
            return Ok(RangeDone::Superseded);
        }
        self.current_policy(range.policy_version).await?;
        let cause = format!("recalculation {}", range.task_id);
        let batch = Batch::named(&range.product_ids);
        let published = self.price_in(&mut transaction, batch, |_, _| true, move |_| cause.clone()).await?;
        let changed = count(&published, |published| published.is_written && published.change.is_some());
        let products = count(&published, |_| true);
        let outcome = RangeOutcome {
            worker,
            products,
            changed,
            frozen: count(&published, |published| published.is_frozen),
        };
        let range_start = range.product_ids.first().map_or("", ProductId::as_str);
        let is_first = transaction.finish_range(range.run_number, range_start, &outcome, Utc::now()).await?;
        transaction.commit().await?;
        drop(turn);
        if !is_first {
            // The first time, the worker may have died before the prices were served.
            self.serve(published, PutMode::Insert).await?;
            return Ok(RangeDone::Repeated);
        }
        let written = published.into_iter().filter(|published| published.is_written).collect();
        self.serve(written, PutMode::Insert).await?;
        Ok(RangeDone::Done { products, changed })
    }

    /// Prices what time alone has made invalid, oldest first; how many products were priced or are priced
    /// already. Fewer than [`WRITE_BATCH`](super::WRITE_BATCH) means that no more are left.
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
        // Those that a read has priced meanwhile are valid again, and stay as they are.
        let batch = Batch::named(&ids);
        let published = self.price_in(&mut transaction, batch, |_, _| false, |_| "time".to_owned()).await?;
        transaction.commit().await?;
        // Not how many there were: those that are left out would be looked for again at once.
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
