//! What a rule may ask about: the names, and the values they stand for.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

/// In which rules a variable has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Market rules: facts about a product and its market, known when the list price is computed.
    Market,
    /// Offer rules: the list price and one shopper, known when a price is asked for.
    Offer,
}

/// A name that an expression may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// The product's own price before any rule.
    ProductBasePrice,
    /// What a unit costs, or null.
    ProductUnitCost,
    /// The product's identifier.
    ProductId,
    /// The product's category, or null.
    ProductCategory,
    /// The product's brand, or null.
    ProductBrand,
    /// The lowest competitor price, or null.
    CompetitorMin,
    /// The median competitor price, or null.
    CompetitorMedian,
    /// The highest competitor price, or null.
    CompetitorMax,
    /// How many competitors' prices are known, whatever their stock and age.
    CompetitorCount,
    /// How many hours ago the price was seen that was seen longest ago of all competitors', or null.
    CompetitorAge,
    /// Units in stock, or null.
    StockLevel,
    /// For how many days the stock lasts at the pace of the last 28 days, or null.
    StockCoverDays,
    /// The part of what there was that was sold in the last 28 days, from 0 to 1, or null.
    StockSellThrough,
    /// Units sold in the last 28 days, or null.
    UnitsSold,
    /// How many hours ago the stock was such, or null.
    StockAge,
    /// How many hours ago so many were sold, or null.
    SalesAge,
    /// How many hours ago the cost was said, or null.
    CostAge,
    /// Demand against its usual level of 1, or null.
    DemandIndex,
    /// How many hours ago the demand was such, or null.
    DemandAge,
    /// The list price in effect until now, or null.
    PriceCurrent,
    /// The price as the rules before this one left it.
    Price,
    /// The list price a quote starts from.
    PriceList,
    /// Where the shopper is.
    ShopperLocation,
    /// Whether the shopper is a prime member.
    ShopperPrime,
    /// How many units the shopper asks for.
    ShopperQuantity,
    /// The sales channel, or null.
    ShopperChannel,
    /// The group of shoppers that the seller puts the shopper in, or null.
    ShopperSegment,
    /// The factor set for the shopper's location, or null.
    LocationFactor,
}

use Scope::{Market, Offer};

/// Every variable with its name and the rules it may appear in.
const VARIABLES: &[(Variable, &str, &[Scope])] = &[
    (Variable::ProductBasePrice, "product.base_price", &[Market, Offer]),
    (Variable::ProductUnitCost, "product.unit_cost", &[Market]),
    (Variable::ProductId, "product.id", &[Market, Offer]),
    (Variable::ProductCategory, "product.category", &[Market, Offer]),
    (Variable::ProductBrand, "product.brand", &[Market]),
    (Variable::CompetitorMin, "competitor.min", &[Market]),
    (Variable::CompetitorMedian, "competitor.median", &[Market]),
    (Variable::CompetitorMax, "competitor.max", &[Market]),
    (Variable::CompetitorCount, "competitor.count", &[Market]),
    (Variable::CompetitorAge, "competitor.age_hours", &[Market]),
    (Variable::StockLevel, "stock.level", &[Market]),
    (Variable::StockCoverDays, "stock.cover_days", &[Market]),
    (Variable::StockSellThrough, "stock.sell_through", &[Market]),
    (Variable::UnitsSold, "sales.units", &[Market]),
    (Variable::StockAge, "stock.age_hours", &[Market]),
    (Variable::SalesAge, "sales.age_hours", &[Market]),
    (Variable::CostAge, "cost.age_hours", &[Market]),
    (Variable::DemandIndex, "demand.index", &[Market]),
    (Variable::DemandAge, "demand.age_hours", &[Market]),
    (Variable::PriceCurrent, "price.current", &[Market]),
    (Variable::Price, "price.now", &[Market, Offer]),
    (Variable::PriceList, "price.list", &[Offer]),
    (Variable::ShopperLocation, "shopper.location", &[Offer]),
    (Variable::ShopperPrime, "shopper.prime", &[Offer]),
    (Variable::ShopperQuantity, "shopper.quantity", &[Offer]),
    (Variable::ShopperChannel, "shopper.channel", &[Offer]),
    (Variable::ShopperSegment, "shopper.segment", &[Offer]),
    (Variable::LocationFactor, "location.factor", &[Offer]),
];

impl Variable {
    /// The variable of this name that has a value in such rules.
    pub fn named(name: &str, scope: Scope) -> Option<Self> {
        let known = |(_, known, scopes): &&(Self, &str, &[Scope])| *known == name && scopes.contains(&scope);
        VARIABLES.iter().find(known).map(|(variable, ..)| *variable)
    }

    /// The name as rules write it.
    pub fn name(self) -> &'static str {
        VARIABLES.iter().find(|(variable, ..)| *variable == self).map_or("", |(_, name, _)| name)
    }

    /// Whether it is what a competitor asks.
    pub fn is_competitors_price(self) -> bool {
        matches!(self, Self::CompetitorMin | Self::CompetitorMedian | Self::CompetitorMax)
    }

    /// Whether it is an age, which grows by itself.
    pub fn is_age(self) -> bool {
        matches!(
            self,
            Self::CompetitorAge | Self::StockAge | Self::SalesAge | Self::CostAge | Self::DemandAge
        )
    }

    /// All names that such rules may use.
    pub fn names_in(scope: Scope) -> impl Iterator<Item = &'static str> {
        VARIABLES.iter().filter(move |(.., scopes)| scopes.contains(&scope)).map(|(_, name, _)| *name)
    }
}

impl Serialize for Variable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a variable stands for and an expression yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not known.
    Null,
    /// True or false.
    Bool(bool),
    /// An exact number.
    Number(Decimal),
    /// A text.
    Text(&'a str),
}

impl<'a> Value<'a> {
    /// The number, or null.
    pub fn number(number: Option<Decimal>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }

    /// The text, or null.
    pub fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    /// What kind of value this is, for error messages.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Number(value) => write!(formatter, "{value}"),
            Self::Text(value) => write!(formatter, "\"{value}\""),
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => super::money::as_json_number(value, serializer),
            Self::Text(value) => serializer.serialize_str(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_found_by_its_name_in_its_rules_only() {
        for (variable, name, scopes) in VARIABLES {
            assert_eq!(variable.name(), *name);
            for scope in [Market, Offer] {
                assert_eq!(Variable::named(name, scope).is_some(), scopes.contains(&scope), "{name}");
            }
        }
    }
}
