//! The state that a pricing leaves behind for the next one.

use std::borrow::Cow;

use rust_decimal::Decimal;

use crate::facts::Facts;
use crate::facts::arithmetic::compare;
use crate::facts::movement::{Anchored, FactsAtTarget, Held, KnownFacts, Movement, StepInterval};
use crate::facts::signal::Signals;
use crate::policy::move_limit::Position;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::market_part::{MarketPart, Moved, direction};
use crate::pricing::seller_part::{Repricing, SellerPart};

/// A repricing after its seller's part.
pub(crate) struct NextMovement<'r, 'a> {
    pub(crate) repricing: &'r Repricing<'a>,
    pub(crate) market: &'r MarketPart<'r>,
    pub(crate) seller: &'r SellerPart<'a>,
    pub(crate) current_price: Option<Decimal>,
}

/// The state after a pricing, and the first list price of the day.
pub(crate) struct Next<'a> {
    pub(crate) state: Movement<'a>,
    pub(crate) opening_price: Decimal,
}

impl<'a> NextMovement<'_, 'a> {
    /// Returns where the price is after the market's part, and the state.
    pub(crate) fn after(&self, moved: &Moved) -> (Position, Next<'a>) {
        let Self { repricing, market, seller, .. } = self;
        let (before, now) = (&seller.position, repricing.now);
        let is_moved = match seller.is_act {
            true => compare(moved.price, before.price).is_ne(),
            false => compare(moved.rounded.amount, before.list_price).is_ne(),
        };
        let is_by_market = is_moved && market.is_limited;
        let mut position = match is_by_market {
            true => market.position_after(before, moved, now),
            // A release begins neither a pause nor an interval, and ends the one it was in.
            false if !market.is_limited => {
                let list_price = moved.rounded.amount;
                Position { price: moved.price, list_price, interval: None, moved_at: None, ..*before }
            }
            false => Position { price: moved.price, list_price: moved.rounded.amount, ..*before },
        };
        let is_at_target = compare(moved.price, market.target).is_eq();
        let mut awaited = match self.is_caused_by_competitors() {
            true => direction(before.price, market.target),
            false => seller.movement.map_or(0, |movement| movement.awaited_direction),
        };
        let direction = direction(before.price, moved.price);
        if is_by_market && direction != 0 && direction == awaited {
            position.streak = market.policy.guardrails.streak_after(before.streak, direction, now);
            awaited = 0;
        }
        let awaited = if is_at_target { 0 } else { awaited };
        (position, self.state(moved, &position, is_at_target, awaited))
    }

    fn state(
        &self,
        moved: &Moved,
        position: &Position,
        is_at_target: bool,
        awaited_direction: i32,
    ) -> Next<'a> {
        let Self { repricing, market, seller, .. } = self;
        let target = market.target;
        // Where the market has no part, amounts stay with the target that they belong to.
        let stays = seller.target == Some(target) && moved.price == seller.position.price;
        let kept = seller.movement.filter(|movement| stays && movement.target.is_some());
        let held = match kept.map(|movement| &movement.held) {
            Some(held) if is_at_target || held.is_some() => held.as_ref().map(Held::borrowed),
            _ if is_at_target && self.is_kept_from_held() => {
                seller.movement.and_then(|movement| movement.held.as_ref()).map(Held::borrowed)
            }
            _ if is_at_target => None,
            _ => {
                let price = Anchored { amount: moved.price, target };
                Some(Held { price, last_at_target: self.last_at_target() })
            }
        };
        let interval = position.interval.map(|(began_at, reference)| {
            let kept = kept.and_then(|movement| movement.interval);
            kept.filter(|kept| kept.began_at == began_at)
                .unwrap_or(StepInterval { began_at, reference: Anchored { amount: reference, target } })
        });
        let previous = repricing.facts.previous.as_ref();
        let (opening_price, opening_target) = match kept.zip(previous) {
            Some((movement, previous)) => {
                (previous.opening_price, previous.opening_target.or(movement.target))
            }
            None => (position.opening_price, None),
        };
        let is_elsewhere = held.as_ref().is_some_and(|held| held.price.at(target) != moved.price);
        let state = Movement {
            position: is_elsewhere.then_some(moved.price),
            facts: self.known_facts(),
            priced_at: repricing.now,
            policy_version: repricing.policy.version,
            target: Some(target),
            held,
            opening_target: opening_target.filter(|opening_target| *opening_target != target),
            interval,
            moved_at: position.moved_at,
            current_price: self.current_price,
            product_digest: repricing.product_digest,
            awaited_direction,
        };
        Next { state, opening_price }
    }

    /// Whether an act of the seller alone keeps a held price at its target: when the act ends, it is held
    /// again.
    fn is_kept_from_held(&self) -> bool {
        let position = &self.seller.position;
        self.market.is_limited && self.seller.target == Some(position.price)
    }

    /// Returns the facts of this pricing; those that were known before, with the same target, are as old as
    /// they were.
    fn known_facts(&self) -> KnownFacts<'a> {
        let signals = self.repricing.facts.signals;
        let known = self.seller.movement.map(|movement| &movement.facts);
        let is_same = self.seller.target == Some(self.market.target);
        let known = known.filter(|known| is_same && known.signals.is_same_market(signals));
        let known_at = known.map_or(self.repricing.now, |known| known.known_at);
        KnownFacts { signals: Cow::Borrowed(signals), known_at }
    }

    /// Returns the facts at which the price was last at its target.
    fn last_at_target(&self) -> Option<FactsAtTarget<'a>> {
        let movement = self.seller.movement?;
        match &movement.held {
            Some(held) => {
                let last = held.last_at_target.as_ref()?;
                let target = self.repricing.terms().target_at(&last.facts, movement.current_price);
                Some(FactsAtTarget { facts: last.facts.borrowed(), target })
            }
            None => {
                let target = Some(self.seller.target.or(movement.target)?);
                Some(FactsAtTarget { facts: movement.facts.borrowed(), target })
            }
        }
    }

    /// Whether the target differs because of what competitors did since the last pricing. If what was known
    /// then is not known any more, a rule that follows them is what tells.
    fn is_caused_by_competitors(&self) -> bool {
        let Self { repricing, market, seller, .. } = self;
        let Some((movement, target)) = seller.movement.zip(seller.target) else {
            return market.follows_competitors;
        };
        let (before, after) = (&movement.facts.signals, repricing.facts.signals);
        if target == market.target || before.competitor_prices == after.competitor_prices {
            return false;
        }
        let without = Signals { competitor_prices: before.competitor_prices.clone(), ..after.clone() };
        let without = KnownFacts { signals: Cow::Owned(without), known_at: repricing.now };
        repricing.terms().target_at(&without, self.current_price) != Some(market.target)
    }
}

impl<'a> Repricing<'a> {
    /// Returns the state after a product's first pricing; without a target if it was frozen.
    pub(crate) fn first_movement(&self, target: Option<Decimal>) -> Movement<'a> {
        Movement {
            facts: KnownFacts { signals: Cow::Borrowed(self.facts.signals), known_at: self.now },
            priced_at: self.now,
            policy_version: self.policy.version,
            target,
            held: None,
            position: None,
            opening_target: None,
            interval: None,
            moved_at: None,
            current_price: None,
            product_digest: self.product_digest,
            awaited_direction: 0,
        }
    }
}

/// Returns `price.current`: the list price in effect when facts or the seller's data last changed.
pub(crate) fn current_price(
    facts: &Facts<'_>,
    policy: &PricingPolicy,
    product_digest: u64,
) -> Option<Decimal> {
    let previous = facts.previous.as_ref()?;
    match previous.movement {
        Some(movement)
            if movement.product_digest == product_digest
                && movement.facts.signals.say_the_same(facts.signals) =>
        {
            movement.current_price_for(policy.version, previous.list_price)
        }
        _ => Some(previous.list_price),
    }
}
