//! The catalogue: the facts of the engine in a SQL database.
//!
//! Here: products, signals, policies, prices and their history, in SQLite (one host, nothing to set up) or in
//! PostgreSQL. Never here: what a price is (see [`domain`](pricing_domain)), when to compute one, and caches.
//!
//! Each store has its SQL in its own files; what differs is the language and how rows are locked. What both
//! promise is the same, and the contract tests hold them to it: exact digits, instants to the microsecond, no
//! older fact over a newer one, and errors that say whether to try again ([`StoreError::is_transient`]).
//!
//! Reads are methods of [`Store`], nearly all of one statement; facts and prices are written by a
//! [`StoreTransaction`]. Where next: `runs` for recalculations and what keeps two of them apart, `upkeep`
//! for what becomes due or old, `sqlite` and `postgres` for the SQL, `session` for time limits and
//! connections that went wrong, `migrations/` for the tables and why they are as they are. Who calls this:
//! `reprice`, the API's routes and the worker.

mod drafts;
mod error;
mod facts;
mod json_rows;
mod postgres;
mod prepared_rows;
mod read_rows;
mod runs;
mod session;
mod sqlite;
mod stored;
mod transaction;
mod upkeep;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

pub use self::drafts::{DraftCondition, NewDraft, StoredDraft};
pub use self::error::StoreError;
pub use self::facts::UnreadFacts;
pub use self::postgres::PostgresStore;
pub use self::prepared_rows::{PreparedPrices, ProductRows};
pub use self::runs::{CoalescedRun, MAX_REASON_CHARS, RangeOutcome, RunRequest, StoredRun, run_of_policy};
pub use self::sqlite::SqliteStore;
pub use self::stored::{
    LeftOut, MAX_CAUSE_CHARS, NewPolicy, PriceChange, PriceWrite, Readable, StoredFacts, StoredPolicy,
    StoredPrice,
};
pub use self::transaction::StoreTransaction;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::recalculation::Scope;
use pricing_domain::facts::signal::Signals;

/// Bounds on what the catalogue takes from the machine, and from its callers' patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// Connections to PostgreSQL; for SQLite, readers, beside the one writer.
    pub max_connections: u32,
    /// The longest wait for a connection, whether for a free one or for the server to accept a new one.
    pub connect_timeout: Duration,
    /// The longest run of one statement, waiting for locks included. A transaction that idles for longer is
    /// ended too: its process may be frozen, with rows locked.
    pub statement_timeout: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            max_connections: 16,
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(10),
        }
    }
}

/// Comes after every identifier, as none has a byte beyond `~`.
const AFTER_EVERY_ID: &str = "\u{7f}";

/// The facts of the engine. A clone is a handle to the same connections.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file on this host.
    Sqlite(SqliteStore),
    /// A PostgreSQL server.
    Postgres(PostgresStore),
}

/// Calls the same method of whichever store it is.
macro_rules! on_store {
    ($target:expr, $store:ident => $call:expr) => {
        match $target {
            Store::Sqlite($store) => $call,
            Store::Postgres($store) => $call,
        }
    };
}
use on_store;

