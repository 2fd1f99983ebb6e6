//! What is known: products, their market, shoppers, and the amounts and instants that it is said in.
//!
//! Here: the nouns of the business as they come in, checked ([`product`], [`signal`], [`market_event`],
//! [`shopper`]), and what a price is computed with ([`Facts`]). Never here: what anything costs. Everything
//! else uses this; it uses nothing but [`diagnostic`](crate::diagnostic).

pub mod arithmetic;
mod event_json;
pub mod instant;
pub mod limits;
pub(crate) mod local_time;
pub mod market_event;
pub mod money;
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
    /// What is known about its market at the instant.
    pub signals: &'a Signals,
    /// Its price until now.
    pub previous: Option<Previous>,
}

impl Facts<'_> {
    /// What one unit costs: what an event said, if the seller has not said anything since, else what the
    /// product's row says. A cost of 0 is one that was not entered.
    pub fn unit_cost(&self) -> Option<Decimal> {
        self.signals.unit_cost.or(self.product.unit_cost).filter(|cost| *cost > Decimal::ZERO)
    }

    /// The list price until now, or for a product that never had one, the base price.
    pub(crate) fn price_in_effect(&self) -> Decimal {
        self.previous.map_or(self.product.base_price, |previous| previous.list_price)
    }
}
