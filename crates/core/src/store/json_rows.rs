//! Rows encoded as JSON: signals and events, so that any number of rows is one argument of one constant
//! statement (SQLite reads it by `jsonb_each`, PostgreSQL by `json_to_recordset`). Products and prices, of
//! which there can be millions, are sent as values (`prepared_rows`, `prepared`): encoding and decoding a row
//! as JSON takes longer than storing it.
//!
//! The rows are ordered by their key, so that two transactions lock them in the same order and cannot
//! deadlock, and each key occurs once, which PostgreSQL's upsert requires.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use sqlx::error::BoxDynError;

use super::stored::MAX_CAUSE_CHARS;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::signal::Signal;

/// Encodes rows of `signals`. Of two with the same key the newer one is kept, and of two of the same instant
/// the first.
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

/// Encodes keys of `applied_events`.
pub(super) fn event_rows(events: &[(&str, &str)]) -> Result<String, sqlx::Error> {
    let keys: BTreeSet<_> = events.iter().collect();
    as_json(keys.into_iter().map(|(source, event_id)| EventRow { source, event_id }))
}

/// Encodes a list of texts.
pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<String, sqlx::Error> {
    as_json(texts)
}

/// Formats an instant as SQLite stores it: in microseconds, like PostgreSQL, and with a fixed width, so that
/// text order is time order.
pub(super) fn instant(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Converts a number of rows to the databases' integer type.
pub(super) fn row_count(count: impl TryInto<i64, Error: Into<BoxDynError>>) -> Result<i64, sqlx::Error> {
    count.try_into().map_err(|problem| sqlx::Error::Encode(problem.into()))
}

/// Truncates a cause to [`MAX_CAUSE_CHARS`].
pub(super) fn bounded_cause(cause: &str) -> &str {
    bounded(cause, MAX_CAUSE_CHARS)
}

/// Truncates a text to `max_chars` characters.
pub(super) fn bounded(text: &str, max_chars: usize) -> &str {
    let end = text.char_indices().nth(max_chars);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Encodes rows as one JSON array.
pub(super) fn as_json<R: Serialize>(rows: impl IntoIterator<Item = R>) -> Result<String, sqlx::Error> {
    let mut json = Vec::new();
    serde_json::Serializer::new(&mut json)
        .collect_seq(rows)
        .map_err(|problem| sqlx::Error::Encode(problem.into()))?;
    String::from_utf8(json).map_err(|problem| sqlx::Error::Encode(problem.into()))
}

pub(super) fn as_instant<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&self::instant(*instant))
}

fn as_optional_instant<S: Serializer>(
    instant: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match instant {
        Some(instant) => as_instant(instant, serializer),
        None => serializer.serialize_none(),
    }
}

// A `Decimal` serialises as a string of its digits, which no database's JSON parser rounds.

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
    currency: Option<&'static str>,
    #[serde(serialize_with = "as_optional_instant")]
    expires_at: Option<DateTime<Utc>>,
    event_source: Option<&'a str>,
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
            currency: signal.currency.map(Currency::code),
            expires_at: signal.expires_at,
            event_source: signal.event_source.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct EventRow<'a> {
    source: &'a str,
    event_id: &'a str,
}
