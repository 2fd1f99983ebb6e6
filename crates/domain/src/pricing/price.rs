//! The list price of a product: facts and a policy in, a price and its explanation out.
//!
//! Market rules change the base price, limits on moves keep it from moving too far at once, floors and
//! ceilings bound it, and rounding moves it to the grid of the currency. What the seller has changed since
//! the last pricing moves the price in full; only the rest of the way to its target, which the market has
//! caused, is limited. A rule that fails freezes the price: the one in effect (or, for a product for which
//! rules never made one, the base price) is kept unless a floor or a ceiling forbids it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::Facts;
use crate::facts::arithmetic::compare;
use crate::facts::limits::Limits;
use crate::facts::money::in_minor_units;
use crate::facts::movement::Movement;
use crate::facts::previous::{Previous, Streak};
use crate::facts::price_entry::PriceEntry;
use crate::facts::time_zone::TzVersion;
use crate::policy::guardrail::{AppliedGuardrail, intersection};
use crate::policy::move_limit::Position;
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rounding::Rounded;
use crate::policy::view::View;
use crate::pricing::apply::{OnFailure, apply_rules};
use crate::pricing::explanation::{Explanation, HeldPrice, Outcome, SEMANTICS, Step};
use crate::pricing::market_part::{MAX_STEPS, MarketPart};
use crate::pricing::next_movement::{NextMovement, current_price};
use crate::pricing::seller_part::Repricing;

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
    /// The first list price of the day.
    pub opening_price: Decimal,
    /// The state for the next pricing; absent if the price is frozen and there was none.
    pub movement: Option<Movement<'a>>,
    /// The explanation.
    pub explanation: Explanation<'a>,
}

/// Whether limits on moves apply to a pricing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveLimiting {
    /// They apply.
    Limited,
    /// A held price goes to its target.
    Released,
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
    price_with(facts, policy, now, MoveLimiting::Limited)
}

/// [`price`] of a step on the way, for which nothing says when the price reaches its target.
pub(crate) fn price_step<'a>(
    facts: &Facts<'a>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
) -> ListPrice<'a> {
    price_up_to(facts, policy, now, MoveLimiting::Limited, 0)
}

/// [`price`], with or without limits on moves.
pub fn price_with<'a>(
    facts: &Facts<'a>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
    limiting: MoveLimiting,
) -> ListPrice<'a> {
    price_up_to(facts, policy, now, limiting, MAX_STEPS)
}

/// Prices a product, and follows its way to the target for at most so many steps.
fn price_up_to<'a>(
    facts: &Facts<'a>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
    limiting: MoveLimiting,
    max_steps: usize,
) -> ListPrice<'a> {
    let mut steps = Vec::with_capacity(policy.market.len() + 3);
    let product_digest = facts.product.digest();
    let current_price = current_price(facts, policy, product_digest);
    let has_floor = policy.guardrails.has_floor(facts);
    let view = View { has_floor, current_price, ..View::of_product(*facts, now) };
    steps.push(Step::Start { after: view.price });
    let applied =
        apply_rules(&policy.market, policy.market_apply, OnFailure::Stop, view, &mut Some(&mut steps));
    let bounds = policy.guardrails.bounds(facts);
    let outer = intersection(bounds.iter().map(|bound| &bound.limits));
    let currency = facts.product.currency;
    let market = applied.price.map(|by_rules| MarketPart {
        policy,
        currency,
        by_rules,
        target: policy.rounding.target(by_rules, currency, outer),
        follows_competitors: applied.follows_competitors,
        bounds: &bounds,
        outer,
        is_limited: limiting == MoveLimiting::Limited && facts.previous.is_some(),
    });
    let repricing = Repricing {
        facts: *facts,
        policy,
        now,
        product_digest,
        target: market.as_ref().map(|market| market.target),
    };
    let priced = match &market {
        Some(market) => repricing.towards_target(market, current_price, max_steps, &mut steps),
        None => repricing.frozen(&bounds, outer, &mut steps),
    };
    let rule_change = policy.next_change(&view);
    let ends = [rule_change, priced.continues_at, facts.signals.next_expiry(now)];
    ListPrice {
        amount: priced.amount,
        limits: policy.guardrails.of_shoppers(outer, priced.amount, currency),
        valid_until: ends.into_iter().flatten().min(),
        streak: priced.streak,
        opening_price: priced.opening_price,
        movement: priced.movement,
        explanation: Explanation {
            policy_version: policy.version,
            semantics: SEMANTICS,
            tz_version: policy.tz_version.as_ref().map(TzVersion::as_str),
            priced_at: now,
            outcome: if market.is_some() { Outcome::Priced } else { Outcome::Frozen },
            facts: *facts,
            held: priced.held,
            steps,
        },
    }
}

