//! The limit: how long the database and Redis take for the same rows and bytes without any computation.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use pricing_e2e::{PostgresServer, RedisServer};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, query, query_scalar, raw_sql};

use crate::Database;

pub(super) const DATABASE: &str = "bulk";
const SETS_PER_PIPELINE: usize = 1_000;

/// The parts of a recalculation.
pub(super) struct Recalculation {
    /// Reading every product.
    pub(super) scan: Duration,
    /// Loading prices and changes into empty tables.
    pub(super) load: Duration,
    /// Setting every key to the bytes it has.
    pub(super) set: Duration,
}

impl Recalculation {
    pub(super) fn sum(&self) -> Duration {
        self.scan + self.load + self.set
    }
}

/// Loads the rows that an import has written: products, prices, changes.
pub(super) async fn of_import(database: &Database) -> Result<Duration> {
    load(database, &["products", "prices", "price_changes"], "").await
}

pub(super) async fn of_recalculation(database: &Database, redis: &RedisServer) -> Result<Recalculation> {
    let scan = scan(database).await?;
    // The products' first prices were written by the import.
    let load = load(database, &["prices", "price_changes"], "WHERE old_list_price IS NOT NULL").await?;
    Ok(Recalculation { scan, load, set: set(redis).await? })
}

async fn scan(database: &Database) -> Result<Duration> {
    match database {
        Database::Sqlite { directory } => {
            let mut connection = open(directory.path().join("catalogue.db")).await?;
            let began = Instant::now();
            // Every column is read, and one value comes back.
            let sum = "SELECT sum(length(product_id) + length(name) + length(category) + length(brand)
                + length(currency) + length(base_price) + length(unit_cost) + length(floor_price)
                + length(ceiling_price) + length(attributes) + length(updated_at)) FROM products";
            let _: i64 = query_scalar(sum).fetch_one(&mut connection).await?;
            Ok(began.elapsed())
        }
        Database::Postgres { server } => timed(server, "COPY (SELECT * FROM products) TO '/dev/null'").await,
    }
}

async fn load(database: &Database, tables: &[&str], changes: &str) -> Result<Duration> {
    match database {
        Database::Sqlite { directory } => {
            let (source, target) = (directory.path().join("catalogue.db"), directory.path().join("limit.db"));
            let taken = load_sqlite(source, target.clone(), tables, changes).await;
            for end in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", target.display()));
            }
            taken
        }
        Database::Postgres { server } => load_postgres(server, tables, changes).await,
    }
}

/// One transaction on a file of its own, row by row out of the other file.
async fn load_sqlite(source: PathBuf, target: PathBuf, tables: &[&str], changes: &str) -> Result<Duration> {
    let page_size: u32 = query_scalar("PRAGMA page_size").fetch_one(&mut open(source.clone()).await?).await?;
    let mut connection = options(target).page_size(page_size).connect().await?;
    query("ATTACH $1 AS source").bind(source.display().to_string()).execute(&mut connection).await?;
    for table in tables {
        let shapes = "SELECT sql FROM source.sqlite_master WHERE tbl_name = $1 AND type IN ('table', 'index') AND sql NOT NULL";
        let shapes: Vec<String> = query_scalar(shapes).bind(*table).fetch_all(&mut connection).await?;
        for shape in shapes {
            raw_sql(sqlx::AssertSqlSafe(shape)).execute(&mut connection).await?;
        }
    }
    let began = Instant::now();
    raw_sql("BEGIN").execute(&mut connection).await?;
    for table in tables {
        let only = if *table == "price_changes" { changes } else { "" };
        let insert =
            format!("INSERT INTO main.{table} SELECT * FROM source.{table} {only} ORDER BY product_id");
        raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut connection).await?;
    }
    raw_sql("COMMIT").execute(&mut connection).await?;
    let taken = began.elapsed();
    connection.close().await?;
    Ok(taken)
}

async fn open(file: PathBuf) -> Result<SqliteConnection> {
    options(file).connect().await.context("opening a file for the limit")
}

/// As durable as the store.
fn options(file: PathBuf) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-16384")
        .foreign_keys(false)
        .disable_statement_logging()
}

/// Exports with `COPY` to files, and imports them again.
async fn load_postgres(server: &PostgresServer, tables: &[&str], changes: &str) -> Result<Duration> {
    let mut taken = Duration::ZERO;
    for table in tables {
        let file = server.directory().join(format!("{table}.copy"));
        let (file, only) = (file.display(), if *table == "price_changes" { changes } else { "" });
        let empty = format!(
            "DROP TABLE IF EXISTS limit_{table}; CREATE TABLE limit_{table} (LIKE {table} INCLUDING ALL)"
        );
        server.execute(DATABASE, &empty).await?;
        server.execute(DATABASE, &format!("COPY (SELECT * FROM {table} {only}) TO '{file}'")).await?;
        taken += timed(server, &format!("COPY limit_{table} FROM '{file}'")).await?;
        server.execute(DATABASE, &format!("DROP TABLE limit_{table}")).await?;
    }
    Ok(taken)
}

async fn timed(server: &PostgresServer, statement: &str) -> Result<Duration> {
    let began = Instant::now();
    server.execute(DATABASE, statement).await?;
    Ok(began.elapsed())
}

/// Sets every price to its present bytes. A pipeline is a transaction, for which Redis syncs its file once:
/// of plain commands it takes 16 kB at a time and syncs after each, which takes several times as long.
async fn set(redis: &RedisServer) -> Result<Duration> {
    let mut connection = redis.connection().await?;
    let mut reader = redis.connection().await?;
    let keys: Vec<Vec<u8>> =
        redis::AsyncCommands::scan_match(&mut reader, "*price:*").await?.try_collect().await?;
    let mut taken = Duration::ZERO;
    for keys in keys.chunks(SETS_PER_PIPELINE) {
        let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(keys).query_async(&mut connection).await?;
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for (key, value) in keys.iter().zip(values) {
            let Some(value) = value else { continue };
            pipeline.cmd("SET").arg(key).arg(value).arg("PX").arg(3_600_000).ignore();
        }
        let began = Instant::now();
        pipeline.query_async::<()>(&mut connection).await?;
        taken += began.elapsed();
    }
    Ok(taken)
}
