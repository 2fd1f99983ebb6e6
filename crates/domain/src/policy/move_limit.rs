//! Limits on moves: how far the market may move a list price, and until when.
//!
//! They limit what the market causes; the seller's acts move the price and what the limits refer to
//! (`pricing::seller_part`).

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::facts::arithmetic::{larger, multiply, smaller};
use crate::facts::limits::Limits;
use crate::facts::previous::Streak;
use crate::policy::guardrail::{GuardrailName, Guardrails};

/// Where a price is, and what its limits on moves refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The price, not rounded.
    pub price: Decimal,
    /// The list price: the price as it is shown.
    pub list_price: Decimal,
    /// The first list price of the day.
    pub opening_price: Decimal,
    /// An instant of that day.
    pub opened_at: DateTime<Utc>,
    /// When the latest step interval began, and the list price before.
    pub interval: Option<(DateTime<Utc>, Decimal)>,
    /// When the market last changed the list price.
    pub moved_at: Option<DateTime<Utc>>,
    /// The changes that competitors caused.
    pub streak: Option<Streak>,
}

impl Position {
    /// Creates the position of a price that nothing has moved yet.
    pub(crate) fn at(price: Decimal, now: DateTime<Utc>) -> Self {
        Self {
            price,
            list_price: price,
            opening_price: price,
            opened_at: now,
            interval: None,
            moved_at: None,
            streak: None,
        }
    }
}

/// One limit on moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveLimit {
    /// The guardrail.
    pub name: GuardrailName,
    /// The limits of the price, not rounded.
    pub price: Limits,
    /// The limits of the list price.
    pub list_price: Limits,
}

/// The limits on moves of one price, in the order in which they are applied.
pub type MoveLimits = SmallVec<[MoveLimit; 4]>;

impl Guardrails {
    /// Returns the limits on moves in force at an instant. None of them forces a move.
    pub fn move_limits(
        &self,
        position: &Position,
        follows_competitors: bool,
        at: DateTime<Utc>,
    ) -> MoveLimits {
        let Position { price, list_price, .. } = *position;
        let hold = |name, holds: fn(Decimal) -> Limits| MoveLimit {
            name,
            price: holds(price),
            list_price: holds(list_price),
        };
        let chased = position.streak.filter(|_| follows_competitors && self.is_chased(position, at));
        // Only the direction of the loop is blocked. The limits do not depend on the direction of this price,
        // so a cheaper competitor cannot lift one of them.
        let chased = chased.map(|streak| match streak.moves {
            ..0 => hold(GuardrailName::CompetitorLoop, |price| Limits { lowest: Some(price), highest: None }),
            0.. => hold(GuardrailName::CompetitorLoop, |price| Limits { lowest: None, highest: Some(price) }),
        });
        let paused = self.pause_ends_at(position).is_some_and(|end| at < end).then(|| {
            hold(GuardrailName::MinTimeBetweenChanges, |price| Limits {
                lowest: Some(price),
                highest: Some(price),
            })
        });
        let step_reference = match position.interval {
            Some((began_at, reference)) if self.interval_ends_at(began_at).is_some_and(|end| at < end) => {
                reference
            }
            _ => list_price,
        };
        let step = self.max_step.and_then(|most| around(step_reference, most, position));
        let opening = match next_day(position.opened_at) {
            Some(tomorrow) if tomorrow <= at => list_price,
            _ => position.opening_price,
        };
        let daily = self.max_daily_move.and_then(|most| around(opening, most, position));
        let limit = |name, limits: Option<Limits>| {
            limits.map(|limits| MoveLimit { name, price: limits, list_price: limits })
        };
        let lengths = [limit(GuardrailName::MaxStep, step), limit(GuardrailName::MaxDailyMove, daily)];
        [chased, paused].into_iter().chain(lengths).flatten().collect()
    }

    /// Returns the instants after `now` at which limits on moves of this price end or are renewed, in order.
    pub fn limit_ends(&self, position: &Position, now: DateTime<Utc>) -> SmallVec<[DateTime<Utc>; 4]> {
        let step = position.interval.filter(|_| self.max_step.is_some());
        let step = step.and_then(|(began_at, _)| self.interval_ends_at(began_at));
        let daily = self.max_daily_move.and_then(|_| next_day(now));
        let chased = position.streak.filter(|streak| self.is_loop(streak));
        let chased = chased.and_then(|streak| streak.since.checked_add_signed(self.competitor_loop.within));
        let ends = [step, daily, self.pause_ends_at(position), chased];
        let mut ends: SmallVec<[DateTime<Utc>; 4]> =
            ends.into_iter().flatten().filter(|end| *end > now).collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Whether a step interval that began at `began_at` is over.
    pub(crate) fn is_interval_over(&self, began_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.interval_ends_at(began_at).is_none_or(|end| end <= now)
    }

    /// Returns the streak after a change in this direction that a competitor caused: 1 for up, -1 for down.
    pub(crate) fn streak_after(
        &self,
        streak: Option<Streak>,
        direction: i32,
        now: DateTime<Utc>,
    ) -> Option<Streak> {
        let is_going_on = |streak: &Streak| {
            let end = streak.since.checked_add_signed(self.competitor_loop.within);
            streak.moves.signum() == direction && end.is_some_and(|end| now < end)
        };
        match streak.filter(is_going_on) {
            Some(streak) => {
                Some(Streak { moves: streak.moves.saturating_add(direction), since: streak.since })
            }
            None => Some(Streak { moves: direction, since: now }),
        }
    }

    fn interval_ends_at(&self, began_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        began_at.checked_add_signed(self.step_length())
    }

    fn step_length(&self) -> TimeDelta {
        self.min_time_between_changes.unwrap_or(self.step_interval)
    }

    fn pause_ends_at(&self, position: &Position) -> Option<DateTime<Utc>> {
        position.moved_at?.checked_add_signed(self.min_time_between_changes?)
    }

    /// Whether the streak is long enough to count as a loop.
    fn is_loop(&self, streak: &Streak) -> bool {
        streak.moves.unsigned_abs() >= self.competitor_loop.moves
    }

    fn is_chased(&self, position: &Position, at: DateTime<Utc>) -> bool {
        let Some(streak) = position.streak.filter(|streak| self.is_loop(streak)) else { return false };
        streak.since.checked_add_signed(self.competitor_loop.within).is_some_and(|end| at < end)
    }
}

/// Returns the limits at this distance from a reference, as a fraction of it; where the price is now is
/// always within.
fn around(reference: Decimal, most: Decimal, position: &Position) -> Option<Limits> {
    let distance = multiply(reference, most)?;
    let Position { price, list_price, .. } = *position;
    let lowest = reference.checked_sub(distance)?;
    let highest = reference.checked_add(distance)?;
    Some(Limits {
        lowest: Some(smaller(smaller(lowest, price), list_price)),
        highest: Some(larger(larger(highest, price), list_price)),
    })
}

/// Returns the next midnight UTC, at which a new day's first price counts.
fn next_day(now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let tomorrow = now.date_naive().checked_add_days(Days::new(1))?;
    Some(tomorrow.and_time(NaiveTime::MIN).and_utc())
}
