//! Market events: notifications of changed facts, as written ([`EventDraft`]) and as checked
//! ([`MarketEvent`]).
//!
//! An event is a CloudEvent 1.0 in its JSON form (<https://github.com/cloudevents/spec>, section "JSON Event
//! Format"). Its `source` and `id` together identify it: a duplicate has no further effect. Reading and
//! checking are here; writing is in `event_json`.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::diagnostic::{Diagnostic, shorten};
use crate::facts::instant;
use crate::facts::money::{Currency, parse_amount};
use crate::facts::product::{MAX_LABEL_CHARS, ProductId, WrittenNumber, trimmed};
use crate::facts::recalculation::RecalculationScope;
use crate::facts::signal::{Signal, SignalKind, Subject};

/// The longest identifier of an event, in bytes.
pub const MAX_EVENT_ID_BYTES: usize = 128;

/// The longest source of an event, in bytes.
pub const MAX_EVENT_SOURCE_BYTES: usize = 256;

/// The most products that one event can name.
pub const MAX_EVENT_PRODUCTS: usize = 1_000;

/// The longest location, in bytes; that of a shopper has the same bound.
const MAX_LOCATION_BYTES: usize = 64;

/// The most decimal places of a value.
const MAX_SCALE: u32 = 6;

/// The tolerated clock skew of a publisher. An event from further in the future would cause later ones to be
/// ignored.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// Identifies an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The publisher.
    pub source: String,
    /// Unique among the events of this source.
    pub id: String,
}

/// A notification that a fact has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketEvent {
    /// The event's identity.
    pub id: EventId,
    /// When the fact was true; whole microseconds.
    pub time: DateTime<Utc>,
    /// The change.
    pub change: Change,
}

/// The change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A fact about the market, or about a location.
    Signal(Signal),
    /// Another system wrote rows of the product table.
    CatalogueChanged {
        /// 1 to [`MAX_EVENT_PRODUCTS`].
        product_ids: Vec<ProductId>,
    },
    /// A policy was published.
    PolicyPublished {
        /// Its version.
        version: i64,
    },
    /// A recalculation is requested.
    RecalculationRequested {
        /// The products to recalculate.
        scope: RecalculationScope,
    },
}

impl MarketEvent {
    /// Requests a recalculation of all products.
    pub fn recalculate_all(id: EventId, now: DateTime<Utc>) -> Self {
        Self {
            id,
            time: now.trunc_subsecs(6),
            change: Change::RecalculationRequested { scope: RecalculationScope::All },
        }
    }

    /// The task identifier of the recalculation that this event requests. The engine's own events have
    /// globally unique identifiers, which are used without the source.
    pub fn task_id(&self) -> String {
        if self.id.source.starts_with("/api/v1/") {
            self.id.id.clone()
        } else {
            format!("{}#{}", self.id.source, self.id.id)
        }
    }

    /// Refuses an event from the future. Checked only when the event is published: clocks differ, and an
    /// accepted event stays accepted.
    pub fn check_time(&self, now: DateTime<Utc>) -> Result<(), Diagnostic> {
        if self.time <= now + MAX_AHEAD {
            return Ok(());
        }
        let problem = format!("{} is in the future", self.time.to_rfc3339());
        Err(Diagnostic::new("time", problem, "at most five minutes ahead of this server's clock"))
    }
}

const TYPES: &str = "pricing.competitor_price.v1, pricing.demand_index.v1, pricing.stock_level.v1, \
    pricing.unit_cost.v1, pricing.sales.v1, pricing.location_factor.v1, pricing.fact_withdrawn.v1, \
    pricing.catalogue_changed.v1, pricing.policy_published.v1 or pricing.recalculation_requested.v1";

/// The event types whose fact may expire.
const EXPIRING_TYPES: [&str; 5] = [
    "pricing.competitor_price.v1",
    "pricing.demand_index.v1",
    "pricing.stock_level.v1",
    "pricing.unit_cost.v1",
    "pricing.sales.v1",
];

