//! Prices that limits on moves hold back: how many, how far from their targets and until when, limit by
//! limit.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::policy::guardrail::GuardrailName;
use crate::pricing::explanation::HeldPrice;
use crate::pricing::moves::{Moves, fraction, in_percent};

/// The prices that each limit holds back. The memory does not depend on the number of products.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldPrices(BTreeMap<GuardrailName, OneLimit>);

/// The prices that one limit holds back.
#[derive(Debug, Clone, Default)]
struct OneLimit {
    /// The ways that are left, up or down, counted.
    distances: Moves,
    largest_distance: Decimal,
    continues_at: Option<DateTime<Utc>>,
    reaches_target_at: Option<DateTime<Utc>>,
    products_that_stay: u64,
}

/// The prices that one limit holds back. A distance is what is left of the way to the target, up or down, in
/// percent of the list price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldByLimit {
    /// The limit; of several that hold a price back, the last that applied.
    pub limit: GuardrailName,
    /// The number of products.
    pub products: u64,
    /// The largest distance.
    pub largest_distance_percent: Decimal,
    /// The median distance; for an even number, the mean of the middle two.
    pub median_distance_percent: Decimal,
    /// When the first of these prices next moves without another cause; absent if none does.
    pub continues_at: Option<DateTime<Utc>>,
    /// When the last of those that reach their target does; absent if none does.
    pub reaches_target_at: Option<DateTime<Utc>>,
    /// The number of products whose price never reaches its target without another cause.
    pub products_that_stay: u64,
}

impl HeldPrices {
    /// Adds a list price that is held back.
    pub(crate) fn add(&mut self, list_price: Decimal, held: &HeldPrice) {
        let limit = self.0.entry(held.by).or_default();
        let distance = fraction(list_price, held.target).abs();
        limit.distances.add(distance);
        limit.largest_distance = limit.largest_distance.max(distance);
        limit.continues_at = limit.continues_at.into_iter().chain(held.continues_at).min();
        limit.reaches_target_at = limit.reaches_target_at.max(held.reaches_target_at);
        limit.products_that_stay += u64::from(held.reaches_target_at.is_none());
    }

    /// Returns the limits that hold prices back, each with its figures.
    pub(crate) fn by_limit(&self) -> Vec<HeldByLimit> {
        let limits = self.0.iter().map(|(name, limit)| HeldByLimit {
            limit: *name,
            products: limit.distances.products(),
            largest_distance_percent: in_percent(limit.largest_distance),
            median_distance_percent: in_percent(limit.distances.median()),
            continues_at: limit.continues_at,
            reaches_target_at: limit.reaches_target_at,
            products_that_stay: limit.products_that_stay,
        });
        limits.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Option<DateTime<Utc>> {
        (!time.is_empty()).then(|| format!("2026-11-23T{time}:00Z").parse().unwrap())
    }

    /// Held prices: the limit, list price and target, when it continues and when it reaches the target.
    type Case<'a> = (GuardrailName, i64, i64, &'a str, &'a str);

    fn lines(cases: &[Case<'_>]) -> Vec<String> {
        let mut held = HeldPrices::default();
        for (by, list_price, target, continues_at, reaches_target_at) in cases {
            let price = HeldPrice {
                by: *by,
                target: Decimal::from(*target),
                continues_at: at(continues_at),
                reaches_target_at: at(reaches_target_at),
            };
            held.add(Decimal::from(*list_price), &price);
        }
        let time = |at: Option<DateTime<Utc>>| at.map_or("-".to_owned(), |at| at.format("%H:%M").to_string());
        let line = |held: &HeldByLimit| {
            format!(
                "{} {} {}% {}% {} {} {}",
                held.limit.name(),
                held.products,
                held.largest_distance_percent,
                held.median_distance_percent,
                time(held.continues_at),
                time(held.reaches_target_at),
                held.products_that_stay
            )
        };
        held.by_limit().iter().map(line).collect()
    }

    #[test]
    fn prices_are_counted_by_the_limit_that_holds_them_back() {
        use GuardrailName::{CompetitorLoop, MaxDailyMove, MaxStep};
        let step = |list_price, target, continues_at, reaches_target_at| -> Case<'static> {
            (MaxStep, list_price, target, continues_at, reaches_target_at)
        };
        for (cases, expected) in [
            (&[][..], &[][..]),
            (&[step(80, 100, "13:05", "16:05")], &["max_step 1 25% 25% 13:05 16:05 0"]),
            // The earliest start, the latest end; up and down count alike.
            (
                &[step(80, 100, "13:05", "16:05"), step(100, 50, "12:10", "14:10")],
                &["max_step 2 50% 37.5% 12:10 16:05 0"],
            ),
            // One continues and stays short of its target, one does not move at all.
            (
                &[step(100, 145, "", ""), step(100, 110, "13:00", ""), step(100, 120, "13:10", "14:10")],
                &["max_step 3 45% 20% 13:00 14:10 2"],
            ),
            (&[step(100, 145, "", "")], &["max_step 1 45% 45% - - 1"]),
            (
                &[
                    (CompetitorLoop, 94, 92, "14:05", "14:05"),
                    (MaxDailyMove, 100, 300, "23:00", "23:30"),
                    step(3, 4, "13:05", "13:05"),
                ],
                &[
                    "max_step 1 33.33% 33.34% 13:05 13:05 0",
                    "max_daily_move 1 200% 200% 23:00 23:30 0",
                    "competitor_loop 1 2.13% 2.13% 14:05 14:05 0",
                ],
            ),
        ] {
            assert_eq!(lines(cases), expected, "{cases:?}");
        }
    }
}
