//! What market events have made of a list price within the circuit breaker's window, and when it is too much.
//!
//! An event's move is the difference between the price at the facts of the last pricing and the price at the
//! facts that are known now: what the seller changed meanwhile is in both.

use std::fmt;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::facts::money::Currency;
use crate::facts::movement::Anchored;
use crate::policy::circuit_breaker::MovedProducts;
use crate::policy::scalar::written_duration;
use crate::pricing::breaker::Percent;
use crate::pricing::moves::{fraction, in_percent};

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// What market events have made of a product's list price since a count began for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventMove {
    /// The list price when the count began, in the product's currency.
    pub list_price_before: Decimal,
    /// The list price after the last event.
    pub list_price: Decimal,
    /// When the count began; of a price that went beyond the limit later, when it did.
    pub moved_at: DateTime<Utc>,
}

impl EventMove {
    /// Returns the count after an event that moves a list price. `known` is the count so far, if it is within
    /// the window. Where something else has moved the price since, the price before moves along.
    pub fn after(
        known: Option<&Self>,
        limit: &MovedProducts,
        (from, to): (Decimal, Decimal),
        now: DateTime<Utc>,
    ) -> Self {
        let Some(known) = known else {
            return Self { list_price_before: from, list_price: to, moved_at: now };
        };
        let list_price_before = match known.list_price > Decimal::ZERO {
            true => Anchored { amount: known.list_price_before, target: known.list_price }.at(from),
            false => from,
        };
        let next = Self { list_price_before, list_price: to, moved_at: known.moved_at };
        let goes_beyond = limit.is_exceeded_by(&next) && !limit.is_exceeded_by(known);
        Self { moved_at: if goes_beyond { now } else { known.moved_at }, ..next }
    }

    /// Returns the distance between the two list prices, in millionths of the first, rounded up: policies
    /// give limits in millionths, so a distance exceeds one exactly if this number does.
    pub fn distance_millionths(&self) -> i64 {
        let Self { list_price_before, list_price, .. } = *self;
        if list_price_before.is_zero() {
            return if list_price.is_zero() { 0 } else { i64::MAX };
        }
        let distance = fraction(list_price_before, list_price).abs();
        let millionths = distance.checked_mul(MILLION).map(|millionths| millionths.ceil());
        millionths.and_then(|millionths| i64::try_from(millionths).ok()).unwrap_or(i64::MAX)
    }
}

impl MovedProducts {
    /// Whether the move counts.
    pub fn is_exceeded_by(&self, by_events: &EventMove) -> bool {
        by_events.distance_millionths() > self.by_millionths()
    }

    /// Returns the distance beyond which a move counts, in millionths.
    pub fn by_millionths(&self) -> i64 {
        let millionths = self.by.checked_mul(MILLION).map(|millionths| millionths.floor());
        millionths.and_then(|millionths| i64::try_from(millionths).ok()).unwrap_or(i64::MAX)
    }

    /// Returns how many of these products market events may move within the window; always at least one.
    pub fn allowed(&self, products: u64) -> u64 {
        let allowed = self.part.checked_mul(Decimal::from(products)).map(|allowed| allowed.floor());
        allowed.and_then(|allowed| u64::try_from(allowed).ok()).unwrap_or(products).max(1)
    }

    /// Returns the smallest number of products of which so many may move; `None` if no number is enough.
    pub fn products_for(&self, moved: u64) -> Option<u64> {
        let products = Decimal::from(moved).checked_div(self.part)?.ceil();
        u64::try_from(products).ok()
    }
}

/// The reason that a move is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHoldReason {
    /// The list price in effect, and the one that the events would make.
    pub list_prices: (Decimal, Decimal),
    /// The currency of both.
    pub currency: Currency,
    /// The number of products that events have moved.
    pub moved: u64,
    /// The number of all products.
    pub products: u64,
    /// The limit.
    pub limit: MovedProducts,
}

