//! Decodes rows: the records that both databases return, and the domain's values decoded from them.
//!
//! Amounts come as text, from PostgreSQL by a cast: the driver's own conversion of NUMERIC loses the decimal
//! places of a zero. Every record was checked before it was written, so an unreadable value means damaged
//! data or data of a newer program; it is an error, never skipped.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::types::Json;

use super::columns::Columns;
use super::error::StoreError;
use super::stored::{EventHold, FROZEN, LeftOut, PriceChange, Readable, StoredPrice};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::movement::Movement;
use pricing_domain::facts::previous::Streak;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use pricing_domain::pricing::price_state::PriceState;

/// A price and its movement are of one pricing if their instants differ by less: databases cut them off.
const SAME_PRICING: TimeDelta = TimeDelta::milliseconds(1);

/// Decodes the records of a statement.
pub(super) fn read_all<R, T>(records: Vec<R>) -> Result<Vec<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    records.into_iter().map(T::try_from).collect()
}

/// The products of these records, without those in a currency unknown to this program.
pub(super) fn read_products(records: Vec<ProductRecord>) -> Result<Readable<Product>, StoreError> {
    let mut products = Readable { known: Vec::with_capacity(records.len()), left_out: Vec::new() };
    for record in records {
        match Product::try_from(record) {
            Ok(product) => products.known.push(product),
            Err(StoreError::UnknownCurrency { left_out }) => products.left_out.push(left_out),
            Err(other) => return Err(other),
        }
    }
    Ok(products)
}

/// The prices of these records, without those in a currency unknown to this program: their products are
/// priced as if they had no earlier price.
pub(super) fn read_prices(
    records: impl IntoIterator<Item = PriceRecord>,
) -> Result<Vec<StoredPrice>, StoreError> {
    let known = records.into_iter().filter(|record| Currency::from_code(&record.currency).is_ok());
    known.map(StoredPrice::try_from).collect()
}

/// The signals of these records, without those in a currency unknown to this program, as it cannot be their
/// product's.
pub(super) fn read_signals(
    records: impl IntoIterator<Item = SignalRecord>,
) -> Result<Vec<Signal>, StoreError> {
    let is_known = |code: &String| Currency::from_code(code).is_ok();
    let known = records.into_iter().filter(|record| record.currency.as_ref().is_none_or(is_known));
    known.map(Signal::try_from).collect()
}

/// The identifiers in rows of one column.
pub(super) fn product_ids(rows: &[(String,)]) -> Result<Vec<ProductId>, StoreError> {
    rows.iter().map(|(text,)| product_id(text)).collect()
}

/// The identifiers in a JSON array of texts.
pub(super) fn product_ids_of_json(json: &str) -> Result<Vec<ProductId>, StoreError> {
    let texts: Vec<String> =
        serde_json::from_str(json).map_err(|problem| StoreError::corrupt("product_ids", problem))?;
    texts.iter().map(|text| product_id(text)).collect()
}

/// The location factors, from pairs of name and value; of two of the same location the later one is kept.
pub(super) fn location_factors(rows: Vec<(String, String)>) -> Result<HashMap<String, Decimal>, StoreError> {
    rows.into_iter().map(|(location, factor)| Ok((location, decimal("location factor", &factor)?))).collect()
}

/// The currencies of products, from pairs of identifier and code; `None` for a code unknown to this program.
pub(super) fn read_currencies(
    rows: Vec<(String, String)>,
) -> Result<HashMap<ProductId, Option<Currency>>, StoreError> {
    rows.into_iter().map(|(id, code)| Ok((product_id(&id)?, Currency::from_code(&code).ok()))).collect()
}

/// A count, which is never negative.
pub(super) fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|problem| StoreError::corrupt("count", problem))
}

/// Returns which events were new, given the keys of the new ones; of duplicates only the first is.
pub(super) fn which_are_new(events: &[(&str, &str)], new: &[(String, String)]) -> Vec<bool> {
    let mut new: HashSet<(&str, &str)> =
        new.iter().map(|(source, event_id)| (source.as_str(), event_id.as_str())).collect();
    events.iter().map(|event| new.remove(event)).collect()
}

/// A row of `products`.
#[derive(Debug, Deserialize)]
pub(super) struct ProductRecord {
    product_id: String,
    name: String,
    category: Option<String>,
    brand: Option<String>,
    currency: String,
    base_price: String,
    unit_cost: Option<String>,
    floor_price: Option<String>,
    ceiling_price: Option<String>,
    minimum_advertised_price: Option<String>,
    attributes: Json<BTreeMap<String, String>>,
    cost_stated_at: Option<DateTime<Utc>>,
}

