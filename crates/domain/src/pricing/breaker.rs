//! Decides whether the circuit breaker opens for the result of a simulation.

use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::policy::circuit_breaker::{CircuitBreaker, MovedProducts};
use crate::policy::panel::PanelShopper;
use crate::pricing::moves::Moves;
use crate::pricing::simulation::Simulation;

/// A reason that a recalculation is held, and the prices that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The shopper of the panel whose final prices would move; absent for list prices.
    pub shopper: Option<Arc<str>>,
    /// The reason.
    pub reason: HoldReason,
}

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
    /// Whether the circuit breaker has no limit.
    pub fn is_off(&self) -> bool {
        self.moved.is_none() && self.median_move.is_none() && self.frozen_products.is_none()
    }

    /// Returns all reasons to hold these moves: those of the list prices, and those of the final prices of
    /// this panel, whose shoppers are the circuit breaker's own. A reason that the list prices give already
    /// is not repeated for a shopper. A product without an earlier price does not count as moved.
    pub fn reasons_to_hold(&self, simulation: &Simulation, panel: &[PanelShopper]) -> Vec<Hold> {
        let list_prices = simulation.list_prices();
        let of_list_prices: Vec<HoldReason> =
            self.of_moves(list_prices).chain(self.of_frozen(simulation)).collect();
        let judged = simulation.final_prices().filter(|(shopper, _)| panel.contains(shopper));
        let of_shoppers = judged.flat_map(|(shopper, moves)| {
            let reasons = self.of_moves(moves).filter(|reason| !of_list_prices.contains(reason));
            reasons.map(|reason| Hold { shopper: Some(Arc::clone(&shopper.shopper.name)), reason })
        });
        let of_shoppers: Vec<Hold> = of_shoppers.collect();
        of_list_prices.into_iter().map(|reason| Hold { shopper: None, reason }).chain(of_shoppers).collect()
    }

    fn of_moves(&self, moves: &Moves) -> impl Iterator<Item = HoldReason> + use<> {
        let products = moves.products();
        let moved = self.moved.and_then(|limit| {
            let moved = moves.by_more_than(limit.by);
            let allowed = limit.part * Decimal::from(products);
            (Decimal::from(moved) > allowed).then_some(HoldReason::MovedProducts { moved, products, limit })
        });
        let median = self.median_move.and_then(|limit| {
            let median = moves.median();
            (median.abs() > limit).then_some(HoldReason::MedianMove { median, limit })
        });
        moved.into_iter().chain(median)
    }

    fn of_frozen(&self, simulation: &Simulation) -> Option<HoldReason> {
        let (limit, frozen) = (self.frozen_products?, simulation.frozen());
        let products = simulation.list_prices().products();
        let is_beyond = Decimal::from(frozen) > limit * Decimal::from(products);
        is_beyond.then_some(HoldReason::FrozenProducts { frozen, products, limit })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shopper {
            Some(shopper) => write!(formatter, "for {shopper}: {}", self.reason),
            None => self.reason.fmt(formatter),
        }
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
pub(crate) struct Percent(pub(crate) Decimal);

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
                simulation.list_prices.add(Decimal::new(*percent, 2));
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
            assert_eq!(both.reasons_to_hold(&moves(written), &[]).len(), held, "{written:?}");
        }
        let median = breaker("{ median_move: 1% }").unwrap();
        assert_eq!(
            median.reasons_to_hold(&moves(&[(3, -2)]), &[]).first().map(ToString::to_string).as_deref(),
            Some("the median product would move by -2% (allowed: 1%)")
        );
        for (written, held) in [(&[(50_u64, -20_i64), (50, 0)][..], 1), (&[(50, -20), (50, 20)], 0)] {
            assert_eq!(median.reasons_to_hold(&moves(written), &[]).len(), held, "{written:?}");
        }
        let moved = breaker("{ moved_products: 0%, moved_by: 2.5% }").unwrap();
        assert_eq!(
            moved.reasons_to_hold(&moves(&[(3, 3), (1, 1)]), &[]).first().map(ToString::to_string).as_deref(),
            Some("3 of 4 products would move by more than 2.5% (allowed: 0% of them)")
        );
        assert!(CircuitBreaker::default().is_off());
        assert_eq!(CircuitBreaker::default().reasons_to_hold(&moves(&[(9, 99)]), &[]), []);
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
            "{ panel: [{ name: a }] }",
            "{ moved_products: 5%, moved_by: 5%, within: 59s }",
            "{ moved_products: 5%, moved_by: 5%, within: soon }",
            "{ median_move: 5%, within: 1h }",
        ] {
            assert_eq!(breaker(written).unwrap_err().len(), 1, "{written}: {:?}", breaker(written));
        }
    }
}
