//! Guardrails: limits that no price may break. They are applied last and checked again after rounding.

use std::cmp::Ordering;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::arithmetic::{RoundingMode, compare, larger, multiply, round, smaller};
use crate::facts::limits::Limits;
use crate::facts::money::{Currency, in_minor_units};
use crate::facts::previous::{Previous, Streak};

/// The guardrails of a policy, as fractions; those of a product are its floor, ceiling, cost and advertised
/// price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrails {
    /// The minimum margin over the unit cost, as a fraction of the price.
    pub min_margin: Option<Decimal>,
    /// The minimum price, as a fraction of the base price.
    pub floor_of_base: Option<Decimal>,
    /// The maximum price, as a fraction of the base price.
    pub ceiling_of_base: Option<Decimal>,
    /// The largest part of the list price that offer rules may take off one shopper's price.
    pub max_discount: Option<Decimal>,
    /// The largest change from the price in effect.
    pub max_step: Option<Decimal>,
    /// The largest change from the first price of the day (UTC).
    pub max_daily_move: Option<Decimal>,
    /// How long a price is kept before the market may change it again.
    pub min_time_between_changes: Option<TimeDelta>,
    /// The limit at which following competitors counts as a loop.
    pub competitor_loop: CompetitorLoop,
}

/// A number of changes in one direction, all caused by competitors, within a period. Competitors then
/// probably follow our price as we follow theirs, so the price moves no further in that direction for the
/// rest of the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompetitorLoop {
    /// The number of changes.
    pub moves: u32,
    /// The period, measured from the first change.
    pub within: TimeDelta,
}

/// The name of a guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GuardrailName {
    /// [`Guardrails::max_step`].
    MaxStep,
    /// [`Guardrails::max_daily_move`].
    MaxDailyMove,
    /// [`Guardrails::min_time_between_changes`].
    MinTimeBetweenChanges,
    /// [`Guardrails::competitor_loop`].
    CompetitorLoop,
    /// The product's `ceiling_price`.
    CeilingPrice,
    /// [`Guardrails::ceiling_of_base`].
    CeilingOfBase,
    /// The unit cost, where neither the product's `floor_price` nor a margin is set: nothing is sold at a
    /// loss by accident.
    UnitCost,
    /// [`Guardrails::min_margin`].
    MinMargin,
    /// [`Guardrails::floor_of_base`].
    FloorOfBase,
    /// The product's `minimum_advertised_price`.
    MinimumAdvertisedPrice,
    /// The product's `floor_price`.
    FloorPrice,
    /// For a quote: [`Guardrails::max_discount`].
    MaxDiscount,
    /// For a quote: the lowest price that the guardrails of the list price allow.
    LowestPrice,
    /// For a quote: the highest price that the guardrails of the list price allow.
    HighestPrice,
}

impl GuardrailName {
    /// All guardrails.
    pub const ALL: [Self; 14] = [
        Self::MaxStep,
        Self::MaxDailyMove,
        Self::MinTimeBetweenChanges,
        Self::CompetitorLoop,
        Self::CeilingPrice,
        Self::CeilingOfBase,
        Self::UnitCost,
        Self::MinMargin,
        Self::FloorOfBase,
        Self::MinimumAdvertisedPrice,
        Self::FloorPrice,
        Self::MaxDiscount,
        Self::LowestPrice,
        Self::HighestPrice,
    ];

    /// The name in explanations and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxStep => "max_step",
            Self::MaxDailyMove => "max_daily_move",
            Self::MinTimeBetweenChanges => "min_time_between_changes",
            Self::CompetitorLoop => "competitor_loop",
            Self::CeilingPrice => "ceiling_price",
            Self::CeilingOfBase => "ceiling_of_base",
            Self::UnitCost => "unit_cost",
            Self::MinMargin => "min_margin",
            Self::FloorOfBase => "floor_of_base",
            Self::MinimumAdvertisedPrice => "minimum_advertised_price",
            Self::FloorPrice => "floor_price",
            Self::MaxDiscount => "max_discount",
            Self::LowestPrice => "lowest_price",
            Self::HighestPrice => "highest_price",
        }
    }
}

impl Serialize for GuardrailName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One guardrail with its limits for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedGuardrail {
    /// The guardrail.
    pub name: GuardrailName,
    /// Its limits for the price.
    pub limits: Limits,
    /// When time alone lifts or relaxes it; absent if time does not.
    pub until: Option<DateTime<Utc>>,
}

