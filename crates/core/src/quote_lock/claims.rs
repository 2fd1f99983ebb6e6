//! What a lock states.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pricing_domain::Shopper;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::scope::ShopperScope;

/// The terms of a quote.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The product.
    pub product_id: &'a str,
    /// The price of one unit.
    pub amount: Decimal,
    /// The ISO 4217 code of its currency.
    pub currency: &'a str,
    /// The shopper, with trimmed texts.
    pub shopper: Shopper<'a>,
    /// The revision of the list price.
    pub revision: i64,
    /// The instant from which time alone may change the price.
    pub valid_until: Option<DateTime<Utc>>,
}

/// The payload of a lock. Readers ignore claims that they do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The product.
    pub product_id: String,
    /// The price of one unit, in exact decimal digits.
    pub amount: String,
    /// The ISO 4217 code of its currency.
    pub currency: String,
    /// The number of units that the price is for.
    pub quantity: u32,
    /// The shopper, without revealing them.
    #[serde(flatten)]
    pub scope: ShopperScope,
    /// The revision of the list price.
    pub revision: i64,
    /// When it was issued, in seconds since 1970 (NumericDate of RFC 7519).
    pub iat: i64,
    /// The first second at which it is not valid any more, in seconds since 1970.
    pub exp: i64,
}

impl Claims {
    pub(super) fn of(terms: &Terms<'_>, scope: ShopperScope, ttl: Duration, now: DateTime<Utc>) -> Self {
        let iat = now.timestamp();
        let at_most = iat.saturating_add_unsigned(ttl.as_secs());
        // Rounded down: a lock never outlives the price.
        let exp = terms.valid_until.map_or(at_most, |until| at_most.min(until.timestamp()));
        Self {
            product_id: terms.product_id.to_owned(),
            amount: terms.amount.to_string(),
            currency: terms.currency.to_owned(),
            quantity: terms.shopper.quantity,
            scope,
            revision: terms.revision,
            iat,
            exp,
        }
    }
}
