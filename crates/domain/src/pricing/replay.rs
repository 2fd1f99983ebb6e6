//! Reads a stored explanation and replays it.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::facts::Facts;
use crate::facts::movement::{Anchored, Held, Movement};
use crate::facts::previous::{Previous, RecordedPrevious};
use crate::facts::product::Product;
use crate::facts::signal::Signals;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::explanation::SEMANTICS;
use crate::pricing::price::{ListPrice, MoveLimiting, price, price_with};
use crate::pricing::price_state::{DueChange, PriceState};

/// A stored explanation, as read back for a replay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedExplanation {
    #[serde(default = "first_semantics")]
    semantics: u32,
    priced_at: DateTime<Utc>,
    facts: RecordedFacts,
}

/// The facts of a stored explanation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WrittenFacts")]
pub struct RecordedFacts {
    /// The product as it was.
    pub product: Product,
    /// Its signals as they were.
    pub signals: Signals,
    /// The price in effect then.
    pub previous: Option<RecordedPrevious>,
}

/// The explanation was recorded by an engine with other semantics, which may compute other prices or
/// explanations for the same facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was recorded by an engine of semantics {recorded}, and this one has semantics {SEMANTICS}")]
pub struct OtherSemantics {
    /// The recorded semantics.
    pub recorded: u32,
}

impl RecordedExplanation {
    /// Re-prices the recorded facts by the policy of the recorded version. Price and explanation are
    /// reproduced byte for byte.
    pub fn replay<'a>(&'a self, policy: &'a PricingPolicy) -> Result<ListPrice<'a>, OtherSemantics> {
        if self.semantics != SEMANTICS {
            return Err(OtherSemantics { recorded: self.semantics });
        }
        Ok(price(&self.facts.as_facts(), policy, self.priced_at))
    }
}

impl RecordedExplanation {
    /// Makes the steps of the recorded product, by the policy of the recorded version, that have fallen due
    /// until now.
    pub fn catch_up(
        &self,
        state: PriceState,
        policy: &PricingPolicy,
        now: DateTime<Utc>,
    ) -> (PriceState, Vec<DueChange>) {
        state.catch_up(&self.facts.product, &self.facts.signals, policy, now)
    }

    /// Returns the way to its target of a price that was recorded before engines kept it: the target by the
    /// recorded facts, and the price in effect as where it is. `None` if a rule fails.
    pub fn movement_of(&self, state: &PriceState, policy: &PricingPolicy) -> Option<Movement<'static>> {
        let RecordedFacts { product, signals, .. } = &self.facts;
        // As the price was then; what was made of it is where it is now.
        let then = self.facts.previous.as_ref().map(|previous| previous.as_previous().list_price);
        let previous = Some(Previous::of(then.unwrap_or(state.list_price)));
        let facts = Facts { product, signals, previous };
        let released = price_with(&facts, policy, self.priced_at, MoveLimiting::Released);
        let movement = released.movement.filter(|movement| movement.target.is_some())?;
        let target = movement.target?;
        let price = Anchored { amount: state.list_price, target };
        let is_held = released.amount != state.list_price;
        Some(Movement {
            held: is_held.then_some(Held { price, last_at_target: None }),
            interval: None,
            moved_at: state.changed_at,
            ..movement.into_owned()
        })
    }
}

/// The facts as they are written: when the seller stated the cost stands beside the signals only.
#[derive(Deserialize)]
struct WrittenFacts {
    product: Product,
    signals: Signals,
    previous: Option<RecordedPrevious>,
}

impl From<WrittenFacts> for RecordedFacts {
    fn from(WrittenFacts { product, signals, previous }: WrittenFacts) -> Self {
        let product = Product { cost_stated_at: signals.cost_stated_at, ..product };
        Self { product, signals, previous }
    }
}

impl RecordedFacts {
    /// Returns the facts as input of the pricing functions.
    pub fn as_facts(&self) -> Facts<'_> {
        let previous = self.previous.as_ref().map(RecordedPrevious::as_previous);
        Facts { product: &self.product, signals: &self.signals, previous }
    }
}

/// The semantics of explanations without that field.
fn first_semantics() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::time_zone::TimeZones;

    /// An explanation of semantics 2: a competitor's 50.00, of which a step of 15% has made 85.00.
    const OF_SEMANTICS_2: &str = r#"{"policy_version":1,"semantics":2,"priced_at":"2026-11-23T12:05:00Z","outcome":"priced","facts":{"product":{"product_id":"P-1","name":"P-1","category":null,"brand":null,"currency":"USD","base_price":100,"unit_cost":10,"floor_price":null,"ceiling_price":null,"attributes":{}},"signals":{"competitor_prices":[{"competitor":"acme","price":50,"observed_at":"2026-11-23T12:05:00Z"}],"demand_index":null,"stock_level":null,"unit_cost":null},"previous":{"list_price":100,"opening_price":100}},"steps":[]}"#;

    fn instant(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_price_from_before_goes_on_from_where_it_is() {
        let policy = |version, market: &str| {
            let document = format!("name: x\nmarket: [{market}]\nguardrails: {{ max_step: 15% }}");
            PricingPolicy::from_yaml(&document, version, &TimeZones::bundled()).unwrap()
        };
        const FOLLOW: &str = "{ name: follow, match: { competitor: { statistic: min } } }";
        let (known, halved) =
            (policy(1, FOLLOW), policy(2, &format!("{FOLLOW}, {{ name: half, adjust: -50% }}")));
        let recorded: RecordedExplanation = serde_json::from_str(OF_SEMANTICS_2).unwrap();
        let state = |list_price: i64| PriceState {
            list_price: list_price.into(),
            valid_until: None,
            opening_price: 100.into(),
            opened_on: instant("2026-11-23T00:00:00Z").date_naive(),
            changed_at: Some(instant("2026-11-23T12:05:00Z")),
            streak: None,
            movement: None,
        };
        for (list_price, policy, now, expected) in [
            // A fact or a recalculation moves it one step on.
            (85, &known, "2026-11-23T12:10:00Z", "72.25"),
            // A published policy moves it by the ratio of the targets, and the market one step on.
            (85, &halved, "2026-11-23T12:10:00Z", "36.13"),
            // A price at its target goes to the new one.
            (50, &halved, "2026-11-23T12:10:00Z", "25.00"),
        ] {
            let mut state = state(list_price);
            state.movement = recorded.movement_of(&state, &known);
            assert!(state.movement.is_some());
            let now = instant(now);
            let facts = Facts {
                product: &recorded.facts.product,
                signals: &recorded.facts.signals,
                previous: Some(state.previous(now)),
            };
            assert_eq!(price(&facts, policy, now).amount.to_string(), expected, "{list_price}");
        }
    }
}
