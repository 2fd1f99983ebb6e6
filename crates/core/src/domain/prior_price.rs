//! The price that a reduction is announced against, by the European Union's rule.
//!
//! Directive 98/6/EC, article 6a: whoever announces a reduction states the prior price, the lowest one applied during
//! at least 30 days before the reduction; where the reduction grows step by step, the one before its first step. By
//! the Court of Justice (C-330/23, Aldi Süd, 2024) a percentage, too, has to be worked out from that price. Here it is
//! worked out of list prices: what every shopper is shown, before offers to some of them.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

use super::money::as_json_number;

/// How far before a reduction prices count.
pub const PRIOR_PRICE_DAYS: i64 = 30;

/// A list price and since when it applied, until the next one did; `None` while the product was not sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedPrice {
    /// Since when.
    pub since: DateTime<Utc>,
    /// The price.
    pub price: Option<Decimal>,
}

/// The reduction that the price in effect is, and what it may be announced against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reduction {
    /// When its first step was.
    pub started_at: DateTime<Utc>,
    /// The lowest price in the 30 days before.
    #[serde(serialize_with = "as_json_number")]
    pub prior_price: Decimal,
    /// By what part of the prior price the price in effect is lower, in percent; 0 if it is not lower, and then there
    /// is no reduction that may be announced.
    #[serde(serialize_with = "as_json_number")]
    pub percent: Decimal,
    /// Whether prices of all those days are known. If not, the product was not sold for so long, or its earlier history
    /// is not kept; for new products the law has other rules.
    pub is_complete: bool,
}

/// The reduction that the last of these prices, oldest first, is; `None` if the price was never higher since it last
/// rose.
pub fn reduction(prices: &[AppliedPrice]) -> Option<Reduction> {
    let (last, earlier) = prices.split_last()?;
    let price = last.price?;
    let mut lowered_at = *last;
    let mut first_step = None;
    for before in earlier.iter().rev() {
        match (before.price, lowered_at.price) {
            (Some(before), Some(lowered)) if before > lowered => first_step = Some(lowered_at.since),
            // An entry that changes nothing.
            (Some(before), Some(lowered)) if before == lowered => {}
            _ => break,
        }
        lowered_at = *before;
    }
    let started_at = first_step?;
    let (prior_price, is_complete) = lowest_before(prices, started_at)?;
    let percent = match (prior_price - price).checked_div(prior_price) {
        Some(part) if part > Decimal::ZERO => (part * Decimal::ONE_HUNDRED).round_dp(2),
        _ => Decimal::ZERO,
    };
    Some(Reduction { started_at, prior_price, percent, is_complete })
}

/// The lowest price that applied during the 30 days before an instant, and whether prices of all those days are known.
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

    /// Days and prices in cents; 0 is not sold.
    fn prices(written: &[(i64, i64)]) -> Vec<AppliedPrice> {
        let applied = written.iter().map(|(since, cents)| AppliedPrice {
            since: day(*since),
            price: (*cents > 0).then(|| Decimal::new(*cents, 2)),
        });
        applied.collect()
    }

    /// The day it started, the prior price in cents, the percentage.
    fn reduced(written: &[(i64, i64)]) -> Option<(i64, i64, Decimal)> {
        reduction(&prices(written)).map(|reduction| {
            let started = (reduction.started_at - DateTime::UNIX_EPOCH).num_days();
            (started, i64::try_from(reduction.prior_price.mantissa()).unwrap(), reduction.percent)
        })
    }

    #[test]
    fn the_cases_that_the_court_decided() {
        // Bananas: 1.69 crossed out, 1.29 now, and 1.29 in the 30 days before. The announced 23 % are none.
        assert_eq!(reduced(&[(0, 169), (5, 129), (15, 169), (30, 129)]), Some((30, 129, Decimal::ZERO)));
        // Pineapple: 1.69 crossed out, 1.49 now, and 1.39 in the 30 days before: it is dearer than it was.
        assert_eq!(reduced(&[(0, 169), (5, 139), (15, 169), (30, 149)]), Some((30, 139, Decimal::ZERO)));
    }

    #[test]
    fn the_window_is_anchored_at_the_first_step() {
        for (written, expected) in [
            // Never lower than now, and nothing in between.
            (&[(0, 200), (40, 150)][..], Some((40, 200, Decimal::from(25)))),
            // A further step keeps the first prior price, however late it comes.
            (&[(0, 200), (40, 150), (60, 100)], Some((40, 200, Decimal::from(50)))),
            (&[(0, 200), (40, 150), (100, 100)], Some((40, 200, Decimal::from(50)))),
            // A low price that ended before the window does not count, one that reaches into it does.
            (&[(0, 100), (9, 200), (40, 150)], Some((40, 200, Decimal::from(25)))),
            (&[(0, 100), (11, 200), (40, 150)], Some((40, 100, Decimal::ZERO))),
            // It rose in between: that is a new reduction, whose prior price is the low one.
            (&[(0, 200), (40, 150), (50, 180), (60, 120)], Some((60, 150, Decimal::from(20)))),
            // Changes of nothing are no steps.
            (&[(0, 200), (40, 150), (45, 150)], Some((40, 200, Decimal::from(25)))),
            // It rose, or never moved.
            (&[(0, 200), (40, 150), (50, 180)], None),
            (&[(0, 200)], None),
            (&[], None),
            // It was taken off sale and came back cheaper: nobody was shown a reduction.
            (&[(0, 200), (10, 0), (20, 100)], None),
            (&[(0, 200), (10, 0)], None),
        ] {
            assert_eq!(reduced(written), expected, "{written:?}");
        }
    }

    #[test]
    fn a_history_shorter_than_the_window_is_said() {
        let complete = |written: &[(i64, i64)]| reduction(&prices(written)).unwrap().is_complete;
        assert!(complete(&[(0, 200), (30, 150)]));
        assert!(!complete(&[(0, 200), (29, 150)]));
        assert!(!complete(&[(0, 200), (20, 0), (25, 200), (45, 150)]));
    }

    #[test]
    fn it_is_what_looking_at_every_hour_finds() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut at = 0;
            let written: Vec<(i64, i64)> = (0..random.usize(2..30))
                .map(|_| {
                    at += random.i64(1..12);
                    (at, random.i64(1..6) * 100)
                })
                .collect();
            let Some((started, prior, _)) = reduced(&written) else { continue };
            let at_hour = |hour: i64| {
                written.iter().rev().find(|(since, _)| since * 24 <= hour).map(|(_, price)| *price)
            };
            let lowest = (started * 24 - 30 * 24..started * 24).filter_map(at_hour).min();
            assert_eq!(Some(prior), lowest, "{written:?}");
        }
    }
}
