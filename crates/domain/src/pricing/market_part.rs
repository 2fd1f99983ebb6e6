//! The market's part of a move: from where the seller's acts leave a price towards its target, as far as the
//! limits on moves allow, and how the rest of the way continues.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::arithmetic::compare;
use crate::facts::limits::Limits;
use crate::facts::money::Currency;
use crate::policy::guardrail::{AppliedGuardrail, GuardrailName, intersection};
use crate::policy::move_limit::{MoveLimit, MoveLimits, Position};
use crate::policy::pricing_policy::PricingPolicy;
use crate::policy::rounding::Rounded;
use crate::pricing::explanation::Step;

/// The most steps in which a price reaches its target; what is left after them counts as without an end.
pub(crate) const MAX_STEPS: usize = 1_000;

/// Prices that differ by less are the same.
const SAME: Decimal = Decimal::from_parts(1, 0, 0, false, 9);

/// What the market moves a price to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MarketPart<'p> {
    pub(crate) policy: &'p PricingPolicy,
    pub(crate) currency: Currency,
    /// The price by the rules alone, not limited and not rounded.
    pub(crate) by_rules: Decimal,
    /// The target.
    pub(crate) target: Decimal,
    pub(crate) follows_competitors: bool,
    /// The limits on the price itself.
    pub(crate) bounds: &'p [AppliedGuardrail],
    pub(crate) outer: Limits,
    /// Whether limits on moves apply.
    pub(crate) is_limited: bool,
}

/// Where the market has moved a price.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// The price, not rounded.
    pub(crate) price: Decimal,
    /// The amount before rounding.
    pub(crate) amount: Decimal,
    /// The list price.
    pub(crate) rounded: Rounded,
    /// Whether a limit on moves keeps the price from its target, or the list price from its rounding.
    pub(crate) is_limited: bool,
    /// The limit on moves that keeps the price from its target; of several, the last that applied.
    pub(crate) held_by: Option<GuardrailName>,
}

/// How a held price continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Continuation {
    /// The next instant at which the list price changes; absent if none does.
    pub(crate) continues_at: Option<DateTime<Utc>>,
    /// When it reaches its target; absent if it never does.
    pub(crate) reaches_target_at: Option<DateTime<Utc>>,
}

