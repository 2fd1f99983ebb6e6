//! Moves of prices, counted: how many rise and fall, their median and their distribution.
//!
//! The memory does not depend on the number of products: moves are counted by hundredths of a percent, so
//! that there are at most 110,001 counts.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};

/// The largest move that is counted exactly, tenfold; larger ones count as this one.
const LARGEST_COUNTED_MOVE: i32 = 100_000;

/// Decimal places of a move as a fraction: hundredths of a percent.
const MOVE_SCALE: u32 = 4;

/// The boundaries of the distribution of moves, in percent.
const DIVISIONS: [i64; 12] = [-50, -30, -20, -10, -5, -1, 1, 5, 10, 20, 30, 50];

/// The moves of one price of each product.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// The number of products by move, in hundredths of a percent.
    by_size: BTreeMap<i32, u64>,
    up: u64,
    down: u64,
}

/// A range of the distribution of moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveRange {
    /// The lower bound of the moves, in percent; inclusive if above 0.
    pub from_percent: Option<i64>,
    /// The upper bound of the moves, in percent; inclusive if below 0.
    pub to_percent: Option<i64>,
    /// The number of products.
    pub products: u64,
}

impl Moves {
    /// Adds a move, as a fraction.
    pub(crate) fn add(&mut self, change: Decimal) {
        *self.by_size.entry(hundredths_of_a_percent(change)).or_default() += 1;
        self.up += u64::from(change > Decimal::ZERO);
        self.down += u64::from(change < Decimal::ZERO);
    }

    /// Adds products that do not move.
    pub(crate) fn add_unmoved(&mut self, products: u64) {
        *self.by_size.entry(0).or_default() += products;
    }

    /// Returns the number of added products, including those that do not move.
    pub fn products(&self) -> u64 {
        self.by_size.values().sum()
    }

    /// Returns the number of products whose price rises.
    pub fn up(&self) -> u64 {
        self.up
    }

    /// Returns the number of products whose price falls.
    pub fn down(&self) -> u64 {
        self.down
    }

    /// Returns the number of products that move by more than this fraction, up or down.
    pub fn by_more_than(&self, limit: Decimal) -> u64 {
        let limit = hundredths_of_a_percent(limit);
        self.by_size.iter().filter(|(change, _)| change.abs() > limit).map(|(_, products)| products).sum()
    }

    /// Returns the median of all moves, as a fraction; for an even number, the mean of the middle two.
    pub fn median(&self) -> Decimal {
        let total = self.products();
        if total == 0 {
            return Decimal::ZERO;
        }
        let (lower, upper) = (self.at((total - 1) / 2), self.at(total / 2));
        // Half of the sum, with one more decimal place.
        Decimal::new((i64::from(lower) + i64::from(upper)) * 5, MOVE_SCALE + 1).normalize()
    }

    /// Returns the move at this place of all, in ascending order.
    fn at(&self, place: u64) -> i32 {
        let mut before = 0;
        for (change, products) in &self.by_size {
            before += products;
            if before > place {
                return *change;
            }
        }
        0
    }

    /// Returns the distribution: ranges in ascending order that cover every move.
    pub fn distribution(&self) -> Vec<MoveRange> {
        // Unmoved products have a range of their own between -1 % and 1 %.
        let mut ranges: Vec<(Option<i64>, Option<i64>)> = Vec::new();
        let mut from = None;
        for division in DIVISIONS {
            if division == 1 {
                ranges.extend([(from, Some(0)), (Some(0), Some(0))]);
                from = Some(0);
            }
            ranges.push((from, Some(division)));
            from = Some(division);
        }
        ranges.push((from, None));
        let within = |from_percent: Option<i64>, to_percent: Option<i64>| {
            let products = self.by_size.iter().filter(|(change, _)| {
                let change = i64::from(**change);
                let (from, to) = (from_percent.map(|from| from * 100), to_percent.map(|to| to * 100));
                match (from, to) {
                    (Some(0), Some(0)) => change == 0,
                    // A range excludes the bound that is nearer to 0.
                    _ => {
                        from.is_none_or(|from| change > from || (from > 0 && change == from))
                            && to.is_none_or(|to| change < to || (to < 0 && change == to))
                    }
                }
            });
            MoveRange { from_percent, to_percent, products: products.map(|(_, products)| products).sum() }
        };
        ranges.into_iter().map(|(from, to)| within(from, to)).collect()
    }
}

/// Returns the move from one price to another, as a fraction of the first.
pub(crate) fn fraction(before: Decimal, after: Decimal) -> Decimal {
    let change = after.checked_sub(before).and_then(|change| change.checked_div(before));
    change.unwrap_or_default()
}

/// Returns the fraction in percent, to two decimal places.
pub(crate) fn in_percent(fraction: Decimal) -> Decimal {
    (fraction.saturating_mul(Decimal::ONE_HUNDRED)).round_dp(2).normalize()
}

/// Rounds away from 0, so that the smallest move still counts as one.
fn hundredths_of_a_percent(fraction: Decimal) -> i32 {
    let hundredths = fraction
        .saturating_mul(Decimal::from(10_000))
        .round_dp_with_strategy(0, RoundingStrategy::AwayFromZero);
    i32::try_from(hundredths).map_or(LARGEST_COUNTED_MOVE, |counted| counted.min(LARGEST_COUNTED_MOVE))
}
