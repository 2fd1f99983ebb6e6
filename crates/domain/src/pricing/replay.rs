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
        let previous = Some(Previous::of(state.list_price));
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
