//! Signals: the latest facts about the market of a product, a category or a location.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::facts::arithmetic::compare;
use crate::facts::instant::{as_instant, as_optional_instant};
use crate::facts::money::{Currency, as_json_number, as_optional_json_number};
use crate::facts::product::{Product, amount_from_json, optional_amount_from_json};

/// One fact as stored. Of the same kind, subject and source, the newest `observed_at` is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The subject of the fact.
    pub subject: Subject,
    /// The kind of fact.
    pub kind: SignalKind,
    /// The competitor's name for a competitor's price; otherwise empty.
    pub source: String,
    /// The fact's value.
    pub value: Decimal,
    /// Whether the competitor has the product in stock, if the fact is a competitor's price and states it.
    pub in_stock: Option<bool>,
    /// The currency of a competitor's price, if stated; by default, the product's currency.
    pub currency: Option<Currency>,
    /// When the fact was true.
    pub observed_at: DateTime<Utc>,
    /// When the fact expires. For a withdrawn fact, this equals `observed_at`.
    pub expires_at: Option<DateTime<Utc>>,
    /// The source of the event that stated the fact, if known.
    pub event_source: Option<String>,
}

impl Signal {
    /// Creates a signal without any of the optional fields.
    pub fn new(subject: Subject, kind: SignalKind, value: Decimal, observed_at: DateTime<Utc>) -> Self {
        Self {
            subject,
            kind,
            source: String::new(),
            value,
            in_stock: None,
            currency: None,
            observed_at,
            expires_at: None,
            event_source: None,
        }
    }

    /// The same fact, observed no later than `now`: one from the future would keep newer facts out.
    #[must_use]
    pub fn known_by(mut self, now: DateTime<Utc>) -> Self {
        if self.observed_at > now {
            self.expires_at = if self.is_withdrawn() { Some(now) } else { self.expires_at };
            self.observed_at = now;
        }
        self
    }

    /// Whether the signal withdraws the fact.
    pub fn is_withdrawn(&self) -> bool {
        self.expires_at == Some(self.observed_at)
    }
}

/// The subject of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One product, by its identifier.
    Product(String),
    /// All products of a category that have no signal of their own.
    Category(String),
    /// A location of shoppers.
    Location(String),
}

impl Subject {
    /// The subject's kind and name, as they are stored.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Product(name) => ("product", name),
            Self::Category(name) => ("category", name),
            Self::Location(name) => ("location", name),
        }
    }
}

/// The kind of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SignalKind {
    /// A competitor's price for the same product, in the product's currency.
    CompetitorPrice,
    /// Demand relative to its usual level of 1.
    DemandIndex,
    /// Units in stock.
    StockLevel,
    /// The unit cost; used if it is newer than the one stated in the product's row.
    UnitCost,
    /// Units sold in the last 28 days.
    UnitsSold,
    /// The factor by which prices are multiplied at a location.
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

    /// The kind's name, as it is stored.
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
    /// The competitor's name.
    pub competitor: String,
    /// The price, in the product's currency.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub price: Decimal,
    /// Whether the competitor has the product in stock; unknown if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_stock: Option<bool>,
    /// When the price was observed.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub observed_at: Option<DateTime<Utc>>,
    /// See [`Origin::source`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// See [`Origin::expires_at`].
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The source and the validity of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The source of the event that stated the fact; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the fact was true.
    #[serde(serialize_with = "as_instant")]
    pub observed_at: DateTime<Utc>,
    /// When the fact expires.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The origins of the facts that several sources may state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// The origin of the demand index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand_index: Option<Origin>,
    /// The origin of the stock level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock_level: Option<Origin>,
    /// The origin of a unit cost that an event stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_cost: Option<Origin>,
    /// The origin of the units sold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_sold: Option<Origin>,
}

impl Origins {
    fn are_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// The days that [`SignalKind::UnitsSold`] covers.
const SALES_DAYS: Decimal = Decimal::from_parts(28, 0, 0, false, 0);

/// The signals that the list price of one product depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// The competitors' prices, ordered by competitor.
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
    /// When the demand was observed.
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
    /// The sources and times of the facts.
    #[serde(default, skip_serializing_if = "Origins::are_unknown")]
    pub origins: Origins,
    /// When the seller stated the cost in the product's row. It must stay the last field: an explanation that
    /// differs only in it counts as unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "as_optional_instant")]
    pub cost_stated_at: Option<DateTime<Utc>>,
}

