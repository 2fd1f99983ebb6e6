//! Explanations: why a price is what it is, recorded while it is computed and kept with it.
//!
//! An explanation holds the facts it started from, so the price can be computed again, byte for byte, long
//! after the facts have changed ([`RecordedExplanation`](crate::pricing::replay::RecordedExplanation)), by an
//! engine of the same semantics.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use crate::expression::variable::{Value, Variable};
use crate::facts::Facts;
use crate::facts::arithmetic::{RoundingMode, compare};
use crate::facts::instant::as_instant;
use crate::facts::money::{as_json_number, as_optional_json_number};
use crate::policy::guardrail::GuardrailName;
use crate::policy::rounding::Rounded;

/// The version of the engine's semantics: it is raised by every change of the price, or of its explanation,
/// for the same facts and policy, and CHANGELOG.md describes the change. 1 stands for all before versions
/// were counted.
pub const SEMANTICS: u32 = 2;

/// Why a list price is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation<'a> {
    /// The policy that was applied.
    pub policy_version: i64,
    /// The semantics of the engine that applied it.
    pub semantics: u32,
    /// The version of the time zone database that was used; absent if no local time was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz_version: Option<&'a str>,
    /// The instant it was applied for.
    #[serde(serialize_with = "as_instant")]
    pub priced_at: DateTime<Utc>,
    /// Whether the rules made the price.
    pub outcome: Outcome,
    /// The input of the rules.
    pub facts: Facts<'a>,
    /// The steps, in order.
    pub steps: Vec<Step<'a>>,
}

impl Explanation<'_> {
    /// The guardrails that stopped the price, in order.
    pub fn guardrails(&self) -> impl Iterator<Item = GuardrailName> {
        self.steps.iter().filter_map(|step| match step {
            Step::Guardrail { guardrail, .. } => Some(*guardrail),
            _ => None,
        })
    }
}

/// Whether the rules made the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// They did.
    Priced,
    /// A rule failed: the price in effect stays, within the guardrails.
    Frozen,
}

/// One thing that happened on the way to a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step<'a> {
    /// The price the rules start from: the base price, or for a quote the list price.
    Start {
        /// That price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A rule was looked at.
    Rule {
        /// The rule, and what it saw.
        #[serde(flatten)]
        rule: RuleSeen<'a>,
        /// Whether it applied.
        applied: bool,
        /// The price before.
        #[serde(serialize_with = "as_json_number")]
        before: Decimal,
        /// The price after; the same if it did not apply.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// Several rules with the same priority would apply where one may, or give the shopper the same price.
    Tie {
        /// The rule that was taken: the first one in the policy.
        chosen: &'a str,
        /// The others.
        others: Vec<&'a str>,
        /// The price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A rule failed.
    RuleFailed {
        /// The rule, and what it saw.
        #[serde(flatten)]
        rule: RuleSeen<'a>,
        /// Why.
        problem: String,
        /// The price that stays.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A guardrail stopped the price.
    Guardrail {
        /// Which one.
        guardrail: GuardrailName,
        /// The price before.
        #[serde(serialize_with = "as_json_number")]
        before: Decimal,
        /// Its limit.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// The floors are above the ceiling; the floors win.
    GuardrailsContradict {
        /// The lowest price the floors allow.
        #[serde(serialize_with = "as_json_number")]
        lowest: Decimal,
        /// The ceiling.
        #[serde(serialize_with = "as_json_number")]
        highest: Decimal,
        /// The price that stays.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// The price was rounded, within the guardrails.
    Rounding {
        /// How.
        mode: RoundingMode,
        /// The price before.
        #[serde(serialize_with = "as_json_number")]
        before: Decimal,
        /// The price after.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// No multiple of the increment is within the guardrails, or 0 is the nearest: the price keeps to the
    /// minor unit.
    IncrementPassedOver {
        /// The policy's increment.
        #[serde(serialize_with = "as_json_number")]
        increment: Decimal,
        /// The price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
}

impl Rounded {
    /// What rounding this amount has done, for an explanation.
    pub(crate) fn steps<'a>(self, mode: RoundingMode, before: Decimal) -> impl Iterator<Item = Step<'a>> {
        let after = self.amount;
        let is_moved = compare(after, before).is_ne();
        let rounding = is_moved.then_some(Step::Rounding { mode, before, after });
        let passed_over =
            self.increment_passed_over.map(|increment| Step::IncrementPassedOver { increment, after });
        rounding.into_iter().chain(passed_over)
    }
}

/// A rule and the values of the variables it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleSeen<'a> {
    /// Its name.
    #[serde(rename = "rule")]
    pub name: &'a str,
    /// Its condition, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<&'a str>,
    /// What it does, in words.
    pub action: &'a str,
    /// What it read.
    pub inputs: Inputs<'a>,
    /// What it read of competitors, if it reads their prices and one counts. Few rules do, so it is kept
    /// apart.
    #[serde(flatten)]
    pub competitors: Option<Box<CompetitorsSeen<'a>>>,
}

/// The competitors' prices that a rule read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompetitorsSeen<'a> {
    /// The price that its action goes by, if it goes by one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_json_number")]
    pub reference: Option<Decimal>,
    /// Whose prices they were: two if they are the middle two.
    #[serde(rename = "competitors")]
    pub names: Vec<&'a str>,
}

/// Variables with the values they had; a map on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs<'a>(pub SmallVec<[(Variable, Value<'a>); 2]>);

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (variable, value) in &self.0 {
            map.serialize_entry(variable, value)?;
        }
        map.end()
    }
}
