//! The lowest and the highest amount that a price may have.

use std::cmp::Ordering;

use rust_decimal::Decimal;

use crate::facts::arithmetic::{compare, larger, smaller};

/// The lowest and the highest amount allowed, both inclusive. Where they contradict, the lowest wins: a price
/// that is too high loses a sale, one that is too low loses money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// No price below this.
    pub lowest: Option<Decimal>,
    /// No price above this, unless `lowest` demands it.
    pub highest: Option<Decimal>,
}

impl Limits {
    /// The amount itself, or the nearest allowed one.
    pub fn clamp(&self, amount: Decimal) -> Decimal {
        let capped = self.highest.map_or(amount, |highest| smaller(amount, highest));
        self.lowest.map_or(capped, |lowest| larger(capped, lowest))
    }

    /// Whether the amount satisfies both.
    pub(crate) fn allow(&self, amount: Decimal) -> bool {
        compare(self.clamp(amount), amount).is_eq()
    }

    /// These limits, and besides that no further than this amount, from wherever the other one lies.
    pub fn up_to(self, end: Decimal, from: Decimal) -> Self {
        match compare(from, end) {
            Ordering::Less => {
                Self { highest: Some(self.highest.map_or(end, |highest| smaller(highest, end))), ..self }
            }
            Ordering::Greater => {
                Self { lowest: Some(self.lowest.map_or(end, |lowest| larger(lowest, end))), ..self }
            }
            Ordering::Equal => self,
        }
    }

    /// Whether no amount satisfies both.
    pub fn contradict(&self) -> bool {
        matches!((self.lowest, self.highest), (Some(lowest), Some(highest)) if lowest > highest)
    }
}
