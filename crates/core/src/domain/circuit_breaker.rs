//! The circuit breaker: a recalculation that would move too many prices too far waits until somebody approves
//! of it.
//!
//! Guardrails look at one price at a time, and a thousand moves of 14 % pass a largest step of 15 %. This
//! looks at all of them together, before the first one is written.

use std::fmt;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use super::diagnostic::Diagnostic;
use super::rule::{Scalar, fraction, percentage};
use super::simulation::Simulation;

/// The circuit breaker as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreakerDraft {
    /// With `moved_by`: it opens if more than this part of the products move by more than that.
    pub moved_products: Option<Scalar>,
    /// See `moved_products`.
    pub moved_by: Option<Scalar>,
    /// It opens if the median of all moves, of an even number the mean of the two in the middle, is further
    /// than this from 0, up or down.
    pub median_move: Option<Scalar>,
}

/// When a recalculation as a whole goes too far. All numbers are fractions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// At most this part of the products may move by more than this.
    pub moved: Option<MovedProducts>,
    /// The median of all moves may be this far from 0.
    pub median_move: Option<Decimal>,
}

/// A part of the products, and how far they may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedProducts {
    /// The part of the products.
    pub part: Decimal,
    /// A move counts if it is larger.
    pub by: Decimal,
}

/// Why a recalculation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Too many products would move too far.
    MovedProducts {
        /// How many would.
        moved: u64,
        /// Of how many.
        products: u64,
        /// What is allowed.
        limit: MovedProducts,
    },
    /// The catalogue as a whole would move too far.
    MedianMove {
        /// The median.
        median: Decimal,
        /// What is allowed.
        limit: Decimal,
    },
}

impl CircuitBreaker {
    /// Whether it never opens.
    pub fn is_off(&self) -> bool {
        self.moved.is_none() && self.median_move.is_none()
    }

    /// Everything that speaks against letting these moves through. A product without a price so far does not
    /// move.
    pub fn judge(&self, simulation: &Simulation) -> Vec<Held> {
        let products = simulation.moves();
        let moved = self.moved.and_then(|limit| {
            let moved = simulation.moved_by_more_than(limit.by);
            let allowed = limit.part * Decimal::from(products);
            (Decimal::from(moved) > allowed).then_some(Held::MovedProducts { moved, products, limit })
        });
        let median = self.median_move.and_then(|limit| {
            let median = simulation.median_move();
            (median.abs() > limit).then_some(Held::MedianMove { median, limit })
        });
        moved.into_iter().chain(median).collect()
    }
}

impl CircuitBreakerDraft {
    pub(super) fn check(&self, problems: &mut Vec<Diagnostic>) -> CircuitBreaker {
        let part = self
            .moved_products
            .as_ref()
            .and_then(|written| fraction("circuit_breaker.moved_products", written, problems));
        let by = self.moved_by.as_ref().and_then(|written| change("moved_by", written, problems));
        let median_move =
            self.median_move.as_ref().and_then(|written| change("median_move", written, problems));
        match (&self.moved_products, &self.moved_by, &self.median_move) {
            (Some(_), None, _) | (None, Some(_), _) => problems.push(Diagnostic::new(
                "circuit_breaker",
                "says how many products may move, or how far, without the other",
                "moved_products and moved_by together",
            )),
            (None, None, None) => {
                let allowed = "moved_products with moved_by, or median_move, or both";
                problems.push(Diagnostic::new("circuit_breaker", "says nothing", allowed));
            }
            _ => {}
        }
        let moved = part.zip(by).map(|(part, by)| MovedProducts { part, by });
        CircuitBreaker { moved, median_move }
    }
}

/// A percentage above 0%, as a fraction.
fn change(name: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let field = format!("circuit_breaker.{name}");
    percentage(&field, written, "above 0%", |fraction| fraction > Decimal::ZERO, problems)
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MovedProducts { moved, products, limit } => write!(
                formatter,
                "{moved} of {products} products would move by more than {} (allowed: {} of them)",
                Percent(limit.by),
                Percent(limit.part)
            ),
            Self::MedianMove { median, limit } => write!(
                formatter,
                "the median product would move by {} (allowed: {})",
                Percent(*median),
                Percent(*limit)
            ),
        }
    }
}

/// A fraction, written as a percentage.
struct Percent(Decimal);

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", (self.0 * Decimal::ONE_HUNDRED).normalize())
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::PricingPolicy;
    use super::super::time_zone::TimeZones;
    use super::*;

    fn breaker(written: &str) -> Result<CircuitBreaker, Vec<String>> {
        let policy = PricingPolicy::from_yaml(
            &format!("name: x\ncircuit_breaker: {written}\n"),
            1,
            &TimeZones::bundled(),
        );
        policy
            .map(|policy| policy.circuit_breaker)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// So many products that move by each percentage.
    fn moves(written: &[(u64, i64)]) -> Simulation {
        let mut simulation = Simulation::default();
        for (products, percent) in written {
            for _ in 0..*products {
                simulation.add_move(Decimal::new(*percent, 2));
            }
        }
        simulation
    }

    #[test]
    fn it_opens_beyond_its_limits_and_not_at_them() {
        let both = breaker("{ moved_products: 20%, moved_by: 10%, median_move: 5% }").unwrap();
        for (written, held) in [
            (&[(80_u64, 0_i64), (20, 40)][..], 0),
            (&[(79, 0), (21, -11)], 1),
            (&[(79, 0), (21, 10)], 0),
            (&[(100, 5)], 0),
            (&[(100, -6)], 1),
            (&[(100, 30)], 2),
            (&[], 0),
        ] {
            assert_eq!(both.judge(&moves(written)).len(), held, "{written:?}");
        }
        let median = breaker("{ median_move: 1% }").unwrap();
        assert_eq!(
            median.judge(&moves(&[(3, -2)])).first().map(ToString::to_string).as_deref(),
            Some("the median product would move by -2% (allowed: 1%)")
        );
        for (written, held) in [(&[(50_u64, -20_i64), (50, 0)][..], 1), (&[(50, -20), (50, 20)], 0)] {
            assert_eq!(median.judge(&moves(written)).len(), held, "{written:?}");
        }
        let moved = breaker("{ moved_products: 0%, moved_by: 2.5% }").unwrap();
        assert_eq!(
            moved.judge(&moves(&[(3, 3), (1, 1)])).first().map(ToString::to_string).as_deref(),
            Some("3 of 4 products would move by more than 2.5% (allowed: 0% of them)")
        );
        assert!(CircuitBreaker::default().is_off());
        assert_eq!(CircuitBreaker::default().judge(&moves(&[(9, 99)])), []);
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        for written in [
            "{}",
            "{ moved_products: 5% }",
            "{ moved_by: 5% }",
            "{ moved_products: 120%, moved_by: 5% }",
            "{ median_move: 0% }",
            "{ median_move: 5 }",
            "{ moved_products: 5%, moved_by: -5% }",
        ] {
            assert_eq!(breaker(written).unwrap_err().len(), 1, "{written}: {:?}", breaker(written));
        }
    }
}