/// The facts that can be withdrawn, keyed by the name in their event type.
pub(crate) const WITHDRAWN_KINDS: [(&str, SignalKind); 5] = [
    ("competitor_price", SignalKind::CompetitorPrice),
    ("demand_index", SignalKind::DemandIndex),
    ("stock_level", SignalKind::StockLevel),
    ("unit_cost", SignalKind::UnitCost),
    ("sales", SignalKind::UnitsSold),
];

/// The fields that the `data` of each type may have.
const FIELDS: [(&str, &[&str]); 10] = [
    ("pricing.competitor_price.v1", &["product_id", "competitor", "price", "currency", "in_stock"]),
    ("pricing.demand_index.v1", &["product_id", "category", "index"]),
    ("pricing.stock_level.v1", &["product_id", "level"]),
    ("pricing.unit_cost.v1", &["product_id", "cost"]),
    ("pricing.sales.v1", &["product_id", "units_sold"]),
    ("pricing.location_factor.v1", &["location", "factor"]),
    ("pricing.fact_withdrawn.v1", &["product_id", "category", "kind", "competitor"]),
    ("pricing.catalogue_changed.v1", &["product_ids"]),
    ("pricing.policy_published.v1", &["version"]),
    ("pricing.recalculation_requested.v1", &["category", "product_ids", "release"]),
];

/// An event as its publisher wrote it, unchecked. Unknown attributes are ignored, as CloudEvents requires;
/// unknown fields of `data` are refused, as they are probably mistakes. `expires` is an extension attribute.
#[derive(Debug, Clone, Deserialize)]
pub struct EventDraft {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    time: Option<String>,
    expires: Option<String>,
    datacontenttype: Option<String>,
    data: Option<Box<RawValue>>,
    data_base64: Option<IgnoredAny>,
}

/// The `data` of an event of any type; [`FIELDS`] lists the fields allowed for each type.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct DataDraft {
    product_id: Option<String>,
    category: Option<String>,
    location: Option<String>,
    competitor: Option<String>,
    price: Option<WrittenNumber>,
    currency: Option<String>,
    in_stock: Option<bool>,
    kind: Option<String>,
    units_sold: Option<WrittenNumber>,
    index: Option<WrittenNumber>,
    level: Option<WrittenNumber>,
    cost: Option<WrittenNumber>,
    factor: Option<WrittenNumber>,
    product_ids: Option<Vec<String>>,
    version: Option<i64>,
    release: Option<bool>,
}

impl EventDraft {
    /// Parses one event from JSON, with serde_json: simd-json does not preserve a number's digits.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        if is_list(json) {
            return Err(serde::de::Error::custom("a list is not an event"));
        }
        serde_json::from_slice(json)
    }

    /// Returns the event, or all problems of the draft. Without a time, the event gets the time of receipt.
    pub fn check(self, received_at: DateTime<Utc>) -> Result<MarketEvent, Vec<Diagnostic>> {
        let mut check = Check::default();
        if self.specversion.as_deref() != Some("1.0") {
            check.refuse("specversion", &self.specversion.unwrap_or_default(), "\"1.0\"");
        }
        let content_type = self.datacontenttype.unwrap_or_else(|| "application/json".to_owned());
        if content_type.split(';').next().map(str::trim) != Some("application/json") {
            check.refuse("datacontenttype", &content_type, "application/json");
        }
        if self.data_base64.is_some() {
            check.problems.push(Diagnostic::bare("data_base64", "is not read; write the data as JSON"));
        }
        let id = check.text("id", self.id, MAX_EVENT_ID_BYTES);
        let source = check.text("source", self.source, MAX_EVENT_SOURCE_BYTES);
        let time = check.time(self.time.as_deref(), received_at);
        let event_type = self.event_type.unwrap_or_default();
        let expires_at = check.expiry(self.expires.as_deref(), &event_type, time);
        let data = check.data(self.data.as_deref(), &event_type);
        let change = data.and_then(|data| check.change(&event_type, data, time));
        match (id, source, change) {
            (Some(id), Some(source), Some(change)) if check.problems.is_empty() => {
                let change = match change {
                    Change::Signal(signal) => Change::Signal(Signal {
                        expires_at: signal.expires_at.or(expires_at),
                        event_source: Some(source.clone()),
                        ..signal
                    }),
                    other => other,
                };
                Ok(MarketEvent { id: EventId { source, id }, time, change })
            }
            _ => Err(check.problems),
        }
    }
}

