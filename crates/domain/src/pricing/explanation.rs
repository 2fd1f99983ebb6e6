//! Explanations: how a price was computed, recorded during the computation and stored with the price.
//!
//! An explanation holds the input facts, so an engine of the same semantics can replay it byte for byte, long
//! after the facts have changed ([`RecordedExplanation`](crate::pricing::replay::RecordedExplanation)).

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use crate::expression::variable::{Value, Variable};
use crate::facts::Facts;
use crate::facts::arithmetic::{RoundingMode, compare};
use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::money::{as_json_number, as_optional_json_number};
use crate::policy::guardrail::GuardrailName;
use crate::policy::rounding::Rounded;

/// The version of the engine's semantics. It increases with every change that alters the price, or its
/// explanation, for the same facts and policy; CHANGELOG.md describes each. 1 covers all releases before
/// versions were counted.
pub const SEMANTICS: u32 = 3;

/// The explanation of a list price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation<'a> {
    /// The policy that was applied.
    pub policy_version: i64,
    /// The semantics of the engine that applied it.
    pub semantics: u32,
    /// The version of the time zone database that was used; absent if no local time was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz_version: Option<&'a str>,
    /// The instant for which it was applied.
    #[serde(serialize_with = "as_instant")]
    pub priced_at: DateTime<Utc>,
    /// Whether the rules determined the price.
    pub outcome: Outcome,
    /// The input of the rules.
    pub facts: Facts<'a>,
    /// What a limit on moves holds back, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldPrice>,
    /// The steps, in order.
    pub steps: Vec<Step<'a>>,
}

impl Explanation<'_> {
    /// Returns the guardrails that limited the price, in order.
    pub fn guardrails(&self) -> impl Iterator<Item = GuardrailName> {
        self.steps.iter().filter_map(|step| match step {
            Step::Guardrail { guardrail, .. } => Some(*guardrail),
            _ => None,
        })
    }
}

/// What a limit on moves holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeldPrice {
    /// The limit that holds it back; of several, the last that applied.
    pub by: GuardrailName,
    /// The price that rules, floors, ceilings and the minor unit give, before endings.
    #[serde(serialize_with = "as_json_number")]
    pub target: Decimal,
    /// When the list price next moves without another cause; absent if nothing but a fact or the seller
    /// moves it.
    #[serde(serialize_with = "as_optional_instant")]
    pub continues_at: Option<DateTime<Utc>>,
    /// When it reaches the target, if nothing else changes; absent if it never does.
    #[serde(serialize_with = "as_optional_instant")]
    pub reaches_target_at: Option<DateTime<Utc>>,
}

/// Whether the rules determined the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The rules determined the price.
    Priced,
    /// A rule failed: the price in effect is frozen, within the guardrails.
    Frozen,
}

impl Outcome {
    /// Returns the name in explanations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Frozen => "frozen",
        }
    }
}

/// A step of the computation of a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step<'a> {
    /// The price the rules start from: the base price, or for a quote the list price.
    Start {
        /// The price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A rule was evaluated.
    Rule {
        /// The rule and its inputs.
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
    /// Several rules with the same priority would apply where only one may, or give the shopper the same
    /// price.
    Tie {
        /// The chosen rule: the first one in the policy.
        chosen: &'a str,
        /// The others.
        others: Vec<&'a str>,
        /// The price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A rule failed.
    RuleFailed {
        /// The rule and its inputs.
        #[serde(flatten)]
        rule: RuleSeen<'a>,
        /// The reason.
        problem: String,
        /// The resulting price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// A guardrail limited the price.
    Guardrail {
        /// The guardrail.
        guardrail: GuardrailName,
        /// The price before.
        #[serde(serialize_with = "as_json_number")]
        before: Decimal,
        /// Its limit.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// The floors are above the ceiling; the floors take precedence.
    GuardrailsContradict {
        /// The lowest price the floors allow.
        #[serde(serialize_with = "as_json_number")]
        lowest: Decimal,
        /// The ceiling.
        #[serde(serialize_with = "as_json_number")]
        highest: Decimal,
        /// The resulting price.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// The price was rounded, within the guardrails.
    Rounding {
        /// The rounding mode.
        mode: RoundingMode,
        /// The price before.
        #[serde(serialize_with = "as_json_number")]
        before: Decimal,
        /// The price after.
        #[serde(serialize_with = "as_json_number")]
        after: Decimal,
    },
    /// No multiple of the increment is within the guardrails, or 0 is the nearest: the price is rounded to
    /// the minor unit.
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
    /// Returns the steps that explain the rounding of this amount.
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
    /// Its action, in words.
    pub action: &'a str,
    /// The variables that it read.
    pub inputs: Inputs<'a>,
    /// The competitors' prices that it read, if any counts. Boxed because few rules have them.
    #[serde(flatten)]
    pub competitors: Option<Box<CompetitorsSeen<'a>>>,
}

/// The competitors' prices that a rule read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompetitorsSeen<'a> {
    /// The reference price of its action, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_optional_json_number")]
    pub reference: Option<Decimal>,
    /// The competitors: two if the reference is the mean of the middle two.
    #[serde(rename = "competitors")]
    pub names: Vec<&'a str>,
}

/// Variables with their values; a map on the wire.
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
