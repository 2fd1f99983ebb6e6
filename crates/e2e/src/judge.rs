//! Compares what the engine made of a [`market`](crate::market) with the events alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use chrono::{DateTime, Utc};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::store::{PriceChange, Store};
use pricing_domain::facts::Facts;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::signal::{Signal, Signals};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::price::price;
use redis::aio::MultiplexedConnection;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::eventually::eventually;
use crate::http_client::{HttpClient, HttpReply};
use crate::market::{BOUNDS, EVENT_SOURCE, POLICY, Published, product_id};

/// Events looked up in one transaction.
const LOOKED_UP: usize = 2_000;

/// The store, and the events that were acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The database of the services.
    pub store: &'a Store,
    /// Every acknowledged event.
    pub events: &'a [Published],
    /// The number of the market's products.
    pub products: usize,
}

impl Judge<'_> {
    /// Returns the places in `events` of those that were not applied.
    pub async fn lost(&self) -> Result<Vec<usize>> {
        let mut is_lost = Vec::with_capacity(self.events.len());
        for events in self.events.chunks(LOOKED_UP) {
            let ids: Vec<(&str, &str)> =
                events.iter().map(|event| (EVENT_SOURCE, event.id.as_str())).collect();
            // Never committed. Of one that was published twice, the first says whether it is lost.
            let mut transaction = self.store.begin().await?;
            is_lost.extend(transaction.record_events(&ids, Utc::now()).await?);
        }
        Ok(is_lost.iter().enumerate().filter(|(_, is_lost)| **is_lost).map(|(place, _)| place).collect())
    }

    /// Every acknowledged event was applied.
    pub async fn events_were_applied(&self) -> Result<()> {
        let lost = self.lost().await?.len();
        ensure!(lost == 0, "{lost} of {} acknowledged events were not applied", self.events.len());
        Ok(())
    }

    /// The signals of the events, as the store has them.
    pub async fn signals_are_those_of_the_events(&self) -> Result<()> {
        let mut expected = self.newest_signals();
        for number in 0..self.products {
            let id = product_id(number)?;
            let product = self.store.product(&id).await?.context("no product")?;
            let expected = expected.remove(id.as_str()).unwrap_or_default();
            let expected = Signals::of_product(expected, Some(&product), Utc::now());
            let stored = self.store.signals(&id, Utc::now()).await?;
            ensure!(stored == expected, "{id}: {stored:?}, expected {expected:?}");
        }
        Ok(())
    }

    /// Each stored price is the one that the events give.
    pub async fn prices_are_those_of_the_events(&self) -> Result<()> {
        let policy = PricingPolicy::from_yaml(POLICY, 1, &TimeZones::bundled())
            .map_err(|problems| anyhow!("{problems:?}"))?;
        let mut expected = self.newest_signals();
        for number in 0..self.products {
            let id = product_id(number)?;
            let product = self.store.product(&id).await?.context("no product")?;
            let signals = expected.remove(id.as_str()).unwrap_or_default();
            let signals = Signals::of_product(signals, Some(&product), Utc::now());
            let facts = Facts { product: &product, signals: &signals, previous: None };
            let expected = price(&facts, &policy, Utc::now()).amount;
            let entry = self.store.stored_price(&id).await?.context("no price")?.entry;
            ensure!(
                entry.list_price == expected,
                "{id} costs {}, expected {expected} from {signals:?}",
                entry.list_price
            );
        }
        Ok(())
    }

    /// The newest signal of each kind and source, by product.
    fn newest_signals(&self) -> HashMap<String, Vec<Signal>> {
        let mut newest: BTreeMap<(String, &'static str, String), &Signal> = BTreeMap::new();
        for signal in self.events.iter().map(|event| &event.signal) {
            let (_, subject) = signal.subject.parts();
            let kept = newest
                .entry((subject.to_owned(), signal.kind.name(), signal.source.clone()))
                .or_insert(signal);
            if kept.observed_at < signal.observed_at {
                *kept = signal;
            }
        }
        let mut by_product: HashMap<String, Vec<Signal>> = HashMap::new();
        for ((subject, _, _), signal) in newest {
            by_product.entry(subject).or_default().push(signal.clone());
        }
        by_product
    }

    /// The history of each product has no gap, no duplicate and no price outside its bounds.
    pub async fn history_is_whole(&self) -> Result<()> {
        for number in 0..self.products {
            let id = product_id(number)?;
            let mut changes = self.store.price_changes(&id, u32::MAX >> 1).await?;
            changes.reverse();
            let current = self.store.stored_price(&id).await?.context("no price")?.entry;
            check_history(&changes, current.list_price).with_context(|| format!("{id}: {changes:#?}"))?;
        }
        Ok(())
    }

    /// The prices that are stored now.
    pub async fn stored_prices(&self) -> Result<Vec<PriceEntry>> {
        let ids: Vec<ProductId> = (0..self.products).map(product_id).collect::<Result<_>>()?;
        let stored = self.store.stored_prices(&ids).await?;
        ensure!(stored.len() == ids.len(), "{} of {} products have a price", stored.len(), ids.len());
        Ok(stored.into_iter().map(|price| price.entry).collect())
    }

    /// Each of these APIs serves what the database holds. Nothing may change meanwhile.
    pub async fn served_prices_are_the_stored_ones(&self, apis: &[&HttpClient]) -> Result<()> {
        for stored in self.stored_prices().await? {
            for api in apis {
                let served = served(api, &stored.product_id).await?;
                ensure!(served == Served::of(&stored), "served {served:?}, stored {stored:?}");
            }
        }
        Ok(())
    }

    /// No API serves a price older than these, which were stored some time ago.
    pub async fn no_price_is_older(&self, apis: &[&HttpClient], stored: &[PriceEntry]) -> Result<()> {
        for stored in stored {
            for api in apis {
                let served = served(api, &stored.product_id).await?;
                let is_as_new = served.revision > stored.revision || served == Served::of(stored);
                ensure!(is_as_new, "{}: served {served:?}, stored before {stored:?}", stored.product_id);
            }
        }
        Ok(())
    }
}

