//! Ages of facts: `demand.age_hours < 24`.
//!
//! An age grows by itself, so what is asked about it has to be such that one knows when the answer changes:
//! whether it is below or above a number of hours. A price is valid until the first of the instants at which
//! such an answer changes.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::expression::{Comparison, ExpressionError, Instruction};
use super::price::Facts;
use super::variable::Variable;

const MICROSECONDS_PER_HOUR: Decimal = Decimal::from_parts(3_600_000_000, 0, 0, false, 0);

/// A question that a rule asks about an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AgeTest {
    /// Of what.
    variable: Variable,
    /// The first age at which the answer is the other one; ages are whole microseconds.
    turns_at: TimeDelta,
}

/// What a program asks about ages; refuses everything else that it does with one.
pub(super) fn age_tests(instructions: &[Instruction]) -> Result<Box<[AgeTest]>, ExpressionError> {
    let mut tests = Vec::new();
    for instruction in instructions {
        match instruction {
            Instruction::CompareNumber(variable, comparison, hours)
            | Instruction::CompareNumberOr(variable, _, comparison, hours)
                if variable.is_age() =>
            {
                tests.extend(AgeTest::of(*variable, *comparison, *hours));
            }
            Instruction::Load(variable) | Instruction::LoadOr(variable, _) if variable.is_age() => {
                return Err(ExpressionError::AgeNotCompared(*variable));
            }
            _ => {}
        }
    }
    Ok(tests.into())
}

impl AgeTest {
    /// None of an age that nothing reaches.
    fn of(variable: Variable, comparison: Comparison, hours: Decimal) -> Option<Self> {
        let age_us = hours.checked_mul(MICROSECONDS_PER_HOUR)?;
        let turns_at_us = match comparison {
            Comparison::Less | Comparison::MoreOrEqual => age_us.ceil(),
            Comparison::LessOrEqual | Comparison::More => age_us.floor().checked_add(Decimal::ONE)?,
        };
        Some(Self { variable, turns_at: TimeDelta::microseconds(turns_at_us.to_i64()?) })
    }

    /// When the answer changes, if that is still to come.
    pub(super) fn next_change(&self, facts: &Facts<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let turns = seen_at(self.variable, facts)?.checked_add_signed(self.turns_at)?;
        (turns > now).then_some(turns)
    }
}

/// An age in hours; `None` if the fact, or when it was true, is not known. What is dated ahead is of now.
pub(super) fn age_hours(variable: Variable, facts: &Facts<'_>, now: DateTime<Utc>) -> Option<Decimal> {
    let age = now.signed_duration_since(seen_at(variable, facts)?).max(TimeDelta::zero());
    Decimal::from(age.num_microseconds()?).checked_div(MICROSECONDS_PER_HOUR)
}

/// When the fact that an age is of was true; of competitors, the one that was seen longest ago.
fn seen_at(variable: Variable, facts: &Facts<'_>) -> Option<DateTime<Utc>> {
    let signals = facts.signals;
    let origins = &signals.origins;
    let origin = match variable {
        Variable::CompetitorAge => return oldest_price(facts),
        // A cost of 0 is not known, and neither is its age.
        Variable::CostAge if facts.unit_cost().is_none() => return None,
        Variable::CostAge if signals.unit_cost.is_none() => return signals.cost_stated_at,
        Variable::CostAge => &origins.unit_cost,
        Variable::StockAge => &origins.stock_level,
        Variable::SalesAge => &origins.units_sold,
        Variable::DemandAge => &origins.demand_index,
        _ => return None,
    };
    Some(origin.as_ref()?.observed_at)
}

/// None if of one of them it is not known.
fn oldest_price(facts: &Facts<'_>) -> Option<DateTime<Utc>> {
    let seen: Option<Vec<DateTime<Utc>>> =
        facts.signals.competitor_prices.iter().map(|known| known.observed_at).collect();
    seen?.into_iter().min()
}

#[cfg(test)]
#[path = "age_tests.rs"]
mod tests;