impl<'row, R: Columns> FromRow<'row, R> for ProductRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            product_id: row.value("product_id")?,
            name: row.value("name")?,
            category: row.value("category")?,
            brand: row.value("brand")?,
            currency: row.value("currency")?,
            base_price: row.value("base_price")?,
            unit_cost: row.value("unit_cost")?,
            floor_price: row.value("floor_price")?,
            ceiling_price: row.value("ceiling_price")?,
            minimum_advertised_price: row.value("minimum_advertised_price")?,
            attributes: row.value("attributes")?,
            cost_stated_at: row.value("cost_stated_at")?,
        })
    }
}

impl TryFrom<ProductRecord> for Product {
    type Error = StoreError;

    fn try_from(record: ProductRecord) -> Result<Self, StoreError> {
        let product_id = product_id(&record.product_id)?;
        let Ok(currency) = Currency::from_code(&record.currency) else {
            let left_out = LeftOut { product_id, currency: record.currency };
            return Err(StoreError::UnknownCurrency { left_out });
        };
        Ok(Self {
            product_id,
            name: record.name,
            category: record.category,
            brand: record.brand,
            currency,
            base_price: decimal("base_price", &record.base_price)?,
            unit_cost: optional_decimal("unit_cost", record.unit_cost.as_deref())?,
            floor_price: optional_decimal("floor_price", record.floor_price.as_deref())?,
            ceiling_price: optional_decimal("ceiling_price", record.ceiling_price.as_deref())?,
            minimum_advertised_price: optional_decimal(
                "minimum_advertised_price",
                record.minimum_advertised_price.as_deref(),
            )?,
            attributes: record.attributes.0,
            cost_stated_at: record.cost_stated_at,
        })
    }
}

/// A row of `signals`.
#[derive(Debug, Deserialize)]
pub(super) struct SignalRecord {
    subject_kind: String,
    subject: String,
    kind: String,
    source: String,
    value: String,
    in_stock: Option<bool>,
    observed_at: DateTime<Utc>,
    currency: Option<String>,
    expires_at: Option<DateTime<Utc>>,
    event_source: Option<String>,
}

impl<'row, R: Columns> FromRow<'row, R> for SignalRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            subject_kind: row.value("subject_kind")?,
            subject: row.value("subject")?,
            kind: row.value("kind")?,
            source: row.value("source")?,
            value: row.value("value")?,
            in_stock: row.value("in_stock")?,
            observed_at: row.value("observed_at")?,
            currency: row.value("currency")?,
            expires_at: row.value("expires_at")?,
            event_source: row.value("event_source")?,
        })
    }
}

impl TryFrom<SignalRecord> for Signal {
    type Error = StoreError;

    fn try_from(record: SignalRecord) -> Result<Self, StoreError> {
        let subject = match record.subject_kind.as_str() {
            "product" => Subject::Product(record.subject),
            "category" => Subject::Category(record.subject),
            "location" => Subject::Location(record.subject),
            unknown => return Err(StoreError::corrupt("subject_kind", unknown)),
        };
        let kind = SignalKind::ALL.into_iter().find(|kind| kind.name() == record.kind);
        Ok(Self {
            subject,
            kind: kind.ok_or_else(|| StoreError::corrupt("kind of signal", record.kind))?,
            source: record.source,
            value: decimal("value of a signal", &record.value)?,
            in_stock: record.in_stock,
            observed_at: record.observed_at,
            currency: record.currency.as_deref().map(currency).transpose()?,
            expires_at: record.expires_at,
            event_source: record.event_source,
        })
    }
}

/// A row of `prices`, with the explanation only where the price may have to catch up.
#[derive(Debug, Deserialize)]
pub(super) struct PriceRecord {
    product_id: String,
    revision: i64,
    category: Option<String>,
    currency: String,
    base_price: String,
    list_price: String,
    lowest: Option<String>,
    highest: Option<String>,
    policy_version: i64,
    valid_until: Option<DateTime<Utc>>,
    opening_price: String,
    opened_on: NaiveDate,
    changed_at: Option<DateTime<Utc>>,
    streak_moves: Option<i32>,
    streak_since: Option<DateTime<Utc>>,
    explanation_digest: Option<i64>,
    movement: Option<String>,
    events_held_since: Option<DateTime<Utc>>,
    events_held_reason: Option<String>,
    events_rejected_by: Option<String>,
    priced_at: DateTime<Utc>,
    held_by: Option<String>,
    explanation: Option<String>,
}

