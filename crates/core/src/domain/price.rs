//! The list price of a product: facts and a policy in, a price and its explanation out.
//!
//! Market rules move the base price, guardrails stop it, rounding puts it on the currency's grid, and the
//! guardrails are checked again. A rule that fails freezes the price: the one in effect stays (or, for a product
//! that never had one, the base price), still within the guardrails.

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::explanation::{Explanation, Inputs, Outcome, RuleSeen, Step};
use super::guardrail::{AppliedGuardrail, GuardrailName};
use super::money::{Currency, as_json_number};
use super::policy::PricingPolicy;
use super::product::{Product, ProductId, amount_from_json};
use super::rounding::Limits;
use super::rule::Rule;
use super::signal::Signals;
use super::variable::{Value, Variable};

/// Everything a list price depends on, besides the policy and the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Facts<'a> {
    /// The product.
    pub product: &'a Product,
    /// What is known about its market.
    pub signals: &'a Signals,
    /// Its price until now.
    pub previous: Option<Previous>,
}

/// The price of a product until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The list price in effect.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub list_price: Decimal,
    /// The list price at the start of the day (UTC), or the day's first.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub opening_price: Decimal,
}

/// A computed list price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPrice<'a> {
    /// The price, in whole minor units of the product's currency.
    pub amount: Decimal,
    /// Where a shopper's price may be.
    pub limits: Limits,
    /// The next instant at which time alone may change the price.
    pub valid_until: Option<DateTime<Utc>>,
    /// Why.
    pub explanation: Explanation<'a>,
}

/// A list price ready to be served: what the caches hold, and what a quote starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceEntry {
    /// The product.
    pub product_id: ProductId,
    /// Its category, which offer rules may ask for.
    pub category: Option<Arc<str>>,
    /// What the amounts are in.
    pub currency: Currency,
    /// The product's base price.
    pub base_price: Decimal,
    /// The list price.
    pub list_price: Decimal,
    /// No shopper pays less.
    pub lowest: Option<Decimal>,
    /// No shopper pays more, unless `lowest` demands it.
    pub highest: Option<Decimal>,
    /// The policy that made it, and that quotes from it use.
    pub policy_version: i64,
    /// Grows with every change of the entry: a newer one is never replaced by an older one.
    pub revision: i64,
    /// The entry may not be served from this instant on.
    pub valid_until: Option<DateTime<Utc>>,
}

impl PriceEntry {
    /// Whether the entry may be served now.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.valid_until.is_none_or(|valid_until| now < valid_until)
    }

    /// The limits as guardrails use them.
    pub fn limits(&self) -> Limits {
        Limits { lowest: self.lowest, highest: self.highest }
    }
}

impl<'a> Facts<'a> {
    /// What one unit costs: the market's word before the product's.
    pub fn unit_cost(&self) -> Option<Decimal> {
        self.signals.unit_cost.or(self.product.unit_cost)
    }

    /// The list price until now, or for a product that never had one, the base price.
    fn price_in_effect(&self) -> Decimal {
        self.previous.map_or(self.product.base_price, |previous| previous.list_price)
    }

    fn value_of(&self, variable: Variable, price: Decimal) -> Value<'a> {
        match variable {
            Variable::ProductId => Value::Text(self.product.product_id.as_str()),
            Variable::ProductBasePrice => Value::Number(self.product.base_price),
            Variable::ProductUnitCost => Value::number(self.unit_cost()),
            Variable::ProductCategory => Value::text(self.product.category.as_deref()),
            Variable::ProductBrand => Value::text(self.product.brand.as_deref()),
            Variable::CompetitorMin => Value::number(self.signals.competitor_min()),
            Variable::CompetitorMedian => Value::number(self.signals.competitor_median()),
            Variable::CompetitorMax => Value::number(self.signals.competitor_max()),
            Variable::CompetitorCount => Value::Number(self.signals.competitor_prices.len().into()),
            Variable::StockLevel => Value::number(self.signals.stock_level),
            Variable::DemandIndex => Value::number(self.signals.demand_index),
            Variable::PriceCurrent => Value::number(self.previous.map(|previous| previous.list_price)),
            Variable::Price => Value::Number(price),
            // The compiler admits the rest to offer rules only.
            Variable::PriceList
            | Variable::ShopperLocation
            | Variable::ShopperPrime
            | Variable::ShopperQuantity
            | Variable::ShopperChannel
            | Variable::LocationFactor => Value::Null,
        }
    }
}

