//! Exact fractions: the model's numbers, which share nothing with the engine's decimals.
//!
//! What does not fit into 128 bits ends the test; the generator draws nothing so fine.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A fraction in lowest terms with a denominator above zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fraction {
    numerator: i128,
    denominator: i128,
}

const TOO_FINE: &str = "the case needs finer numbers than the model has";

impl Fraction {
    pub(crate) const ZERO: Self = Self::whole(0);
    pub(crate) const ONE: Self = Self::whole(1);

    pub(crate) const fn whole(numerator: i128) -> Self {
        Self { numerator, denominator: 1 }
    }

    pub(crate) fn of(numerator: i128, denominator: i128) -> Self {
        let divisor = greatest_common_divisor(numerator, denominator).max(1) * denominator.signum();
        Self { numerator: numerator / divisor, denominator: denominator / divisor }
    }

    /// `digits` with the last `scale` of them behind the point.
    pub(crate) fn decimal(digits: i128, scale: u32) -> Self {
        Self::of(digits, 10_i128.pow(scale))
    }

    /// The number that a decimal text says.
    pub(crate) fn parse(text: &str) -> Self {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{part}").parse().expect("digits");
        Self::decimal(digits, u32::try_from(part.len()).expect("a short text"))
    }

    pub(crate) fn is_zero(self) -> bool {
        self.numerator == 0
    }

    pub(crate) fn is_above_zero(self) -> bool {
        self.numerator > 0
    }

    pub(crate) fn is_whole(self) -> bool {
        self.denominator == 1
    }

    pub(crate) fn abs(self) -> Self {
        Self { numerator: self.numerator.abs(), ..self }
    }

    /// The largest whole number that is not above it.
    pub(crate) fn floor(self) -> i128 {
        self.numerator.div_euclid(self.denominator)
    }

    /// The smallest whole number that is not below it.
    pub(crate) fn ceil(self) -> i128 {
        -((-self.numerator).div_euclid(self.denominator))
    }

    /// Without what is behind the point.
    pub(crate) fn trunc(self) -> i128 {
        self.numerator / self.denominator
    }

    /// To the nearest whole number, halves away from zero.
    pub(crate) fn round_half_away(self) -> i128 {
        let distance = (self.abs() + Self::of(1, 2)).floor();
        distance * self.numerator.signum()
    }

    /// The decimal text, if the number has one.
    pub(crate) fn decimal_text(self) -> Option<String> {
        let scale = (0..=30).find(|scale| 10_i128.pow(*scale) % self.denominator == 0)?;
        let digits = self.numerator.abs() * (10_i128.pow(scale) / self.denominator);
        let sign = if self.numerator < 0 { "-" } else { "" };
        let width = usize::try_from(scale).ok()?;
        let padded = format!("{digits:0>least$}", least = width + 1);
        let (whole, part) = padded.split_at(padded.len() - width);
        Some(if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") })
    }

    fn times(self, numerator: i128, denominator: i128) -> Self {
        let left = greatest_common_divisor(self.numerator, denominator).max(1);
        let right = greatest_common_divisor(numerator, self.denominator).max(1);
        Self {
            numerator: (self.numerator / left).checked_mul(numerator / right).expect(TOO_FINE),
            denominator: (self.denominator / right).checked_mul(denominator / left).expect(TOO_FINE),
        }
    }
}

impl Add for Fraction {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let common = greatest_common_divisor(self.denominator, other.denominator);
        let (own_factor, other_factor) = (other.denominator / common, self.denominator / common);
        let own = self.numerator.checked_mul(own_factor).expect(TOO_FINE);
        let others = other.numerator.checked_mul(other_factor).expect(TOO_FINE);
        let denominator = self.denominator.checked_mul(own_factor).expect(TOO_FINE);
        Self::of(own.checked_add(others).expect(TOO_FINE), denominator)
    }
}

impl Sub for Fraction {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Fraction {
    type Output = Self;

    fn neg(self) -> Self {
        Self { numerator: -self.numerator, ..self }
    }
}

impl Mul for Fraction {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        self.times(other.numerator, other.denominator)
    }
}

impl Div for Fraction {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        assert!(!other.is_zero(), "the model divides by zero");
        self.times(other.denominator * other.numerator.signum(), other.numerator.abs())
    }
}

impl Ord for Fraction {
    /// By whole parts, then by what is left over turned upside down: no product grows too large on the way.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right, mut turned) = (*self, *other, false);
        loop {
            let order = left.floor().cmp(&right.floor());
            let left_rest = left.numerator.rem_euclid(left.denominator);
            let right_rest = right.numerator.rem_euclid(right.denominator);
            let order = match (order, left_rest, right_rest) {
                (Ordering::Equal, 0, 0) => return Ordering::Equal,
                (Ordering::Equal, 0, _) => Ordering::Less,
                (Ordering::Equal, _, 0) => Ordering::Greater,
                (Ordering::Equal, _, _) => {
                    left = Self { numerator: left.denominator, denominator: left_rest };
                    right = Self { numerator: right.denominator, denominator: right_rest };
                    turned = !turned;
                    continue;
                }
                (order, _, _) => order,
            };
            return if turned { order.reverse() } else { order };
        }
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Fraction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decimal_text() {
            Some(text) => formatter.write_str(&text),
            None => write!(formatter, "{}/{}", self.numerator, self.denominator),
        }
    }
}

fn greatest_common_divisor(left: i128, right: i128) -> i128 {
    let (mut left, mut right) = (left.unsigned_abs(), right.unsigned_abs());
    while right != 0 {
        if let (Ok(small_left), Ok(small_right)) = (u64::try_from(left), u64::try_from(right)) {
            return i128::from(small_divisor(small_left, small_right));
        }
        (left, right) = (right, left % right);
    }
    i128::try_from(left).expect(TOO_FINE)
}

fn small_divisor(mut left: u64, mut right: u64) -> u64 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}
