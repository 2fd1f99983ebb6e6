//! How far a product's price is on its way to its target, as of its last pricing: the state that limits on
//! moves need.
//!
//! A *target* is the price that rules, floors, ceilings and the minor unit give without limits on moves and
//! before endings. Amounts that move along with the seller's acts are kept with the target that they belong
//! to, so that any sequence of acts that returns to this target returns to exactly these amounts.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer};

use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::signal::Signals;

/// The state of a price on its way to its target. The last pricing that was not frozen left it behind; while
/// a price is frozen, it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement<'a> {
    /// The market facts of that pricing.
    pub facts: KnownFacts<'a>,
    /// The policy version of that pricing.
    pub policy_version: i64,
    /// The target of that pricing; absent if every pricing of the product was frozen.
    pub target: Option<Decimal>,
    /// The price, if a limit keeps it from its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held<'a>>,
    /// Where the pricing left a held price, not rounded, if an act of the seller keeps it from where `held`
    /// says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Decimal>,
    /// The target that the day's first price belongs to, if that differs from `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening_target: Option<Decimal>,
    /// The latest interval in which the market moved the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<StepInterval>,
    /// When the market last changed the list price.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub moved_at: Option<DateTime<Utc>>,
    /// The list price in effect when facts or the seller's data last changed: `price.current`; absent since
    /// the product's first price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_price: Option<Decimal>,
    /// See [`Product::digest`](crate::facts::product::Product::digest).
    pub product_digest: u64,
    /// The direction of a move that a competitor caused and a limit has not yet let begin: 1 for up, -1 for
    /// down; 0 if there is none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub awaited_direction: i32,
    /// When that pricing was made. It must stay the last field: states that differ only in it say the same.
    #[serde(serialize_with = "as_instant")]
    pub priced_at: DateTime<Utc>,
}

/// Market facts, and the instant that their ages refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFacts<'a> {
    /// The facts; what the seller stated, [`Signals::cost_stated_at`], is not kept.
    #[serde(default, skip_serializing_if = "are_unknown", serialize_with = "of_market")]
    pub signals: Cow<'a, Signals>,
    /// The instant.
    #[serde(serialize_with = "as_instant")]
    pub known_at: DateTime<Utc>,
}

/// A price that a limit keeps from its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<'a> {
    /// The price, not rounded.
    pub price: Anchored,
    /// The facts at which the price was last at its target; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at_target: Option<FactsAtTarget<'a>>,
}

/// Facts at which a price was at its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsAtTarget<'a> {
    /// The facts.
    pub facts: KnownFacts<'a>,
    /// The target at these facts by the rules of the last pricing; absent if they fail.
    pub target: Option<Decimal>,
}

/// An interval in which `max_step` limits what the market moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInterval {
    /// When it began.
    #[serde(serialize_with = "as_instant")]
    pub began_at: DateTime<Utc>,
    /// The list price before.
    pub reference: Anchored,
}

/// An amount that moves along with the seller's acts: by the ratio of the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    /// The amount.
    pub amount: Decimal,
    /// The target to which it belongs, above 0.
    pub target: Decimal,
}

impl Anchored {
    /// Returns the amount where the target is this one; exactly the amount where the target is the same.
    /// Where the result exceeds a decimal, the amount stays.
    pub fn at(self, target: Decimal) -> Decimal {
        if target == self.target {
            return self.amount;
        }
        let moved = self.amount.checked_mul(target).and_then(|product| product.checked_div(self.target));
        moved.unwrap_or(self.amount)
    }
}

impl<'a> Movement<'a> {
    /// Returns the state with everything borrowed from this one.
    pub(crate) fn borrowed(&'a self) -> Self {
        Self { facts: self.facts.borrowed(), held: self.held.as_ref().map(Held::borrowed), ..*self }
    }

    /// Returns `price.current` while nothing changes. A product's first price had none to read, and its
    /// policy reads none until a change; another policy reads the first price.
    pub(crate) fn current_price_for(&self, policy_version: i64, list_price: Decimal) -> Option<Decimal> {
        let is_another = self.policy_version != policy_version;
        self.current_price.or(is_another.then_some(list_price))
    }

    /// Returns where the pricing left the price, not rounded.
    pub(crate) fn price_before(&self, target: Decimal) -> Decimal {
        match (&self.held, self.position) {
            (None, _) => target,
            (Some(_), Some(position)) => position,
            (Some(held), None) => held.price.at(target),
        }
    }

    /// Returns the state without borrowed parts.
    pub fn into_owned(self) -> Movement<'static> {
        Movement {
            facts: self.facts.into_owned(),
            held: self.held.map(|held| Held {
                price: held.price,
                last_at_target: held
                    .last_at_target
                    .map(|last| FactsAtTarget { facts: last.facts.into_owned(), target: last.target }),
            }),
            priced_at: self.priced_at,
            policy_version: self.policy_version,
            target: self.target,
            position: self.position,
            opening_target: self.opening_target,
            interval: self.interval,
            moved_at: self.moved_at,
            current_price: self.current_price,
            product_digest: self.product_digest,
            awaited_direction: self.awaited_direction,
        }
    }
}

impl<'a> Held<'a> {
    pub(crate) fn borrowed(&'a self) -> Self {
        let last_at_target = self.last_at_target.as_ref();
        Self {
            price: self.price,
            last_at_target: last_at_target
                .map(|last| FactsAtTarget { facts: last.facts.borrowed(), target: last.target }),
        }
    }
}

impl<'a> KnownFacts<'a> {
    pub(crate) fn borrowed(&'a self) -> Self {
        Self { signals: Cow::Borrowed(&*self.signals), known_at: self.known_at }
    }

    fn into_owned(self) -> KnownFacts<'static> {
        KnownFacts { signals: Cow::Owned(self.signals.into_owned()), known_at: self.known_at }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over the field")]
fn is_none(direction: &i32) -> bool {
    *direction == 0
}

#[expect(clippy::ptr_arg, reason = "serde hands over the field")]
fn are_unknown(signals: &Cow<'_, Signals>) -> bool {
    signals.are_unknown()
}

/// Serialises the facts of the market, without what the seller stated: that is part of the product.
#[expect(clippy::ptr_arg, reason = "serde hands over the field")]
fn of_market<S: Serializer>(signals: &Cow<'_, Signals>, serializer: S) -> Result<S::Ok, S::Error> {
    match signals.cost_stated_at {
        None => signals.serialize(serializer),
        Some(_) => Signals { cost_stated_at: None, ..(**signals).clone() }.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_moves_by_the_ratio_and_returns_exactly() {
        let held = Anchored { amount: Decimal::new(85005, 3), target: Decimal::new(4166, 2) };
        assert_eq!(held.at(Decimal::new(8332, 2)), Decimal::new(170_010, 3));
        assert_eq!(held.at(Decimal::new(4166, 2)), Decimal::new(85005, 3));
        let huge = Anchored { amount: Decimal::MAX, target: Decimal::ONE };
        assert_eq!(huge.at(Decimal::TWO), Decimal::MAX);
    }
}
