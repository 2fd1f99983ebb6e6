//! The prior prices of announced reductions, by the European Union's rule.
//!
//! Directive 98/6/EC, article 6a: an announcement of a reduction states the prior price, the lowest one
//! applied during at least 30 days before the reduction. By paragraph 5, member states may allow the price
//! before the first step if an announced reduction grew step by step. By the Court of Justice (C-330/23, Aldi
//! Süd, 2024) a percentage must also be based on the prior price.
//!
//! The engine does not know what was announced, so it returns both. They are computed from list prices; the
//! prices that shoppers paid may differ if offer rules change the price for every shopper
//! ([`may_move_every_shopper`]).
//!
//! [`may_move_every_shopper`]: crate::policy::PricingPolicy::may_move_every_shopper

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;

/// The days before a reduction whose prices count.
pub const PRIOR_PRICE_DAYS: i64 = 30;

/// Decimal places of the percentage of a reduction.
const PERCENT_SCALE: u32 = 2;

/// A list price and the start of its validity, which lasts until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedPrice {
    /// The start of the price's validity.
    pub since: DateTime<Utc>,
    /// The price; `None` while the product was not sold.
    pub price: Option<Decimal>,
}

/// A reduction that may be announced, and its prior price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduction {
    /// The instant of the step.
    pub started_at: DateTime<Utc>,
    /// The lowest price in the 30 days before it.
    pub prior_price: Decimal,
    /// The reduction from the prior price to the current one, in percent with two decimal places; above 0.
    pub percent: Decimal,
    /// Whether the prices of all 30 days are known. If not, the product has not been sold that long, or its
    /// earlier history is not kept; the law has other rules for new products.
    pub is_complete: bool,
}

/// The reductions of the current price, from its latest step and from its first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reductions {
    /// From the lowest price of the 30 days before the latest step.
    pub latest: Option<Reduction>,
    /// From the lowest price of the 30 days before the first of several steps. It may be announced only if
    /// each step was announced as part of one progressive reduction, and only where the law has that rule.
    pub progressive: Option<Reduction>,
}

/// Returns the reductions of the last of these prices, oldest first; none if the last change did not lower
/// it.
pub fn reductions(prices: &[AppliedPrice]) -> Reductions {
    let Some((steps, price)) = steps(prices) else { return Reductions::default() };
    let since = |started_at: DateTime<Utc>| {
        let (prior_price, is_complete) = lowest_before(prices, started_at)?;
        let part = (prior_price - price).checked_div(prior_price)?;
        let percent = (part * Decimal::ONE_HUNDRED).round_dp(PERCENT_SCALE);
        (percent > Decimal::ZERO).then_some(Reduction { started_at, prior_price, percent, is_complete })
    };
    let has_several = steps.first < steps.latest;
    Reductions { latest: since(steps.latest), progressive: since(steps.first).filter(|_| has_several) }
}

/// The first and the latest of the steps by which a price fell without rising in between.
struct Steps {
    first: DateTime<Utc>,
    latest: DateTime<Utc>,
}

/// Returns the steps down to the last of these prices, and that price.
fn steps(prices: &[AppliedPrice]) -> Option<(Steps, Decimal)> {
    let (last, earlier) = prices.split_last()?;
    let price = last.price?;
    let mut lowered_at = *last;
    let mut steps: Option<Steps> = None;
    for before in earlier.iter().rev() {
        match (before.price, lowered_at.price) {
            (Some(before), Some(lowered)) if before > lowered => {
                let first = lowered_at.since;
                steps = Some(Steps { first, latest: steps.map_or(first, |steps| steps.latest) });
            }
            // The entry does not change the price.
            (Some(before), Some(lowered)) if before == lowered => {}
            _ => break,
        }
        lowered_at = *before;
    }
    steps.map(|steps| (steps, price))
}

