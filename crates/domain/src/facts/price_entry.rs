//! A list price ready to be served.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::arithmetic::compare;
use crate::facts::instant::as_optional_instant;
use crate::facts::limits::Limits;
use crate::facts::money::{Currency, is_below_limit};
use crate::facts::product::ProductId;

/// The first second after the year 9999, from which on an instant has no form in RFC 3339.
const END_OF_YEAR_9999: i64 = 253_402_300_800;

/// The reason that an entry cannot be the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// An amount is negative, too large, or finer than the currency's minor unit.
    #[error("an amount is negative, too large or too fine for its currency")]
    Amount,
    /// The list price is below the entry's lowest price.
    #[error("the list price is below the lowest price")]
    BelowLowest,
    /// The revision or the policy version is negative.
    #[error("the revision or the policy version is negative")]
    Number,
    /// `valid_until` is beyond the year 9999.
    #[error("valid_until is too late")]
    ValidUntil,
}

/// A list price ready to be served: the cached value, and the start of a quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceEntry {
    /// The product.
    pub product_id: ProductId,
    /// The product's category, which offer rules may read.
    pub category: Option<Arc<str>>,
    /// The currency of the amounts.
    pub currency: Currency,
    /// The product's base price.
    pub base_price: Decimal,
    /// The list price.
    pub list_price: Decimal,
    /// The lowest price for any shopper.
    pub lowest: Option<Decimal>,
    /// The highest price for any shopper, unless `lowest` is above it.
    pub highest: Option<Decimal>,
    /// The policy version that computed the price and that its quotes use.
    pub policy_version: i64,
    /// The revision, which grows with every change: a newer entry is never replaced by an older one.
    pub revision: i64,
    /// The entry may not be served from this instant on.
    #[serde(serialize_with = "as_optional_instant")]
    pub valid_until: Option<DateTime<Utc>>,
}

impl PriceEntry {
    /// Whether the entry may be served now.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.valid_until.is_none_or(|valid_until| now < valid_until)
    }

    /// The limits of a shopper's price.
    pub fn limits(&self) -> Limits {
        Limits { lowest: self.lowest, highest: self.highest }
    }

    /// Returns what the engine cannot have made, if there is such a thing: an amount that is negative, too
    /// large or finer than the currency's minor unit, a list price below the entry's own lowest price, a
    /// negative number, or an instant beyond the year 9999. (A list price may be above `highest`: if no price
    /// with the wanted ending is below it.)
    pub fn fault(&self) -> Option<EntryFault> {
        let is_amount =
            |amount: Decimal| is_below_limit(amount) && amount.scale() <= self.currency.exponent();
        if !is_amount(self.base_price) || !is_amount(self.list_price) {
            return Some(EntryFault::Amount);
        }
        if self.lowest.is_some_and(|lowest| compare(self.list_price, lowest).is_lt()) {
            return Some(EntryFault::BelowLowest);
        }
        if self.policy_version < 0 || self.revision < 0 {
            return Some(EntryFault::Number);
        }
        let is_too_late = |instant: DateTime<Utc>| instant.timestamp() >= END_OF_YEAR_9999;
        self.valid_until.is_some_and(is_too_late).then_some(EntryFault::ValidUntil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> PriceEntry {
        PriceEntry {
            product_id: ProductId::parse("P-1").unwrap(),
            category: None,
            currency: Currency::from_code("USD").unwrap(),
            base_price: Decimal::new(5199, 2),
            list_price: Decimal::new(4990, 2),
            lowest: Some(Decimal::new(4_990_000, 5)),
            highest: Some(Decimal::new(40, 0)),
            policy_version: 3,
            revision: 17,
            valid_until: Some("9999-12-31T23:59:59Z".parse().unwrap()),
        }
    }

    #[test]
    fn what_the_engine_cannot_have_made_is_found() {
        let fault = |change: fn(&mut PriceEntry)| {
            let mut entry = entry();
            change(&mut entry);
            entry.fault()
        };
        assert_eq!(fault(|_| {}), None);
        assert_eq!(fault(|entry| entry.valid_until = None), None);
        let amount = Some(EntryFault::Amount);
        assert_eq!(fault(|entry| entry.currency = Currency::from_code("JPY").unwrap()), amount);
        assert_eq!(fault(|entry| entry.base_price = Decimal::new(-1, 2)), amount);
        assert_eq!(fault(|entry| entry.list_price = Decimal::new(49_900, 3)), amount);
        assert_eq!(fault(|entry| entry.list_price = Decimal::from(1_000_000_000_000_i64)), amount);
        assert_eq!(fault(|entry| entry.list_price = Decimal::new(4989, 2)), Some(EntryFault::BelowLowest));
        assert_eq!(fault(|entry| entry.revision = -1), Some(EntryFault::Number));
        assert_eq!(fault(|entry| entry.policy_version = -1), Some(EntryFault::Number));
        let far = |entry: &mut PriceEntry| entry.valid_until = Some(DateTime::<Utc>::MAX_UTC);
        assert_eq!(fault(far), Some(EntryFault::ValidUntil));
    }
}
