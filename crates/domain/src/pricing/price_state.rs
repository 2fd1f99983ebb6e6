//! A product's price over time: what a pricing leaves behind, and the steps that have fallen due since.
//!
//! A held price continues at fixed instants, windows begin and end, facts age. Each of these instants
//! is priced as of itself, in order, so the price is the same however often and by whichever process it is
//! asked for.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

use crate::facts::Facts;
use crate::facts::movement::Movement;
use crate::facts::previous::{Previous, Streak};
use crate::facts::product::Product;
use crate::facts::signal::Signals;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::market_part::MAX_STEPS;
use crate::pricing::price::{ListPrice, price_step};

/// The price in effect, and what the next pricing needs of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceState {
    /// The list price.
    pub list_price: Decimal,
    /// The next instant at which time alone may change it.
    pub valid_until: Option<DateTime<Utc>>,
    /// The first list price of the day `opened_on`.
    pub opening_price: Decimal,
    /// The day (UTC) of the opening price.
    pub opened_on: NaiveDate,
    /// When the list price last changed, if that is known.
    pub changed_at: Option<DateTime<Utc>>,
    /// The streak of changes caused by competitors.
    pub streak: Option<Streak>,
    /// The way to the target; absent if it is not known.
    pub movement: Option<Movement<'static>>,
}

/// A change of a list price that fell due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueChange {
    /// When it fell due.
    pub at: DateTime<Utc>,
    /// The list price before.
    pub from: Decimal,
    /// The list price from then on.
    pub to: Decimal,
}

impl PriceState {
    /// Returns the state after a pricing at this instant; `before` is the state that it started from.
    pub fn after(before: Option<&Self>, priced: &ListPrice<'_>, now: DateTime<Utc>) -> Self {
        let unchanged = before.filter(|before| before.list_price == priced.amount);
        Self {
            list_price: priced.amount,
            valid_until: priced.valid_until,
            opening_price: priced.opening_price,
            opened_on: Self::opened_on(before, now),
            changed_at: unchanged.map_or(Some(now), |before| before.changed_at),
            streak: priced.streak,
            movement: priced.movement.clone().map(Movement::into_owned),
        }
    }

    /// Returns the day of the opening price after a pricing at this instant.
    pub fn opened_on(before: Option<&Self>, now: DateTime<Utc>) -> NaiveDate {
        let opened_on = before.map(|before| before.opened_on);
        opened_on.filter(|opened_on| is_under_way(*opened_on, now)).unwrap_or_else(|| now.date_naive())
    }

    /// Returns the state as input of a pricing; on a new day the price in effect is the day's first.
    pub fn previous(&self, now: DateTime<Utc>) -> Previous<'_> {
        let is_under_way = is_under_way(self.opened_on, now);
        Previous {
            list_price: self.list_price,
            opening_price: if is_under_way { self.opening_price } else { self.list_price },
            opening_target: self
                .movement
                .as_ref()
                .filter(|_| is_under_way)
                .and_then(|state| state.opening_target),
            changed_at: self.changed_at,
            streak: self.streak,
            movement: self.movement.as_ref(),
        }
    }

    /// Makes the steps that have fallen due until now, for the product and the signals of the last pricing
    /// and by its policy. At most 1,000: the next pricing continues from there.
    pub fn catch_up(
        mut self,
        product: &Product,
        signals: &Signals,
        policy: &PricingPolicy,
        now: DateTime<Utc>,
    ) -> (Self, Vec<DueChange>) {
        let mut changes = Vec::new();
        for _ in 0..MAX_STEPS {
            let Some(at) = self.valid_until.filter(|due| *due <= now) else { break };
            let signals = signals.clone().as_of(at);
            let facts = Facts { product, signals: &signals, previous: Some(self.previous(at)) };
            let next = Self::after(Some(&self), &price_step(&facts, policy, at), at);
            if next.list_price != self.list_price {
                changes.push(DueChange { at, from: self.list_price, to: next.list_price });
            }
            self = next;
        }
        (self, changes)
    }
}

/// Whether the day is not over. It may be tomorrow, so that a clock that is slightly behind does not reopen
/// the previous day; a day further ahead was opened by a wrong clock.
fn is_under_way(day: NaiveDate, now: DateTime<Utc>) -> bool {
    let today = now.date_naive();
    day == today || today.succ_opt() == Some(day)
}

#[cfg(test)]
mod tests;