impl Store {
    /// Opens the database and brings its tables up to date; safe when several processes do so at once.
    ///
    /// `sqlite:///absolute/path.db` and `sqlite://relative/path.db` name a file, which is created if absent;
    /// `?synchronous=full` makes every commit survive a loss of power. `postgres://…` names a database that
    /// exists.
    pub async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        match url.split_once("://") {
            Some(("sqlite", _)) => SqliteStore::open(url, settings).await.map(Self::Sqlite),
            Some(("postgres" | "postgresql", _)) => {
                PostgresStore::open(url, settings).await.map(Self::Postgres)
            }
            _ => Err(StoreError::InvalidUrl {
                reason: "it begins with none of sqlite://, postgres:// and postgresql://".to_owned(),
            }),
        }
    }

    /// The same catalogue, its statements measured from here on.
    #[must_use]
    pub fn measured_by(self, metrics: &Metrics) -> Self {
        let duration = metrics.database_duration.clone();
        match self {
            Self::Sqlite(store) => Self::Sqlite(store.measured_by(duration)),
            Self::Postgres(store) => Self::Postgres(store.measured_by(duration)),
        }
    }

    /// Which database it is, as telemetry names it: `sqlite` or `postgresql`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// How many transactions that write are of use to one caller at a time: SQLite has one writer; PostgreSQL
    /// gives each a process, and works on a second one while the first waits for its caller.
    pub fn useful_writers(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => 2,
        }
    }

    /// Prices as this database's driver takes them, for a transaction to write; of two of the same product
    /// the newer one. Needs no connection.
    pub fn prepare_prices(&self, writes: Vec<PriceWrite>) -> Result<PreparedPrices, StoreError> {
        match self {
            Self::Sqlite(_) => PreparedPrices::for_sqlite(writes),
            Self::Postgres(_) => PreparedPrices::for_postgres(writes),
        }
    }

    /// Whether the database answers a query that reads a table.
    pub async fn check(&self) -> Result<(), StoreError> {
        on_store!(self, store => store.check().await)
    }

    /// The version of the database's software.
    pub async fn version(&self) -> Result<String, StoreError> {
        on_store!(self, store => store.version().await)
    }

    /// Tells this catalogue from every other one.
    pub async fn identity(&self) -> Result<String, StoreError> {
        on_store!(self, store => store.identity().await)
    }

    /// Waits for what is running and closes every connection. Later calls fail.
    pub async fn close(&self) {
        on_store!(self, store => store.close().await);
    }

    /// A product.
    pub async fn product(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        on_store!(self, store => store.product(id).await)
    }

    /// What the next prices of these products depend on as of an instant, ordered by product; those that do
    /// not exist are left out. Nothing is locked, and each statement sees what is there when it runs: to
    /// write what comes of it, see [`StoreTransaction::lock_facts`].
    pub async fn facts(
        &self,
        ids: &[ProductId],
        now: DateTime<Utc>,
    ) -> Result<Readable<StoredFacts>, StoreError> {
        on_store!(self, store => store.facts(ids).await)?.read(now)
    }

    /// The signals of a product as of an instant, its own and its category's. Those of a product that is not
    /// in the catalogue are its own, if it has any.
    pub async fn signals(&self, id: &ProductId, now: DateTime<Utc>) -> Result<Signals, StoreError> {
        let product = self.product(id).await?;
        let found = on_store!(self, store => store.signals(id).await)?;
        Ok(Signals::of_product(found, product.as_ref(), now))
    }

    /// The price of a product in effect.
    pub async fn stored_price(&self, id: &ProductId) -> Result<Option<StoredPrice>, StoreError> {
        on_store!(self, store => store.stored_price(id).await)
    }

    /// Why the price in effect is what it is: JSON, byte for byte as it was written.
    pub async fn explanation(&self, id: &ProductId) -> Result<Option<String>, StoreError> {
        on_store!(self, store => store.explanation(id).await)
    }

    /// The latest changes of a product's list price, newest first. Those of a removed product are kept.
    pub async fn price_changes(&self, id: &ProductId, limit: u32) -> Result<Vec<PriceChange>, StoreError> {
        self.price_changes_before(id, i64::MAX, limit).await
    }

    /// The latest changes of a product's list price before a revision, newest first.
    pub async fn price_changes_before(
        &self,
        id: &ProductId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<PriceChange>, StoreError> {
        on_store!(self, store => store.price_changes_before(id, before, limit).await)
    }

    /// The latest change of each product's list price, ordered by product; nothing of a product that has
    /// none.
    pub async fn newest_changes(&self, ids: &[ProductId]) -> Result<Vec<PriceChange>, StoreError> {
        on_store!(self, store => store.newest_changes(ids).await)
    }

    /// The identifiers after the given one, in the order of their bytes. A page begins where the last one
    /// ended, so what is added or removed meanwhile shifts nothing.
    pub async fn product_ids(
        &self,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        // Every identifier is longer than the empty text, and so comes after it.
        let after = after.map_or("", ProductId::as_str);
        on_store!(self, store => store.product_ids(after, limit).await)
    }

    /// The identifiers of a category's products after the given one, as [`product_ids`](Self::product_ids)
    /// gives those of all.
    pub async fn product_ids_of_category(
        &self,
        category: &str,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        self.product_ids_in_range(Some(category), after, None, limit).await
    }

    /// The identifiers after the first and up to the second, that one included, of one category or of all
    /// products. Where a limit is missing, the range has no end. A range that was marked out by identifiers
    /// has the products that were added to it since.
    pub async fn product_ids_in_range(
        &self,
        category: Option<&str>,
        after: Option<&ProductId>,
        through: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        let after = after.map_or("", ProductId::as_str);
        let through = through.map_or(AFTER_EVERY_ID, ProductId::as_str);
        on_store!(self, store => store.product_ids_in_range(category, after, through, limit).await)
    }

    /// How many products there are.
    pub async fn count_products(&self) -> Result<u64, StoreError> {
        on_store!(self, store => store.count_products().await)
    }

    /// How many products a category has.
    pub async fn count_products_of_category(&self, category: &str) -> Result<u64, StoreError> {
        on_store!(self, store => store.count_products_of_category(category).await)
    }

    /// How many products a recalculation of this scope is about; of named ones, those that do not exist
    /// included.
    pub async fn count_products_of(&self, scope: &Scope) -> Result<u64, StoreError> {
        match scope {
            Scope::All => self.count_products().await,
            Scope::Category(category) => self.count_products_of_category(category).await,
            Scope::Products(ids) => Ok(u64::try_from(ids.len()).unwrap_or(u64::MAX)),
        }
    }

    /// The identifiers of a scope after the given one, as [`product_ids`](Self::product_ids) gives those of
    /// all; named ones all at once.
    pub async fn product_ids_of(
        &self,
        scope: &Scope,
        after: Option<&ProductId>,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        match scope {
            Scope::All => self.product_ids(after, limit).await,
            Scope::Category(category) => self.product_ids_of_category(category, after, limit).await,
            Scope::Products(ids) => Ok(ids.clone()),
        }
    }

    /// By what prices are multiplied at each location that has a factor.
    pub async fn location_factors(&self) -> Result<HashMap<String, Decimal>, StoreError> {
        on_store!(self, store => store.location_factors().await)
    }

    /// The latest policies, newest first.
    pub async fn latest_policies(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        on_store!(self, store => store.latest_policies(limit).await)
    }

    /// The latest policies, newest first, each with an empty text in place of its document.
    pub async fn policy_versions(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        on_store!(self, store => store.policy_versions(limit).await)
    }

    /// Publishes the policy as version 1 unless there is one already; safe when several processes do so at
    /// once.
    pub async fn publish_first_policy(
        &self,
        policy: &NewPolicy,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        on_store!(self, store => store.publish_first_policy(policy, now).await)
    }

    /// The policy of this version, if there is one.
    pub async fn policy(&self, version: i64) -> Result<Option<StoredPolicy>, StoreError> {
        on_store!(self, store => store.policy(version).await)
    }

    /// Publishes the policy and returns its version: one more than the latest, never the same twice. If
    /// `only_after` is given and is not the latest version, nothing is published: somebody else was faster.
    pub async fn publish_policy(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        on_store!(self, store => store.publish_policy(policy, only_after, None, now).await)
    }

    /// As [`publish_policy`](Self::publish_policy); and in the same transaction the recalculation that moves
    /// the products over is asked for, approved by this name, under the name that [`run_of_policy`] gives it.
    pub async fn publish_policy_and_request_run(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        approved_by: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        on_store!(self, store => store.publish_policy(policy, only_after, Some(approved_by), now).await)
    }

    /// Begins a transaction. SQLite admits one at a time, so keep it short and compute nothing long inside.
    pub async fn begin(&self) -> Result<StoreTransaction, StoreError> {
        // From the wait for a connection, or for the file, to the end.
        let span = spans::database(self.kind(), "transaction");
        match self {
            Self::Sqlite(store) => {
                store.begin().await.map(|transaction| StoreTransaction::sqlite(transaction, span))
            }
            Self::Postgres(store) => {
                store.begin().await.map(|transaction| StoreTransaction::postgres(transaction, span))
            }
        }
    }
}
