//! Signals: the latest facts about the market of a product, a category or a location.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::arithmetic::compare;
use super::instant::as_optional_instant;
use super::money::{as_json_number, as_optional_json_number};
use super::product::{amount_from_json, optional_amount_from_json};

/// One fact, as the catalogue keeps it: the newest `observed_at` of its kind, subject and source wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// What the fact is about.
    pub subject: Subject,
    /// What it says.
    pub kind: SignalKind,
    /// Who said it, where several may differ: a competitor's name. Otherwise empty.
    pub source: String,
    /// The fact's value.
    pub value: Decimal,
    /// Whether the competitor has it in stock, if a competitor's price says so.
    pub in_stock: Option<bool>,
    /// When it was true.
    pub observed_at: DateTime<Utc>,
}

/// What a signal is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One product, by its identifier.
    Product(String),
    /// All products of a category that have no signal of their own.
    Category(String),
    /// A place where shoppers are.
    Location(String),
}

impl Subject {
    /// The subject's kind and name, as the catalogue stores them.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Product(name) => ("product", name),
            Self::Category(name) => ("category", name),
            Self::Location(name) => ("location", name),
        }
    }
}

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// What a competitor asks for the same product, in the product's currency.
    CompetitorPrice,
    /// Demand against its usual level of 1.
    DemandIndex,
    /// Units in stock.
    StockLevel,
    /// What one unit costs the seller; replaces the product's own `unit_cost`.
    UnitCost,
    /// Units sold in the last 28 days.
    UnitsSold,
    /// By what prices are multiplied at a location.
    LocationFactor,
}

impl SignalKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::CompetitorPrice,
        Self::DemandIndex,
        Self::StockLevel,
        Self::UnitCost,
        Self::UnitsSold,
        Self::LocationFactor,
    ];

    /// The kind's name, as the catalogue stores it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CompetitorPrice => "competitor_price",
            Self::DemandIndex => "demand_index",
            Self::StockLevel => "stock_level",
            Self::UnitCost => "unit_cost",
            Self::UnitsSold => "units_sold",
            Self::LocationFactor => "location_factor",
        }
    }
}

/// A competitor's price for a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompetitorPrice {
    /// Who asks it.
    pub competitor: String,
    /// How much, in the product's currency.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub price: Decimal,
    /// Whether they have it; not known if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_stock: Option<bool>,
    /// When they asked it.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub observed_at: Option<DateTime<Utc>>,
}

/// The days that [`SignalKind::UnitsSold`] counts.
const SALES_DAYS: Decimal = Decimal::from_parts(28, 0, 0, false, 0);

/// The signals that the list price of one product depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// Ordered by competitor.
    pub competitor_prices: Vec<CompetitorPrice>,
    /// See [`SignalKind::DemandIndex`].
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub demand_index: Option<Decimal>,
    /// See [`SignalKind::StockLevel`].
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub stock_level: Option<Decimal>,
    /// See [`SignalKind::UnitCost`].
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub unit_cost: Option<Decimal>,
    /// When the demand was such.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub demand_observed_at: Option<DateTime<Utc>>,
    /// See [`SignalKind::UnitsSold`].
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_optional_json_number",
        deserialize_with = "optional_amount_from_json"
    )]
    pub units_sold: Option<Decimal>,
}

impl Signals {
    /// The signals of a product out of its own and its category's; its own come before the category's, whatever
    /// their order here.
    pub fn of_product(found: impl IntoIterator<Item = Signal>) -> Self {
        let (own, of_category): (Vec<Signal>, Vec<Signal>) =
            found.into_iter().partition(|signal| matches!(signal.subject, Subject::Product(_)));
        let mut signals = Self::default();
        for signal in of_category.into_iter().chain(own) {
            match signal.kind {
                SignalKind::CompetitorPrice => signals.set_competitor_price(signal),
                SignalKind::DemandIndex => {
                    signals.demand_index = Some(signal.value);
                    signals.demand_observed_at = Some(signal.observed_at);
                }
                SignalKind::StockLevel => signals.stock_level = Some(signal.value),
                SignalKind::UnitCost => signals.unit_cost = Some(signal.value),
                SignalKind::UnitsSold => signals.units_sold = Some(signal.value),
                // Acts on quotes, not on list prices.
                SignalKind::LocationFactor => {}
            }
        }
        signals
    }

