//! What is written. Signals and events go as JSON, so that any number of rows goes to either database as one argument
//! of one constant statement (SQLite reads it by `jsonb_each`, PostgreSQL by `json_to_recordset`). Products, prices and
//! their changes, of which there can be millions, go to SQLite as single values and to PostgreSQL as arrays: to quote
//! and unquote a row takes longer than to store it.
//!
//! The rows come out ordered by their key, so that two transactions lock them in the same order and cannot wait
//! for each other, and with each key once, which PostgreSQL's upsert demands.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use sqlx::error::BoxDynError;

use super::stored::{MAX_CAUSE_CHARS, PriceWrite};
use crate::domain::product::{Product, ProductId};
use crate::domain::signal::Signal;

/// The rows of `products`; of two with the same identifier the later one.
pub(super) fn product_rows(products: &[Product]) -> Vec<ProductRow<'_>> {
    let rows: BTreeMap<&str, ProductRow<'_>> =
        products.iter().map(|product| (product.product_id.as_str(), ProductRow::of(product))).collect();
    rows.into_values().collect()
}

/// The rows of `signals`; of two about the same thing the newer one, and of two of the same instant the first.
pub(super) fn signal_rows(signals: &[Signal]) -> Result<String, sqlx::Error> {
    let mut rows: BTreeMap<_, SignalRow<'_>> = BTreeMap::new();
    for row in signals.iter().map(SignalRow::of) {
        let key = (row.subject_kind, row.subject, row.kind, row.source);
        let known = rows.get(&key).map(|known| known.observed_at);
        if known.is_none_or(|known| known < row.observed_at) {
            rows.insert(key, row);
        }
    }
    as_json(rows.values())
}

/// The keys of `applied_events`.
pub(super) fn event_rows(events: &[(&str, &str)]) -> Result<String, sqlx::Error> {
    let keys: BTreeSet<_> = events.iter().collect();
    as_json(keys.into_iter().map(|(source, event_id)| EventRow { source, event_id }))
}

/// The rows of `prices`; of two of the same product the newer one.
pub(super) fn price_rows(writes: &[PriceWrite]) -> Vec<PriceRow<'_>> {
    newest(writes).into_iter().map(PriceRow::of).collect()
}

/// The rows of `price_changes`: the writes that change a list price. Most recalculations find few.
pub(super) fn change_rows(writes: &[PriceWrite]) -> Vec<ChangeRow<'_>> {
    newest(writes)
        .into_iter()
        .filter(|write| write.previous_list_price != Some(write.entry.list_price))
        .map(ChangeRow::of)
        .collect()
}

/// A list of texts as JSON.
pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<String, sqlx::Error> {
    as_json(texts)
}

/// An instant as SQLite keeps it: microseconds, as PostgreSQL has them, and a width that sorts as time.
pub(super) fn instant(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A number of rows, as databases count.
pub(super) fn row_count(count: impl TryInto<i64, Error: Into<BoxDynError>>) -> Result<i64, sqlx::Error> {
    count.try_into().map_err(|problem| sqlx::Error::Encode(problem.into()))
}

/// A cause of at most [`MAX_CAUSE_CHARS`].
pub(super) fn bounded_cause(cause: &str) -> &str {
    bounded(cause, MAX_CAUSE_CHARS)
}

/// The beginning of a text, of at most so many characters.
pub(super) fn bounded(text: &str, max_chars: usize) -> &str {
    let end = text.char_indices().nth(max_chars);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

fn newest(writes: &[PriceWrite]) -> Vec<&PriceWrite> {
    let is_in_order = writes.is_sorted_by(|one, next| one.entry.product_id < next.entry.product_id);
    if is_in_order {
        return writes.iter().collect();
    }
    let mut newest: BTreeMap<&ProductId, &PriceWrite> = BTreeMap::new();
    for write in writes {
        let kept = newest.entry(&write.entry.product_id).or_insert(write);
        if kept.entry.revision < write.entry.revision {
            *kept = write;
        }
    }
    newest.into_values().collect()
}

/// Rows as one JSON array.
pub(super) fn as_json<R: Serialize>(rows: impl IntoIterator<Item = R>) -> Result<String, sqlx::Error> {
    let mut json = Vec::new();
    serde_json::Serializer::new(&mut json)
        .collect_seq(rows)
        .map_err(|problem| sqlx::Error::Encode(problem.into()))?;
    String::from_utf8(json).map_err(|problem| sqlx::Error::Encode(problem.into()))
}

/// One value as JSON.
pub(super) fn as_json_object(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|problem| sqlx::Error::Encode(problem.into()))
}

fn as_instant<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&self::instant(*instant))
}

fn as_optional_instant<S: Serializer>(
    instant: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    instant.map(self::instant).serialize(serializer)
}

// A `Decimal` serialises as a string with its digits, which neither database's JSON reader can round.

