//! The input of a rule: the facts of its kind of rule, the instant, and the price after the rules before it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::expression::variable::{Value, Variable};
use crate::facts::Facts;
use crate::facts::price_entry::PriceEntry;
use crate::facts::shopper::Shopper;
use crate::policy::age::age_hours;

/// The input of one rule.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The price before the rule.
    pub price: Decimal,
    /// The instant for which the rule is applied: that of its window and its schedule.
    pub now: DateTime<Utc>,
    /// The instant that the ages of facts refer to; the same unless earlier facts are priced again.
    pub known_at: DateTime<Utc>,
    /// `price.current`.
    pub current_price: Option<Decimal>,
    /// The facts.
    pub about: About<'a>,
    /// Whether a floor limits how far the price follows competitors down.
    pub has_floor: bool,
}

/// The facts of a kind of rule.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// Of a market rule: a product and its market.
    Market(Facts<'a>),
    /// Of an offer rule: a list price and one shopper.
    Offer(&'a PriceEntry, &'a Shopper<'a>),
}

impl<'a> View<'a> {
    /// Creates the view of a product's first market rule, as of an instant at which its facts are known.
    pub(crate) fn of_product(facts: Facts<'a>, now: DateTime<Utc>) -> Self {
        Self {
            price: facts.product.base_price,
            now,
            known_at: now,
            current_price: None,
            about: About::Market(facts),
            has_floor: true,
        }
    }

    /// Creates the view of a shopper's first offer rule.
    #[inline]
    pub(crate) fn of_shopper(entry: &'a PriceEntry, shopper: &'a Shopper<'a>, now: DateTime<Utc>) -> Self {
        let about = About::Offer(entry, shopper);
        Self { price: entry.list_price, now, known_at: now, current_price: None, about, has_floor: true }
    }

    /// Whether a lowest price is known that limits the shopper's price.
    pub fn has_lowest_price(&self) -> bool {
        let About::Offer(entry, _) = self.about else { return false };
        entry.lowest.is_some_and(|lowest| lowest > Decimal::ZERO)
    }

    /// Returns the value of a variable.
    #[inline]
    pub fn value_of(&self, variable: Variable) -> Value<'a> {
        match (variable, &self.about) {
            (Variable::Price, _) => Value::Number(self.price),
            (Variable::PriceCurrent, _) => Value::number(self.current_price),
            (_, About::Market(facts)) => of_market(facts, variable, self.known_at),
            (_, About::Offer(entry, shopper)) => of_offer(entry, shopper, variable),
        }
    }
}

#[inline]
fn of_market<'a>(facts: &Facts<'a>, variable: Variable, known_at: DateTime<Utc>) -> Value<'a> {
    match variable {
        Variable::ProductId => Value::Text(facts.product.product_id.as_str()),
        Variable::ProductBasePrice => Value::Number(facts.product.base_price),
        Variable::ProductUnitCost => Value::number(facts.unit_cost()),
        Variable::ProductCurrency => Value::Text(facts.product.currency.code()),
        Variable::ProductCategory => Value::text(facts.product.category.as_deref()),
        Variable::ProductBrand => Value::text(facts.product.brand.as_deref()),
        Variable::CompetitorMin => Value::number(facts.signals.competitor_min()),
        Variable::CompetitorMedian => Value::number(facts.signals.competitor_median()),
        Variable::CompetitorMax => Value::number(facts.signals.competitor_max()),
        Variable::CompetitorCount => Value::Number(facts.signals.competitor_prices.len().into()),
        Variable::StockLevel => Value::number(facts.signals.stock_level),
        Variable::StockCoverDays => Value::number(facts.signals.stock_cover_days()),
        Variable::StockSellThrough => Value::number(facts.signals.sell_through()),
        Variable::UnitsSold => Value::number(facts.signals.units_sold),
        Variable::DemandIndex => Value::number(facts.signals.demand_index),
        age if age.is_age() => Value::number(age_hours(age, facts, known_at)),
        // A variable of the other kind of rule, which the compiler has refused.
        _ => Value::Null,
    }
}

#[inline]
fn of_offer<'a>(entry: &'a PriceEntry, shopper: &'a Shopper<'a>, variable: Variable) -> Value<'a> {
    match variable {
        Variable::ProductId => Value::Text(entry.product_id.as_str()),
        Variable::ProductBasePrice => Value::Number(entry.base_price),
        Variable::ProductCurrency => Value::Text(entry.currency.code()),
        Variable::ProductCategory => Value::text(entry.category.as_deref()),
        Variable::PriceList => Value::Number(entry.list_price),
        Variable::ShopperLocation => Value::Text(shopper.location),
        Variable::ShopperPrime => Value::Bool(shopper.prime),
        Variable::ShopperQuantity => Value::Number(shopper.quantity.into()),
        Variable::ShopperChannel => Value::text(shopper.channel),
        Variable::ShopperSegment => Value::text(shopper.segment),
        Variable::LocationFactor => Value::number(shopper.location_factor),
        // A variable of the other kind of rule, which the compiler has refused.
        _ => Value::Null,
    }
}
