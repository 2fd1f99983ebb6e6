//! The list price of a product: facts and a policy in, a price and its explanation out.
//!
//! Market rules change the base price, guardrails limit it, rounding moves it to the currency's grid, and the
//! guardrails are checked again. A rule that fails freezes the price: the one in effect (or, for a product
//! that never had one, the base price) is kept unless a floor or a ceiling forbids it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::Facts;
use crate::facts::arithmetic::compare;
use crate::facts::limits::Limits;
use crate::facts::money::in_minor_units;
use crate::facts::previous::Streak;
use crate::facts::price_entry::PriceEntry;
use crate::facts::time_zone::TzVersion;
use crate::policy::guardrail::AppliedGuardrail;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rounding::Rounded;
use crate::policy::view::{About, View};
use crate::pricing::apply::{OnFailure, apply_rules};
use crate::pricing::explanation::{Explanation, Outcome, SEMANTICS, Step};

/// A computed list price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPrice<'a> {
    /// The price, in whole minor units of the product's currency.
    pub amount: Decimal,
    /// The limits of shoppers' prices.
    pub limits: Limits,
    /// The next instant at which time alone may change the price.
    pub valid_until: Option<DateTime<Utc>>,
    /// The streak of changes caused by competitors, including this one, if there is one.
    pub streak: Option<Streak>,
    /// The explanation.
    pub explanation: Explanation<'a>,
}

impl ListPrice<'_> {
    /// Returns the entry to be served, with this revision.
    pub fn entry(&self, revision: i64) -> PriceEntry {
        let product = self.explanation.facts.product;
        PriceEntry {
            product_id: product.product_id.clone(),
            category: product.category.as_deref().map(Into::into),
            currency: product.currency,
            base_price: product.base_price,
            list_price: self.amount,
            lowest: self.limits.lowest,
            highest: self.limits.highest,
            policy_version: self.explanation.policy_version,
            revision,
            valid_until: self.valid_until,
        }
    }
}

/// Computes a product's list price. It cannot fail: a failed rule is part of the explanation.
pub fn price<'a>(facts: &Facts<'a>, policy: &'a PricingPolicy, now: DateTime<Utc>) -> ListPrice<'a> {
    let mut steps = Vec::with_capacity(policy.market.len() + 3);
    let (about, has_floor) = (About::Market(*facts), policy.guardrails.has_floor(facts));
    let view = View { price: facts.product.base_price, now, about, has_floor };
    steps.push(Step::Start { after: view.price });
    let applied =
        apply_rules(&policy.market, policy.market_apply, OnFailure::Stop, view, &mut Some(&mut steps));
    let outcome = if applied.price.is_some() { Outcome::Priced } else { Outcome::Frozen };
    let by_rules = applied.price.unwrap_or_else(|| facts.price_in_effect());
    let follows = applied.follows_competitors;
    let guardrails = policy.guardrails.of_product(facts, follows, now);
    let mut amount = by_rules;
    let mut released_at = None;
    if outcome == Outcome::Priced {
        (amount, released_at) = apply_guardrails(&guardrails.moves, amount, &mut steps);
    }
    (amount, _) = apply_guardrails(&guardrails.bounds, amount, &mut steps);
    let outer_limits = guardrails.outer_limits();
    steps.extend(contradiction(outer_limits, amount));
    // Only amounts that the rules refuse as too large cannot be rounded.
    let currency = facts.product.currency;
    let unrounded = |amount| Rounded { amount, increment_passed_over: None };
    let round =
        |limits| policy.rounding.list_price(amount, currency, limits).unwrap_or_else(|| unrounded(amount));
    let mut rounded = match outcome {
        Outcome::Priced => round(outer_limits),
        Outcome::Frozen if compare(amount, by_rules).is_eq() => unrounded(in_minor_units(amount, currency)),
        // A bound has moved it; endings and price points do not apply.
        Outcome::Frozen => {
            policy.rounding.shopper_price(amount, currency, outer_limits).unwrap_or_else(|| unrounded(amount))
        }
    };
    if outcome == Outcome::Priced && guardrails.stop_move_to(rounded.amount) {
        // The limits on moves also apply to the rounding, so it may change when one of them ends.
        let round_at = |instant| {
            let limits = guardrails.limits_at(instant);
            let rounded = round(limits);
            // If they leave no price, they yield to the outer limits.
            if limits.allow(rounded.amount) { rounded } else { round(outer_limits) }
        };
        rounded = round_at(now);
        let mut ends = guardrails.ends();
        let changes = ends.find(|end| round_at(*end).amount != rounded.amount);
        released_at = released_at.into_iter().chain(changes).min();
    }
    steps.extend(rounded.steps(policy.rounding.mode, amount));
    let previous = facts.previous;
    let explanation = Explanation {
        policy_version: policy.version,
        semantics: SEMANTICS,
        tz_version: policy.tz_version.as_ref().map(TzVersion::as_str),
        priced_at: now,
        outcome,
        facts: *facts,
        steps,
    };
    ListPrice {
        amount: rounded.amount,
        limits: policy.guardrails.of_shoppers(outer_limits, rounded.amount, currency),
        valid_until: policy
            .next_change(&view)
            .into_iter()
            .chain(released_at)
            .chain(facts.signals.next_expiry(now))
            .min(),
        streak: previous
            .and_then(|previous| policy.guardrails.streak_after(&previous, rounded.amount, follows, now)),
        explanation,
    }
}

/// Returns a step if no amount is both above the floors and below the ceilings.
fn contradiction<'a>(limits: Limits, after: Decimal) -> Option<Step<'a>> {
    let (lowest, highest) = (limits.lowest?, limits.highest?);
    (lowest > highest).then_some(Step::GuardrailsContradict { lowest, highest, after })
}

/// Limits the amount to the guardrails; also returns the earliest instant at which time alone lifts a limit
/// that applied.
fn apply_guardrails(
    guardrails: &[AppliedGuardrail],
    mut amount: Decimal,
    steps: &mut Vec<Step<'_>>,
) -> (Decimal, Option<DateTime<Utc>>) {
    let mut released_at = None;
    for guardrail in guardrails {
        let kept = guardrail.limits.clamp(amount);
        if compare(kept, amount).is_ne() {
            steps.push(Step::Guardrail { guardrail: guardrail.name, before: amount, after: kept });
            amount = kept;
            released_at = released_at.into_iter().chain(guardrail.until).min();
        }
    }
    (amount, released_at)
}

#[cfg(test)]
mod tests;