/// The part of a served price that can be compared with a stored one.
#[derive(Debug, PartialEq, Eq)]
struct Served {
    revision: i64,
    /// The list price: the market's policy has no offers.
    price: Decimal,
}

impl Served {
    fn of(stored: &PriceEntry) -> Self {
        Self { revision: stored.revision, price: stored.list_price.normalize() }
    }
}

async fn served(api: &HttpClient, id: &ProductId) -> Result<Served> {
    let reply = api.price(id.as_str(), "NY", false).await?;
    let revision = reply.body.get("revision").and_then(Value::as_i64);
    let price = served_price(&reply);
    let (revision, price) =
        revision.zip(price).with_context(|| format!("{id} has no price: {} {}", reply.status, reply.text))?;
    Ok(Served { revision, price: price.normalize() })
}

/// The price in an answer, to a shopper to whom no offer applies. Older versions do not name the list price.
pub(crate) fn served_price(reply: &HttpReply) -> Option<Decimal> {
    reply.body.get("final_price")?.to_string().parse().ok()
}

/// Waits until no event and no job is outstanding; then none may be dead.
pub async fn come_to_rest(
    connection: &mut MultiplexedConnection,
    api: &HttpClient,
    patience: Duration,
) -> Result<()> {
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    eventually("nothing is left to do", patience, async || {
        let groups: Vec<HashMap<String, redis::Value>> =
            redis::cmd("XINFO").arg("GROUPS").arg(keys.event_log()).query_async(connection).await?;
        for group in &groups {
            for field in ["pending", "lag"] {
                let value = group.get(field).context("no such field")?;
                ensure!(*value == redis::Value::Int(0), "{field} is {value:?}");
            }
        }
        let jobs = jobs(api).await?;
        ensure!(jobs.get("outstanding").and_then(Value::as_u64) == Some(0), "{jobs}");
        Ok(())
    })
    .await?;
    let dead: usize = redis::cmd("XLEN").arg(keys.dead_events()).query_async(connection).await?;
    ensure!(dead == 0, "{dead} messages are dead");
    let jobs = jobs(api).await?;
    ensure!(jobs.get("dead").and_then(Value::as_u64) == Some(0), "jobs are dead: {jobs}");
    Ok(())
}

async fn jobs(api: &HttpClient) -> Result<Value> {
    let reply = api.get("/api/v1/jobs").await?;
    ensure!(reply.status == 200, "{}", reply.text);
    Ok(reply.body)
}

fn check_history(changes: &[PriceChange], current: Decimal) -> Result<()> {
    let (floor, ceiling) = BOUNDS;
    let mut before: Option<Decimal> = None;
    let mut last: Option<(i64, DateTime<Utc>)> = None;
    for change in changes {
        ensure!(change.old_list_price == before, "a gap at revision {}", change.revision);
        ensure!(change.new_list_price != before, "a duplicate at revision {}", change.revision);
        ensure!(last.is_none_or(|(revision, _)| revision < change.revision), "revisions go back");
        let amount = change.new_list_price.context("it was removed")?;
        ensure!((floor.into()..=ceiling.into()).contains(&amount), "{amount} is outside the guardrails");
        before = change.new_list_price;
        last = Some((change.revision, change.changed_at));
    }
    ensure!(before == Some(current), "the history ends with {before:?}, the price is {current}");
    Ok(())
}
