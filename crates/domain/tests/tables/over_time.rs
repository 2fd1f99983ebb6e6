//! The form of golden tables over time: the domain prices them, and so do real processes in `pricing-e2e`.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, ParseError, Utc};
use serde::Deserialize;

/// The day of an instant that names none: a Monday.
pub(crate) const DAY: &str = "2026-11-23";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) about: String,
    pub(crate) product: BTreeMap<String, String>,
    pub(crate) policies: BTreeMap<String, String>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) acts: Vec<Act>,
    /// Until when the price is followed.
    pub(crate) end: String,
    #[serde(default)]
    pub(crate) prices: Vec<String>,
}

/// What happens at one instant, all at once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// `12:00`, `12:00:01.5` or `24 00:00`, the 24th.
    pub(crate) at: String,
    /// Fields of the product; an empty one is removed.
    #[serde(default)]
    pub(crate) product: BTreeMap<String, String>,
    /// One of the table's policies.
    pub(crate) policy: Option<String>,
    /// Prices of competitors; an empty one is withdrawn.
    #[serde(default)]
    pub(crate) competitors: BTreeMap<String, String>,
    pub(crate) demand: Option<String>,
    pub(crate) stock: Option<String>,
    pub(crate) cost: Option<String>,
    #[serde(default)]
    pub(crate) release: bool,
}

/// The instant of an act, of a price or of an end.
pub(crate) fn instant(written: &str) -> Result<DateTime<Utc>, ParseError> {
    let text = match written.split_once(' ') {
        Some((day, time)) => format!("2026-11-{day}T{time}"),
        None => format!("{DAY}T{written}"),
    };
    let text = if text.matches(':').count() == 1 { format!("{text}:00") } else { text };
    Ok(NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f")?.and_utc())
}