impl Signals {
    /// Combines a product's own signals with its category's and leaves out expired ones. The product's own
    /// take precedence, regardless of their order in `found`. Of the costs stated by an event and by the
    /// seller the later one counts; at the same instant, the seller's. A competitor's price in another
    /// currency is ignored.
    pub fn of_product(
        found: impl IntoIterator<Item = Signal>,
        product: Option<&Product>,
        now: DateTime<Utc>,
    ) -> Self {
        let cost_stated_at = product.and_then(|product| product.cost_stated_at);
        let counts = |signal: &Signal| {
            let is_known = signal.expires_at.is_none_or(|expires_at| now < expires_at);
            let same_currency =
                signal.currency.is_none_or(|said| product.is_none_or(|product| said == product.currency));
            let is_latest_word = signal.kind != SignalKind::UnitCost
                || cost_stated_at.is_none_or(|stated_at| stated_at < signal.observed_at);
            is_known && same_currency && is_latest_word
        };
        let (own, of_category): (Vec<Signal>, Vec<Signal>) = found
            .into_iter()
            .filter(counts)
            .partition(|signal| matches!(signal.subject, Subject::Product(_)));
        let has_cost = product.is_some_and(|product| product.unit_cost.is_some());
        let mut signals = Self { cost_stated_at: cost_stated_at.filter(|_| has_cost), ..Self::default() };
        for signal in of_category.into_iter().chain(own) {
            let value = Some(signal.value);
            let origin = Some(Origin {
                source: signal.event_source.clone(),
                observed_at: signal.observed_at,
                expires_at: signal.expires_at,
            });
            match signal.kind {
                SignalKind::CompetitorPrice => signals.set_competitor_price(signal),
                SignalKind::DemandIndex => {
                    signals.demand_observed_at = Some(signal.observed_at);
                    (signals.demand_index, signals.origins.demand_index) = (value, origin);
                }
                SignalKind::StockLevel => {
                    (signals.stock_level, signals.origins.stock_level) = (value, origin);
                }
                SignalKind::UnitCost => (signals.unit_cost, signals.origins.unit_cost) = (value, origin),
                SignalKind::UnitsSold => (signals.units_sold, signals.origins.units_sold) = (value, origin),
                // It affects quotes, not list prices.
                SignalKind::LocationFactor => {}
            }
        }
        signals
    }

    /// Drops the signals that have expired at a later instant. (If a product's own demand expires, its
    /// category's is not substituted.)
    #[must_use]
    pub fn as_of(mut self, instant: DateTime<Utc>) -> Self {
        let has_expired = |expires_at: Option<DateTime<Utc>>| expires_at.is_some_and(|end| end <= instant);
        self.competitor_prices.retain(|known| !has_expired(known.expires_at));
        let Origins { demand_index, stock_level, unit_cost, units_sold } = &mut self.origins;
        for (value, origin) in [
            (&mut self.demand_index, demand_index),
            (&mut self.stock_level, stock_level),
            (&mut self.unit_cost, unit_cost),
            (&mut self.units_sold, units_sold),
        ] {
            if origin.as_ref().is_some_and(|origin| has_expired(origin.expires_at)) {
                (*value, *origin) = (None, None);
            }
        }
        if self.demand_index.is_none() {
            self.demand_observed_at = None;
        }
        self
    }

    /// Whether the seller of the product has stated a cost that is later than an event's among these facts.
    pub(crate) fn has_replaced_cost(&self, product: &Product) -> bool {
        let stated_at = product.cost_stated_at;
        let event_at = self.origins.unit_cost.as_ref().map(|origin| origin.observed_at);
        self.unit_cost.is_some() && stated_at.is_some() && event_at <= stated_at
    }

