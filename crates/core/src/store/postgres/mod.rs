//! The catalogue in a PostgreSQL database: opening it, and reading.

mod drafts;
mod prepared;
mod runs;
mod transaction;
mod upkeep;

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres, query, query_as, query_scalar, raw_sql};

pub(super) use self::prepared::PostgresPrices;
use self::runs::insert_request;
pub(super) use self::transaction::PostgresTransaction;
use self::transaction::facts_of;
use super::StoreSettings;
use super::error::StoreError;
use super::facts::{Products, Rows, UnreadFacts};
use super::read_rows::{ChangeRecord, PriceRecord, ProductRecord, SignalRecord};
use super::read_rows::{count, location_factors, product_ids, read_all, read_prices, read_signals};
use super::runs::request_of_policy;
use super::session::Session;
use super::stored::{NewPolicy, PriceChange, StoredPolicy, StoredPrice};
use crate::telemetry::metrics::DatabaseDuration;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signal;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

macro_rules! product_columns {
    () => {
        "product_id, name, category, brand, currency, base_price::text, unit_cost::text, floor_price::text, \
         ceiling_price::text, minimum_advertised_price::text, attributes, cost_stated_at"
    };
}
macro_rules! price_columns {
    () => {
        "product_id, revision, category, currency, base_price::text, list_price::text, lowest::text, \
         highest::text, policy_version, valid_until, opening_price::text, opened_on, changed_at, \
         streak_moves, streak_since, explanation_digest"
    };
}
use {price_columns, product_columns};

const PRODUCTS: &str =
    concat!("SELECT ", product_columns!(), " FROM products WHERE product_id = ANY($1) ORDER BY product_id");
const PRODUCT: &str = concat!("SELECT ", product_columns!(), " FROM products WHERE product_id = $1");
const PRICE: &str = concat!("SELECT ", price_columns!(), " FROM prices WHERE product_id = $1");
const SIGNALS: &str = "
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, signals.currency,
           expires_at, event_source
    FROM signals WHERE subject_kind = 'product' AND subject = $1
    UNION ALL
    SELECT subject_kind, subject, kind, source, value::text, in_stock, observed_at, signals.currency,
           expires_at, event_source
    FROM products JOIN signals ON subject_kind = 'category' AND subject = category
    WHERE product_id = $1";
const PRICE_CHANGES: &str = "
    SELECT product_id, revision, old_list_price::text, new_list_price::text, currency, policy_version, cause,
           changed_at
    FROM price_changes WHERE product_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3";
const NEWEST_CHANGES: &str = "
    SELECT product_id, revision, old_list_price::text, new_list_price::text, currency, policy_version, cause,
           changed_at
    FROM unnest($1::text[]) AS asked (id) CROSS JOIN LATERAL (
        SELECT * FROM price_changes WHERE product_id = asked.id ORDER BY revision DESC LIMIT 1) AS newest
    ORDER BY product_id";
const IDS_IN_RANGE: &str = "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 ORDER BY product_id LIMIT $3";
const IDS_OF_CATEGORY_IN_RANGE: &str = "
    SELECT product_id FROM products
    WHERE product_id > $1 AND product_id <= $2 AND category = $4 ORDER BY product_id LIMIT $3";
const COUNT_OF_CATEGORY: &str = "SELECT count(*) FROM products WHERE category = $1";
const LOCATION_FACTORS: &str = "
    SELECT subject, value::text FROM signals
    WHERE subject_kind = 'location' AND kind = 'location_factor' ORDER BY observed_at, source";
const LATEST_POLICIES: &str = "
    SELECT version, name, source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1";
const POLICY_VERSIONS: &str = "
    SELECT version, name, '' AS source, author, note, published_at
    FROM policies ORDER BY version DESC LIMIT $1";
// Conflicts with itself but not with reading: of two who publish, the second waits and then sees the first's
// version. Without it both would see the same latest version.
const LOCK_POLICIES: &str = "LOCK TABLE policies IN SHARE ROW EXCLUSIVE MODE";
const POLICY: &str = "
    SELECT version, name, source, author, note, published_at FROM policies WHERE version = $1";
const PUBLISH_POLICY: &str = "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT coalesce(max(version), 0) + 1, $1, $2, $3, $4, $5 FROM policies
    HAVING $6::bigint IS NULL OR coalesce(max(version), 0) = $6
    RETURNING version";
