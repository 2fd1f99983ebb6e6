//! The variables that rules may read: names and values.

use std::fmt;

use RuleKind::{Market, Offer};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::expression::kinds::Kinds;
use crate::facts::dimension::Dimension;

/// The kind of a rule, which determines the variables that have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// Market rules: facts about a product and its market, known when the list price is computed.
    Market,
    /// Offer rules: the list price and one shopper, known when a price is requested.
    Offer,
}

/// A variable that an expression may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variable {
    /// The product's price before any rule.
    ProductBasePrice,
    /// The unit cost, or null.
    ProductUnitCost,
    /// The product's identifier.
    ProductId,
    /// The code of the product's currency: `USD`.
    ProductCurrency,
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
    /// The number of known competitors' prices, regardless of stock and age.
    CompetitorCount,
    /// The age in hours of the oldest competitor's price, or null.
    CompetitorAge,
    /// Units in stock, or null.
    StockLevel,
    /// The number of days that the stock lasts at the sales rate of the last 28 days, or null.
    StockCoverDays,
    /// Units sold in the last 28 days as a fraction of those plus the stock, from 0 to 1, or null.
    StockSellThrough,
    /// Units sold in the last 28 days, or null.
    UnitsSold,
    /// The age of the stock level in hours, or null.
    StockAge,
    /// The age of the units sold in hours, or null.
    SalesAge,
    /// The age of the unit cost in hours, or null.
    CostAge,
    /// Demand relative to its usual level of 1, or null.
    DemandIndex,
    /// The age of the demand in hours, or null.
    DemandAge,
    /// The current list price, or null.
    PriceCurrent,
    /// The price after the preceding rules.
    Price,
    /// The list price that a quote starts from.
    PriceList,
    /// The shopper's location.
    ShopperLocation,
    /// Whether the shopper is a prime member.
    ShopperPrime,
    /// The number of units requested.
    ShopperQuantity,
    /// The sales channel, or null.
    ShopperChannel,
    /// The segment that the seller assigned to the shopper, or null.
    ShopperSegment,
    /// The price factor of the shopper's location, or null.
    LocationFactor,
}

/// A number that may be unknown.
const MAYBE_NUMBER: Kinds = Kinds::NUMBER.or_null();

/// A text that may be unknown.
const MAYBE_TEXT: Kinds = Kinds::TEXT.or_null();

/// Every variable with its name, the rules it may appear in, and the kinds of its values; in the order of
/// [`Variable`].
const VARIABLES: &[(Variable, &str, &[RuleKind], Kinds)] = &[
    (Variable::ProductBasePrice, "product.base_price", &[Market, Offer], Kinds::NUMBER),
    (Variable::ProductUnitCost, "product.unit_cost", &[Market], MAYBE_NUMBER),
    (Variable::ProductId, "product.id", &[Market, Offer], Kinds::TEXT),
    (Variable::ProductCurrency, "product.currency", &[Market, Offer], Kinds::TEXT),
    (Variable::ProductCategory, "product.category", &[Market, Offer], MAYBE_TEXT),
    (Variable::ProductBrand, "product.brand", &[Market], MAYBE_TEXT),
    (Variable::CompetitorMin, "competitor.min", &[Market], MAYBE_NUMBER),
    (Variable::CompetitorMedian, "competitor.median", &[Market], MAYBE_NUMBER),
    (Variable::CompetitorMax, "competitor.max", &[Market], MAYBE_NUMBER),
    (Variable::CompetitorCount, "competitor.count", &[Market], Kinds::NUMBER),
    (Variable::CompetitorAge, "competitor.age_hours", &[Market], MAYBE_NUMBER),
    (Variable::StockLevel, "stock.level", &[Market], MAYBE_NUMBER),
    (Variable::StockCoverDays, "stock.cover_days", &[Market], MAYBE_NUMBER),
    (Variable::StockSellThrough, "stock.sell_through", &[Market], MAYBE_NUMBER),
    (Variable::UnitsSold, "sales.units", &[Market], MAYBE_NUMBER),
    (Variable::StockAge, "stock.age_hours", &[Market], MAYBE_NUMBER),
    (Variable::SalesAge, "sales.age_hours", &[Market], MAYBE_NUMBER),
    (Variable::CostAge, "cost.age_hours", &[Market], MAYBE_NUMBER),
    (Variable::DemandIndex, "demand.index", &[Market], MAYBE_NUMBER),
    (Variable::DemandAge, "demand.age_hours", &[Market], MAYBE_NUMBER),
    (Variable::PriceCurrent, "price.current", &[Market], MAYBE_NUMBER),
    (Variable::Price, "price.now", &[Market, Offer], Kinds::NUMBER),
    (Variable::PriceList, "price.list", &[Offer], Kinds::NUMBER),
    (Variable::ShopperLocation, "shopper.location", &[Offer], Kinds::TEXT),
    (Variable::ShopperPrime, "shopper.prime", &[Offer], Kinds::BOOL),
    (Variable::ShopperQuantity, "shopper.quantity", &[Offer], Kinds::NUMBER),
    (Variable::ShopperChannel, "shopper.channel", &[Offer], MAYBE_TEXT),
    (Variable::ShopperSegment, "shopper.segment", &[Offer], MAYBE_TEXT),
    (Variable::LocationFactor, "location.factor", &[Offer], MAYBE_NUMBER),
];