/// The parts of a list price that limits on moves determine.
struct Priced<'a> {
    amount: Decimal,
    continues_at: Option<DateTime<Utc>>,
    streak: Option<Streak>,
    opening_price: Decimal,
    movement: Option<Movement<'a>>,
    held: Option<HeldPrice>,
}

impl<'a> Repricing<'a> {
    /// Makes the seller's part of the move, then the market's.
    fn towards_target(
        &self,
        market: &MarketPart<'_>,
        current_price: Option<Decimal>,
        max_steps: usize,
        steps: &mut Vec<Step<'a>>,
    ) -> Priced<'a> {
        let Some(previous) = &self.facts.previous else { return self.first(market, steps) };
        let seller = self.seller_part(previous);
        let moved = market.move_from(&seller.position, self.now, seller.is_act, Some(steps));
        explain_rounding(market, &moved.rounded, moved.amount, steps);
        let next = NextMovement { repricing: self, market, seller: &seller, current_price };
        let (position, next) = next.after(&moved);
        let held = moved
            .is_limited
            .then(|| market.continuation(&position, self.now, next.state.awaited_direction, max_steps));
        let is_at_target = compare(moved.price, market.target).is_eq();
        Priced {
            amount: moved.rounded.amount,
            continues_at: held.and_then(|held| held.continues_at),
            streak: position.streak,
            opening_price: next.opening_price,
            held: held.zip(moved.held_by).filter(|_| !is_at_target).map(|(held, by)| HeldPrice {
                by,
                target: market.target,
                continues_at: held.continues_at,
                reaches_target_at: held.reaches_target_at,
            }),
            movement: Some(next.state),
        }
    }

    /// The first price of a product goes all the way.
    fn first(&self, market: &MarketPart<'_>, steps: &mut Vec<Step<'a>>) -> Priced<'a> {
        let position = Position::at(market.target, self.now);
        let moved = market.move_from(&position, self.now, true, Some(steps));
        explain_rounding(market, &moved.rounded, moved.amount, steps);
        let amount = moved.rounded.amount;
        Priced {
            amount,
            continues_at: None,
            streak: None,
            opening_price: amount,
            movement: Some(self.first_movement(Some(market.target))),
            held: None,
        }
    }

    /// Keeps the price in effect, and the state of the last pricing that was not frozen. A bound may move the
    /// price; endings and price points then do not apply.
    fn frozen(&self, bounds: &[AppliedGuardrail], outer: Limits, steps: &mut Vec<Step<'a>>) -> Priced<'a> {
        let kept = self.facts.price_in_effect();
        let currency = self.facts.product.currency;
        let amount = bounds.iter().fold(kept, |amount, bound| {
            let limited = bound.limits.clamp(amount);
            if compare(limited, amount).is_ne() {
                steps.push(Step::Guardrail { guardrail: bound.name, before: amount, after: limited });
            }
            limited
        });
        steps.extend(contradiction(outer, amount));
        let unrounded = || Rounded { amount: in_minor_units(amount, currency), increment_passed_over: None };
        let rounded = match compare(amount, kept).is_eq() {
            true => unrounded(),
            false => {
                let rounding = &self.policy.rounding;
                rounding.shopper_price(amount, currency, outer).unwrap_or_else(unrounded)
            }
        };
        steps.extend(rounded.steps(self.policy.rounding.mode, amount));
        let previous = self.facts.previous.as_ref();
        let movement = match previous {
            Some(Previous { movement, opening_target, .. }) => {
                match movement.filter(|state| state.target.is_some()) {
                    Some(state) => Some(Movement { opening_target: *opening_target, ..state.borrowed() }),
                    None if movement.is_some() => Some(self.first_movement(None)),
                    None => None,
                }
            }
            None => Some(self.first_movement(None)),
        };
        Priced {
            amount: rounded.amount,
            continues_at: None,
            streak: previous.and_then(|previous| previous.streak),
            opening_price: previous.map_or(rounded.amount, |previous| previous.opening_price),
            movement,
            held: None,
        }
    }
}

fn explain_rounding<'a>(
    market: &MarketPart<'_>,
    rounded: &Rounded,
    amount: Decimal,
    steps: &mut Vec<Step<'a>>,
) {
    steps.extend(contradiction(market.outer, amount));
    steps.extend(rounded.steps(market.policy.rounding.mode, amount));
}

/// Returns a step if no amount is both above the floors and below the ceilings.
fn contradiction<'a>(limits: Limits, after: Decimal) -> Option<Step<'a>> {
    let (lowest, highest) = (limits.lowest?, limits.highest?);
    (lowest > highest).then_some(Step::GuardrailsContradict { lowest, highest, after })
}

#[cfg(test)]
mod tests;
