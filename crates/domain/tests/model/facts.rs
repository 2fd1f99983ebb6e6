//! What is known of a product and a shopper as the model knows it, and the same for the engine.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::previous::Previous;
use pricing_domain::facts::previous::Streak;
use pricing_domain::facts::product::{Product, ProductDraft, WrittenNumber};
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use rust_decimal::Decimal;

use crate::fraction::Fraction;

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: &'static str,
    pub(crate) currency: &'static str,
    pub(crate) category: Option<&'static str>,
    pub(crate) brand: Option<&'static str>,
    pub(crate) colour: Option<&'static str>,
    pub(crate) base_price: Fraction,
    pub(crate) unit_cost: Option<Fraction>,
    /// When the seller last said what it costs.
    pub(crate) cost_stated_at: Option<DateTime<Utc>>,
    pub(crate) floor_price: Option<Fraction>,
    pub(crate) ceiling_price: Option<Fraction>,
    pub(crate) minimum_advertised_price: Option<Fraction>,
}

/// A fact, and when it was true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) number: Fraction,
    pub(crate) seen_at: DateTime<Utc>,
    /// From this instant on it is not known any more.
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone)]
pub(crate) struct CompetitorFact {
    pub(crate) name: &'static str,
    pub(crate) price: Known,
    pub(crate) in_stock: Option<bool>,
    /// What the price is in, if that was said.
    pub(crate) currency: Option<&'static str>,
}

