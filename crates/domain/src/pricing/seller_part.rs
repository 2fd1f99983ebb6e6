//! The seller's part of a move: what changed rules, windows and seller's data make of a price, at the market
//! facts of its last pricing. It is made at once and in full, and releases nothing that a limit holds back.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::expression::variable::Variable;
use crate::facts::Facts;
use crate::facts::arithmetic::{larger, smaller};
use crate::facts::movement::{Anchored, Held, Movement};
use crate::facts::previous::Previous;
use crate::policy::move_limit::Position;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::target::Terms;

/// A price after the seller's part.
#[derive(Debug, Clone)]
pub(crate) struct SellerPart<'a> {
    /// The target at the market facts of the last pricing; absent if that is not known, or a rule fails.
    pub(crate) target: Option<Decimal>,
    /// Where the price is, from which the market moves it on.
    pub(crate) position: Position,
    /// The state that the last pricing left behind.
    pub(crate) movement: Option<&'a Movement<'a>>,
    /// Whether rules, windows or seller's data may differ from those of the last pricing.
    pub(crate) is_act: bool,
}

/// What the seller's part is compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repricing<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) policy: &'a PricingPolicy,
    pub(crate) now: DateTime<Utc>,
    pub(crate) product_digest: u64,
    /// The target at the current facts, if no rule fails.
    pub(crate) target: Option<Decimal>,
}

impl<'a> Repricing<'a> {
    /// Returns where the seller's acts leave the price, of which `previous` was the last pricing.
    pub(crate) fn seller_part(&self, previous: &Previous<'a>) -> SellerPart<'a> {
        let Previous { list_price, opening_price, changed_at, streak, .. } = *previous;
        let position =
            Position { opening_price, moved_at: changed_at, streak, ..Position::at(list_price, self.now) };
        let Some(movement) = previous.movement else {
            return SellerPart { target: None, position, movement: None, is_act: false };
        };
        let position = Position { moved_at: movement.moved_at, ..position };
        match movement.target {
            Some(last_target) => self.of_priced(previous, movement, last_target, position),
            None => self.of_never_priced(movement, position),
        }
    }

    fn of_priced(
        &self,
        previous: &Previous<'a>,
        movement: &'a Movement<'a>,
        last_target: Decimal,
        position: Position,
    ) -> SellerPart<'a> {
        let current_price = self.current_price_then(previous);
        let (target, is_act) = self.target_at_last_facts(movement, last_target, current_price);
        // Where the rules fail at the former facts, the seller's part is not known and counts as none.
        let to = target.unwrap_or(last_target);
        let opening_target = previous.opening_target.unwrap_or(last_target);
        let along = |amount: Decimal, from| Anchored { amount, target: from }.at(to);
        let before = movement.price_before(last_target);
        let price = match &movement.held {
            None => to,
            Some(_) if target.is_none() || !is_act => before,
            Some(held) => self.held_price(held, before, to, current_price),
        };
        let list_price = Anchored { amount: position.list_price, target: before }.at(price);
        let position = Position {
            price,
            list_price,
            // A day's first price that is the price in effect moves with it.
            opening_price: match previous.opening_target {
                None if previous.opening_price == previous.list_price => list_price,
                _ => along(position.opening_price, opening_target),
            },
            interval: movement.interval.map(|interval| (interval.began_at, interval.reference.at(to))),
            ..position
        };
        SellerPart { target, position, movement: Some(movement), is_act }
    }

    /// Returns the part of a product for which no rule has made a price: if rules make one at the facts of
    /// the last pricing, the seller has changed them, and the price goes all the way.
    fn of_never_priced(&self, movement: &'a Movement<'a>, position: Position) -> SellerPart<'a> {
        let target = self.terms().target_at(&movement.facts, movement.current_price);
        let price = target.unwrap_or_else(|| self.facts.price_in_effect());
        let position = Position { streak: position.streak, ..Position::at(price, self.now) };
        SellerPart { target, position, movement: Some(movement), is_act: true }
    }

    /// Returns the target at the facts of the last pricing, and whether it may differ from the last one.
    fn target_at_last_facts(
        &self,
        movement: &Movement<'_>,
        last_target: Decimal,
        current_price: Option<Decimal>,
    ) -> (Option<Decimal>, bool) {
        let is_act = movement.policy_version != self.policy.version
            || movement.product_digest != self.product_digest
            || movement.facts.signals.has_replaced_cost(self.facts.product)
            || self.policy.windows_turn(movement.priced_at, self.now);
        if !is_act {
            return (Some(last_target), false);
        }
        let is_same_market =
            movement.facts.signals.is_same_market(self.facts.signals) && !self.policy.depends_on_ages();
        if is_same_market && !self.reads_current_price() {
            return (self.target, true);
        }
        (self.terms().target_at(&movement.facts, current_price), true)
    }

    /// Returns a held price, moved along by the ratio of the targets. It stays between the targets at the
    /// facts at which it was last at its target and at those last known, as far as it was between them.
    fn held_price(
        &self,
        held: &Held<'_>,
        price_before: Decimal,
        target: Decimal,
        current_price: Option<Decimal>,
    ) -> Decimal {
        let price = held.price.at(target);
        let Some(anchor) = &held.last_at_target else { return price };
        let now = self.terms().target_at(&anchor.facts, current_price);
        let Some((before, now)) = anchor.target.zip(now) else {
            // One of the targets is not known: between the price before and the other one.
            let (low, high) = (smaller(price_before, target), larger(price_before, target));
            return smaller(larger(price, low), high);
        };
        let Anchored { amount, target: base } = held.price;
        let (low, high) = (smaller(before, base), larger(before, base));
        let beyond = |edge: Decimal, bound: Decimal| {
            edge.checked_mul(amount).and_then(|product| product.checked_div(bound)).unwrap_or(edge)
        };
        let lowest = smaller(now, target);
        let highest = larger(now, target);
        let lowest = if amount < low { beyond(lowest, low) } else { lowest };
        let highest = if amount > high { beyond(highest, high) } else { highest };
        smaller(larger(price, lowest), highest)
    }

    /// Returns `price.current` of the last pricing.
    fn current_price_then(&self, previous: &Previous<'_>) -> Option<Decimal> {
        previous.movement?.current_price_for(self.policy.version, previous.list_price)
    }

    fn reads_current_price(&self) -> bool {
        self.policy.reads(Variable::PriceCurrent)
    }

    pub(crate) fn terms(&self) -> Terms<'a> {
        Terms { product: self.facts.product, policy: self.policy, now: self.now }
    }
}