    fn set_competitor_price(&mut self, signal: Signal) {
        let price = CompetitorPrice {
            competitor: signal.source,
            price: signal.value,
            in_stock: signal.in_stock,
            observed_at: Some(signal.observed_at),
        };
        match self.competitor_prices.binary_search_by(|known| known.competitor.cmp(&price.competitor)) {
            Ok(known) => {
                if let Some(known) = self.competitor_prices.get_mut(known) {
                    *known = price;
                }
            }
            Err(place) => self.competitor_prices.insert(place, price),
        }
    }

    /// The lowest competitor price.
    pub fn competitor_min(&self) -> Option<Decimal> {
        self.competitor_prices
            .iter()
            .map(|competitor| competitor.price)
            .min_by(|left, right| compare(*left, *right))
    }

    /// The highest competitor price.
    pub fn competitor_max(&self) -> Option<Decimal> {
        self.competitor_prices
            .iter()
            .map(|competitor| competitor.price)
            .max_by(|left, right| compare(*left, *right))
    }

    /// The median competitor price; of an even number, the mean of the middle two.
    pub fn competitor_median(&self) -> Option<Decimal> {
        median(self.competitor_prices.iter().map(|known| known.price).collect())
    }

    /// For how many days the stock lasts if as much is sold as in the last 28 days; `None` if nothing was.
    pub fn stock_cover_days(&self) -> Option<Decimal> {
        let sold = self.units_sold.filter(|sold| *sold > Decimal::ZERO)?;
        self.stock_level?.checked_mul(SALES_DAYS)?.checked_div(sold)
    }

    /// The part of what there was 28 days ago, and came since, that was sold.
    pub fn sell_through(&self) -> Option<Decimal> {
        let sold = self.units_sold?;
        sold.checked_div(sold.checked_add(self.stock_level?)?)
    }
}

/// The middle one; of an even number, the mean of the middle two.
pub(super) fn median(mut prices: Vec<Decimal>) -> Option<Decimal> {
    prices.sort_unstable();
    let upper = prices.get(prices.len() / 2).copied()?;
    if prices.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = prices.get(prices.len() / 2 - 1).copied()?;
    lower.checked_add(upper)?.checked_div(Decimal::TWO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(subject: Subject, kind: SignalKind, source: &str, value: i64) -> Signal {
        Signal {
            subject,
            kind,
            source: source.to_owned(),
            value: value.into(),
            in_stock: None,
            observed_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_products_own_signal_comes_before_its_categorys() {
        let own = || Subject::Product("P-1".to_owned());
        let category = || Subject::Category("toys".to_owned());
        let signals = Signals::of_product([
            signal(own(), SignalKind::DemandIndex, "", 2),
            signal(category(), SignalKind::DemandIndex, "", 9),
            signal(category(), SignalKind::StockLevel, "", 5),
            signal(own(), SignalKind::CompetitorPrice, "b", 30),
            signal(own(), SignalKind::CompetitorPrice, "a", 10),
            signal(category(), SignalKind::CompetitorPrice, "a", 1),
        ]);
        assert_eq!(signals.demand_index, Some(Decimal::TWO));
        assert_eq!(signals.stock_level, Some(Decimal::from(5)));
        assert_eq!(signals.competitor_min(), Some(Decimal::TEN));
        assert_eq!(signals.competitor_max(), Some(Decimal::from(30)));
        assert_eq!(signals.competitor_median(), Some(Decimal::from(20)));
    }

    #[test]
    fn nothing_known_has_no_statistics() {
        let none = Signals::default();
        assert_eq!(
            (none.competitor_min(), none.competitor_median(), none.competitor_max()),
            (None, None, None)
        );
    }
}