impl Variable {
    /// Looks up a variable by name that has a value in this kind of rule.
    pub fn named(name: &str, scope: RuleKind) -> Option<Self> {
        let mut known = VARIABLES.iter();
        let found = known.find(|(_, known, scopes, _)| *known == name && scopes.contains(&scope));
        found.map(|(variable, ..)| *variable)
    }

    /// The name as rules write it.
    pub fn name(self) -> &'static str {
        VARIABLES.get(self as usize).map_or("", |(_, name, ..)| name)
    }

    /// The kinds of its values.
    pub fn kinds(self) -> Kinds {
        VARIABLES.get(self as usize).map_or(Kinds::NULL, |(.., kinds)| *kinds)
    }

    /// Whether it is a competitor's price.
    pub fn is_competitors_price(self) -> bool {
        matches!(self, Self::CompetitorMin | Self::CompetitorMedian | Self::CompetitorMax)
    }

    /// Whether it tells something personal of the shopper.
    pub(crate) fn is_personal(self) -> bool {
        self.dimension().is_some_and(Dimension::is_personal)
    }

    /// What it tells of the shopper, if it does.
    fn dimension(self) -> Option<Dimension> {
        match self {
            Self::ShopperLocation | Self::LocationFactor => Some(Dimension::Location),
            Self::ShopperPrime => Some(Dimension::Prime),
            Self::ShopperQuantity => Some(Dimension::Quantity),
            Self::ShopperChannel => Some(Dimension::Channel),
            Self::ShopperSegment => Some(Dimension::Segment),
            _ => None,
        }
    }

    /// Whether it is an age, which changes with time alone.
    pub fn is_age(self) -> bool {
        matches!(
            self,
            Self::CompetitorAge | Self::StockAge | Self::SalesAge | Self::CostAge | Self::DemandAge
        )
    }

    /// All names that rules of this kind may use.
    pub fn names_in(scope: RuleKind) -> impl Iterator<Item = &'static str> {
        VARIABLES.iter().filter(move |(_, _, scopes, _)| scopes.contains(&scope)).map(|(_, name, ..)| *name)
    }
}

impl Serialize for Variable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The value of a variable or an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Unknown.
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

    /// The kind of the value, for error messages.
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
            Self::Number(value) => crate::facts::money::as_json_number(value, serializer),
            Self::Text(value) => serializer.serialize_str(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_the_shopper_belongs_to_a_dimension() {
        for (variable, name, ..) in VARIABLES {
            let tells_of_shopper = name.starts_with("shopper.") || name.starts_with("location.");
            assert_eq!(variable.dimension().is_some(), tells_of_shopper, "{name}");
        }
    }

    #[test]
    fn each_variable_is_found_by_its_name_in_its_rules_only() {
        for (variable, name, scopes, kinds) in VARIABLES {
            assert_eq!((variable.name(), variable.kinds()), (*name, *kinds));
            for scope in [Market, Offer] {
                assert_eq!(Variable::named(name, scope).is_some(), scopes.contains(&scope), "{name}");
            }
        }
    }
}
