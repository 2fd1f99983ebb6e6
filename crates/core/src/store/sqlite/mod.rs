//! The catalogue in a SQLite file: opening it, and reading.
//!
//! One connection writes, several read. SQLite admits one writer at a time anyway; queueing for the
//! connection is fair and wakes at once, where queueing for the file's lock means polling. In write-ahead
//! mode readers and the writer do not wait for each other. Other processes may open the same file: then the
//! file's lock decides.

mod checkpoint;
mod drafts;
mod facts;
mod prepared;
mod runs;
mod transaction;
mod upkeep;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, query, query_as, query_scalar, raw_sql};

use self::checkpoint::Checkpoints;
use self::facts::facts_named;
pub(super) use self::prepared::SqlitePrices;
use self::runs::insert_request;
pub(super) use self::transaction::SqliteTransaction;
use super::StoreSettings;
use super::error::StoreError;
use super::facts::UnreadFacts;
use super::json_rows::{instant, texts};
use super::read_rows::{ChangeRecord, PriceRecord, ProductRecord, SignalRecord};
use super::read_rows::{count, location_factors, product_ids, read_all, read_prices, read_signals};
use super::runs::request_of_policy;
use super::session::Session;
use super::stored::{NewPolicy, PriceChange, StoredPolicy, StoredPrice};
use crate::telemetry::metrics::DatabaseDuration;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

macro_rules! product_columns {
    () => {
        "product_id, name, category, brand, currency, base_price, unit_cost, floor_price, ceiling_price, \
         minimum_advertised_price, attributes, cost_stated_at"
    };
}
macro_rules! price_columns {
    () => {
        "product_id, revision, category, currency, base_price, list_price, lowest, highest, policy_version, \
         valid_until, opening_price, opened_on, changed_at, streak_moves, streak_since, explanation_digest"
    };
}

const PRODUCT: &str = concat!("SELECT ", product_columns!(), " FROM products WHERE product_id = $1");
const PRICE: &str = concat!("SELECT ", price_columns!(), " FROM prices WHERE product_id = $1");
const SIGNALS: &str = "
    SELECT subject_kind, subject, kind, source, value, in_stock, observed_at, signals.currency,
           expires_at, event_source
    FROM signals WHERE subject_kind = 'product' AND subject = $1
    UNION ALL
    SELECT subject_kind, subject, kind, source, value, in_stock, observed_at, signals.currency,
           expires_at, event_source
    FROM products JOIN signals ON subject_kind = 'category' AND subject = category
    WHERE product_id = $1";
const PRICE_CHANGES: &str = "
    SELECT product_id, revision, old_list_price, new_list_price, currency, policy_version, cause, changed_at
    FROM price_changes WHERE product_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3";
const NEWEST_CHANGES: &str = "
    SELECT product_id, revision, old_list_price, new_list_price, currency, policy_version, cause, changed_at
    FROM json_each($1) AS asked JOIN price_changes ON product_id = asked.value
    WHERE revision = (SELECT max(revision) FROM price_changes WHERE product_id = asked.value)
    ORDER BY product_id";
const IDS_IN_RANGE: &str = "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 ORDER BY product_id LIMIT $3";
const IDS_OF_CATEGORY_IN_RANGE: &str = "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 AND category = $4 ORDER BY product_id LIMIT $3";
const COUNT_OF_CATEGORY: &str = "SELECT count(*) FROM products WHERE category = $1";
const LOCATION_FACTORS: &str = "
    SELECT subject, value FROM signals
    WHERE subject_kind = 'location' AND kind = 'location_factor' ORDER BY observed_at, source";
const LATEST_POLICIES: &str = "
    SELECT version, name, source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1";
const POLICY_VERSIONS: &str = "
    SELECT version, name, '' AS source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1";
// A statement that writes holds the file's lock from its beginning, so nobody publishes between the two
// halves.
const POLICY: &str = "
    SELECT version, name, source, author, note, published_at FROM policies WHERE version = $1";
const PUBLISH_POLICY: &str = "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT coalesce(max(version), 0) + 1, $1, $2, $3, $4, $5 FROM policies
    HAVING $6 IS NULL OR coalesce(max(version), 0) = $6
    RETURNING version";
