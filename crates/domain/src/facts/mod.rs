//! Facts: products, their market, shoppers, and the amounts and instants they consist of.
//!
//! Here: the nouns of the business, checked ([`product`], [`signal`], [`market_event`], [`shopper`]), and the
//! input of a price ([`Facts`]). Never here: how a price is computed. All other modules depend on this one;
//! it depends on [`diagnostic`](crate::diagnostic) only.

pub mod arithmetic;
pub mod dimension;
mod event_json;
pub mod instant;
pub mod limits;
pub(crate) mod local_time;
pub mod market_event;
pub mod money;
pub mod movement;
pub mod named_shopper;
pub mod previous;
pub mod price_entry;
pub mod product;
pub mod product_tag;
pub mod recalculation;
pub mod shopper;
pub mod signal;
pub mod time_zone;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::facts::previous::Previous;
use crate::facts::product::Product;
use crate::facts::signal::Signals;

/// Everything a list price depends on, besides the policy and the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Facts<'a> {
    /// The product.
    pub product: &'a Product,
    /// The signals of its market that are known at the instant.
    pub signals: &'a Signals,
    /// Its current price.
    pub previous: Option<Previous<'a>>,
}

impl Facts<'_> {
    /// Returns the unit cost: from an event if the seller has not stated a later one, otherwise from the
    /// product's row. A cost of 0 counts as unknown.
    pub fn unit_cost(&self) -> Option<Decimal> {
        self.signals.unit_cost.or(self.product.unit_cost).filter(|cost| *cost > Decimal::ZERO)
    }

    /// Returns the current list price, or the base price of a product for which rules never made one.
    pub(crate) fn price_in_effect(&self) -> Decimal {
        let made = self
            .previous
            .filter(|previous| previous.movement.is_none_or(|movement| movement.target.is_some()));
        made.map_or(self.product.base_price, |previous| previous.list_price)
    }
}
