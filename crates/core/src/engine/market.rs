//! Applies market events: stores their facts and re-prices the products concerned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Batch, Engine, EngineError, EventMoves, PublishedPrice, detached};
use crate::cache::{Cached, PutMode};
use crate::store::{PriceChange, RunRequest, StoreTransaction, StoredFacts};
use pricing_domain::facts::market_event::{Change, MarketEvent};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::facts::signal::{Signal, Subject};
use pricing_domain::policy::PricingPolicy;

/// The result of applying a batch of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedEvents {
    /// The number of new events.
    pub events: usize,
    /// The number of events that had been applied before.
    pub repeated: usize,
    /// The number of list prices that changed.
    pub changed: usize,
    /// Unknown products named by events.
    pub unknown: Vec<ProductId>,
    /// Competitors' prices that are ignored because their currency is not the product's.
    pub in_other_currency: Vec<OtherCurrency>,
    /// The requested recalculations, new or not, which the caller must start.
    pub requested_runs: Vec<String>,
}

/// A competitor's price that is ignored because of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherCurrency {
    /// The product.
    pub product_id: ProductId,
    /// The competitor.
    pub competitor: String,
    /// The currency of the price.
    pub currency: Currency,
}

impl Engine {
    /// Stores the facts of events, re-prices the products concerned, and serves the prices. The facts, the
    /// prices, the history and the records of applied events are one transaction, so the operation is
    /// idempotent: redelivered events only store their prices in the caches again. Their changes are
    /// published again only if this is not the first attempt: the first one may have failed before it
    /// published them. A duplicate sent by the source is a separate delivery.
    ///
    /// The events may name at most [`WRITE_BATCH`](super::WRITE_BATCH) products. The work is completed even
    /// if the caller stops waiting.
    pub async fn apply_events(
        &self,
        events: Vec<MarketEvent>,
        published_at: Option<DateTime<Utc>>,
        is_first_attempt: bool,
    ) -> Result<AppliedEvents, EngineError> {
        let engine = self.clone();
        detached(async move { engine.apply_and_serve(&events, published_at, is_first_attempt).await }).await
    }

    async fn apply_and_serve(
        &self,
        events: &[MarketEvent],
        published_at: Option<DateTime<Utc>>,
        is_first_attempt: bool,
    ) -> Result<AppliedEvents, EngineError> {
        let mut transaction = self.store.begin().await?;
        let new = record(&mut transaction, events, self.clock.now()).await?;
        let requested_runs = request_runs(&mut transaction, events).await?;
        if new.iter().any(|event| matches!(event.change, Change::PolicyPublished { .. })) {
            self.policies.refresh().await?;
        }
        let causes = Arc::new(causes(events));
        let ids: Vec<ProductId> = causes.keys().cloned().collect();
        let moved: HashSet<ProductId> = new.iter().flat_map(|event| products_of(event)).collect();
        let moved = Arc::new(moved);
        let needs_price = {
            let moved = Arc::clone(&moved);
            move |facts: &StoredFacts, _: &PricingPolicy| moved.contains(&facts.product.product_id)
        };
        let cause = move |id: &ProductId| causes.get(id).cloned().unwrap_or_default();
        let batch = Batch::named_at_once(ids.clone());
        let published =
            self.price_in(&mut transaction, batch, EventMoves::Judged, needs_price, cause).await?;
        let in_other_currency = in_other_currency(&new, &published);
        let found: HashSet<ProductId> =
            published.iter().map(|published| published.product_id.clone()).collect();
        // An unchanged price is served already, unless these events were delivered before.
        let mut published: Vec<PublishedPrice> = published
            .into_iter()
            .filter(|published| published.is_written || !moved.contains(&published.product_id))
            .collect();
        let unknown: Vec<ProductId> = ids.iter().filter(|id| !found.contains(*id)).cloned().collect();
        if !unknown.is_empty() {
            transaction.drop_forgotten(&unknown).await?;
        }
        let unserved = transaction.commit_prices().await?;
        if !is_first_attempt {
            self.add_earlier_changes(&mut published).await?;
        }
        let changed =
            published.iter().filter(|published| published.is_written && published.change.is_some()).count();
        self.serve_since(published, PutMode::Insert, unserved, published_at).await?;
        if events.iter().any(acts_on_quotes) {
            self.notifications.announce_policy().await?;
        }
        Ok(AppliedEvents {
            events: new.len(),
            repeated: events.len() - new.len(),
            changed,
            unknown,
            in_other_currency,
            requested_runs,
        })
    }

