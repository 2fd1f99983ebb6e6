//! Guardrails: limits that no price may break. They are applied last and checked again after rounding.

use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;

use crate::facts::Facts;
use crate::facts::arithmetic::{RoundingMode, compare, larger, multiply, round};
use crate::facts::limits::Limits;
use crate::facts::money::{Currency, in_minor_units};

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
    /// The most that the market may move a price within a step interval, from the price at its beginning.
    pub max_step: Option<Decimal>,
    /// The length of a step interval, unless `min_time_between_changes` is set, which then is its length.
    pub step_interval: TimeDelta,
    /// The most that the market may move a price within a day (UTC), from the first price of the day.
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

    /// The limits on moves: they limit what the market causes, and hold back the rest of the way.
    pub const LIMITS_ON_MOVES: [Self; 4] =
        [Self::MaxStep, Self::MaxDailyMove, Self::MinTimeBetweenChanges, Self::CompetitorLoop];

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
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            min_margin: None,
            floor_of_base: None,
            ceiling_of_base: None,
            max_discount: None,
            max_step: None,
            step_interval: TimeDelta::hours(1),
            max_daily_move: None,
            min_time_between_changes: None,
            competitor_loop: CompetitorLoop { moves: 8, within: TimeDelta::hours(24) },
        }
    }
}

impl Guardrails {
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

    /// Returns the limits on the price itself, in the order in which they are applied: ceilings yield to
    /// floors. They do not depend on the unlimited price, so they are monotonic: a lower price before them is
    /// never a higher one after them.
    pub fn bounds(&self, facts: &Facts<'_>) -> SmallVec<[AppliedGuardrail; 7]> {
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
        let guardrail = |name, lowest, highest| AppliedGuardrail { name, limits: Limits { lowest, highest } };
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

/// Returns the limits that all of these guardrails set together.
pub fn intersection<'a>(guardrails: impl Iterator<Item = &'a Limits> + Clone) -> Limits {
    Limits {
        lowest: guardrails
            .clone()
            .filter_map(|limits| limits.lowest)
            .max_by(|left, right| compare(*left, *right)),
        highest: guardrails.filter_map(|limits| limits.highest).min_by(|left, right| compare(*left, *right)),
    }
}