/// Computes a product's list price. Cannot fail: what goes wrong is part of the explanation.
pub fn price<'a>(facts: &Facts<'a>, policy: &'a PricingPolicy, now: DateTime<Utc>) -> ListPrice<'a> {
    let mut steps = Vec::with_capacity(policy.market.len() + 3);
    let (by_rules, outcome) = match apply_market_rules(facts, policy, now, &mut steps) {
        Some(price) => (price, Outcome::Priced),
        None => (facts.price_in_effect(), Outcome::Frozen),
    };
    let guardrails = policy.guardrails.of_product(facts);
    let mut amount = by_rules;
    if outcome == Outcome::Priced {
        amount = apply_guardrails(&guardrails.moves, amount, &mut steps);
    }
    amount = apply_guardrails(&guardrails.bounds, amount, &mut steps);
    let outer_limits = guardrails.outer_limits();
    if let (Some(lowest), Some(highest)) = (outer_limits.lowest, outer_limits.highest)
        && lowest > highest
    {
        steps.push(Step::GuardrailsContradict { lowest, highest, after: amount });
    }
    let limits = if outcome == Outcome::Priced { guardrails.limits() } else { outer_limits };
    // An amount that cannot be rounded is beyond any allowed amount; the rules refuse those.
    let rounded = policy.rounding.list_price(amount, facts.product.currency, limits).unwrap_or(amount);
    if rounded != amount {
        steps.push(Step::Rounding { mode: policy.rounding.mode, before: amount, after: rounded });
    }
    let held_back_today = steps
        .iter()
        .any(|step| matches!(step, Step::Guardrail { guardrail: GuardrailName::MaxDailyMove, .. }));
    let valid_until =
        policy.next_change(now).into_iter().chain(held_back_today.then(|| next_day(now)).flatten()).min();
    ListPrice {
        amount: rounded,
        limits: outer_limits,
        valid_until,
        explanation: Explanation {
            policy_version: policy.version,
            priced_at: now,
            outcome,
            facts: *facts,
            steps,
        },
    }
}

/// The price after all market rules, or `None` if one failed.
fn apply_market_rules<'a>(
    facts: &Facts<'a>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
    steps: &mut Vec<Step<'a>>,
) -> Option<Decimal> {
    let mut price = facts.product.base_price;
    steps.push(Step::Start { after: price });
    for rule in &policy.market {
        let value_of = |variable| facts.value_of(variable, price);
        let result = rule.apply(price, now, &value_of);
        let seen = see(rule, &value_of);
        match result {
            Ok(moved) => {
                let after = moved.unwrap_or(price);
                steps.push(Step::Rule { rule: seen, applied: moved.is_some(), before: price, after });
                price = after;
            }
            Err(error) => {
                let after = facts.price_in_effect();
                steps.push(Step::RuleFailed { rule: seen, problem: error.to_string(), after });
                return None;
            }
        }
    }
    Some(price)
}

/// The rule with what it reads, for the explanation.
pub(super) fn see<'a>(rule: &'a Rule, value_of: &dyn Fn(Variable) -> Value<'a>) -> RuleSeen<'a> {
    let mut inputs = Inputs::default();
    for variable in rule.variables() {
        if inputs.0.iter().all(|(seen, _)| *seen != variable) {
            inputs.0.push((variable, value_of(variable)));
        }
    }
    let when = rule.when.as_ref().map(|when| &**when.source());
    RuleSeen { name: &rule.name, when, action: rule.action.to_string(), inputs }
}

fn apply_guardrails<'a>(
    guardrails: &[AppliedGuardrail],
    mut amount: Decimal,
    steps: &mut Vec<Step<'a>>,
) -> Decimal {
    for guardrail in guardrails {
        let kept = guardrail.limits.clamp(amount);
        if kept != amount {
            steps.push(Step::Guardrail { guardrail: guardrail.name, before: amount, after: kept });
            amount = kept;
        }
    }
    amount
}

/// Midnight UTC after `now`, when a move held back by the daily limit may go on.
fn next_day(now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let tomorrow = now.date_naive().checked_add_days(Days::new(1))?;
    Some(tomorrow.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