const PUBLISH_FIRST_POLICY: &str = "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT 1, $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM policies)";

/// How long to wait before a file that was locked is opened again.
const OPEN_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The catalogue in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    checkpoints: Checkpoints,
    statement_timeout: Duration,
    duration: DatabaseDuration,
}

impl SqliteStore {
    pub(super) fn measured_by(self, duration: DatabaseDuration) -> Self {
        Self { duration, ..self }
    }

    pub(super) async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        // Rows are handed over without a stop.
        let file = parse_url(url)?.busy_timeout(settings.statement_timeout).row_buffer_size(1024);
        // Nothing is gained by closing a connection to a file, so connections have no greatest age.
        let pool =
            || SqlitePoolOptions::new().max_lifetime(None).idle_timeout(None).test_before_acquire(false);
        // The wait for the writer is a wait for a lock.
        let writer = pool()
            .max_connections(1)
            .acquire_timeout(settings.statement_timeout)
            .connect_lazy_with(for_bulk_writes(file.clone()));
        let checkpoints = Checkpoints::start(file.clone());
        let readers = pool()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.connect_timeout)
            .connect_lazy_with(file.read_only(true));
        let store = Self {
            writer,
            readers,
            checkpoints,
            statement_timeout: settings.statement_timeout,
            duration: DatabaseDuration::unmeasured(),
        };
        // Of two that open a new file, one may be told that it is locked, without waiting for the lock: a
        // file is turned to write-ahead mode before the time limit for locks counts.
        let give_up_at = Instant::now() + settings.connect_timeout;
        while let Err(error) = store.migrate().await {
            if !error.is_transient() || Instant::now() > give_up_at {
                return Err(error);
            }
            tokio::time::sleep(OPEN_RETRY_PAUSE).await;
        }
        store.check().await?;
        Ok(store)
    }

    /// Under the file's lock, as the migrator itself has none for SQLite: of two processes that find the
    /// tables missing, the second would fail to create them.
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await?;
        // Another one takes its place: what a migration sorts may be more than there is memory.
        connection.close_on_drop();
        raw_sql("PRAGMA temp_store = default").execute(&mut *connection).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // `run_direct`, as a future that awaits `run` is not `Send` for the compiler.
        MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let mut session = self.reader().await?;
        let _: bool = session
            .run(|connection| query_scalar("SELECT EXISTS (SELECT 1 FROM policies)").fetch_one(connection))
            .await?;
        Ok(())
    }

    pub(super) async fn version(&self) -> Result<String, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_scalar("SELECT sqlite_version()").fetch_one(connection)).await
    }

    pub(super) async fn identity(&self) -> Result<String, StoreError> {
        let mut session = self.reader().await?;
        session
            .run(|connection| query_scalar("SELECT identity FROM catalogue_identity").fetch_one(connection))
            .await
    }

    pub(super) async fn close(&self) {
        // The writer last: the last connection to close moves the log into the file and removes it, which a
        // read-only one cannot.
        self.checkpoints.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }

    pub(super) async fn product(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        let mut session = self.reader().await?;
        let record: Option<ProductRecord> =
            session.run(|connection| query_as(PRODUCT).bind(id.as_str()).fetch_optional(connection)).await?;
        record.map(Product::try_from).transpose()
    }

    pub(super) async fn facts(&self, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
        let mut session = self.reader().await?;
        facts_named(&mut session, ids).await
    }

    pub(super) async fn signals(&self, id: &ProductId) -> Result<Vec<Signal>, StoreError> {
        let mut session = self.reader().await?;
        let records: Vec<SignalRecord> =
            session.run(|connection| query_as(SIGNALS).bind(id.as_str()).fetch_all(connection)).await?;
        read_signals(records)
    }

    pub(super) async fn stored_price(&self, id: &ProductId) -> Result<Option<StoredPrice>, StoreError> {
        let mut session = self.reader().await?;
        let record: Option<PriceRecord> =
            session.run(|connection| query_as(PRICE).bind(id.as_str()).fetch_optional(connection)).await?;
        Ok(read_prices(record)?.pop())
    }

    pub(super) async fn explanation(&self, id: &ProductId) -> Result<Option<String>, StoreError> {
        let explanation =
            query_scalar("SELECT explanation FROM prices WHERE product_id = $1").bind(id.as_str());
        let mut session = self.reader().await?;
        session.run(|connection| explanation.fetch_optional(connection)).await
    }

    pub(super) async fn price_changes_before(
        &self,
        id: &ProductId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<PriceChange>, StoreError> {
        let changes = query_as(PRICE_CHANGES).bind(id.as_str()).bind(before).bind(limit);
        let mut session = self.reader().await?;
        let records: Vec<ChangeRecord> = session.run(|connection| changes.fetch_all(connection)).await?;
        read_all(records)
    }

    pub(super) async fn newest_changes(&self, ids: &[ProductId]) -> Result<Vec<PriceChange>, StoreError> {
        // Each once, or the change of one that is named twice would come twice.
        let ids: BTreeSet<&str> = ids.iter().map(ProductId::as_str).collect();
        let changes = query_as(NEWEST_CHANGES).bind(texts(ids)?);
        let mut session = self.reader().await?;
        let records: Vec<ChangeRecord> = session.run(|connection| changes.fetch_all(connection)).await?;
        read_all(records)
    }

    pub(super) async fn product_ids(&self, after: &str, limit: u32) -> Result<Vec<ProductId>, StoreError> {
        let page = query_scalar(
            "SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2",
        )
        .bind(after)
        .bind(limit);
        let mut session = self.reader().await?;
        let column: Vec<String> = session.run(|connection| page.fetch_all(connection)).await?;
        product_ids(&column)
    }

    pub(super) async fn product_ids_in_range(
        &self,
        category: Option<&str>,
        after: &str,
        through: &str,
        limit: u32,
    ) -> Result<Vec<ProductId>, StoreError> {
        let statement = if category.is_some() { IDS_OF_CATEGORY_IN_RANGE } else { IDS_IN_RANGE };
        let mut page = query_scalar(statement).bind(after).bind(through).bind(limit);
        if let Some(category) = category {
            page = page.bind(category);
        }
        let mut session = self.reader().await?;
        let column: Vec<String> = session.run(|connection| page.fetch_all(connection)).await?;
        product_ids(&column)
    }

    pub(super) async fn count_products(&self) -> Result<u64, StoreError> {
        let mut session = self.reader().await?;
        let number = session
            .run(|connection| query_scalar("SELECT count(*) FROM products").fetch_one(connection))
            .await?;
        count(number)
    }

    pub(super) async fn count_products_of_category(&self, category: &str) -> Result<u64, StoreError> {
        let products = query_scalar(COUNT_OF_CATEGORY).bind(category);
        let mut session = self.reader().await?;
        count(session.run(|connection| products.fetch_one(connection)).await?)
    }

    pub(super) async fn location_factors(&self) -> Result<HashMap<String, Decimal>, StoreError> {
        let mut session = self.reader().await?;
        let rows = session.run(|connection| query_as(LOCATION_FACTORS).fetch_all(connection)).await?;
        location_factors(rows)
    }

    pub(super) async fn policy_versions(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_as(POLICY_VERSIONS).bind(limit).fetch_all(connection)).await
    }

    pub(super) async fn latest_policies(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_as(LATEST_POLICIES).bind(limit).fetch_all(connection)).await
    }

    pub(super) async fn publish_first_policy(
        &self,
        policy: &NewPolicy,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let insert = query(PUBLISH_FIRST_POLICY)
            .bind(&policy.name)
            .bind(&policy.source)
            .bind(&policy.author)
            .bind(&policy.note)
            .bind(instant(now));
        let mut session = self.writer().await?;
        session.run(|connection| insert.execute(connection)).await?;
        Ok(())
    }

    pub(super) async fn policy(&self, version: i64) -> Result<Option<StoredPolicy>, StoreError> {
        let mut session = self.reader().await?;
        session.run(|connection| query_as(POLICY).bind(version).fetch_optional(connection)).await
    }

    pub(super) async fn publish_policy(
        &self,
        policy: &NewPolicy,
        only_after: Option<i64>,
        run_approved_by: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Option<i64>, StoreError> {
        let insert = query_scalar(PUBLISH_POLICY)
            .bind(&policy.name)
            .bind(&policy.source)
            .bind(&policy.author)
            .bind(&policy.note)
            .bind(instant(now))
            .bind(only_after);
        let mut session = self.begin_session().await?;
        let version: Option<i64> = session.run(|connection| insert.fetch_optional(connection)).await?;
        if let (Some(version), Some(approved_by)) = (version, run_approved_by) {
            let request = request_of_policy(version, approved_by, now);
            session.run(|connection| insert_request(&request).execute(connection)).await?;
        }
        commit(&mut session).await?;
        Ok(version)
    }

    pub(super) async fn begin(&self) -> Result<SqliteTransaction, StoreError> {
        self.begin_session().await.map(SqliteTransaction::new)
    }

    async fn begin_session(&self) -> Result<Session<Sqlite>, StoreError> {
        let mut session = self.writer().await?;
        if self.checkpoints.should_move_rest()
            && let Err(error) = session.run(|connection| raw_sql(checkpoint::MOVE).execute(connection)).await
        {
            // The log grows on; what is to be written may go well all the same.
            tracing::warn!(%error, "the log of the database does not begin anew for now");
            session = self.writer().await?;
        }
        // A transaction that began by reading could not become a writing one once another process has
        // written.
        session.begin(|connection| raw_sql("BEGIN IMMEDIATE").execute(connection)).await?;
        Ok(session)
    }

    async fn reader(&self) -> Result<Session<Sqlite>, StoreError> {
        Session::acquire(&self.readers, self.statement_timeout, &self.duration).await
    }

    async fn writer(&self) -> Result<Session<Sqlite>, StoreError> {
        self.checkpoints.expect_writes();
        Session::acquire(&self.writer, self.statement_timeout, &self.duration).await
    }
}

