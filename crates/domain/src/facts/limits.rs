//! The lower and upper limits of a price.

use std::cmp::Ordering;

use rust_decimal::Decimal;

use crate::facts::arithmetic::{compare, larger, smaller};

/// The lowest and the highest allowed amount, both inclusive. If they contradict, the lowest takes
/// precedence: a price that is too high loses a sale, one that is too low loses money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The lower limit.
    pub lowest: Option<Decimal>,
    /// The upper limit, unless `lowest` is above it.
    pub highest: Option<Decimal>,
}

impl Limits {
    /// Clamps the amount to the limits.
    pub fn clamp(&self, amount: Decimal) -> Decimal {
        let capped = self.highest.map_or(amount, |highest| smaller(amount, highest));
        self.lowest.map_or(capped, |lowest| larger(capped, lowest))
    }

    /// Whether the amount is within both limits.
    pub(crate) fn allow(&self, amount: Decimal) -> bool {
        compare(self.clamp(amount), amount).is_eq()
    }

    /// Narrows the limits so that a price moving from `from` towards `end` stops at `end`.
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
