//! Explanations: the steps and facts that a price results from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pricing_domain::pricing::used_facts;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::amount;

/// A shopper for whom the quote is explained too; without a location, only the list price is.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExplanationQuery {
    /// Where the shopper is.
    #[param(example = "NY")]
    pub user_location: Option<String>,
    /// Whether the shopper is a prime member.
    pub is_prime_member: Option<bool>,
    /// How many units.
    pub quantity: Option<u32>,
    /// The sales channel.
    pub channel: Option<String>,
    /// The group of shoppers that the seller puts the shopper in.
    pub segment: Option<String>,
}

/// Why a product's price is what it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExplanationAnswer {
    /// The product.
    #[schema(example = "P-100")]
    pub product_id: String,
    /// Its name.
    pub name: String,
    /// What the amounts are in.
    pub currency: String,
    /// The list price.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub list_price: Decimal,
    /// The policy that made it.
    pub policy_version: i64,
    /// That policy's name.
    pub policy_name: String,
    /// Grows with every change of the list price.
    #[serde(default)]
    #[schema(required)]
    pub revision: i64,
    /// The instant from which time alone may change the price.
    pub valid_until: Option<DateTime<Utc>>,
    /// The facts that it was made with: which cost, competitors' prices, stock, sales and demand, said by
    /// whom and when.
    #[serde(default)]
    #[schema(required)]
    pub facts_used: Vec<UsedFact>,
    /// What was recorded when the list price was made: facts, steps and outcome. Steps are as in a quote's,
    /// and `guardrails_contradict` (`lowest`, `highest`). `semantics` counts the engines that made other
    /// prices or explanations of the same, and is 1 where it is missing.
    #[schema(value_type = Object)]
    pub explanation: Box<RawValue>,
    /// The shopper's price, if a location was given.
    pub quote: Option<QuoteExplanation>,
}

/// A fact that a price was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsedFact {
    /// `unit_cost`, `competitor_price`, `stock_level`, `units_sold` or `demand_index`.
    #[schema(example = "unit_cost")]
    pub fact: String,
    /// Whose price it is, of a competitor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub competitor: Option<String>,
    /// What it says.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub value: Decimal,
    /// Who said so: `product` for the product's row, else the source of the event; null if that is not known.
    #[schema(required)]
    pub source: Option<String>,
    /// When it was true; null if that is not known. The seller's word on a cost is of the request that said
    /// it.
    #[schema(required)]
    pub since: Option<DateTime<Utc>>,
    /// From when on it is not known any more, if it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why a shopper's price is what it is.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QuoteExplanation {
    /// What one unit costs the shopper.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub final_price: Decimal,
    /// What part of what this shopper would pay without the rules that are discounts they take off.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub discount_rate: Decimal,
    /// What happened, from the list price on; each is an object whose `step` names its kind, with the price
    /// `after` it: `start`; `rule` (`rule`, `when`, `action`, `inputs`, `reference`, `applied`, `before`);
    /// `rule_failed` (`problem`); `tie` (`chosen`, `others`); `guardrail` (`guardrail`, `before`); `rounding`
    /// (`mode`, `before`); `increment_passed_over` (`increment`): no multiple of the increment fits, and the
    /// price keeps to the minor unit.
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

/// A step of any kind, with the fields of all kinds: an enum with a tag could not keep the digits of amounts.
/// The domain writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// The kind.
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
    /// The highest price that they allow.
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
        let json = r#"{"product_id":"P-1","name":"Bag","currency":"USD","list_price":55.20,"policy_version":3,"policy_name":"default","revision":12,"valid_until":null,"facts_used":[{"fact":"competitor_price","competitor":"acme","value":53.50,"source":"/feed","since":"2027-01-15T07:00:00Z","expires_at":"2027-01-16T07:00:00.500Z"},{"fact":"stock_level","value":7,"source":null,"since":null}],"explanation":{"outcome":"priced","semantics": 2},"quote":{"final_price":49.80,"discount_rate":0.050,"steps":[{"step":"start","after":55.20}]}}"#;
        let answer: ExplanationAnswer = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
    }
}
