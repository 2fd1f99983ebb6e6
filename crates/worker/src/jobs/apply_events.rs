//! The job that applies market events: it stores the facts, re-prices the products they are about, and
//! enqueues the recalculations that events request.

use chrono::{DateTime, Utc};
use pricing_core::engine::{OtherCurrency, WRITE_BATCH, products_of};
use pricing_core::jobs::{Job, JobError, NewJob};
use pricing_core::keys::JOBS;
use pricing_core::telemetry::spans;
use pricing_domain::facts::market_event::MarketEvent;
use tracing::Instrument;

use super::Recalculator;

impl Recalculator {
    pub(super) async fn apply_events(
        &self,
        events: Vec<MarketEvent>,
        published_at: Option<DateTime<Utc>>,
        is_first_attempt: bool,
    ) -> Result<(), JobError> {
        for events in in_transactions(events) {
            let count = events.len();
            let applied = match self.engine.apply_events(events, published_at, is_first_attempt).await {
                Ok(applied) => applied,
                Err(error) => return Err(self.job_error_of(error).await),
            };
            for product_id in &applied.unknown {
                tracing::warn!(%product_id, "an event names an unknown product");
            }
            for OtherCurrency { product_id, competitor, currency } in &applied.in_other_currency {
                let currency = currency.code();
                tracing::warn!(%product_id, competitor, currency, "ignoring a competitor's price in another currency than the product's");
            }
            let metrics = &self.metrics.events;
            metrics.applied.increment(to_u64(applied.events));
            metrics.repeated.increment(to_u64(applied.repeated));
            metrics.unknown_products.increment(to_u64(applied.unknown.len()));
            metrics.in_other_currency.increment(to_u64(applied.in_other_currency.len()));
            tracing::debug!(events = count, changed = applied.changed, "applied events");
            for task_id in applied.requested_runs {
                self.enqueue_coordinator(task_id).await?;
            }
        }
        Ok(())
    }

    /// Enqueues a coordinator for a requested run. Does not wait for room in the queue, as coordinators that
    /// wait for this very job to finish may occupy all of it. They continue until no run is requested, and a
    /// request that one of them misses is [found](Self::find_abandoned_run) a moment later.
    async fn enqueue_coordinator(&self, task_id: String) -> Result<(), JobError> {
        let job = NewJob { task_id: format!("run:{task_id}"), job: Job::Run { task_id } };
        self.enqueue(&job).instrument(spans::send(JOBS, 1)).await.map(|_| ())
    }
}

/// Splits a batch into parts that name at most [`WRITE_BATCH`] products each, or consist of one event.
fn in_transactions(events: Vec<MarketEvent>) -> Vec<Vec<MarketEvent>> {
    let mut parts: Vec<Vec<MarketEvent>> = Vec::new();
    let mut products = 0;
    for event in events {
        let named = products_of(&event).len();
        match parts.last_mut() {
            Some(part) if products + named <= WRITE_BATCH => {
                products += named;
                part.push(event);
            }
            _ => {
                products = named;
                parts.push(vec![event]);
            }
        }
    }
    parts
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