/// Returns the lowest price that applied during the 30 days before an instant, and whether the prices of all
/// those days are known.
pub fn lowest_before(prices: &[AppliedPrice], end: DateTime<Utc>) -> Option<(Decimal, bool)> {
    let start = end - TimeDelta::days(PRIOR_PRICE_DAYS);
    let mut lowest: Option<Decimal> = None;
    let mut is_complete = prices.first().is_some_and(|first| first.since <= start);
    for (index, applied) in prices.iter().enumerate() {
        let until = prices.get(index + 1).map_or(end, |next| next.since);
        if applied.since >= end || (until <= start && applied.since < start) {
            continue;
        }
        match applied.price {
            Some(price) => lowest = Some(lowest.map_or(price, |lowest| lowest.min(price))),
            None => is_complete = false,
        }
    }
    lowest.map(|lowest| (lowest, is_complete))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(day)
    }

    /// Creates prices from days and cents; 0 means not sold.
    fn prices(written: &[(i64, i64)]) -> Vec<AppliedPrice> {
        let applied = written.iter().map(|(since, cents)| AppliedPrice {
            since: day(*since),
            price: (*cents > 0).then(|| Decimal::new(*cents, 2)),
        });
        applied.collect()
    }

    /// The day it started, the prior price in cents, the percentage.
    type Expected = Option<(i64, i64, Decimal)>;

    fn shown(reduction: Option<Reduction>) -> Expected {
        reduction.map(|reduction| {
            let started = (reduction.started_at - DateTime::UNIX_EPOCH).num_days();
            (started, i64::try_from(reduction.prior_price.mantissa()).unwrap(), reduction.percent)
        })
    }

    /// Returns the reductions since the latest and since the first step.
    fn reduced(written: &[(i64, i64)]) -> (Expected, Expected) {
        let Reductions { latest, progressive } = reductions(&prices(written));
        (shown(latest), shown(progressive))
    }

    fn percent(hundredths: i64) -> Decimal {
        Decimal::new(hundredths, 2)
    }

    #[test]
    fn the_cases_that_the_court_decided() {
        // Bananas: 1.69 crossed out, 1.29 now, and 1.29 in the 30 days before. The announced 23 % are no
        // reduction.
        assert_eq!(reduced(&[(0, 169), (5, 129), (15, 169), (30, 129)]), (None, None));
        // Pineapple: 1.69 crossed out, 1.49 now, and 1.39 in the 30 days before: the price has risen.
        assert_eq!(reduced(&[(0, 169), (5, 139), (15, 169), (30, 149)]), (None, None));
    }

    #[test]
    fn one_window_ends_at_the_latest_step_and_one_at_the_first() {
        for (written, latest, progressive) in [
            // Never lower than now, and a single step.
            (&[(0, 200), (40, 150)][..], Some((40, 200, percent(25_00))), None),
            // A further step, within and after 30 days.
            (
                &[(0, 200), (40, 150), (60, 100)],
                Some((60, 150, percent(33_33))),
                Some((40, 200, percent(50_00))),
            ),
            (
                &[(0, 200), (40, 150), (100, 100)],
                Some((100, 150, percent(33_33))),
                Some((40, 200, percent(50_00))),
            ),
            // At 99 for a year: a reduction from 100 may be announced only if it was a single progressive
            // one.
            (
                &[(0, 10_000), (40, 9_900), (400, 9_000), (430, 8_000)],
                Some((430, 9_000, percent(11_11))),
                Some((40, 10_000, percent(20_00))),
            ),
            // A low price that ended before the 30 days does not count; one that reaches into them does.
            (&[(0, 100), (9, 200), (40, 150)], Some((40, 200, percent(25_00))), None),
            (&[(0, 100), (11, 200), (40, 150)], None, None),
            // It rose in between: a new reduction, whose prior price is the low one.
            (&[(0, 200), (40, 150), (50, 180), (60, 120)], Some((60, 150, percent(20_00))), None),
            // Entries without a change are not steps.
            (&[(0, 200), (40, 150), (45, 150)], Some((40, 200, percent(25_00))), None),
            // Less than a hundredth of a percent is not a reduction.
            (&[(0, 10_000_000), (40, 9_999_999)], None, None),
            (&[(0, 109_900), (40, 109_898)], None, None),
            (&[(0, 200_000), (40, 109_900), (60, 109_899)], None, Some((40, 200_000, percent(45_05)))),
            // It rose, or never moved.
            (&[(0, 200), (40, 150), (50, 180)], None, None),
            (&[(0, 200)], None, None),
            (&[], None, None),
            // Withdrawn from sale and returned at a lower price: no shopper was shown a reduction.
            (&[(0, 200), (10, 0), (20, 100)], None, None),
            (&[(0, 200), (10, 0)], None, None),
        ] {
            assert_eq!(reduced(written), (latest, progressive), "{written:?}");
        }
    }

    #[test]
    fn a_price_that_creeps_down_is_no_reduction_from_its_first_step() {
        let daily: Vec<(i64, i64)> = (0..=40).map(|day| (day + 100, (200 - day) * 100)).collect();
        let expected = (Some((140, 16_100, percent(62))), Some((101, 20_000, percent(20_00))));
        assert_eq!(reduced(&daily), expected);
    }

    #[test]
    fn a_history_shorter_than_the_window_is_said() {
        let complete = |written: &[(i64, i64)]| reductions(&prices(written)).latest.unwrap().is_complete;
        assert!(complete(&[(0, 200), (30, 150)]));
        assert!(!complete(&[(0, 200), (29, 150)]));
        assert!(!complete(&[(0, 200), (20, 0), (25, 200), (45, 150)]));
    }

    #[test]
    fn it_is_what_looking_at_every_hour_finds() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut at = 0;
            let written: Vec<(i64, i64)> = (0..random.usize(2..30))
                .map(|_| {
                    at += random.i64(1..12);
                    (at, random.i64(1..6) * 100)
                })
                .collect();
            let at_hour = |hour: i64| {
                written.iter().rev().find(|(since, _)| since * 24 <= hour).map(|(_, price)| *price)
            };
            let now = at_hour(at * 24).unwrap();
            let (latest, progressive) = reduced(&written);
            for (started, prior, _) in latest.into_iter().chain(progressive) {
                let lowest = (started * 24 - 30 * 24..started * 24).filter_map(at_hour).min();
                assert_eq!(Some(prior), lowest, "{written:?}");
            }
            // The day of the last change is the latest step, if the price fell.
            let days = (0..=at).rev().find(|day| at_hour(day * 24 - 1) != Some(now));
            let is_step = days.is_some_and(|day| at_hour(day * 24 - 1).is_some_and(|before| before > now));
            assert!(latest.is_none_or(|(started, ..)| is_step && Some(started) == days), "{written:?}");
        }
    }
}
