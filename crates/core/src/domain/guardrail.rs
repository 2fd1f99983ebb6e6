//! Guardrails: what no price may do. They come last and are checked again after rounding.

use rust_decimal::Decimal;
use serde::Serialize;

use super::price::Facts;
use super::rounding::Limits;

/// The guardrails of a policy, as fractions; those of a product are its floor, ceiling and cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guardrails {
    /// The least part of a price that is margin over the unit cost.
    pub min_margin: Option<Decimal>,
    /// The largest change from the price in effect.
    pub max_step: Option<Decimal>,
    /// The largest change from the first price of the day (UTC).
    pub max_daily_move: Option<Decimal>,
}

/// Which guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailName {
    /// [`Guardrails::max_step`].
    MaxStep,
    /// [`Guardrails::max_daily_move`].
    MaxDailyMove,
    /// The product's `ceiling_price`.
    CeilingPrice,
    /// The unit cost, where neither a floor nor a margin is set: nothing is sold at a loss by accident.
    UnitCost,
    /// [`Guardrails::min_margin`].
    MinMargin,
    /// The product's `floor_price`.
    FloorPrice,
    /// For a quote: the lowest price that the guardrails of the list price allow.
    LowestPrice,
    /// For a quote: the highest price that the guardrails of the list price allow.
    HighestPrice,
}

/// One guardrail with its limits for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedGuardrail {
    /// Which one.
    pub name: GuardrailName,
    /// Where it keeps the price.
    pub limits: Limits,
}

/// All guardrails for one product, in the order in which they are applied: the limits on moves give way to the
/// ceiling, the ceiling to the floors.
#[derive(Debug, Clone, Default)]
pub struct ProductGuardrails {
    /// How far the price may move now.
    pub moves: Vec<AppliedGuardrail>,
    /// Where the price may be at all.
    pub bounds: Vec<AppliedGuardrail>,
}

impl Guardrails {
    /// The guardrails for the product of these facts.
    pub fn of_product(&self, facts: &Facts<'_>) -> ProductGuardrails {
        let mut moves = Vec::new();
        if let Some(previous) = facts.previous {
            moves.extend(
                self.max_step.and_then(|most| within(GuardrailName::MaxStep, previous.list_price, most)),
            );
            moves.extend(
                self.max_daily_move
                    .and_then(|most| within(GuardrailName::MaxDailyMove, previous.opening_price, most)),
            );
        }
        ProductGuardrails { moves, bounds: self.bounds(facts) }
    }

    fn bounds(&self, facts: &Facts<'_>) -> Vec<AppliedGuardrail> {
        let product = facts.product;
        let unit_cost = facts.unit_cost();
        let margin_floor = self
            .min_margin
            .zip(unit_cost)
            .and_then(|(margin, cost)| cost.checked_div(Decimal::ONE.checked_sub(margin)?));
        let cost_floor = unit_cost.filter(|_| product.floor_price.is_none() && margin_floor.is_none());
        let ceiling = product.ceiling_price.map(|highest| AppliedGuardrail {
            name: GuardrailName::CeilingPrice,
            limits: Limits { lowest: None, highest: Some(highest) },
        });
        let floors = [
            (GuardrailName::UnitCost, cost_floor),
            (GuardrailName::MinMargin, margin_floor),
            (GuardrailName::FloorPrice, product.floor_price),
        ];
        let floors = floors.into_iter().filter_map(|(name, lowest)| {
            let limits = Limits { lowest: Some(lowest?), highest: None };
            Some(AppliedGuardrail { name, limits })
        });
        ceiling.into_iter().chain(floors).collect()
    }
}

impl ProductGuardrails {
    /// Where the price may be at all.
    pub fn outer_limits(&self) -> Limits {
        intersection(&self.bounds)
    }

    /// Where the price may be now: within the moves, unless the outer limits leave no such price.
    pub fn limits(&self) -> Limits {
        let outer = self.outer_limits();
        let moves = intersection(&self.moves);
        let both = Limits {
            lowest: outer.lowest.into_iter().chain(moves.lowest).max(),
            highest: outer.highest.into_iter().chain(moves.highest).min(),
        };
        if both.contradict() { outer } else { both }
    }
}

fn within(name: GuardrailName, reference: Decimal, most: Decimal) -> Option<AppliedGuardrail> {
    let distance = reference.checked_mul(most)?;
    let limits = Limits {
        lowest: Some(reference.checked_sub(distance)?),
        highest: Some(reference.checked_add(distance)?),
    };
    Some(AppliedGuardrail { name, limits })
}

fn intersection(guardrails: &[AppliedGuardrail]) -> Limits {
    Limits {
        lowest: guardrails.iter().filter_map(|guardrail| guardrail.limits.lowest).max(),
        highest: guardrails.iter().filter_map(|guardrail| guardrail.limits.highest).min(),
    }
}