/// The price in effect, and how it came to be so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InEffect {
    pub(crate) price: Fraction,
    pub(crate) first_of_day: Fraction,
    pub(crate) changed_at: Option<DateTime<Utc>>,
    /// So many moves because of competitors, below zero if downwards, and when the first was.
    pub(crate) moves: Option<(i32, DateTime<Utc>)>,
    /// The price in effect when facts last changed.
    pub(crate) current: Fraction,
    /// When the step interval began, and the price before.
    pub(crate) interval: Option<(DateTime<Utc>, Fraction)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Market {
    pub(crate) competitors: Vec<CompetitorFact>,
    pub(crate) demand: Option<Known>,
    /// The demand of the item's category, which counts where its own is not known.
    pub(crate) demand_of_category: Option<Known>,
    pub(crate) stock: Option<Known>,
    pub(crate) sold: Option<Known>,
    /// What an event said of the cost.
    pub(crate) cost: Option<Known>,
    pub(crate) in_effect: Option<InEffect>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Buyer {
    pub(crate) location: &'static str,
    pub(crate) prime: bool,
    pub(crate) quantity: u32,
    pub(crate) channel: Option<&'static str>,
    pub(crate) segment: Option<&'static str>,
    pub(crate) factor: Option<Fraction>,
}

/// The days in which what was sold is counted.
const SALES_DAYS: Fraction = Fraction::whole(28);

impl Item {
    /// The smallest difference of two prices in its currency.
    pub(crate) fn minor_unit(&self) -> Fraction {
        match self.currency {
            "JPY" => Fraction::ONE,
            "BHD" => Fraction::decimal(1, 3),
            _ => Fraction::decimal(1, 2),
        }
    }

    pub(crate) fn for_engine(&self) -> Product {
        let number = |number: Option<Fraction>| number.map(|number| WrittenNumber(number.to_string()));
        let draft = ProductDraft {
            product_id: Some(self.id.to_owned()),
            category: self.category.map(str::to_owned),
            brand: self.brand.map(str::to_owned),
            currency: Some(self.currency.to_owned()),
            base_price: number(Some(self.base_price)),
            unit_cost: number(self.unit_cost),
            floor_price: number(self.floor_price),
            ceiling_price: number(self.ceiling_price),
            minimum_advertised_price: number(self.minimum_advertised_price),
            attributes: self
                .colour
                .map(|colour| BTreeMap::from([("colour".to_owned(), colour.to_owned())]))
                .unwrap_or_default(),
            ..ProductDraft::default()
        };
        let product = draft.check().unwrap_or_else(|problems| panic!("{self:?}: {problems:?}"));
        Product { cost_stated_at: self.cost_stated_at, ..product }
    }
}

impl Known {
    pub(crate) fn is_known(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    fn for_engine(self, subject: Subject, kind: SignalKind) -> Signal {
        let signal = Signal::new(subject, kind, decimal(self.number), self.seen_at);
        Signal { expires_at: self.expires_at, ..signal }
    }
}

impl Market {
    /// What of it counts for the item at this instant.
    pub(crate) fn at(&self, item: &Item, now: DateTime<Utc>) -> Self {
        let known = |known: Option<Known>| known.filter(|known| known.is_known(now));
        let competitors = self.competitors.iter().filter(|fact| {
            fact.price.is_known(now) && fact.currency.is_none_or(|currency| currency == item.currency)
        });
        let is_later_word =
            |cost: &Known| item.cost_stated_at.is_none_or(|stated_at| stated_at < cost.seen_at);
        Self {
            competitors: competitors.cloned().collect(),
            demand: known(self.demand).or(known(self.demand_of_category)),
            demand_of_category: None,
            stock: known(self.stock),
            sold: known(self.sold),
            cost: known(self.cost).filter(is_later_word),
            in_effect: self.in_effect,
        }
    }

    /// What an event says of the cost, if that counts, else what the item's row says; 0 is not known.
    pub(crate) fn unit_cost(&self, item: &Item) -> Option<Fraction> {
        self.cost.map(|cost| cost.number).or(item.unit_cost).filter(|cost| cost.is_above_zero())
    }

    /// All facts.
    pub(crate) fn facts(&self) -> impl Iterator<Item = Known> {
        let others = [self.demand, self.demand_of_category, self.stock, self.sold, self.cost];
        let of_competitors = self.competitors.iter().map(|fact| fact.price);
        of_competitors.chain(others.into_iter().flatten())
    }

    /// When what is said of the cost was said; an event's word if that counts.
    pub(crate) fn cost_known_at(&self, item: &Item) -> Option<DateTime<Utc>> {
        let by_event = self.cost.map(|cost| cost.seen_at);
        by_event.or(item.cost_stated_at).filter(|_| self.unit_cost(item).is_some())
    }

    /// For how many days the stock lasts; nothing sold makes no days.
    pub(crate) fn cover_days(&self) -> Option<Fraction> {
        let (stock, sold) = (self.stock?.number, self.sold?.number);
        sold.is_above_zero().then(|| stock * SALES_DAYS / sold)
    }

    /// What part of the stock was sold.
    pub(crate) fn sell_through(&self) -> Option<Fraction> {
        let (stock, sold) = (self.stock?.number, self.sold?.number);
        (stock + sold).is_above_zero().then(|| sold / (stock + sold))
    }

    pub(crate) fn for_engine(&self, item: &Item, product: &Product, now: DateTime<Utc>) -> Signals {
        let of_item = || Subject::Product(item.id.to_owned());
        let of_category = || Subject::Category(item.category.unwrap_or("none").to_owned());
        let of_competitors = self.competitors.iter().map(|fact| Signal {
            source: fact.name.to_owned(),
            in_stock: fact.in_stock,
            currency: fact.currency.map(|code| Currency::from_code(code).expect("a currency")),
            ..fact.price.for_engine(of_item(), SignalKind::CompetitorPrice)
        });
        let others = [
            (self.demand, of_item(), SignalKind::DemandIndex),
            (self.demand_of_category, of_category(), SignalKind::DemandIndex),
            (self.stock, of_item(), SignalKind::StockLevel),
            (self.sold, of_item(), SignalKind::UnitsSold),
            (self.cost, of_item(), SignalKind::UnitCost),
        ];
        let others = others
            .into_iter()
            .filter_map(|(known, subject, kind)| known.map(|known| known.for_engine(subject, kind)));
        Signals::of_product(of_competitors.chain(others), Some(product), now)
    }

    pub(crate) fn previous_for_engine(&self) -> Option<Previous<'static>> {
        self.in_effect.map(|in_effect| Previous {
            opening_price: decimal(in_effect.first_of_day),
            changed_at: in_effect.changed_at,
            streak: in_effect.moves.map(|(moves, since)| Streak { moves, since }),
            ..Previous::of(decimal(in_effect.price))
        })
    }
}

impl Buyer {
    pub(crate) fn for_engine(&self) -> Shopper<'static> {
        Shopper {
            location: self.location,
            prime: self.prime,
            quantity: self.quantity,
            channel: self.channel,
            segment: self.segment,
            location_factor: self.factor.map(decimal),
        }
    }
}

/// The middle one; of an even number, the mean of the middle two.
pub(crate) fn median(sorted: &[Fraction]) -> Option<Fraction> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / Fraction::whole(2))
}

/// Whether something seen then is still young enough: at the very instant at which it becomes too old, it is
/// not.
pub(crate) fn is_young(seen_at: DateTime<Utc>, now: DateTime<Utc>, not_older_than: TimeDelta) -> bool {
    now < seen_at + not_older_than
}

pub(crate) fn decimal(number: Fraction) -> Decimal {
    Decimal::from_str_exact(&number.decimal_text().expect("a decimal number")).expect("a decimal number")
}
