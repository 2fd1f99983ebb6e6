//! A shopper's own price: the list price, changed by the offer rules for this shopper, within the guardrails.
//!
//! Nothing that depends on the shopper is cached, so no shopper can get another's price.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::arithmetic::{compare, part_taken};
use crate::facts::price_entry::PriceEntry;
use crate::facts::shopper::Shopper;
use crate::policy::guardrail::GuardrailName;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::view::View;
use crate::pricing::apply::{AppliedRules, OnFailure, apply_rules};
use crate::pricing::explanation::Step;

/// The price of one shopper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The price of one unit, in whole minor units of the entry's currency.
    pub final_price: Decimal,
    /// The discount, as a fraction of the price that this shopper would pay without discount rules, both
    /// after guardrails and rounding: `max(0, 1 − final_price ÷ undiscounted)`, four decimal places, half
    /// even. 0.05 is five percent.
    pub discount_rate: Decimal,
    /// Offer rules that failed. They are skipped: the shopper pays the price without them.
    pub failed_rules: u32,
    /// Whether something personal of the shopper was looked at and could have changed the price
    /// ([`DIMENSIONS`](crate::facts::dimension::DIMENSIONS) says what is personal). Limits that undo a change
    /// do not count, nor does a rule of which something else says that it does not apply.
    pub is_personalised: bool,
}

/// Computes a shopper's price; explains it in `steps` if given.
pub fn quote<'a>(
    entry: &'a PriceEntry,
    policy: &'a PricingPolicy,
    shopper: &'a Shopper<'a>,
    now: DateTime<Utc>,
    mut steps: Option<&mut Vec<Step<'a>>>,
) -> Quote {
    record(&mut steps, || Step::Start { after: entry.list_price });
    let view = View::of_shopper(entry, shopper, now);
    let applied = apply_rules(&policy.offer, policy.offer_apply, OnFailure::PassOver, view, &mut steps);
    let price = applied.price.unwrap_or(entry.list_price);
    let final_price = bring_to_market(price, entry, policy, &mut steps);
    let discount_rate = if compare(price, applied.undiscounted).is_lt() {
        part_taken(final_price, bring_to_market(applied.undiscounted, entry, policy, &mut None))
    } else {
        Decimal::ZERO
    };
    let AppliedRules { failed_rules, is_personalised, .. } = applied;
    Quote { final_price, discount_rate, failed_rules, is_personalised }
}

/// Limits and rounds the price to whole minor units. A price that rules leave at the list price, or limits
/// return to it, is exactly the list price, and rounding never moves a price across it: a discount never
/// raises a price.
fn bring_to_market(
    price: Decimal,
    entry: &PriceEntry,
    policy: &PricingPolicy,
    steps: &mut Option<&mut Vec<Step<'_>>>,
) -> Decimal {
    let list_price = entry.list_price;
    if compare(price, list_price).is_eq() {
        return list_price;
    }
    let limits = entry.limits();
    // Without an increment, rounding keeps a price that limits return to the list price: it is a multiple of
    // the minor unit.
    if policy.rounding.increment.is_none() && steps.is_none() {
        let rounded = policy.rounding.shopper_price(price, entry.currency, limits);
        return rounded.map_or(list_price, |rounded| rounded.amount);
    }
    let allowed = limits.clamp(price);
    if let Some(steps) = steps {
        steps.extend(guardrail(price, allowed, entry, policy));
    }
    if compare(allowed, list_price).is_eq() {
        return list_price;
    }
    let limits = if policy.rounding.increment.is_some() { limits.up_to(list_price, allowed) } else { limits };
    // `None` only for prices too large to round, which the rules refuse.
    let Some(rounded) = policy.rounding.round_allowed(allowed, entry.currency, limits) else {
        return list_price;
    };
    if let Some(steps) = steps {
        steps.extend(rounded.steps(policy.rounding.mode, allowed));
    }
    rounded.amount
}

/// Returns the step that explains a price moved by the limits.
fn guardrail<'a>(
    before: Decimal,
    after: Decimal,
    entry: &PriceEntry,
    policy: &PricingPolicy,
) -> Option<Step<'a>> {
    let by_discount = || policy.guardrails.lowest_by_discount(entry.list_price, entry.currency);
    let guardrail = match compare(after, before) {
        Ordering::Equal => return None,
        Ordering::Greater if by_discount() == Some(after) => GuardrailName::MaxDiscount,
        Ordering::Greater => GuardrailName::LowestPrice,
        Ordering::Less => GuardrailName::HighestPrice,
    };
    Some(Step::Guardrail { guardrail, before, after })
}

fn record<'a>(steps: &mut Option<&mut Vec<Step<'a>>>, step: impl FnOnce() -> Step<'a>) {
    if let Some(steps) = steps {
        steps.push(step());
    }
}

#[cfg(test)]
mod tests;