/// Whether a JSON text is a list: serde would read a list as a struct, field by field.
fn is_list(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'[')
}

/// Collects the problems.
#[derive(Default)]
struct Check {
    problems: Vec<Diagnostic>,
}

impl Check {
    fn refuse(&mut self, field: &str, written: &str, allowed: &str) {
        let problem = match written {
            "" => "is missing".to_owned(),
            _ => format!("\"{}\" is not allowed", shorten(written)),
        };
        self.problems.push(Diagnostic::new(field, problem, allowed));
    }

    fn time(&mut self, written: Option<&str>, received_at: DateTime<Utc>) -> DateTime<Utc> {
        let time = match written {
            None => Some(received_at),
            Some(written) => instant::parse(written),
        };
        if time.is_none() {
            self.refuse("time", written.unwrap_or_default(), "an instant such as 2026-01-31T12:00:00Z");
        }
        time.unwrap_or(received_at).trunc_subsecs(6)
    }

    /// Checks when the fact expires.
    fn expiry(
        &mut self,
        written: Option<&str>,
        event_type: &str,
        time: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let written = written?;
        if !EXPIRING_TYPES.contains(&event_type) {
            self.problems.push(Diagnostic::bare("expires", format!("does not belong to {event_type}")));
            return None;
        }
        let expires_at = instant::parse(written).map(|instant| instant.trunc_subsecs(6));
        let expires_at = expires_at.filter(|expires_at| *expires_at > time);
        if expires_at.is_none() {
            self.refuse(
                "expires",
                written,
                "an instant after the event's time, such as 2026-01-31T12:00:00Z",
            );
        }
        expires_at
    }

    /// Parses the data; `None` if it is invalid. A field that this event type does not have is a problem:
    /// either the field is misspelled or the type is wrong.
    fn data(&mut self, written: Option<&RawValue>, event_type: &str) -> Option<DataDraft> {
        let json = match written.map(RawValue::get) {
            None | Some("null") => return Some(DataDraft::default()),
            Some(json) => json,
        };
        let read = || -> serde_json::Result<(BTreeMap<String, &RawValue>, DataDraft)> {
            Ok((serde_json::from_str(json)?, serde_json::from_str(json)?))
        };
        let (written, data) =
            read().map_err(|error| self.problems.push(Diagnostic::bare("data", error.to_string()))).ok()?;
        if let Some((_, fields)) = FIELDS.iter().find(|(known, _)| *known == event_type) {
            for name in written.keys().filter(|name| !fields.contains(&name.as_str())) {
                let field = format!("data.{}", shorten(name));
                let problem = format!("does not belong to {event_type}");
                self.problems.push(Diagnostic::new(field, problem, fields.join(", ")));
            }
        }
        Some(data)
    }