const PUBLISH_FIRST_POLICY: &str = "
    INSERT INTO policies (version, name, source, author, note, published_at)
    SELECT 1, $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM policies)";
// Every statement must see what was committed before it: rows are read after the wait for their lock.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// How long a statement that changes the tables may take, and the wait for another process that does: tables
/// may be large.
const MIGRATION_TIMEOUT: &str = "SET statement_timeout = '30min'";

/// A connection that idled for longer is tested before it is used: the server may have been restarted since.
/// One that did not saves that round trip, which is half of a read.
const TRUSTED_IDLE_TIME: Duration = Duration::from_secs(1);

/// The catalogue in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    statement_timeout: Duration,
    duration: DatabaseDuration,
}

impl PostgresStore {
    pub(super) fn measured_by(self, duration: DatabaseDuration) -> Self {
        Self { duration, ..self }
    }

    pub(super) async fn open(url: &str, settings: StoreSettings) -> Result<Self, StoreError> {
        let server = PgConnectOptions::from_str(url)
            .map_err(|problem| StoreError::InvalidUrl { reason: problem.to_string() })?;
        let milliseconds = settings.statement_timeout.as_millis();
        let server = server.application_name("pricing").options([
            ("statement_timeout", milliseconds),
            ("idle_in_transaction_session_timeout", milliseconds),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for > TRUSTED_IDLE_TIME {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(server)
            .await?;
        let mut connection = pool.acquire().await?;
        query(MIGRATION_TIMEOUT).execute(&mut *connection).await?;
        // The migrator takes a lock of its own, so several processes may do this at once. `run_direct`, as a
        // future that awaits `run` is not `Send` for the compiler.
        MIGRATIONS.run_direct(None, &mut *connection, false).await?;
        query("RESET statement_timeout").execute(&mut *connection).await?;
        drop(connection);
        Ok(Self {
            pool,
            statement_timeout: settings.statement_timeout,
            duration: DatabaseDuration::unmeasured(),
        })
    }

    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let _: bool = session
            .run(|connection| query_scalar("SELECT EXISTS (SELECT 1 FROM policies)").fetch_one(connection))
            .await?;
        Ok(())
    }

    pub(super) async fn version(&self) -> Result<String, StoreError> {
        let mut session = self.session().await?;
        session.run(|connection| query_scalar("SHOW server_version").fetch_one(connection)).await
    }

    pub(super) async fn identity(&self) -> Result<String, StoreError> {
        let mut session = self.session().await?;
        session
            .run(|connection| query_scalar("SELECT identity FROM catalogue_identity").fetch_one(connection))
            .await
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn product(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        let mut session = self.session().await?;
        let record: Option<ProductRecord> =
            session.run(|connection| query_as(PRODUCT).bind(id.as_str()).fetch_optional(connection)).await?;
        record.map(Product::try_from).transpose()
    }

    pub(super) async fn facts(&self, ids: &[ProductId]) -> Result<UnreadFacts, StoreError> {
        let ids: Vec<&str> = ids.iter().map(ProductId::as_str).collect();
        let products = query(PRODUCTS).bind(&ids);
        let mut session = self.session().await?;
        let products = session.run(|connection| products.fetch_all(connection)).await?;
        facts_of(&mut session, &ids, Products::of(Rows::Records(products))).await
    }

    pub(super) async fn signals(&self, id: &ProductId) -> Result<Vec<Signal>, StoreError> {
        let mut session = self.session().await?;
        let records: Vec<SignalRecord> =
            session.run(|connection| query_as(SIGNALS).bind(id.as_str()).fetch_all(connection)).await?;
        read_signals(records)
    }

    pub(super) async fn stored_price(&self, id: &ProductId) -> Result<Option<StoredPrice>, StoreError> {
        let mut session = self.session().await?;
        let record: Option<PriceRecord> =
            session.run(|connection| query_as(PRICE).bind(id.as_str()).fetch_optional(connection)).await?;
        Ok(read_prices(record)?.pop())
    }

    pub(super) async fn explanation(&self, id: &ProductId) -> Result<Option<String>, StoreError> {
        let explanation =
            query_scalar("SELECT explanation FROM prices WHERE product_id = $1").bind(id.as_str());
        let mut session = self.session().await?;
        session.run(|connection| explanation.fetch_optional(connection)).await
    }

    pub(super) async fn price_changes_before(
        &self,
        id: &ProductId,
        before: i64,
        limit: u32,
    ) -> Result<Vec<PriceChange>, StoreError> {
        let changes = query_as(PRICE_CHANGES).bind(id.as_str()).bind(before).bind(i64::from(limit));
        let mut session = self.session().await?;
        let records: Vec<ChangeRecord> = session.run(|connection| changes.fetch_all(connection)).await?;
        read_all(records)
    }

    pub(super) async fn newest_changes(&self, ids: &[ProductId]) -> Result<Vec<PriceChange>, StoreError> {
        // Each once, or the change of one that is named twice would come twice.
        let ids: BTreeSet<&str> = ids.iter().map(ProductId::as_str).collect();
        let changes = query_as(NEWEST_CHANGES).bind(Vec::from_iter(ids));
        let mut session = self.session().await?;
        let records: Vec<ChangeRecord> = session.run(|connection| changes.fetch_all(connection)).await?;
        read_all(records)
    }

    pub(super) async fn product_ids(&self, after: &str, limit: u32) -> Result<Vec<ProductId>, StoreError> {
        let page = query_scalar(
            "SELECT product_id FROM products WHERE product_id > $1 ORDER BY product_id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit));
        let mut session = self.session().await?;
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
        let mut page = query_scalar(statement).bind(after).bind(through).bind(i64::from(limit));
        if let Some(category) = category {
            page = page.bind(category);
        }
        let mut session = self.session().await?;
        let column: Vec<String> = session.run(|connection| page.fetch_all(connection)).await?;
        product_ids(&column)
    }

    pub(super) async fn count_products(&self) -> Result<u64, StoreError> {
        let mut session = self.session().await?;
        let number = session
            .run(|connection| query_scalar("SELECT count(*) FROM products").fetch_one(connection))
            .await?;
        count(number)
    }

    pub(super) async fn count_products_of_category(&self, category: &str) -> Result<u64, StoreError> {
        let products = query_scalar(COUNT_OF_CATEGORY).bind(category);
        let mut session = self.session().await?;
        count(session.run(|connection| products.fetch_one(connection)).await?)
    }

    pub(super) async fn location_factors(&self) -> Result<HashMap<String, Decimal>, StoreError> {
        let mut session = self.session().await?;
        let rows = session.run(|connection| query_as(LOCATION_FACTORS).fetch_all(connection)).await?;
        location_factors(rows)
    }

    pub(super) async fn policy_versions(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut session = self.session().await?;
        session.run(|connection| query_as(POLICY_VERSIONS).bind(i64::from(limit)).fetch_all(connection)).await
    }

    pub(super) async fn latest_policies(&self, limit: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut session = self.session().await?;
        session.run(|connection| query_as(LATEST_POLICIES).bind(i64::from(limit)).fetch_all(connection)).await
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
            .bind(now);
        let mut transaction = self.begin_publishing().await?;
        transaction.run(|connection| insert.execute(connection)).await?;
        commit(&mut transaction).await
    }

    pub(super) async fn policy(&self, version: i64) -> Result<Option<StoredPolicy>, StoreError> {
        let mut session = self.session().await?;
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
            .bind(now)
            .bind(only_after);
        let mut session = self.begin_publishing().await?;
        let version: Option<i64> = session.run(|connection| insert.fetch_optional(connection)).await?;
        if let (Some(version), Some(approved_by)) = (version, run_approved_by) {
            let request = request_of_policy(version, approved_by, now);
            session.run(|connection| insert_request(&request).execute(connection)).await?;
        }
        commit(&mut session).await?;
        Ok(version)
    }

    async fn begin_publishing(&self) -> Result<Session<Postgres>, StoreError> {
        let mut session = self.begin_session().await?;
        session.run(|connection| raw_sql(LOCK_POLICIES).execute(connection)).await?;
        Ok(session)
    }

    pub(super) async fn begin(&self) -> Result<PostgresTransaction, StoreError> {
        self.begin_session().await.map(PostgresTransaction::new)
    }

    async fn begin_session(&self) -> Result<Session<Postgres>, StoreError> {
        let mut session = self.session().await?;
        session.begin(|connection| raw_sql(BEGIN).execute(connection)).await?;
        Ok(session)
    }

    async fn session(&self) -> Result<Session<Postgres>, StoreError> {
        Session::acquire(&self.pool, self.statement_timeout, &self.duration).await
    }
}

async fn commit(session: &mut Session<Postgres>) -> Result<(), StoreError> {
    session.commit(|connection| raw_sql("COMMIT").execute(connection)).await?;
    Ok(())
}
