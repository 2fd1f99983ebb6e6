//! A relative or absolute change of a price: `-5%`, `+0.50`.

use std::fmt;

use rust_decimal::Decimal;

use crate::diagnostic::{Diagnostic, shorten};
use crate::facts::arithmetic::multiply;
use crate::facts::money::parse_amount;
use crate::policy::scalar::{MAX_PERCENT_SCALE, MAX_POLICY_SCALE, Scalar, parse_percent_digits};

/// A relative or absolute change of a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A factor: 1.05 is five percent more.
    Factor(Decimal),
    /// An amount to add.
    Amount(Decimal),
}

impl Change {
    /// Parses `-5%` or `+0.50`.
    fn parse(written: &str) -> Option<Self> {
        let trimmed = written.trim();
        let unsigned = trimmed.strip_prefix('+').unwrap_or(trimmed);
        match unsigned.strip_suffix('%') {
            Some(percent) => Some(Self::of_fraction(parse_percent_digits(percent)?)?),
            None => parse_amount(unsigned, MAX_POLICY_SCALE).ok().map(Self::Amount),
        }
    }

    /// Parses and checks a change; the two texts describe the allowed percentages and amounts.
    pub(crate) fn check(
        field: &str,
        written: &Scalar,
        [percentages, amounts]: [&str; 2],
        is_allowed: impl Fn(Self) -> bool,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let parsed = Self::parse(&written.0).filter(|change| is_allowed(*change));
        if parsed.is_none() {
            let problem = format!("\"{}\" is not such a change", shorten(&written.0));
            let allowed = format!(
                "a percentage {percentages}, with at most {MAX_PERCENT_SCALE} decimal places, or an amount \
                 {amounts}, with at most {MAX_POLICY_SCALE}"
            );
            problems.push(Diagnostic::new(field, problem, allowed));
        }
        parsed
    }

    /// Creates a change by a fraction of the price: 0.05 is five percent more.
    pub(crate) fn of_fraction(fraction: Decimal) -> Option<Self> {
        Decimal::ONE.checked_add(fraction).map(Self::Factor)
    }

    /// Returns the price after the change; `None` on overflow.
    #[inline]
    pub fn apply(self, price: Decimal) -> Option<Decimal> {
        match self {
            Self::Factor(factor) => multiply(price, factor),
            Self::Amount(amount) => price.checked_add(amount),
        }
    }

    pub(crate) fn is_nothing(self) -> bool {
        match self {
            Self::Factor(factor) => factor == Decimal::ONE,
            Self::Amount(amount) => amount.is_zero(),
        }
    }

    pub(crate) fn lowers(self) -> bool {
        match self {
            Self::Factor(factor) => factor < Decimal::ONE,
            Self::Amount(amount) => amount < Decimal::ZERO,
        }
    }

    pub(crate) fn is_above_nothing(self) -> bool {
        match self {
            Self::Factor(factor) => factor > Decimal::ONE,
            Self::Amount(amount) => amount > Decimal::ZERO,
        }
    }

    /// Whether a price can remain above 0: false for -100% or less, with which a rule always fails.
    pub(crate) fn leaves_something(self) -> bool {
        !matches!(self, Self::Factor(factor) if factor <= Decimal::ZERO)
    }

    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Factor(factor) => Self::Factor(Decimal::TWO - factor),
            Self::Amount(amount) => Self::Amount(-amount),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factor(factor) => {
                let percent = (factor - Decimal::ONE) * Decimal::ONE_HUNDRED;
                write!(formatter, "{:+}%", percent.normalize())
            }
            Self::Amount(amount) => write!(formatter, "{:+}", amount.normalize()),
        }
    }
}

/// Parses a change that leaves a price above 0.
pub(crate) fn change(field: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Change> {
    let allowed = ["above -100% such as -5%", "such as +0.50"];
    Change::check(field, written, allowed, Change::leaves_something, problems)
}