    fn change(&mut self, event_type: &str, data: DataDraft, time: DateTime<Utc>) -> Option<Change> {
        let mut rest = data;
        match event_type {
            "pricing.competitor_price.v1" => self.competitor_price(&mut rest, time),
            "pricing.demand_index.v1" => {
                let value = self.value("data.index", rest.index.take(), Least::Zero, Decimal::ONE_THOUSAND);
                let subject = self.product_or_category(&mut rest);
                signal(subject, SignalKind::DemandIndex, value, time)
            }
            "pricing.stock_level.v1" => {
                let value = self.value("data.level", rest.level.take(), Least::Zero, MOST);
                signal(self.product(&mut rest), SignalKind::StockLevel, value, time)
            }
            "pricing.unit_cost.v1" => {
                let value = self.value("data.cost", rest.cost.take(), Least::AboveZero, MOST);
                signal(self.product(&mut rest), SignalKind::UnitCost, value, time)
            }
            "pricing.sales.v1" => {
                let value = self.value("data.units_sold", rest.units_sold.take(), Least::Zero, MOST);
                signal(self.product(&mut rest), SignalKind::UnitsSold, value, time)
            }
            "pricing.location_factor.v1" => {
                let value =
                    self.value("data.factor", rest.factor.take(), Least::AboveZero, Decimal::ONE_HUNDRED);
                let location = self.label("data.location", rest.location.take(), MAX_LOCATION_BYTES);
                signal(location.map(Subject::Location), SignalKind::LocationFactor, value, time)
            }
            "pricing.catalogue_changed.v1" => {
                let written = rest.product_ids.take();
                self.products(&written.unwrap_or_default())
                    .map(|product_ids| Change::CatalogueChanged { product_ids })
            }
            "pricing.policy_published.v1" => match rest.version.take() {
                Some(version) if version > 0 => Some(Change::PolicyPublished { version }),
                other => {
                    let written = other.map(|version| version.to_string()).unwrap_or_default();
                    self.refuse("data.version", &written, "the version of a policy, from 1");
                    None
                }
            },
            "pricing.recalculation_requested.v1" => {
                self.scope(&mut rest).map(|scope| Change::RecalculationRequested { scope })
            }
            "pricing.fact_withdrawn.v1" => self.withdrawal(&mut rest, time),
            unknown => {
                self.refuse("type", unknown, TYPES);
                None
            }
        }
    }

    fn competitor_price(&mut self, data: &mut DataDraft, time: DateTime<Utc>) -> Option<Change> {
        let value = self.value("data.price", data.price.take(), Least::AboveZero, MOST);
        let subject = self.product(data);
        let competitor = self.label("data.competitor", data.competitor.take(), MAX_LABEL_CHARS);
        let kind = SignalKind::CompetitorPrice;
        let in_stock = data.in_stock.take();
        let currency = data.currency.take().map(|written| {
            let currency = Currency::from_code(&written).ok();
            if currency.is_none() {
                self.refuse("data.currency", &written, "an ISO 4217 code such as USD, EUR, JPY");
            }
            currency
        });
        let (subject, value, source, currency) =
            (subject?, value?, competitor?, currency.unwrap_or_default());
        Some(Change::Signal(Signal { source, in_stock, currency, ..Signal::new(subject, kind, value, time) }))
    }

    /// Checks a withdrawal: a fact that expires at the instant at which it was observed.
    fn withdrawal(&mut self, data: &mut DataDraft, time: DateTime<Utc>) -> Option<Change> {
        let written = data.kind.take().unwrap_or_default();
        let Some((_, kind)) = WITHDRAWN_KINDS.into_iter().find(|(name, _)| *name == written) else {
            let allowed: Vec<&str> = WITHDRAWN_KINDS.into_iter().map(|(name, _)| name).collect();
            self.refuse("data.kind", &written, &allowed.join(", "));
            return None;
        };
        let subject = match kind {
            SignalKind::DemandIndex => self.product_or_category(data),
            _ => self.product(data),
        };
        let competitor = match (kind, data.competitor.take()) {
            (SignalKind::CompetitorPrice, competitor) => {
                self.text("data.competitor", competitor, MAX_LABEL_CHARS)
            }
            (_, None) => Some(String::new()),
            (_, Some(_)) => {
                let problem = format!("does not belong to a withdrawn {written}");
                self.problems.push(Diagnostic::bare("data.competitor", problem));
                None
            }
        };
        let (subject, source) = (subject?, competitor?);
        let signal = Signal::new(subject, kind, Decimal::ZERO, time);
        Some(Change::Signal(Signal { source, expires_at: Some(time), ..signal }))
    }

    fn scope(&mut self, data: &mut DataDraft) -> Option<RecalculationScope> {
        let is_released = data.release.take().unwrap_or_default();
        let scope = self.scope_of_products(data)?;
        Some(if is_released { RecalculationScope::Released(Box::new(scope)) } else { scope })
    }

