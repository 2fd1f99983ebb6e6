//! The facts that a recorded price was computed from, with their sources and times.
//!
//! They are read from the explanation, which holds the facts and the competitors whose prices rules followed.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::facts::signal::Origin;
use crate::pricing::replay::RecordedFacts;

/// The source of a fact in the product's row.
const PRODUCT: &str = "product";

/// The part of a recorded explanation that holds its facts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedExplanation {
    facts: RecordedFacts,
    steps: Vec<RecordedStep>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RecordedStep {
    #[serde(default)]
    competitors: Vec<String>,
}

/// A fact that a price was computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedFact<'a> {
    /// `unit_cost`, `competitor_price`, `stock_level`, `units_sold` or `demand_index`.
    pub fact: &'static str,
    /// The competitor whose price it is.
    pub competitor: Option<&'a str>,
    /// The fact's value.
    pub value: Decimal,
    /// The source: `product` for the product's row, else the source of the event; null if unknown.
    pub source: Option<&'a str>,
    /// When the fact was true; null if unknown.
    pub since: Option<DateTime<Utc>>,
    /// When the fact expires, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}

impl RecordedExplanation {
    /// Returns the facts known to the rules and guardrails; of competitors' prices, those that a rule
    /// followed.
    pub fn used_facts(&self) -> Vec<UsedFact<'_>> {
        let RecordedFacts { product, signals, .. } = &self.facts;
        let origins = &signals.origins;
        let mut used = Vec::new();
        if let Some(cost) = signals.unit_cost {
            used.extend(of_event("unit_cost", Some(cost), origins.unit_cost.as_ref()));
        } else if let Some(value) = product.unit_cost {
            let (source, since) = (Some(PRODUCT), signals.cost_stated_at);
            used.push(UsedFact {
                fact: "unit_cost",
                competitor: None,
                value,
                source,
                since,
                expires_at: None,
            });
        }
        let named: BTreeSet<&str> =
            self.steps.iter().flat_map(|step| step.competitors.iter().map(String::as_str)).collect();
        let gone_by =
            signals.competitor_prices.iter().filter(|known| named.contains(known.competitor.as_str()));
        used.extend(gone_by.map(|known| UsedFact {
            fact: "competitor_price",
            competitor: Some(&known.competitor),
            value: known.price,
            source: known.source.as_deref(),
            since: known.observed_at,
            expires_at: known.expires_at,
        }));
        used.extend(of_event("stock_level", signals.stock_level, origins.stock_level.as_ref()));
        used.extend(of_event("units_sold", signals.units_sold, origins.units_sold.as_ref()));
        used.extend(of_event("demand_index", signals.demand_index, origins.demand_index.as_ref()));
        used
    }
}

fn of_event<'a>(
    fact: &'static str,
    value: Option<Decimal>,
    origin: Option<&'a Origin>,
) -> Option<UsedFact<'a>> {
    Some(UsedFact {
        fact,
        competitor: None,
        value: value?,
        source: origin.and_then(|origin| origin.source.as_deref()),
        since: origin.map(|origin| origin.observed_at),
        expires_at: origin.and_then(|origin| origin.expires_at),
    })
}

#[cfg(test)]
mod tests;
