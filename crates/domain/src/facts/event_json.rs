//! Market events as CloudEvents JSON, the form stored in the stream and in jobs.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

use crate::facts::market_event::{Change, MarketEvent, WITHDRAWN_KINDS};
use crate::facts::money::{Currency, as_json_number};
use crate::facts::product::ProductId;
use crate::facts::recalculation::RecalculationScope;
use crate::facts::signal::{Signal, SignalKind, Subject};

impl MarketEvent {
    /// Serialises the event as CloudEvents JSON, from which the same event can be read back.
    pub fn to_json(&self) -> String {
        let written = WrittenEvent {
            specversion: "1.0",
            id: &self.id.id,
            source: &self.id.source,
            event_type: self.change.event_type(),
            time: self.time,
            expires: self.change.expires(),
            datacontenttype: "application/json",
            data: self.change.data(),
        };
        // Serialising these types cannot fail.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

impl Change {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Signal(signal) if signal.is_withdrawn() => "pricing.fact_withdrawn.v1",
            Self::Signal(signal) => match signal.kind {
                SignalKind::CompetitorPrice => "pricing.competitor_price.v1",
                SignalKind::DemandIndex => "pricing.demand_index.v1",
                SignalKind::StockLevel => "pricing.stock_level.v1",
                SignalKind::UnitCost => "pricing.unit_cost.v1",
                SignalKind::UnitsSold => "pricing.sales.v1",
                SignalKind::LocationFactor => "pricing.location_factor.v1",
            },
            Self::CatalogueChanged { .. } => "pricing.catalogue_changed.v1",
            Self::PolicyPublished { .. } => "pricing.policy_published.v1",
            Self::RecalculationRequested { .. } => "pricing.recalculation_requested.v1",
        }
    }

    fn expires(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Signal(signal) if !signal.is_withdrawn() => signal.expires_at,
            _ => None,
        }
    }

    fn data(&self) -> WrittenData<'_> {
        match self {
            Self::Signal(signal) => WrittenData::of_signal(signal),
            Self::CatalogueChanged { product_ids } => {
                WrittenData { product_ids: Some(product_ids), ..WrittenData::default() }
            }
            Self::PolicyPublished { version } => {
                WrittenData { version: Some(*version), ..WrittenData::default() }
            }
            Self::RecalculationRequested { scope } => {
                let data = WrittenData { release: scope.is_released(), ..WrittenData::default() };
                match scope.products() {
                    RecalculationScope::Category(category) => {
                        WrittenData { category: Some(category), ..data }
                    }
                    RecalculationScope::Products(ids) => WrittenData { product_ids: Some(ids), ..data },
                    RecalculationScope::All | RecalculationScope::Released(_) => data,
                }
            }
        }
    }
}

#[derive(Serialize)]
struct WrittenEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'static str,
    time: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<DateTime<Utc>>,
    datacontenttype: &'static str,
    data: WrittenData<'a>,
}

#[derive(Default, Serialize)]
struct WrittenData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    product_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    competitor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_stock: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    units_sold: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product_ids: Option<&'a [ProductId]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    release: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Number(#[serde(serialize_with = "as_json_number")] Decimal);

impl<'a> WrittenData<'a> {
    fn of_signal(signal: &'a Signal) -> Self {
        let mut data = Self::default();
        match &signal.subject {
            Subject::Product(name) => data.product_id = Some(name),
            Subject::Category(name) => data.category = Some(name),
            Subject::Location(name) => data.location = Some(name),
        }
        if signal.is_withdrawn() {
            let kind = WITHDRAWN_KINDS.into_iter().find(|(_, kind)| *kind == signal.kind);
            data.kind = kind.map(|(name, _)| name);
            data.competitor = (signal.kind == SignalKind::CompetitorPrice).then_some(&signal.source);
            return data;
        }
        let value = Some(Number(signal.value));
        match signal.kind {
            SignalKind::CompetitorPrice => {
                data.competitor = Some(&signal.source);
                data.price = value;
                data.in_stock = signal.in_stock;
                data.currency = signal.currency.map(Currency::code);
            }
            SignalKind::DemandIndex => data.index = value,
            SignalKind::StockLevel => data.level = value,
            SignalKind::UnitCost => data.cost = value,
            SignalKind::UnitsSold => data.units_sold = value,
            SignalKind::LocationFactor => data.factor = value,
        }
        data
    }
}