impl MarketPart<'_> {
    /// Moves a price as far as the limits in force at an instant allow; explains it in `steps` if given. An
    /// act of the seller rounds a price again, also during a pause.
    pub(crate) fn move_from(
        &self,
        position: &Position,
        at: DateTime<Utc>,
        is_act: bool,
        mut steps: Option<&mut Vec<Step<'_>>>,
    ) -> Moved {
        let limits = match self.is_limited {
            true => self.policy.guardrails.move_limits(position, self.follows_competitors, at),
            false => MoveLimits::new(),
        };
        let (mut price, mut held_by) = (self.target, None);
        for limit in &limits {
            let kept = limit.price.clamp(price);
            if compare(kept, price).is_ne() {
                (price, held_by) = (kept, Some(limit.name));
            }
        }
        // Amounts that moved along with a target differ in their last digits.
        if (price - position.price).abs() < SAME {
            price = position.price;
        }
        let is_kept = compare(price, self.target).is_ne();
        let price = self.outer.clamp(price);
        let is_at_target = compare(price, self.target).is_eq();
        let mut amount = self.by_rules;
        let moves = limits.iter().map(|limit| (limit.name, limit.list_price));
        let moves = moves.filter(|_| is_kept);
        let bounds = self.bounds.iter().map(|bound| (bound.name, bound.limits));
        for (guardrail, limits) in moves.chain(bounds) {
            let kept = limits.clamp(amount);
            if compare(kept, amount).is_ne() {
                if let Some(steps) = &mut steps {
                    steps.push(Step::Guardrail { guardrail, before: amount, after: kept });
                }
                amount = kept;
            }
        }
        // A move in the other direction ends a loop; the seller's act is rounded again.
        let is_moving = compare(price, position.price).is_ne();
        let is_over = |limit: &MoveLimit| match limit.name {
            GuardrailName::CompetitorLoop => is_at_target || is_moving && limit.price.allow(self.target),
            GuardrailName::MinTimeBetweenChanges => is_act,
            _ => is_act && is_at_target && !is_moving,
        };
        let of_rounding = limits.iter().filter(|limit| !is_over(limit));
        let of_rounding = of_rounding.map(|limit| limit.list_price);
        let (rounded, is_free) = match self.target_as_shown(is_at_target, of_rounding.clone()) {
            Some(rounded) => (rounded, true),
            None => self.round(amount, of_rounding),
        };
        Moved { price, amount, rounded, is_limited: !(is_at_target && is_free), held_by }
    }

    /// Returns the target if it needs no further rounding: without an increment, endings and price points.
    #[inline]
    fn target_as_shown(
        &self,
        is_at_target: bool,
        mut moves: impl Iterator<Item = Limits>,
    ) -> Option<Rounded> {
        let is_plain = is_at_target && self.policy.rounding.is_plain();
        let is_free = is_plain && moves.all(|limits| limits.allow(self.target));
        is_free.then_some(Rounded { amount: self.target, increment_passed_over: None })
    }

    /// Rounds within the floors and ceilings and, where these leave a price, the limits on moves. Also
    /// returns whether the limits on moves make no difference.
    fn round(&self, amount: Decimal, moves: impl Iterator<Item = Limits> + Clone) -> (Rounded, bool) {
        let round = |limits| {
            let rounded = self.policy.rounding.list_price(amount, self.currency, limits);
            // Only amounts that the rules refuse as too large cannot be rounded.
            rounded.unwrap_or(Rounded { amount, increment_passed_over: None })
        };
        let free = round(self.outer);
        if moves.clone().all(|limits| limits.allow(free.amount)) {
            return (free, true);
        }
        let moves: Vec<Limits> = moves.collect();
        let all = intersection(moves.iter().chain([&self.outer]));
        let all = if all.contradict() { self.outer } else { all };
        let rounded = round(all);
        (if all.allow(rounded.amount) { rounded } else { free }, false)
    }

    /// Returns where the price is after a move at this instant.
    pub(crate) fn position_after(&self, position: &Position, moved: &Moved, at: DateTime<Utc>) -> Position {
        let guardrails = &self.policy.guardrails;
        let open = position.interval.filter(|(began_at, _)| !guardrails.is_interval_over(*began_at, at));
        let is_new_day = at.date_naive() > position.opened_at.date_naive();
        Position {
            price: moved.price,
            list_price: moved.rounded.amount,
            interval: Some(open.unwrap_or((at, position.list_price))),
            moved_at: Some(at),
            opening_price: if is_new_day { position.list_price } else { position.opening_price },
            opened_at: if is_new_day { at } else { position.opened_at },
            streak: position.streak,
        }
    }

    /// Returns the next instant at which the end of a limit changes the list price, and the move then.
    fn next_move(&self, position: &Position, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Moved)> {
        let ends = self.policy.guardrails.limit_ends(position, now);
        ends.into_iter().find_map(|end| {
            let moved = self.move_from(position, end, false, None);
            compare(moved.rounded.amount, position.list_price).is_ne().then_some((end, moved))
        })
    }

    /// Returns how a price continues if nothing else changes.
    pub(crate) fn continuation(
        &self,
        position: &Position,
        now: DateTime<Utc>,
        awaited_direction: i32,
        max_steps: usize,
    ) -> Continuation {
        let mut next = if self.is_limited { self.next_move(position, now) } else { None };
        let continues_at = next.map(|(at, _)| at);
        let (mut position, mut reached, mut awaited) = (*position, None, awaited_direction);
        for _ in 0..max_steps {
            if compare(position.price, self.target).is_eq() {
                return Continuation { continues_at, reaches_target_at: reached };
            }
            let Some((at, moved)) = next else { break };
            let direction = direction(position.price, moved.price);
            position = self.position_after(&position, &moved, at);
            if awaited != 0 && direction == awaited {
                // A competitor's move that waited begins now, and counts.
                position.streak = self.policy.guardrails.streak_after(position.streak, direction, at);
                awaited = 0;
            }
            reached = Some(at);
            next = self.next_move(&position, at);
        }
        Continuation { continues_at, reaches_target_at: None }
    }
}

/// The direction of a move: 1 for up, -1 for down.
pub(crate) fn direction(from: Decimal, to: Decimal) -> i32 {
    match compare(from, to) {
        Ordering::Less => 1,
        Ordering::Equal => 0,
        Ordering::Greater => -1,
    }
}
