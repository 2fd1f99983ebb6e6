//! Opening a database: any number of times, by any number of processes, and never by a URL that names none.

use std::time::Duration;

use anyhow::{Result, ensure};
use pricing_core::store::{Store, StoreError, StoreSettings};
use pricing_e2e::eventually;
use tokio::task::JoinSet;

use super::{PATIENCE, failure, on_both_stores, product, product_id, put, sqlite_url};
use crate::support::shared_postgres;

on_both_stores!(an_open_catalogue_says_what_it_is, a_closed_catalogue_answers_with_a_transient_error);

async fn an_open_catalogue_says_what_it_is(store: &Store) -> Result<()> {
    store.check().await?;
    assert!(["sqlite", "postgresql"].contains(&store.kind()));
    assert!(store.version().await?.starts_with(|first: char| first.is_ascii_digit()));
    Ok(())
}

async fn a_closed_catalogue_answers_with_a_transient_error(store: &Store) -> Result<()> {
    store.close().await;
    let error = failure(store.count_products().await)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

/// Opens the database many times at once and again afterwards; all see the same facts.
async fn open_many_times(url: &str) -> Result<()> {
    let mut opening = JoinSet::new();
    for _ in 0..12 {
        let url = url.to_owned();
        let settings = StoreSettings { max_connections: 2, ..Default::default() };
        opening.spawn(async move { Store::open(&url, settings).await });
    }
    for store in opening.join_all().await {
        store?.close().await;
    }
    let store = Store::open(url, StoreSettings::default()).await?;
    put(&store, &[product("P-1")?]).await?;
    let again = Store::open(url, StoreSettings::default()).await?;
    assert_eq!(again.count_products().await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_is_opened_by_many_at_once_and_again() -> Result<()> {
    // A new file each time: what may go wrong goes wrong while it is made, and rarely.
    for _ in 0..10 {
        let directory = tempfile::tempdir()?;
        open_many_times(&sqlite_url(&directory)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_is_opened_by_many_at_once_and_again() -> Result<()> {
    let postgres = shared_postgres().await?;
    open_many_times(&postgres.create_database("opened_by_many_at_once").await?).await
}

/// Makes the tables those of version b3198c9, whose last migration was the fifth.
const OLDER_TABLES: &str = "
    DROP TABLE forgotten_facts, event_moves, unserved_prices, access_keys, audit;
    ALTER TABLE products DROP COLUMN cost_stated_at;
    ALTER TABLE signals DROP COLUMN currency, DROP COLUMN expires_at, DROP COLUMN event_source;
    ALTER TABLE prices DROP COLUMN explanation_digest, DROP COLUMN movement, DROP COLUMN held_by,
        DROP COLUMN events_held_since, DROP COLUMN events_held_reason, DROP COLUMN events_rejected_by;
    ALTER TABLE recalculation_ranges DROP COLUMN range_end;
    DELETE FROM _sqlx_migrations WHERE version > 5";

/// A transaction of an older process: it has read signals, and reads products once a migration, which has
/// locked those, waits for the signals. It does not look for a deadlock itself, so that the migration is the
/// one that gives way.
const CROSSING: &str = "
    DO $$ BEGIN
        PERFORM set_config('deadlock_timeout', '60s', true);
        LOCK TABLE signals IN ROW SHARE MODE;
        WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'signals'::regclass AND NOT granted) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
        PERFORM count(*) FROM products;
    END $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_deadlocks_with_an_older_process_is_tried_again() -> Result<()> {
    const DATABASE: &str = "migration_deadlock";
    let postgres = shared_postgres().await?;
    let url = postgres.create_database(DATABASE).await?;
    Store::open(&url, StoreSettings::default()).await?.close().await;
    postgres.execute(DATABASE, OLDER_TABLES).await?;
    let crossing = async {
        postgres.execute(DATABASE, CROSSING).await?;
        anyhow::Ok(())
    };
    let opening = async {
        eventually("the older process has its lock", PATIENCE, async || {
            let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'signals'::regclass AND granted";
            ensure!(postgres.execute(DATABASE, locked).await?.trim() == "1");
            Ok(())
        })
        .await?;
        Ok(Store::open(&url, StoreSettings::default()).await?)
    };
    let ((), store) = tokio::try_join!(crossing, opening)?;
    put(&store, &[product("P-1")?]).await
}

#[tokio::test]
async fn a_url_that_names_no_database_is_an_invalid_url() -> Result<()> {
    for url in [
        "",
        "nonsense",
        "://",
        "mysql://localhost/prices",
        "sqlite:catalogue.db",
        "sqlite://",
        "sqlite://:memory:",
        "sqlite://catalogue.db?mode=memory",
        "sqlite://catalogue.db?synchronous=off",
        "postgres://localhost:port/prices",
        "postgres://user:secret@localhost:99999/prices",
    ] {
        let outcome = Store::open(url, StoreSettings::default()).await;
        let Err(error @ StoreError::InvalidUrl { .. }) = outcome else {
            anyhow::bail!("{url}: {outcome:?}");
        };
        assert!(!error.is_transient());
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn the_path_of_a_sqlite_file_is_taken_as_it_is_written() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("prices 100%20 ü#1.db");
    let url = format!("sqlite://{}?synchronous=full", file.display());
    Store::open(&url, StoreSettings::default()).await?;
    assert!(file.is_file());
    Ok(())
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_no_transient_error() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = format!("sqlite://{}", directory.path().join("absent/catalogue.db").display());
    let error = failure(Store::open(&url, StoreSettings::default()).await)?;
    assert!(!error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt() -> Result<()> {
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("catalogue.db"), "not a database. ".repeat(1_000))?;
    let error = failure(Store::open(&sqlite_url(&directory), StoreSettings::default()).await)?;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_sqlite_file_that_another_process_writes_is_a_transient_error() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = sqlite_url(&directory);
    let settings = StoreSettings { statement_timeout: Duration::from_millis(300), ..Default::default() };
    let ours = Store::open(&url, settings).await?;
    let theirs = Store::open(&url, settings).await?;
    let transaction = theirs.begin().await?;
    let error = failure(ours.begin().await)?;
    assert!(error.is_transient(), "{error}");
    transaction.commit().await?;
    put(&ours, &[product("P-1")?]).await
}

#[tokio::test]
async fn what_is_written_is_moved_into_the_file_while_it_is_open() -> Result<()> {
    let (directory, copies) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let store = Store::open(&sqlite_url(&directory), StoreSettings::default()).await?;
    put(&store, &[product("P-1")?]).await?;
    eventually("the product is in the file", PATIENCE, async || {
        // Without the log.
        std::fs::copy(directory.path().join("catalogue.db"), copies.path().join("catalogue.db"))?;
        let copy = Store::open(&sqlite_url(&copies), StoreSettings::default()).await?;
        let product = copy.product(&product_id("P-1")?).await;
        copy.close().await;
        ensure!(product?.is_some());
        Ok(())
    })
    .await
}