/// A row of `products`.
#[derive(Serialize)]
pub(super) struct ProductRow<'a> {
    pub(super) product_id: &'a str,
    pub(super) name: &'a str,
    pub(super) category: Option<&'a str>,
    pub(super) brand: Option<&'a str>,
    pub(super) currency: &'static str,
    pub(super) base_price: Decimal,
    pub(super) unit_cost: Option<Decimal>,
    pub(super) floor_price: Option<Decimal>,
    pub(super) ceiling_price: Option<Decimal>,
    pub(super) minimum_advertised_price: Option<Decimal>,
    pub(super) attributes: &'a BTreeMap<String, String>,
}

impl<'a> ProductRow<'a> {
    fn of(product: &'a Product) -> Self {
        Self {
            product_id: product.product_id.as_str(),
            name: &product.name,
            category: product.category.as_deref(),
            brand: product.brand.as_deref(),
            currency: product.currency.code(),
            base_price: product.base_price,
            unit_cost: product.unit_cost,
            floor_price: product.floor_price,
            ceiling_price: product.ceiling_price,
            minimum_advertised_price: product.minimum_advertised_price,
            attributes: &product.attributes,
        }
    }
}

#[derive(Serialize)]
struct SignalRow<'a> {
    subject_kind: &'static str,
    subject: &'a str,
    kind: &'static str,
    source: &'a str,
    value: Decimal,
    in_stock: Option<bool>,
    #[serde(serialize_with = "as_instant")]
    observed_at: DateTime<Utc>,
}

impl<'a> SignalRow<'a> {
    fn of(signal: &'a Signal) -> Self {
        let (subject_kind, subject) = signal.subject.parts();
        Self {
            subject_kind,
            subject,
            kind: signal.kind.name(),
            source: &signal.source,
            value: signal.value,
            in_stock: signal.in_stock,
            observed_at: signal.observed_at,
        }
    }
}

#[derive(Serialize)]
struct EventRow<'a> {
    source: &'a str,
    event_id: &'a str,
}

/// A row of `prices`.
#[derive(Serialize)]
pub(super) struct PriceRow<'a> {
    pub(super) product_id: &'a str,
    pub(super) revision: i64,
    pub(super) category: Option<&'a str>,
    pub(super) currency: &'static str,
    pub(super) base_price: Decimal,
    pub(super) list_price: Decimal,
    pub(super) lowest: Option<Decimal>,
    pub(super) highest: Option<Decimal>,
    pub(super) policy_version: i64,
    #[serde(serialize_with = "as_optional_instant")]
    pub(super) valid_until: Option<DateTime<Utc>>,
    pub(super) opening_price: Decimal,
    pub(super) opened_on: NaiveDate,
    #[serde(serialize_with = "as_optional_instant")]
    pub(super) changed_at: Option<DateTime<Utc>>,
    pub(super) streak_moves: Option<i32>,
    #[serde(serialize_with = "as_optional_instant")]
    pub(super) streak_since: Option<DateTime<Utc>>,
    #[serde(serialize_with = "as_instant")]
    pub(super) priced_at: DateTime<Utc>,
    pub(super) explanation: &'a str,
}

impl<'a> PriceRow<'a> {
    fn of(write: &'a PriceWrite) -> Self {
        let entry = &write.entry;
        Self {
            product_id: entry.product_id.as_str(),
            revision: entry.revision,
            category: entry.category.as_deref(),
            currency: entry.currency.code(),
            base_price: entry.base_price,
            list_price: entry.list_price,
            lowest: entry.lowest,
            highest: entry.highest,
            policy_version: entry.policy_version,
            valid_until: entry.valid_until,
            opening_price: write.opening_price,
            opened_on: write.opened_on,
            changed_at: write.changed_at,
            streak_moves: write.streak.map(|streak| streak.moves),
            streak_since: write.streak.map(|streak| streak.since),
            priced_at: write.priced_at,
            explanation: &write.explanation,
        }
    }
}

/// A row of `price_changes`.
#[derive(Serialize)]
pub(super) struct ChangeRow<'a> {
    pub(super) product_id: &'a str,
    pub(super) revision: i64,
    pub(super) old_list_price: Option<Decimal>,
    pub(super) new_list_price: Decimal,
    pub(super) currency: &'static str,
    pub(super) policy_version: i64,
    pub(super) cause: &'a str,
    #[serde(serialize_with = "as_instant")]
    pub(super) changed_at: DateTime<Utc>,
}

impl<'a> ChangeRow<'a> {
    fn of(write: &'a PriceWrite) -> Self {
        Self {
            product_id: write.entry.product_id.as_str(),
            revision: write.entry.revision,
            old_list_price: write.previous_list_price,
            new_list_price: write.entry.list_price,
            currency: write.entry.currency.code(),
            policy_version: write.entry.policy_version,
            cause: bounded_cause(&write.cause),
            changed_at: write.priced_at,
        }
    }
}
