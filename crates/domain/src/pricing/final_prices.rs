//! The final prices of a panel's shoppers: what a policy does to them, aggregated product by product.
//!
//! The list price is the same for all shoppers; offer rules move only these prices.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::facts::price_entry::PriceEntry;
use crate::facts::product::ProductId;
use crate::policy::panel::PanelShopper;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::moves::{MoveRange, Moves, fraction, in_percent};
use crate::pricing::quote::quote;

/// The number of products with the largest moves that are kept for each shopper.
const BIGGEST_MOVES: usize = 5;

/// A product's final prices for the shoppers of a panel, in its order.
pub type FinalPrices = SmallVec<[Decimal; 4]>;

/// A product's final price for one shopper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalPrice {
    /// The one in effect; absent if there is none in this currency.
    pub in_effect: Option<Decimal>,
    /// The simulated one.
    pub simulated: Decimal,
}

/// The final prices of one shopper, aggregated.
#[derive(Debug, Clone)]
pub(crate) struct ShopperSimulation {
    pub(crate) shopper: PanelShopper,
    pub(crate) moves: Moves,
    /// The products with the largest moves, the largest first.
    biggest: Vec<FinalPriceMove>,
}

/// The effect of a policy on the final prices of one shopper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShopperEffect {
    /// The shopper.
    pub shopper: PanelShopper,
    /// The number of products whose final price would rise.
    pub up: u64,
    /// The number of products whose final price would fall.
    pub down: u64,
    /// The number of products whose final price would not change, including those without a current price.
    pub unchanged: u64,
    /// The median of all moves, in percent; for an even number, the mean of the middle two.
    pub median_change_percent: Decimal,
    /// The distribution of the moves.
    pub distribution: Vec<MoveRange>,
    /// The products with the largest moves, the largest first.
    pub biggest_moves: Vec<FinalPriceMove>,
}

/// A product whose final price would move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalPriceMove {
    /// The product.
    pub product_id: ProductId,
    /// The currency of the amounts.
    pub currency: &'static str,
    /// The final price in effect.
    pub final_price: Decimal,
    /// The simulated final price.
    pub simulated_final_price: Decimal,
    /// The move in percent.
    pub change_percent: Decimal,
    change: Decimal,
}

impl PriceEntry {
    /// Returns the final prices of a panel's shoppers. `policy` is the one that computed the entry.
    pub fn final_prices(
        &self,
        panel: &[PanelShopper],
        policy: &PricingPolicy,
        now: DateTime<Utc>,
    ) -> FinalPrices {
        panel
            .iter()
            .map(|shopper| quote(self, policy, &shopper.requesting(), now, None).final_price)
            .collect()
    }
}

impl ShopperSimulation {
    pub(crate) fn of(shopper: PanelShopper) -> Self {
        Self { shopper, moves: Moves::default(), biggest: Vec::new() }
    }

    /// Adds the final price of a product.
    pub(crate) fn add(&mut self, product_id: &ProductId, currency: &'static str, price: FinalPrice) {
        let in_effect = price.in_effect.unwrap_or(price.simulated);
        let change = fraction(in_effect, price.simulated);
        self.moves.add(change);
        let is_full = self.biggest.len() == BIGGEST_MOVES;
        let smallest = self.biggest.last().map_or(Decimal::ZERO, |last| last.change.abs());
        if change.is_zero() || (is_full && change.abs() <= smallest) {
            return;
        }
        let place = self.biggest.partition_point(|kept| kept.change.abs() >= change.abs());
        let moved = FinalPriceMove {
            product_id: product_id.clone(),
            currency,
            final_price: in_effect,
            simulated_final_price: price.simulated,
            change_percent: in_percent(change),
            change,
        };
        self.biggest.insert(place, moved);
        self.biggest.truncate(BIGGEST_MOVES);
    }

    /// Returns the effect on this many products.
    pub(crate) fn effect(&self, products: u64) -> ShopperEffect {
        let moves = &self.moves;
        ShopperEffect {
            shopper: self.shopper.clone(),
            up: moves.up(),
            down: moves.down(),
            unchanged: products - moves.up() - moves.down(),
            median_change_percent: in_percent(moves.median()),
            distribution: moves.distribution(),
            biggest_moves: self.biggest.clone(),
        }
    }
}
