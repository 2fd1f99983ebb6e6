//! Explanations: the facts and steps from which a price was computed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pricing_domain::pricing::used_facts;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::amount;
use crate::held_price::HeldPrice;

/// A shopper whose quote is explained, too; without a location, only the list price is explained.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExplanationQuery {
    /// The shopper's location; without it, the other parameters are only checked.
    #[param(example = "NY", min_length = 1, max_length = 64)]
    pub user_location: Option<String>,
    /// Whether the shopper is a prime member; false if absent.
    pub is_prime_member: Option<bool>,
    /// The number of units; 1 if absent.
    #[param(minimum = 1, maximum = 1_000_000)]
    pub quantity: Option<u32>,
    /// The sales channel.
    #[param(min_length = 1, max_length = 64)]
    pub channel: Option<String>,
    /// The customer segment that the seller assigns to the shopper.
    #[param(min_length = 1, max_length = 64)]
    pub segment: Option<String>,
}

/// The explanation of a product's price.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExplanationAnswer {
    /// The product's identifier.
    #[schema(example = "P-100")]
    pub product_id: String,
    /// The product's name.
    pub name: String,
    /// The ISO 4217 code of the amounts.
    pub currency: String,
    /// The list price.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub list_price: Decimal,
    /// The version of the policy that computed it.
    pub policy_version: i64,
    /// The name of that policy, or of the current one if the process no longer holds that version.
    pub policy_name: String,
    /// The price's revision; increases with every change of the list price.
    #[serde(default)]
    #[schema(required)]
    pub revision: i64,
    /// The instant from which time alone may change the price; null if there is none.
    pub valid_until: Option<DateTime<Utc>>,
    /// The facts known when the list price was computed, with source and time: cost, stock, sales, demand,
    /// and the competitors' prices that a rule followed.
    #[serde(default)]
    #[schema(required)]
    pub facts_used: Vec<UsedFact>,
    /// What a limit on moves holds back of the list price; null if nothing.
    #[serde(default)]
    #[schema(required)]
    pub held: Option<HeldPrice>,
    /// The record of the computation of the list price: facts, steps and outcome. Its steps are those of a
    /// quote and `guardrails_contradict` (`lowest`, `highest`). `semantics` is the version of the engine's
    /// semantics, which increases when the same facts give another price or explanation; 1 if absent.
    /// `facts.previous.movement` is internal: the state from which the next pricing continues.
    #[schema(value_type = Object)]
    pub explanation: Box<RawValue>,
    /// The explanation of the shopper's price; null without a location.
    pub quote: Option<QuoteExplanation>,
}

/// A fact from which a price was computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsedFact {
    /// `unit_cost`, `competitor_price`, `stock_level`, `units_sold` or `demand_index`.
    #[schema(example = "unit_cost")]
    pub fact: String,
    /// The competitor of a `competitor_price`; absent for other facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub competitor: Option<String>,
    /// The value of the fact.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub value: Decimal,
    /// The source: `product` for the product's row, else the source of the event; null if unknown.
    #[schema(required)]
    pub source: Option<String>,
    /// When the fact was observed; null if unknown. For a cost in the product's row, the time of the request
    /// that stated it.
    #[schema(required)]
    pub since: Option<DateTime<Utc>>,
    /// When the fact expires; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The explanation of a shopper's price.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QuoteExplanation {
    /// The shopper's price of one unit.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub final_price: Decimal,
    /// The discount from the shopper's undiscounted price, as a fraction: 0.05 is 5%.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub discount_rate: Decimal,
    /// The steps from the list price on, in order; each is an object whose `step` names its kind, with the
    /// price `after` it: `start`; `rule` (`rule`, `when`, `action`, `inputs`, `reference`, `competitors`,
    /// `applied`, `before`); `rule_failed` (`rule` to `competitors`, `problem`); `tie` (`chosen`, `others`);
    /// `guardrail` (`guardrail`, `before`); `rounding` (`mode`, `before`); `increment_passed_over`
    /// (`increment`): no multiple of the increment is allowed, and the price is rounded to the minor unit.
    #[schema(value_type = Vec<Object>)]
    pub steps: Vec<Box<RawValue>>,
}

/// The part of [`ExplanationAnswer::explanation`] that readers need. The domain writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct ListPriceExplanation {
    /// When the list price was computed.
    pub priced_at: DateTime<Utc>,
    /// The version of the time zone database, if the price depends on it.
    pub tz_version: Option<String>,
    /// `priced`, or `frozen` if a rule failed.
    pub outcome: String,
    /// The steps from the base price on.
    pub steps: Vec<Step>,
}

/// A step of any kind, with the fields of all kinds, as a tagged enum would lose the digits of amounts. The
/// domain writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// The kind of the step.
    pub step: String,
    /// The price after it.
    pub after: Box<RawValue>,
    /// The price before it.
    pub before: Option<Box<RawValue>>,
    /// The name of the rule.
    pub rule: Option<String>,
    /// The rule's condition.
    pub when: Option<String>,
    /// The action of the rule, in words.
    pub action: Option<String>,
    /// The variables that the rule read, with their values.
    #[serde(default)]
    pub inputs: BTreeMap<String, Box<RawValue>>,
    /// The reference price of the action.
    pub reference: Option<Box<RawValue>>,
    /// The competitors with that price.
    #[serde(default)]
    pub competitors: Vec<String>,
    /// Whether the rule applied.
    #[serde(default)]
    pub applied: bool,
    /// In a tie, the rule that applied.
    pub chosen: Option<String>,
    /// In a tie, the other rules.
    #[serde(default)]
    pub others: Vec<String>,
    /// The reason why the rule failed.
    pub problem: Option<String>,
    /// The guardrail's name.
    pub guardrail: Option<String>,
    /// The lowest price that the guardrails allow.
    pub lowest: Option<Box<RawValue>>,
    /// The highest price that the guardrails allow.
    pub highest: Option<Box<RawValue>>,
    /// The rounding mode.
    pub mode: Option<String>,
    /// The policy's increment.
    pub increment: Option<Box<RawValue>>,
}

impl From<used_facts::UsedFact<'_>> for UsedFact {
    fn from(used: used_facts::UsedFact<'_>) -> Self {
        let used_facts::UsedFact { fact, competitor, value, source, since, expires_at } = used;
        Self {
            fact: fact.to_owned(),
            competitor: competitor.map(str::to_owned),
            value,
            source: source.map(str::to_owned),
            since,
            expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_reads_as_it_was_written() {
        let json = r#"{"product_id":"P-1","name":"Bag","currency":"USD","list_price":55.20,"policy_version":3,"policy_name":"default","revision":12,"valid_until":null,"facts_used":[{"fact":"competitor_price","competitor":"acme","value":53.50,"source":"/feed","since":"2027-01-15T07:00:00Z","expires_at":"2027-01-16T07:00:00.500Z"},{"fact":"stock_level","value":7,"source":null,"since":null}],"held":{"by":"max_step","target":50.00,"continues_at":"2027-01-15T09:00:00Z","reaches_target_at":null},"explanation":{"outcome":"priced","semantics": 2},"quote":{"final_price":49.80,"discount_rate":0.050,"steps":[{"step":"start","after":55.20}]}}"#;
        let answer: ExplanationAnswer = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
    }
}
