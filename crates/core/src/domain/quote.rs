//! A shopper's own price: the list price, moved by the offer rules for this shopper, within the guardrails.
//!
//! Nothing that depends on the shopper is ever cached, so no shopper can be given another's price.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::explanation::Step;
use super::guardrail::GuardrailName;
use super::policy::PricingPolicy;
use super::price::{PriceEntry, see};
use super::rule::{Action, Change, Rule, RuleError};
use super::variable::{Value, Variable};

/// Who asks for a price, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shopper<'a> {
    /// Where they are.
    pub location: &'a str,
    /// Whether they are a prime member.
    pub prime: bool,
    /// How many units they ask for.
    pub quantity: u32,
    /// The sales channel, if they named one.
    pub channel: Option<&'a str>,
    /// The factor set for their location, if any.
    pub location_factor: Option<Decimal>,
}

/// The answer to one shopper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The price of one unit, in whole minor units of the entry's currency.
    pub final_price: Decimal,
    /// What part of the price the offer rules' `adjust` actions took off: 0.05 is five percent.
    pub discount_rate: Decimal,
    /// Offer rules that failed. They are passed over: the shopper pays the price without them.
    pub failed_rules: u32,
}

/// Computes a shopper's price; if `steps` is given, says why in it.
pub fn quote<'a>(
    entry: &'a PriceEntry,
    policy: &'a PricingPolicy,
    shopper: &Shopper<'a>,
    now: DateTime<Utc>,
    mut steps: Option<&mut Vec<Step<'a>>>,
) -> Quote {
    let mut price = entry.list_price;
    let mut kept = Decimal::ONE;
    let mut failed_rules = 0;
    record(&mut steps, || Step::Start { after: price });
    for rule in &policy.offer {
        let value_of = |variable| value_of(variable, entry, shopper, price);
        let result = rule.apply(price, now, &value_of);
        record(&mut steps, || step_of(rule, &result, price, &value_of));
        match result {
            Ok(Some(after)) => {
                kept = part_kept(kept, &rule.action, price, after);
                price = after;
            }
            Ok(None) => {}
            Err(_) => failed_rules += 1,
        }
    }
    let final_price = bring_to_market(price, entry, policy, &mut steps);
    let discount_rate = (Decimal::ONE - kept).max(Decimal::ZERO).round_dp(4).normalize();
    Quote { final_price, discount_rate, failed_rules }
}

/// The price within the limits, in whole minor units.
fn bring_to_market(
    price: Decimal,
    entry: &PriceEntry,
    policy: &PricingPolicy,
    steps: &mut Option<&mut Vec<Step<'_>>>,
) -> Decimal {
    let limits = entry.limits();
    let allowed = limits.clamp(price);
    if allowed != price {
        let guardrail =
            if allowed > price { GuardrailName::LowestPrice } else { GuardrailName::HighestPrice };
        record(steps, || Step::Guardrail { guardrail, before: price, after: allowed });
    }
    // `None` only for prices too large to round, which the rules refuse.
    let rounded = policy.rounding.shopper_price(allowed, entry.currency, limits).unwrap_or(entry.list_price);
    if rounded != allowed {
        record(steps, || Step::Rounding { mode: policy.rounding.mode, before: allowed, after: rounded });
    }
    rounded
}

/// What a rule did, for the explanation.
fn step_of<'a>(
    rule: &'a Rule,
    result: &Result<Option<Decimal>, RuleError>,
    price: Decimal,
    value_of: &dyn Fn(Variable) -> Value<'a>,
) -> Step<'a> {
    let seen = see(rule, value_of);
    match result {
        Ok(moved) => {
            Step::Rule { rule: seen, applied: moved.is_some(), before: price, after: moved.unwrap_or(price) }
        }
        Err(error) => Step::RuleFailed { rule: seen, problem: error.to_string(), after: price },
    }
}

/// What is left of the price after one more `adjust`; other actions are no discounts.
fn part_kept(kept: Decimal, action: &Action, before: Decimal, after: Decimal) -> Decimal {
    let factor = match action {
        Action::Adjust(Change::Fraction(fraction)) => Decimal::ONE.checked_add(*fraction),
        Action::Adjust(Change::Amount(_)) => after.checked_div(before),
        _ => None,
    };
    factor.and_then(|factor| kept.checked_mul(factor)).unwrap_or(kept)
}

fn value_of<'a>(
    variable: Variable,
    entry: &'a PriceEntry,
    shopper: &Shopper<'a>,
    price: Decimal,
) -> Value<'a> {
    match variable {
        Variable::ProductId => Value::Text(entry.product_id.as_str()),
        Variable::ProductBasePrice => Value::Number(entry.base_price),
        Variable::ProductCategory => Value::text(entry.category.as_deref()),
        Variable::Price => Value::Number(price),
        Variable::PriceList => Value::Number(entry.list_price),
        Variable::ShopperLocation => Value::Text(shopper.location),
        Variable::ShopperPrime => Value::Bool(shopper.prime),
        Variable::ShopperQuantity => Value::Number(shopper.quantity.into()),
        Variable::ShopperChannel => Value::text(shopper.channel),
        Variable::LocationFactor => Value::number(shopper.location_factor),
        // The compiler admits the rest to market rules only.
        Variable::ProductUnitCost
        | Variable::ProductBrand
        | Variable::CompetitorMin
        | Variable::CompetitorMedian
        | Variable::CompetitorMax
        | Variable::CompetitorCount
        | Variable::StockLevel
        | Variable::DemandIndex
        | Variable::PriceCurrent => Value::Null,
    }
}

fn record<'a>(steps: &mut Option<&mut Vec<Step<'a>>>, step: impl FnOnce() -> Step<'a>) {
    if let Some(steps) = steps {
        steps.push(step());
    }
}

#[cfg(test)]
#[path = "quote_tests.rs"]
mod tests;