    /// Returns earlier facts with what the seller of the product states now, and without an event's cost
    /// where that is later.
    pub(crate) fn with_statements_of(&self, product: &Product) -> Cow<'_, Self> {
        let stated_at = product.cost_stated_at;
        let is_replaced = self.has_replaced_cost(product);
        let cost_stated_at = stated_at.filter(|_| product.unit_cost.is_some());
        if !is_replaced && self.cost_stated_at == cost_stated_at {
            return Cow::Borrowed(self);
        }
        let mut counting = Self { cost_stated_at, ..self.clone() };
        if is_replaced {
            (counting.unit_cost, counting.origins.unit_cost) = (None, None);
        }
        Cow::Owned(counting)
    }

    /// Returns the facts of an earlier pricing of a product as they count now: without expired ones, and with
    /// what its seller states.
    #[must_use]
    pub fn still_known(&self, product: &Product, now: DateTime<Utc>) -> Self {
        self.with_statements_of(product).into_owned().as_of(now)
    }

    /// Returns the next instant at which one of the facts expires.
    pub fn next_expiry(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let Origins { demand_index, stock_level, unit_cost, units_sold } = &self.origins;
        let origins = [demand_index, stock_level, unit_cost, units_sold];
        let of_origins = origins.into_iter().flatten().filter_map(|origin| origin.expires_at);
        let of_prices = self.competitor_prices.iter().filter_map(|known| known.expires_at);
        of_origins.chain(of_prices).filter(|expires_at| *expires_at > now).min()
    }

    /// Whether the values are the same, whatever their times and sources: an event that repeats what is known
    /// changes nothing.
    pub(crate) fn say_the_same(&self, other: &Self) -> bool {
        let values = |signals: &Self| {
            (signals.demand_index, signals.stock_level, signals.unit_cost, signals.units_sold)
        };
        let says = |one: &CompetitorPrice, other: &CompetitorPrice| {
            (one.price, one.in_stock) == (other.price, other.in_stock) && one.competitor == other.competitor
        };
        values(self) == values(other)
            && self.competitor_prices.len() == other.competitor_prices.len()
            && self
                .competitor_prices
                .iter()
                .zip(&other.competitor_prices)
                .all(|(one, other)| says(one, other))
    }

    /// Whether the facts of the market are the same, with their times and sources; what the seller stated,
    /// `cost_stated_at`, is disregarded.
    pub(crate) fn is_same_market(&self, other: &Self) -> bool {
        let parts = |signals: &'_ Self| {
            let Self {
                competitor_prices: _,
                demand_index,
                stock_level,
                unit_cost,
                demand_observed_at,
                units_sold,
                origins: _,
                cost_stated_at: _,
            } = *signals;
            (demand_index, stock_level, unit_cost, demand_observed_at, units_sold)
        };
        parts(self) == parts(other)
            && self.competitor_prices == other.competitor_prices
            && self.origins == other.origins
    }

    /// Whether no signal is known; `cost_stated_at` is disregarded.
    pub(crate) fn are_unknown(&self) -> bool {
        // Destructured so that a new field cannot be forgotten here.
        let Self {
            competitor_prices,
            demand_index,
            stock_level,
            unit_cost,
            demand_observed_at,
            units_sold,
            origins,
            cost_stated_at: _,
        } = self;
        let numbers = [demand_index, stock_level, unit_cost, units_sold];
        competitor_prices.is_empty()
            && numbers.iter().all(|number| number.is_none())
            && demand_observed_at.is_none()
            && origins.are_unknown()
    }

    fn set_competitor_price(&mut self, signal: Signal) {
        let price = CompetitorPrice {
            competitor: signal.source,
            price: signal.value,
            in_stock: signal.in_stock,
            observed_at: Some(signal.observed_at),
            source: signal.event_source,
            expires_at: signal.expires_at,
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

    /// The median competitor price; for an even number, the mean of the middle two.
    pub fn competitor_median(&self) -> Option<Decimal> {
        median(self.competitor_prices.iter().map(|known| known.price).collect())
    }

    /// The number of days that the stock lasts at the sales rate of the last 28 days; `None` if nothing was
    /// sold.
    pub fn stock_cover_days(&self) -> Option<Decimal> {
        let sold = self.units_sold.filter(|sold| *sold > Decimal::ZERO)?;
        self.stock_level?.checked_mul(SALES_DAYS)?.checked_div(sold)
    }

    /// The units sold in the last 28 days as a fraction of those plus the current stock.
    pub fn sell_through(&self) -> Option<Decimal> {
        let sold = self.units_sold?;
        sold.checked_div(sold.checked_add(self.stock_level?)?)
    }
}

/// Returns the median; for an even number, the mean of the middle two.
pub(crate) fn median(mut prices: Vec<Decimal>) -> Option<Decimal> {
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
    use chrono::TimeDelta;

    use super::*;
    use crate::facts::product::{ProductDraft, WrittenNumber};

    fn signal(subject: Subject, kind: SignalKind, source: &str, value: i64) -> Signal {
        Signal { source: source.to_owned(), ..Signal::new(subject, kind, value.into(), DateTime::UNIX_EPOCH) }
    }

    #[test]
    fn a_products_own_signal_comes_before_its_categorys() {
        let own = || Subject::Product("P-1".to_owned());
        let category = || Subject::Category("toys".to_owned());
        let found = [
            signal(own(), SignalKind::DemandIndex, "", 2),
            signal(category(), SignalKind::DemandIndex, "", 9),
            signal(category(), SignalKind::StockLevel, "", 5),
            signal(own(), SignalKind::CompetitorPrice, "b", 30),
            signal(own(), SignalKind::CompetitorPrice, "a", 10),
            signal(category(), SignalKind::CompetitorPrice, "a", 1),
        ];
        let signals = Signals::of_product(found, None, DateTime::UNIX_EPOCH);
        assert_eq!(signals.demand_index, Some(Decimal::TWO));
        assert_eq!(signals.stock_level, Some(Decimal::from(5)));
        assert_eq!(signals.competitor_min(), Some(Decimal::TEN));
        assert_eq!(signals.competitor_max(), Some(Decimal::from(30)));
        assert_eq!(signals.competitor_median(), Some(Decimal::from(20)));
    }

    #[test]
    fn of_the_seller_and_an_event_the_later_word_on_the_cost_counts() {
        let instant = |second| DateTime::from_timestamp(second, 0).unwrap();
        let draft = ProductDraft {
            product_id: Some("P-1".to_owned()),
            currency: Some("USD".to_owned()),
            base_price: Some(WrittenNumber("100".to_owned())),
            unit_cost: Some(WrittenNumber("80".to_owned())),
            ..ProductDraft::default()
        };
        let stated = Product { cost_stated_at: Some(instant(100)), ..draft.check().unwrap() };
        let withdrawn = Product { unit_cost: None, ..stated.clone() };
        let never = Product { cost_stated_at: None, ..stated.clone() };
        for (product, event, cost) in [
            (&stated, 99, None),
            (&stated, 100, None),
            (&stated, 101, Some(30)),
            // A row without a cost states nothing, so it does not restore a cost that a later fact replaced.
            (&withdrawn, 99, None),
            (&withdrawn, 101, Some(30)),
            (&never, 99, Some(30)),
        ] {
            let subject = Subject::Product("P-1".to_owned());
            let found = Signal::new(subject, SignalKind::UnitCost, Decimal::from(30), instant(event));
            let signals = Signals::of_product([found], Some(product), instant(200));
            assert_eq!(signals.unit_cost, cost.map(Decimal::from), "{event}");
            let has_word = product.unit_cost.is_some() && product.cost_stated_at.is_some();
            assert_eq!(signals.cost_stated_at.is_some(), has_word);
        }
    }

    #[test]
    fn what_has_expired_or_is_in_another_currency_counts_for_nothing() {
        let now = DateTime::UNIX_EPOCH;
        let of = |source: &str, subject: Subject, value| {
            signal(subject, SignalKind::CompetitorPrice, source, value)
        };
        let own = || Subject::Product("P-1".to_owned());
        let draft = ProductDraft {
            product_id: Some("P-1".to_owned()),
            currency: Some("USD".to_owned()),
            base_price: Some(WrittenNumber("100".to_owned())),
            ..ProductDraft::default()
        };
        let product = draft.check().unwrap();
        let currency = |code| Some(Currency::from_code(code).unwrap());
        let found = [
            Signal { expires_at: Some(now), ..of("gone", own(), 1) },
            Signal { expires_at: Some(now + TimeDelta::microseconds(1)), ..of("going", own(), 2) },
            Signal { currency: currency("EUR"), ..of("euro", own(), 3) },
            Signal { currency: currency("USD"), ..of("dollar", own(), 4) },
            // An expired fact does not hide the category's.
            Signal { expires_at: Some(now), ..signal(own(), SignalKind::DemandIndex, "", 9) },
            signal(Subject::Category("toys".to_owned()), SignalKind::DemandIndex, "", 2),
        ];
        let signals = Signals::of_product(found, Some(&product), now);
        let known: Vec<&str> =
            signals.competitor_prices.iter().map(|known| known.competitor.as_str()).collect();
        assert_eq!(known, ["dollar", "going"]);
        assert_eq!(signals.next_expiry(now), Some(now + TimeDelta::microseconds(1)));
        assert_eq!(signals.demand_index, Some(Decimal::TWO));
        let later = signals.as_of(now + TimeDelta::microseconds(1));
        assert_eq!((later.competitor_prices.len(), later.demand_index), (1, Some(Decimal::TWO)));
        assert_eq!(later.next_expiry(now), None);
    }

    #[test]
    fn a_fact_that_ends_is_known_at_every_instant_before() {
        let instant = |second| DateTime::from_timestamp(second, 0).unwrap();
        let kinds =
            [SignalKind::DemandIndex, SignalKind::StockLevel, SignalKind::UnitCost, SignalKind::UnitsSold];
        let found = kinds.map(|kind| {
            let signal = Signal::new(Subject::Product("P-1".to_owned()), kind, Decimal::ONE, instant(0));
            Signal { expires_at: Some(instant(10)), ..signal }
        });
        let signals = Signals::of_product(found, None, instant(0));
        assert_eq!(signals.clone().as_of(instant(9)), signals);
        assert_eq!(signals.as_of(instant(10)), Signals::default());
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