/// All guardrails for one product, in the order in which they are applied: the limits on moves yield to the
/// ceiling, the ceiling to the floors.
#[derive(Debug, Clone, Default)]
pub struct ProductGuardrails {
    /// The limits on moves.
    pub moves: SmallVec<[AppliedGuardrail; 4]>,
    /// The limits on the price itself.
    pub bounds: SmallVec<[AppliedGuardrail; 7]>,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            min_margin: None,
            floor_of_base: None,
            ceiling_of_base: None,
            max_discount: None,
            max_step: None,
            max_daily_move: None,
            min_time_between_changes: None,
            competitor_loop: CompetitorLoop { moves: 8, within: TimeDelta::hours(24) },
        }
    }
}

impl Guardrails {
    /// Returns the guardrails for the product of these facts. They do not depend on the unlimited price, so
    /// they are monotonic: a lower price before them is never a higher one after them.
    pub fn of_product(
        &self,
        facts: &Facts<'_>,
        follows_competitors: bool,
        now: DateTime<Utc>,
    ) -> ProductGuardrails {
        let moves = facts.previous.map(|previous| self.moves(&previous, follows_competitors, now));
        ProductGuardrails { moves: moves.unwrap_or_default(), bounds: self.bounds(facts) }
    }

    /// Whether a floor limits how far the product's price follows competitors down.
    pub fn has_floor(&self, facts: &Facts<'_>) -> bool {
        facts.product.floor_price.is_some()
            || facts.product.minimum_advertised_price.is_some()
            || self.floor_of_base.is_some()
            || facts.unit_cost().is_some()
    }

    /// Returns the limits of shoppers' prices, from those of the list price (`outer`) and the list price
    /// itself: what `max_discount` leaves of it is the lowest price, unless a floor is higher.
    pub fn of_shoppers(&self, outer: Limits, list_price: Decimal, currency: Currency) -> Limits {
        let Some(left) = self.lowest_by_discount(list_price, currency) else { return outer };
        Limits { lowest: Some(outer.lowest.map_or(left, |floor| larger(floor, left))), ..outer }
    }

    /// Returns the lowest price that `max_discount` allows, rounded up to the minor unit, so that no rounding
    /// of a shopper's price takes off more; `None` without one.
    pub fn lowest_by_discount(&self, list_price: Decimal, currency: Currency) -> Option<Decimal> {
        let left = multiply(list_price, Decimal::ONE.checked_sub(self.max_discount?)?)?;
        Some(in_minor_units(round(left, currency.exponent(), RoundingMode::Up), currency))
    }

    /// Returns the streak after the price changes to `price`.
    pub fn streak_after(
        &self,
        previous: &Previous,
        price: Decimal,
        follows_competitors: bool,
        now: DateTime<Utc>,
    ) -> Option<Streak> {
        let direction = match compare(price, previous.list_price) {
            Ordering::Equal => return previous.streak,
            _ if !follows_competitors => return None,
            Ordering::Greater => 1,
            Ordering::Less => -1,
        };
        match previous.streak.filter(|streak| self.is_going_on(streak, direction, now)) {
            Some(streak) => {
                Some(Streak { moves: streak.moves.saturating_add(direction), since: streak.since })
            }
            None => Some(Streak { moves: direction, since: now }),
        }
    }

    /// Whether the streak is long enough to count as a loop.
    fn is_loop(&self, streak: &Streak) -> bool {
        streak.moves.unsigned_abs() >= self.competitor_loop.moves
    }

    fn is_going_on(&self, streak: &Streak, direction: i32, now: DateTime<Utc>) -> bool {
        let end = streak.since.checked_add_signed(self.competitor_loop.within);
        streak.moves.signum() == direction && end.is_some_and(|end| now < end)
    }

    fn moves(
        &self,
        previous: &Previous,
        follows_competitors: bool,
        now: DateTime<Utc>,
    ) -> SmallVec<[AppliedGuardrail; 4]> {
        let price = previous.list_price;
        let pause = self.min_time_between_changes;
        let chased = previous.streak.filter(|streak| follows_competitors && self.is_loop(streak));
        let chased = chased.and_then(|streak| {
            let until = streak.since.checked_add_signed(self.competitor_loop.within)?;
            // Only the direction of the loop is blocked. The limits do not depend on the direction of this
            // price, so a cheaper competitor cannot lift one of them.
            let limits = match streak.moves {
                ..0 => Limits { lowest: Some(price), highest: None },
                0.. => Limits { lowest: None, highest: Some(price) },
            };
            (now < until).then_some((GuardrailName::CompetitorLoop, limits, until))
        });
        let paused = pause.zip(previous.changed_at).and_then(|(pause, changed_at)| {
            let until = changed_at.checked_add_signed(pause)?;
            let limits = Limits { lowest: Some(price), highest: Some(price) };
            (now < until).then_some((GuardrailName::MinTimeBetweenChanges, limits, until))
        });
        let holds = [chased, paused].map(|hold| {
            let (name, limits, until) = hold?;
            Some(AppliedGuardrail { name, limits, until: Some(until) })
        });
        let next_step = pause.and_then(|pause| now.checked_add_signed(pause));
        let step = self.max_step.and_then(|most| within(GuardrailName::MaxStep, price, most, next_step));
        let daily = self.max_daily_move.and_then(|most| {
            let mut daily = within(GuardrailName::MaxDailyMove, previous.opening_price, most, next_day(now))?;
            // A price that a floor or a ceiling has moved further today may stay: a limit on moves never
            // forces a move.
            daily.limits.lowest = daily.limits.lowest.map(|lowest| smaller(lowest, price));
            daily.limits.highest = daily.limits.highest.map(|highest| larger(highest, price));
            Some(daily)
        });
        holds.into_iter().chain([step, daily]).flatten().collect()
    }