    fn scope_of_products(&mut self, data: &mut DataDraft) -> Option<RecalculationScope> {
        match (data.category.take(), data.product_ids.take()) {
            (None, None) => Some(RecalculationScope::All),
            (Some(category), None) => self
                .label("data.category", Some(category), MAX_LABEL_CHARS * 4)
                .map(RecalculationScope::Category),
            (None, Some(ids)) => self.products(&ids).map(RecalculationScope::Products),
            (Some(category), Some(_)) => {
                self.refuse("data.category", &category, "category, product_ids, or none of them");
                None
            }
        }
    }

    fn product(&mut self, data: &mut DataDraft) -> Option<Subject> {
        let written = trimmed(data.product_id.take().unwrap_or_default());
        match ProductId::parse(&written) {
            Ok(id) => Some(Subject::Product(id.to_string())),
            Err(_) => {
                self.refuse("data.product_id", &written, "a product's identifier");
                None
            }
        }
    }

    fn product_or_category(&mut self, data: &mut DataDraft) -> Option<Subject> {
        match (data.category.take(), &data.product_id) {
            (Some(category), None) => {
                self.label("data.category", Some(category), MAX_LABEL_CHARS * 4).map(Subject::Category)
            }
            (None, _) => self.product(data),
            (Some(category), Some(_)) => {
                self.refuse("data.category", &category, "product_id or category, not both");
                None
            }
        }
    }

    fn products(&mut self, written: &[String]) -> Option<Vec<ProductId>> {
        if !(1..=MAX_EVENT_PRODUCTS).contains(&written.len()) {
            let problem = format!("{} products are not allowed", written.len());
            self.problems.push(Diagnostic::new("data.product_ids", problem, "1 to 1000 products"));
            return None;
        }
        let mut ids = Vec::with_capacity(written.len());
        for (index, written) in written.iter().enumerate() {
            match ProductId::parse(written.trim()) {
                Ok(id) => ids.push(id),
                Err(_) => {
                    self.refuse(&format!("data.product_ids[{index}]"), written, "a product's identifier");
                }
            }
        }
        (ids.len() == written.len()).then_some(ids)
    }

    /// Checks a text of the data, trimmed as in products and in price requests.
    fn label(&mut self, field: &str, written: Option<String>, max_bytes: usize) -> Option<String> {
        self.text(field, written.map(trimmed), max_bytes)
    }

    fn text(&mut self, field: &str, written: Option<String>, max_bytes: usize) -> Option<String> {
        let written = written.unwrap_or_default();
        if !(1..=max_bytes).contains(&written.len()) || written.chars().any(char::is_control) {
            let allowed = format!("1 to {max_bytes} bytes, none of them a control character");
            self.refuse(field, &written, &allowed);
            return None;
        }
        Some(written)
    }

    fn value(
        &mut self,
        field: &str,
        written: Option<WrittenNumber>,
        least: Least,
        most: Decimal,
    ) -> Option<Decimal> {
        let WrittenNumber(written) = written.unwrap_or_else(|| WrittenNumber(String::new()));
        let value = parse_amount(&written, MAX_SCALE).ok().filter(|value| {
            let is_enough = match least {
                Least::Zero => *value >= Decimal::ZERO,
                Least::AboveZero => *value > Decimal::ZERO,
            };
            is_enough && *value <= most
        });
        if value.is_none() {
            let from = match least {
                Least::Zero => "from 0",
                Least::AboveZero => "above 0",
            };
            let allowed = format!("a number {from}, at most {most}, with at most {MAX_SCALE} decimal places");
            self.refuse(field, &written, &allowed);
        }
        value.map(|value| value.normalize())
    }
}

/// The lower bound of a value.
#[derive(Debug, Clone, Copy)]
enum Least {
    Zero,
    AboveZero,
}

/// The upper bound of values without a specific one: the largest amount.
const MOST: Decimal = Decimal::from_parts(3_567_587_327, 232, 0, false, 0);

fn signal(
    subject: Option<Subject>,
    kind: SignalKind,
    value: Option<Decimal>,
    time: DateTime<Utc>,
) -> Option<Change> {
    let (subject, value) = (subject?, value?);
    Some(Change::Signal(Signal::new(subject, kind, value, time)))
}

#[cfg(test)]
mod tests;