impl<'row, R: Columns> FromRow<'row, R> for PriceRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            product_id: row.value("product_id")?,
            revision: row.value("revision")?,
            category: row.value("category")?,
            currency: row.value("currency")?,
            base_price: row.value("base_price")?,
            list_price: row.value("list_price")?,
            lowest: row.value("lowest")?,
            highest: row.value("highest")?,
            policy_version: row.value("policy_version")?,
            valid_until: row.value("valid_until")?,
            opening_price: row.value("opening_price")?,
            opened_on: row.value("opened_on")?,
            changed_at: row.value("changed_at")?,
            streak_moves: row.value("streak_moves")?,
            streak_since: row.value("streak_since")?,
            explanation_digest: row.value("explanation_digest")?,
            movement: row.value("movement")?,
            events_held_since: row.value("events_held_since")?,
            events_held_reason: row.value("events_held_reason")?,
            events_rejected_by: row.value("events_rejected_by")?,
            priced_at: row.value("priced_at")?,
            held_by: row.value("held_by")?,
            explanation: row.value("explanation")?,
        })
    }
}

impl TryFrom<PriceRecord> for StoredPrice {
    type Error = StoreError;

    fn try_from(record: PriceRecord) -> Result<Self, StoreError> {
        let list_price = decimal("list_price", &record.list_price)?;
        let movement = record.movement.as_deref().map(serde_json::from_str::<Movement<'static>>).transpose();
        let movement = movement.map_err(|problem| StoreError::corrupt("movement", problem))?;
        // An older version that works on these tables replaces the price and leaves the columns that it does
        // not know: they say nothing of this price.
        let is_of_this_price = movement.as_ref().is_none_or(|movement| {
            record.held_by.as_deref() == Some(FROZEN) || record.priced_at - movement.priced_at < SAME_PRICING
        });
        let event_hold = record.events_held_since.map(|since| EventHold {
            since,
            reason: record.events_held_reason.unwrap_or_default(),
            rejected_by: record.events_rejected_by,
        });
        Ok(Self {
            entry: PriceEntry {
                product_id: product_id(&record.product_id)?,
                category: record.category.map(Arc::from),
                currency: currency(&record.currency)?,
                base_price: decimal("base_price", &record.base_price)?,
                list_price,
                lowest: optional_decimal("lowest", record.lowest.as_deref())?,
                highest: optional_decimal("highest", record.highest.as_deref())?,
                policy_version: record.policy_version,
                revision: record.revision,
                valid_until: record.valid_until,
            },
            state: PriceState {
                list_price,
                valid_until: record.valid_until,
                opening_price: decimal("opening_price", &record.opening_price)?,
                opened_on: record.opened_on,
                changed_at: record.changed_at,
                streak: record
                    .streak_moves
                    .zip(record.streak_since)
                    .map(|(moves, since)| Streak { moves, since }),
                movement: movement.filter(|_| is_of_this_price),
            },
            explanation: record.explanation,
            explanation_digest: record.explanation_digest.filter(|_| is_of_this_price),
            event_hold: event_hold.filter(|_| is_of_this_price),
        })
    }
}

/// A row of `price_changes`.
#[derive(Debug)]
pub(super) struct ChangeRecord {
    product_id: String,
    revision: i64,
    old_list_price: Option<String>,
    new_list_price: Option<String>,
    currency: String,
    policy_version: i64,
    cause: String,
    changed_at: DateTime<Utc>,
}

impl<'row, R: Columns> FromRow<'row, R> for ChangeRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            product_id: row.value("product_id")?,
            revision: row.value("revision")?,
            old_list_price: row.value("old_list_price")?,
            new_list_price: row.value("new_list_price")?,
            currency: row.value("currency")?,
            policy_version: row.value("policy_version")?,
            cause: row.value("cause")?,
            changed_at: row.value("changed_at")?,
        })
    }
}

impl TryFrom<ChangeRecord> for PriceChange {
    type Error = StoreError;

    fn try_from(record: ChangeRecord) -> Result<Self, StoreError> {
        Ok(Self {
            revision: record.revision,
            product_id: product_id(&record.product_id)?,
            old_list_price: optional_decimal("old_list_price", record.old_list_price.as_deref())?,
            new_list_price: optional_decimal("new_list_price", record.new_list_price.as_deref())?,
            currency: Currency::from_code(&record.currency)
                .map_or(Cow::Owned(record.currency), |known| Cow::Borrowed(known.code())),
            policy_version: record.policy_version,
            cause: record.cause,
            changed_at: record.changed_at,
        })
    }
}

pub(super) fn product_id(text: &str) -> Result<ProductId, StoreError> {
    ProductId::parse(text).map_err(|problem| StoreError::corrupt("product_id", problem))
}

fn currency(text: &str) -> Result<Currency, StoreError> {
    Currency::from_code(text).map_err(|problem| StoreError::corrupt("currency", problem))
}

pub(super) fn decimal(column: &str, text: &str) -> Result<Decimal, StoreError> {
    Decimal::from_str_exact(text)
        .map_err(|problem| StoreError::corrupt(column, format_args!("\"{text}\", {problem}")))
}

fn optional_decimal(column: &str, text: Option<&str>) -> Result<Option<Decimal>, StoreError> {
    text.map(|text| decimal(column, text)).transpose()
}