async fn commit(session: &mut Session<Sqlite>) -> Result<(), StoreError> {
    session.commit(|connection| raw_sql("COMMIT").execute(connection)).await?;
    Ok(())
}

/// Room for a batch of products in order: the pages that it touches stay in memory (16 MB) until it commits.
/// A new file gets pages of 8 kB, which hold twice as many prices as usual ones, each a kilobyte or more:
/// half as many pages are written, searched and split. The writer moves the log only if nobody else does,
/// every 128 MB (64 MB in a file that has pages of 4 kB). What a statement of many rows needs to be undone
/// stays in memory: otherwise it would be written to a file for each.
fn for_bulk_writes(file: SqliteConnectOptions) -> SqliteConnectOptions {
    file.create_if_missing(true)
        // Four that write rows have a text for each number of rows up to 32.
        .statement_cache_capacity(256)
        .page_size(8_192)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("cache_size", "-16384")
        .pragma("wal_autocheckpoint", "16000")
        .pragma("temp_store", "memory")
}

/// `sqlite://path`, with the path taken as it is written, and `?synchronous=full` or `normal`.
///
/// NORMAL is the default: what was committed survives the end of the process, `kill -9` included, because it
/// is with the operating system; a loss of power may lose the last commits, never the file. FULL waits for
/// the disk at every commit.
fn parse_url(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let invalid = |reason: String| StoreError::InvalidUrl { reason };
    let location = url.strip_prefix("sqlite://").unwrap_or(url);
    let (path, parameters) = location.split_once('?').unwrap_or((location, ""));
    if path.is_empty() || path == ":memory:" {
        return Err(invalid("it names no file".to_owned()));
    }
    let mut synchronous = SqliteSynchronous::Normal;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        synchronous = match parameter {
            "synchronous=normal" => SqliteSynchronous::Normal,
            "synchronous=full" => SqliteSynchronous::Full,
            unknown => {
                return Err(invalid(format!(
                    "\"{unknown}\" is none of synchronous=normal and synchronous=full"
                )));
            }
        };
    }
    Ok(SqliteConnectOptions::new().filename(path).synchronous(synchronous).foreign_keys(true))
}
