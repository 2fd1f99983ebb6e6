//! Ages of facts, and the instants at which age tests change their result.
//!
//! A price is valid until the first of these instants.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;

use crate::expression::age_test::{AgeTest, MICROSECONDS_PER_HOUR};
use crate::expression::variable::Variable;
use crate::facts::Facts;

impl AgeTest {
    /// Returns when the result changes, if that is in the future.
    pub(crate) fn next_change(&self, facts: &Facts<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let turns = seen_at(self.variable, facts)?.checked_add_signed(self.turns_at)?;
        (turns > now).then_some(turns)
    }
}

/// Returns an age in hours; `None` if the fact or its time is unknown. A fact with a future time has age 0.
pub(crate) fn age_hours(variable: Variable, facts: &Facts<'_>, now: DateTime<Utc>) -> Option<Decimal> {
    let age = now.signed_duration_since(seen_at(variable, facts)?).max(TimeDelta::zero());
    Decimal::from(age.num_microseconds()?).checked_div(MICROSECONDS_PER_HOUR)
}

/// Returns when the fact of an age was observed; for competitors, the oldest fact.
fn seen_at(variable: Variable, facts: &Facts<'_>) -> Option<DateTime<Utc>> {
    let signals = facts.signals;
    let origins = &signals.origins;
    let origin = match variable {
        Variable::CompetitorAge => return oldest_price(facts),
        // A cost of 0 counts as unknown, and so does its age.
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

/// Returns the time of the oldest competitor's price; `None` if the time of one of them is unknown.
fn oldest_price(facts: &Facts<'_>) -> Option<DateTime<Utc>> {
    let seen: Option<Vec<DateTime<Utc>>> =
        facts.signals.competitor_prices.iter().map(|known| known.observed_at).collect();
    seen?.into_iter().min()
}

#[cfg(test)]
mod tests;
