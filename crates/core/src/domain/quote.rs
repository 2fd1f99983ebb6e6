//! A shopper's own price: the list price, moved by the offer rules for this shopper, within the guardrails.
//!
//! Nothing that depends on the shopper is ever cached, so no shopper can be given another's price.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::explanation::Step;
use super::guardrail::GuardrailName;
use super::policy::PricingPolicy;
use super::price::{PriceEntry, see};
use super::rule::{Action, Change};
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
        match rule.apply(price, now, &value_of) {
            Ok(moved) => {
                let after = moved.unwrap_or(price);
                record(&mut steps, || Step::Rule {
                    rule: see(rule, &value_of),
                    applied: moved.is_some(),
                    before: price,
                    after,
                });
                if let (Action::Adjust(change), true) = (&rule.action, moved.is_some()) {
                    kept = part_kept(kept, *change, price, after);
                }
                price = after;
            }
            Err(error) => {
                failed_rules += 1;
                record(&mut steps, || Step::RuleFailed {
                    rule: see(rule, &value_of),
                    problem: error.to_string(),
                    after: price,
                });
            }
        }
    }
    let allowed = entry.limits().clamp(price);
    if allowed != price {
        let guardrail = if allowed > price {
            GuardrailName::LowestPrice
        } else {
            GuardrailName::HighestPrice
        };
        record(&mut steps, || Step::Guardrail {
            guardrail,
            before: price,
            after: allowed,
        });
        price = allowed;
    }
    // Rules refuse prices that are too large to round.
    let final_price = policy
        .rounding
        .shopper_price(price, entry.currency, entry.limits())
        .unwrap_or(entry.list_price);
    if final_price != price {
        record(&mut steps, || Step::Rounding {
            mode: policy.rounding.mode,
            before: price,
            after: final_price,
        });
    }
    let discount_rate = (Decimal::ONE - kept).max(Decimal::ZERO).round_dp(4).normalize();
    Quote {
        final_price,
        discount_rate,
        failed_rules,
    }
}

/// What is left of the price after one more discount.
fn part_kept(kept: Decimal, change: Change, before: Decimal, after: Decimal) -> Decimal {
    let factor = match change {
        Change::Fraction(fraction) => Decimal::ONE + fraction,
        Change::Amount(_) => after.checked_div(before).unwrap_or(Decimal::ONE),
    };
    kept.checked_mul(factor).unwrap_or(kept)
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
