//! The contract of the store, on SQLite and on PostgreSQL.
//!
//! Every promise is one function of a [`Store`] that does not know which database it has; `on_both_stores!`
//! makes two tests of each. Tests for one database only are in `opening`,
//! `outage` and `poolers`.

mod event_moves;
mod events;
mod expiry;
mod history;
mod opening;
mod outage;
mod policies;
mod poolers;
mod prices;
mod products;
mod runs;
mod signals;
mod transactions;
mod unserved;

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use chrono::{DateTime, Utc};
use pricing_core::store::{PriceWrite, ProductRows, Store, StoreError, StoreSettings};
use pricing_domain::facts::previous::Streak;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{Product, ProductDraft, ProductId};
use rust_decimal::Decimal;
use tempfile::TempDir;

use crate::support::shared_postgres;

/// What has to come, comes within this on the slowest host; it bounds how long a failing test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test on each store of every promise named.
macro_rules! on_both_stores {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $promise() -> anyhow::Result<()> {
                    let (store, _directory) = crate::store::sqlite().await?;
                    super::$promise(&store).await
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $promise() -> anyhow::Result<()> {
                    super::$promise(&crate::store::postgres(stringify!($promise)).await?).await
                }
            )+
        }
    };
}
use on_both_stores;

/// A store in a new file, which goes with the directory.
async fn sqlite() -> Result<(Store, TempDir)> {
    let directory = tempfile::tempdir()?;
    let url = sqlite_url(&directory);
    Ok((Store::open(&url, StoreSettings::default()).await?, directory))
}

fn sqlite_url(directory: &TempDir) -> String {
    format!("sqlite://{}", directory.path().join("catalogue.db").display())
}

/// A store in a new database of the shared server.
async fn postgres(database: &str) -> Result<Store> {
    let url = shared_postgres().await?.create_database(database).await?;
    Ok(Store::open(&url, StoreSettings::default()).await?)
}

fn product_id(id: &str) -> Result<ProductId> {
    Ok(ProductId::parse(id)?)
}

/// A product in the category `kitchen`, at 49.90 USD.
fn product(id: &str) -> Result<Product> {
    let draft = format!(
        r#"{{"product_id":"{id}","name":"Kettle","category":"kitchen","currency":"USD","base_price":49.9}}"#
    );
    checked(&draft)
}

fn products(ids: impl IntoIterator<Item = String>) -> Result<Vec<Product>> {
    ids.into_iter().map(|id| product(&id)).collect()
}

fn checked(draft: &str) -> Result<Product> {
    let draft: ProductDraft = serde_json::from_str(draft)?;
    draft.check().map_err(|problems| anyhow!("{problems:?}"))
}

/// A first price of a product.
fn price_write(product: &Product, revision: i64, list_price: &str) -> Result<PriceWrite> {
    let list_price = Decimal::from_str_exact(list_price)?;
    Ok(PriceWrite {
        entry: PriceEntry {
            product_id: product.product_id.clone(),
            category: product.category.as_deref().map(Into::into),
            currency: product.currency,
            base_price: product.base_price,
            list_price,
            lowest: None,
            highest: None,
            policy_version: 1,
            revision,
            valid_until: None,
        },
        opening_price: list_price,
        opened_on: now().date_naive(),
        changed_at: Some(now()),
        streak: Some(Streak { moves: -3, since: now() }),
        movement: None,
        held_by: None,
        event_hold: None,
        explanation: "{}".to_owned(),
        explanation_digest: i64::MIN,
        earlier: Vec::new(),
        previous_list_price: None,
        listed_at: now(),
        cause: "test".to_owned(),
        priced_at: now(),
    })
}

async fn put(store: &Store, products: &[Product]) -> Result<()> {
    let mut transaction = store.begin().await?;
    transaction.put_products(ProductRows::of(products)?, now()).await?;
    Ok(transaction.commit().await?)
}

async fn write(store: &Store, writes: &[PriceWrite]) -> Result<()> {
    let mut transaction = store.begin().await?;
    transaction.write_prices(store.prepare_prices(writes.to_vec())?).await?;
    Ok(transaction.commit().await?)
}

/// The error of a call that must fail.
fn failure<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> Result<StoreError> {
    match outcome {
        Ok(unexpected) => bail!("it gave {unexpected:?}"),
        Err(error) => Ok(error),
    }
}

/// Amounts are equal whatever their decimal places, so what must have the same digits is compared as text.
fn digits(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// The same instant in every call: nothing here depends on the clock.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_769_860_800_123_456).unwrap_or_default()
}
