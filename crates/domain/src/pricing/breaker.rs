//! Decides whether the circuit breaker opens for the result of a simulation.

use std::fmt;

use rust_decimal::Decimal;

use crate::policy::circuit_breaker::{CircuitBreaker, MovedProducts};
use crate::pricing::simulation::Simulation;

/// The reason that a recalculation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// Too many products would move too far.
    MovedProducts {
        /// The number of products that would.
        moved: u64,
        /// The number of all products.
        products: u64,
        /// The limit.
        limit: MovedProducts,
    },
    /// The median price would move too far.
    MedianMove {
        /// The median.
        median: Decimal,
        /// The limit.
        limit: Decimal,
    },
    /// Too many prices would be frozen.
    FrozenProducts {
        /// The number of products whose price would be frozen.
        frozen: u64,
        /// The number of all products.
        products: u64,
        /// The limit, as a fraction of the products.
        limit: Decimal,
    },
}

impl CircuitBreaker {
    /// Whether the circuit breaker is disabled.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Returns all reasons to hold these moves. A product without an earlier price does not count as moved.
    pub fn reasons_to_hold(&self, simulation: &Simulation) -> Vec<HoldReason> {
        let products = simulation.moves();
        let moved = self.moved.and_then(|limit| {
            let moved = simulation.moved_by_more_than(limit.by);
            let allowed = limit.part * Decimal::from(products);
            (Decimal::from(moved) > allowed).then_some(HoldReason::MovedProducts { moved, products, limit })
        });
        let median = self.median_move.and_then(|limit| {
            let median = simulation.median_move();
            (median.abs() > limit).then_some(HoldReason::MedianMove { median, limit })
        });
        let frozen = self.frozen_products.and_then(|limit| {
            let frozen = simulation.frozen();
            let is_beyond = Decimal::from(frozen) > limit * Decimal::from(products);
            is_beyond.then_some(HoldReason::FrozenProducts { frozen, products, limit })
        });
        moved.into_iter().chain(median).chain(frozen).collect()
    }
}

impl fmt::Display for HoldReason {
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
            Self::FrozenProducts { frozen, products, limit } => write!(
                formatter,
                "the prices of {frozen} of {products} products would be frozen (allowed: {} of them)",
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
    use super::*;
    use crate::facts::time_zone::TimeZones;
    use crate::policy::pricing_policy::PricingPolicy;

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

    /// Creates a simulation with this many products for each percentage.
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
            assert_eq!(both.reasons_to_hold(&moves(written)).len(), held, "{written:?}");
        }
        let median = breaker("{ median_move: 1% }").unwrap();
        assert_eq!(
            median.reasons_to_hold(&moves(&[(3, -2)])).first().map(ToString::to_string).as_deref(),
            Some("the median product would move by -2% (allowed: 1%)")
        );
        for (written, held) in [(&[(50_u64, -20_i64), (50, 0)][..], 1), (&[(50, -20), (50, 20)], 0)] {
            assert_eq!(median.reasons_to_hold(&moves(written)).len(), held, "{written:?}");
        }
        let moved = breaker("{ moved_products: 0%, moved_by: 2.5% }").unwrap();
        assert_eq!(
            moved.reasons_to_hold(&moves(&[(3, 3), (1, 1)])).first().map(ToString::to_string).as_deref(),
            Some("3 of 4 products would move by more than 2.5% (allowed: 0% of them)")
        );
        assert!(CircuitBreaker::default().is_off());
        assert_eq!(CircuitBreaker::default().reasons_to_hold(&moves(&[(9, 99)])), []);
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
            "{ frozen_products: 101% }",
            "{ frozen_products: 5%, moved_by: 5% }",
        ] {
            assert_eq!(breaker(written).unwrap_err().len(), 1, "{written}: {:?}", breaker(written));
        }
    }
}
