//! Reads a stored explanation and replays it.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::facts::Facts;
use crate::facts::previous::Previous;
use crate::facts::product::Product;
use crate::facts::signal::Signals;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::explanation::SEMANTICS;
use crate::pricing::price::{ListPrice, price};

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
    pub previous: Option<Previous>,
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

impl RecordedFacts {
    /// Returns the facts as input of the pricing functions.
    pub fn as_facts(&self) -> Facts<'_> {
        Facts { product: &self.product, signals: &self.signals, previous: self.previous }
    }
}

/// The semantics of explanations without that field.
fn first_semantics() -> u32 {
    1
}