    /// Adds the changes made by an earlier attempt: its worker may have died before it published them.
    async fn add_earlier_changes(&self, published: &mut [PublishedPrice]) -> Result<(), EngineError> {
        let earlier: Vec<ProductId> = published
            .iter()
            .filter(|published| !published.is_written)
            .map(|published| published.product_id.clone())
            .collect();
        if earlier.is_empty() {
            return Ok(());
        }
        let changes = self.store.newest_changes(&earlier).await?;
        let mut changes: HashMap<ProductId, PriceChange> =
            changes.into_iter().map(|change| (change.product_id.clone(), change)).collect();
        for published in published.iter_mut().filter(|published| !published.is_written) {
            let change = changes.remove(&published.product_id);
            published.change = change.filter(|change| change.revision == published.cached.revision());
        }
        Ok(())
    }
}

/// Records the events and stores the facts of the new ones, none of them in the future: until then, such a
/// fact would keep newer ones out. Returns the new ones.
async fn record<'a>(
    transaction: &mut StoreTransaction,
    events: &'a [MarketEvent],
    now: DateTime<Utc>,
) -> Result<Vec<&'a MarketEvent>, EngineError> {
    let ids: Vec<(&str, &str)> =
        events.iter().map(|event| (event.id.source.as_str(), event.id.id.as_str())).collect();
    let is_new = transaction.record_events(&ids, now).await?;
    let new = events.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(event, _)| event);
    let new: Vec<&MarketEvent> = new.collect();
    let signals: Vec<Signal> =
        new.iter().filter_map(|event| signal_of(event)).map(|signal| signal.clone().known_by(now)).collect();
    if !signals.is_empty() {
        transaction.put_signals(&signals).await?;
    }
    Ok(new)
}

/// Returns the competitors' prices in another currency than their product's. Those of unknown products are
/// not included, as their currency is not known yet.
fn in_other_currency(events: &[&MarketEvent], published: &[PublishedPrice]) -> Vec<OtherCurrency> {
    let said = events.iter().filter_map(|event| {
        let signal = signal_of(event)?;
        let (Subject::Product(name), Some(currency)) = (&signal.subject, signal.currency) else {
            return None;
        };
        Some((name.as_str(), signal, currency))
    });
    let said: Vec<(&str, &Signal, Currency)> = said.collect();
    if said.is_empty() {
        return Vec::new();
    }
    let priced = published.iter().filter_map(|published| match &published.cached {
        Cached::Priced(entry) => Some((entry.product_id.as_str(), entry)),
        Cached::Gone { .. } => None,
    });
    let entries: HashMap<&str, &Arc<PriceEntry>> = priced.collect();
    let refused = said.into_iter().filter_map(|(name, signal, currency)| {
        let entry = entries.get(name).filter(|entry| entry.currency != currency)?;
        let product_id = entry.product_id.clone();
        Some(OtherCurrency { product_id, competitor: signal.source.clone(), currency })
    });
    refused.collect()
}

/// Records the recalculations that the events request; returns their task identifiers.
async fn request_runs(
    transaction: &mut StoreTransaction,
    events: &[MarketEvent],
) -> Result<Vec<String>, EngineError> {
    let mut requested = Vec::new();
    for event in events {
        let Some(scope) = scope_of(event) else { continue };
        let request =
            RunRequest { task_id: event.task_id(), scope, requested_at: event.time, approved_by: None };
        transaction.request_run(&request).await?;
        requested.push(request.task_id);
    }
    Ok(requested)
}

/// Returns the products that events name, each with the last event that names it.
fn causes(events: &[MarketEvent]) -> BTreeMap<ProductId, String> {
    let named = events.iter().flat_map(|event| {
        let cause = format!("event {} of {}", event.id.id, event.id.source);
        products_of(event).into_iter().map(move |id| (id, cause.clone()))
    });
    named.collect()
}

/// Returns the products that an event names.
pub fn products_of(event: &MarketEvent) -> Vec<ProductId> {
    match &event.change {
        Change::Signal(Signal { subject: Subject::Product(name), .. }) => {
            ProductId::parse(name).into_iter().collect()
        }
        Change::CatalogueChanged { product_ids } => product_ids.clone(),
        _ => Vec::new(),
    }
}

fn signal_of(event: &MarketEvent) -> Option<&Signal> {
    match &event.change {
        Change::Signal(signal) => Some(signal),
        _ => None,
    }
}

/// Returns the scope of the recalculation that an event without products requires.
fn scope_of(event: &MarketEvent) -> Option<RecalculationScope> {
    match &event.change {
        Change::Signal(Signal { subject: Subject::Category(category), .. }) => {
            Some(RecalculationScope::Category(category.clone()))
        }
        Change::PolicyPublished { .. } => Some(RecalculationScope::All),
        Change::RecalculationRequested { scope } => Some(scope.clone()),
        _ => None,
    }
}

/// Whether an event affects quotes directly.
fn acts_on_quotes(event: &MarketEvent) -> bool {
    match &event.change {
        Change::Signal(signal) => matches!(signal.subject, Subject::Location(_)),
        Change::PolicyPublished { .. } => true,
        _ => false,
    }
}