    fn bounds(&self, facts: &Facts<'_>) -> SmallVec<[AppliedGuardrail; 7]> {
        let product = facts.product;
        let unit_cost = facts.unit_cost();
        let margin_floor = self
            .min_margin
            .zip(unit_cost)
            .and_then(|(margin, cost)| cost.checked_div(Decimal::ONE.checked_sub(margin)?));
        let of_base = |part: Option<Decimal>| multiply(product.base_price, part?);
        let floor_of_base = of_base(self.floor_of_base);
        // Only the product's own floor may be below its cost; the margin floor never is.
        let cost_floor = unit_cost.filter(|_| product.floor_price.or(margin_floor).is_none());
        let guardrail = |name, lowest, highest| AppliedGuardrail {
            name,
            limits: Limits { lowest, highest },
            until: None,
        };
        let ceilings = [
            (GuardrailName::CeilingPrice, product.ceiling_price),
            (GuardrailName::CeilingOfBase, of_base(self.ceiling_of_base)),
        ];
        let floors = [
            (GuardrailName::UnitCost, cost_floor),
            (GuardrailName::MinMargin, margin_floor),
            (GuardrailName::FloorOfBase, floor_of_base),
            (GuardrailName::MinimumAdvertisedPrice, product.minimum_advertised_price),
            (GuardrailName::FloorPrice, product.floor_price),
        ];
        let ceilings =
            ceilings.into_iter().filter_map(|(name, highest)| Some(guardrail(name, None, Some(highest?))));
        let floors =
            floors.into_iter().filter_map(|(name, lowest)| Some(guardrail(name, Some(lowest?), None)));
        ceilings.chain(floors).collect()
    }
}

impl ProductGuardrails {
    /// Returns the limits without those on moves.
    pub fn outer_limits(&self) -> Limits {
        intersection(self.bounds.iter())
    }

    /// Whether a limit on moves forbids this price.
    pub fn stop_move_to(&self, price: Decimal) -> bool {
        self.moves.iter().any(|guardrail| !guardrail.limits.allow(price))
    }

    /// Returns the instants at which limits on moves end, in order.
    pub fn ends(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let mut ends: Vec<DateTime<Utc>> =
            self.moves.iter().filter_map(|guardrail| guardrail.until).collect();
        ends.sort_unstable();
        ends.into_iter()
    }

    /// Returns the limits at an instant: those on moves that are still in force, unless the outer limits
    /// leave no such price.
    pub fn limits_at(&self, instant: DateTime<Utc>) -> Limits {
        let outer = self.outer_limits();
        let held = self.moves.iter().filter(|guardrail| guardrail.until.is_none_or(|until| instant < until));
        let moves = intersection(held);
        let both = Limits {
            lowest: outer.lowest.into_iter().chain(moves.lowest).max(),
            highest: outer.highest.into_iter().chain(moves.highest).min(),
        };
        if both.contradict() { outer } else { both }
    }
}

fn within(
    name: GuardrailName,
    reference: Decimal,
    most: Decimal,
    until: Option<DateTime<Utc>>,
) -> Option<AppliedGuardrail> {
    let distance = multiply(reference, most)?;
    let limits = Limits {
        lowest: Some(reference.checked_sub(distance)?),
        highest: Some(reference.checked_add(distance)?),
    };
    Some(AppliedGuardrail { name, limits, until })
}

/// Returns the next midnight UTC, when a move held back by the daily limit may continue.
fn next_day(now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let tomorrow = now.date_naive().checked_add_days(Days::new(1))?;
    Some(tomorrow.and_time(NaiveTime::MIN).and_utc())
}

fn intersection<'a>(guardrails: impl Iterator<Item = &'a AppliedGuardrail> + Clone) -> Limits {
    Limits {
        lowest: guardrails
            .clone()
            .filter_map(|guardrail| guardrail.limits.lowest)
            .max_by(|left, right| compare(*left, *right)),
        highest: guardrails
            .filter_map(|guardrail| guardrail.limits.highest)
            .min_by(|left, right| compare(*left, *right)),
    }
}