impl fmt::Display for EventHoldReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list_prices: (from, to), currency, moved, products, limit } = self;
        write!(
            formatter,
            "the list price would move by {}% from {from} to {to} {}; events have moved {moved} of {products} \
             products by more than {} within {} (allowed: {} of them)",
            in_percent(fraction(*from, *to)),
            currency.code(),
            Percent(limit.by),
            written_duration(limit.within),
            Percent(limit.part)
        )
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const LIMIT: MovedProducts = MovedProducts {
        part: Decimal::from_parts(2, 0, 0, false, 1),
        by: Decimal::from_parts(1, 0, 0, false, 1),
        within: TimeDelta::hours(1),
    };

    fn cents(cents: i64) -> Decimal {
        Decimal::new(cents, 2)
    }

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    #[test]
    fn a_move_counts_beyond_the_limit_and_not_at_it() {
        for (from, to, is_beyond) in [
            (7000, 6300, false),
            (7000, 6299, true),
            (7000, 7700, false),
            (7000, 7701, true),
            (7000, 70, true),
            (0, 0, false),
            (0, 1, true),
            (1, 79_228_162_514, true),
        ] {
            let moved = EventMove::after(None, &LIMIT, (cents(from), cents(to)), at(0));
            assert_eq!(LIMIT.is_exceeded_by(&moved), is_beyond, "{from} {to}");
        }
    }

    #[test]
    fn small_moves_add_up_and_count_from_when_they_go_beyond() {
        let first = EventMove::after(None, &LIMIT, (cents(10_000), cents(10_600)), at(0));
        assert!(!LIMIT.is_exceeded_by(&first));
        let second = EventMove::after(Some(&first), &LIMIT, (cents(10_600), cents(11_200)), at(50));
        assert_eq!((LIMIT.is_exceeded_by(&second), second.moved_at), (true, at(50)));
        let third = EventMove::after(Some(&second), &LIMIT, (cents(11_200), cents(11_300)), at(55));
        assert_eq!((LIMIT.is_exceeded_by(&third), third.moved_at), (true, at(50)));
        let back = EventMove::after(Some(&third), &LIMIT, (cents(11_300), cents(10_000)), at(56));
        assert_eq!(back.distance_millionths(), 0);
    }

    #[test]
    fn what_the_seller_moves_does_not_count() {
        let first = EventMove::after(None, &LIMIT, (cents(10_000), cents(10_500)), at(0));
        let after_a_sale = EventMove::after(Some(&first), &LIMIT, (cents(5_250), cents(5_300)), at(1));
        assert_eq!(after_a_sale.list_price_before, cents(5_000));
        assert!(!LIMIT.is_exceeded_by(&after_a_sale));
    }

    #[test]
    fn a_part_of_the_products_may_move_and_always_one() {
        for (products, allowed) in [(0, 1), (1, 1), (4, 1), (10, 2), (14, 2), (15, 3), (1_000_000, 200_000)] {
            assert_eq!(LIMIT.allowed(products), allowed, "{products}");
        }
        for moved in [1, 2, 3, 7, 1_000] {
            let products = LIMIT.products_for(moved).unwrap();
            assert!(LIMIT.allowed(products) >= moved, "{moved}");
        }
        let none = MovedProducts { part: Decimal::ZERO, ..LIMIT };
        assert_eq!((none.allowed(1_000), none.products_for(1)), (1, None));
    }

    #[test]
    fn a_reason_gives_the_figures() {
        let reason = EventHoldReason {
            list_prices: (cents(7000), cents(70)),
            currency: Currency::from_code("USD").unwrap(),
            moved: 2,
            products: 10,
            limit: LIMIT,
        };
        assert_eq!(
            reason.to_string(),
            "the list price would move by -99% from 70.00 to 0.70 USD; events have moved 2 of 10 products by more than 10% within 1h (allowed: 20% of them)"
        );
    }
}
