//! The facts that new prices depend on: as raw rows from the database, and as decoded values.
//!
//! Decoding rows takes about as long as reading them from the database, but needs no connection. So the two
//! steps are separate: while one batch is decoded, the database reads the next.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::FromRow;
use sqlx::postgres::PgRow;

use super::error::StoreError;
use super::read_rows::{PriceRecord, ProductRecord, SignalRecord, read_prices, read_products, read_signals};
use super::stored::{HeldSignals, Readable, StoredFacts, StoredPrice};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};

/// The undecoded facts that new prices of some products depend on.
#[derive(Debug)]
pub struct UnreadFacts {
    pub(super) products: Products,
    pub(super) signals: Rows,
    pub(super) prices: Rows,
}

/// The products of the facts.
#[derive(Debug)]
pub(super) enum Products {
    /// Products already decoded by the caller.
    Known(Vec<Product>),
    /// Undecoded rows.
    Unread {
        /// The rows, possibly of other products, too.
        rows: Rows,
        /// The requested products, in order, if the rows may include others.
        only: Option<Vec<ProductId>>,
    },
}

/// Rows as the database's driver returns them.
#[derive(Debug)]
pub(super) enum Rows {
    /// SQLite's rows, as one JSON text: its driver would copy each value separately and hand over rows one by
    /// one.
    Json(String),
    /// PostgreSQL's rows.
    Records(Vec<PgRow>),
}

impl UnreadFacts {
    /// Decodes the facts of each product as of an instant, ordered by product, without products that do not
    /// exist.
    pub fn read(self, now: DateTime<Utc>) -> Result<Readable<StoredFacts>, StoreError> {
        let Readable { known, left_out } = self.products.read()?;
        let signals = read_signals(self.signals.records::<SignalRecord>()?)?;
        let prices = read_prices(self.prices.records::<PriceRecord>()?)?;
        Ok(Readable { known: assemble(known, signals, prices, now), left_out })
    }
}

impl Products {
    /// Selects all products of these rows.
    pub(super) fn of(rows: Rows) -> Self {
        Self::Unread { rows, only: None }
    }

    /// Decodes the products, in any order.
    fn read(self) -> Result<Readable<Product>, StoreError> {
        match self {
            Self::Known(known) => Ok(Readable { known, left_out: Vec::new() }),
            Self::Unread { rows, only } => {
                let mut products = read_products(rows.records::<ProductRecord>()?)?;
                if let Some(only) = only {
                    let is_meant = |product_id: &ProductId| only.binary_search(product_id).is_ok();
                    products.known.retain(|product| is_meant(&product.product_id));
                    products.left_out.retain(|product| is_meant(&product.product_id));
                }
                Ok(products)
            }
        }
    }

    /// Decodes the products, ordered by identifier.
    pub(super) fn read_in_order(self) -> Result<Readable<Product>, StoreError> {
        let mut products = self.read()?;
        products.known.sort_unstable_by(|one, other| one.product_id.cmp(&other.product_id));
        Ok(products)
    }
}

impl Rows {
    fn records<R>(self) -> Result<Vec<R>, StoreError>
    where
        R: DeserializeOwned + for<'row> FromRow<'row, PgRow>,
    {
        match self {
            Self::Json(json) => {
                serde_json::from_str(&json).map_err(|problem| StoreError::corrupt("rows as JSON", problem))
            }
            Self::Records(rows) => Ok(rows.iter().map(R::from_row).collect::<Result<_, _>>()?),
        }
    }
}

fn assemble(
    mut products: Vec<Product>,
    signals: Vec<Signal>,
    mut prices: Vec<StoredPrice>,
    now: DateTime<Utc>,
) -> Vec<StoredFacts> {
    let (mut of_products, mut of_categories) = (HashMap::new(), HashMap::new());
    for signal in signals {
        let of_subject: &mut Vec<Signal> = match &signal.subject {
            Subject::Product(name) => of_products.entry(name.clone()).or_default(),
            Subject::Category(name) => of_categories.entry(name.clone()).or_default(),
            Subject::Location(_) => continue,
        };
        of_subject.push(signal);
    }
    // They usually arrive in this order, but that is not guaranteed.
    products.sort_unstable_by(|one, other| one.product_id.cmp(&other.product_id));
    prices.sort_unstable_by(|one, other| one.entry.product_id.cmp(&other.entry.product_id));
    let mut prices = prices.into_iter().peekable();
    let facts = products.into_iter().map(|product| {
        while prices.next_if(|price| price.entry.product_id < product.product_id).is_some() {}
        let own = of_products.get(product.product_id.as_str());
        let category = product.category.as_ref().and_then(|category| of_categories.get(category));
        let signals =
            Signals::of_product(own.into_iter().chain(category).flatten().cloned(), Some(&product), now);
        let says_cost = |signal: &Signal| signal.kind == SignalKind::UnitCost;
        let has_replaced_cost = signals.unit_cost.is_none() && own.into_iter().flatten().any(says_cost);
        let price = prices.next_if(|price| price.entry.product_id == product.product_id);
        let (signals, held) = counting(signals, &product, price.as_ref(), now);
        StoredFacts { signals, held, has_replaced_cost, price, product }
    });
    facts.collect()
}

/// Returns the signals that a product is priced by, and those that it is not priced by. This is the one place
/// where a held move makes a difference: whatever prices a product goes by what is assembled here.
fn counting(
    signals: Signals,
    product: &Product,
    price: Option<&StoredPrice>,
    now: DateTime<Utc>,
) -> (Signals, Option<HeldSignals>) {
    // The facts of the last pricing are in the currency of the price.
    let price = price.filter(|price| price.entry.currency == product.currency);
    let held = price.and_then(|price| price.event_hold.clone().zip(price.state.movement.as_ref()));
    let Some((hold, movement)) = held else { return (signals, None) };
    (movement.facts.signals.still_known(product, now), Some(HeldSignals { signals, hold }))
}
