//! PostgreSQL behind PgBouncer: session mode works with default settings, other modes are refused at the
//! start and leave nothing behind.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pricing_core::store::{Store, StoreError, StoreSettings};
use pricing_e2e::{PgBouncer, PoolMode, eventually};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{PATIENCE, failure, product, put};
use crate::support::shared_postgres;

const SETTINGS: StoreSettings = StoreSettings {
    max_connections: 2,
    connect_timeout: Duration::from_secs(3),
    statement_timeout: Duration::from_millis(500),
};

#[tokio::test]
async fn a_session_pooler_needs_no_settings_and_time_limits_hold() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "behind_a_session_pooler");
    postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Session, "").await?;
    let store = Store::open(&pooler.url(database), SETTINGS).await?;
    let kettle = product("P-1")?;
    put(&store, std::slice::from_ref(&kettle)).await?;
    // The limit of statements, behind a lock of another session.
    let hold = "BEGIN; LOCK TABLE products; SELECT pg_sleep(3); COMMIT";
    let reading = async {
        eventually("a read is ended by its limit", PATIENCE, async || {
            let error = failure(timeout(PATIENCE, store.count_products()).await?)?;
            ensure!(error.to_string().contains("statement timeout"), "{error}");
            Ok(())
        })
        .await
    };
    tokio::try_join!(postgres.execute(database, hold), reading)?;
    // The limit of idle transactions.
    let ids = std::slice::from_ref(&kettle.product_id);
    let mut frozen = store.begin().await?;
    frozen.lock_products(ids).await?;
    eventually("the lock is free", PATIENCE, async || {
        let mut next = store.begin().await?;
        next.lock_products(ids).await?;
        Ok(next.commit().await?)
    })
    .await?;
    assert!(failure(frozen.commit().await)?.is_transient());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_at_once_open_an_empty_database_through_a_session_pooler() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "opened_through_a_pooler");
    postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Session, "default_pool_size = 30").await?;
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let url = pooler.url(database);
        opening.spawn(async move { Store::open(&url, StoreSettings::default()).await });
    }
    for store in opening.join_all().await {
        store?.close().await;
    }
    assert_eq!(advisory_locks(database).await?, "0");
    Ok(())
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused_and_keeps_nothing_of_it() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "behind_a_sharing_pooler");
    postgres.create_database(database).await?;
    for (mode, sessions, settings) in [
        (PoolMode::Transaction, 1, "default_pool_size = 1"),
        (PoolMode::Transaction, 5, ""),
        // Free sessions are given in turn.
        (PoolMode::Transaction, 5, "server_round_robin = 1"),
        (PoolMode::Transaction, 2, "server_round_robin = 1"),
        (PoolMode::Statement, 1, ""),
    ] {
        let pooler = PgBouncer::start(postgres, mode, settings).await?;
        // The pool keeps a session of each.
        let statements = (0..sessions).map(|_| pooler.execute(database, "SELECT pg_sleep(0.5)"));
        futures::future::try_join_all(statements).await?;
        let url = pooler.url(database);
        for _ in 0..3 {
            let outcome = timeout(PATIENCE, Store::open(&url, SETTINGS)).await?;
            let error = failure(outcome)?;
            ensure!(matches!(error, StoreError::SharedSession), "{mode:?}, {settings}: {error}");
            assert!(!error.is_transient());
            assert!(error.to_string().contains("pool_mode = session"), "{error}");
        }
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(postgres.execute(database, tables).await?.trim(), "0");
        assert_eq!(advisory_locks(database).await?, "0");
    }
    Ok(())
}

#[tokio::test]
async fn a_pooler_without_a_free_session_is_a_shortage_of_connections() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "behind_a_small_pooler");
    postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Session, "default_pool_size = 1").await?;
    let error = failure(timeout(PATIENCE, Store::open(&pooler.url(database), SETTINGS)).await?)?;
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("default_pool_size"), "{error}");

    let pooler = PgBouncer::start(postgres, PoolMode::Session, "max_client_conn = 1").await?;
    let error = failure(timeout(PATIENCE, Store::open(&pooler.url(database), SETTINGS)).await?)?;
    assert!(error.to_string().contains("no more connections allowed"), "{error}");
    assert!(error.to_string().contains("PRICING_DATABASE_CONNECTIONS"), "{error}");
    Ok(())
}

async fn advisory_locks(database: &str) -> Result<String> {
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    Ok(shared_postgres().await?.execute(database, locks).await?.trim().to_owned())
}

/// The lock of the migrations of the database `lock_left_in_a_pool`: a constant times the name's CRC-32.
const LOCK: i64 = 3_211_519_244_867_441_406;

/// What older versions of this program did through such a pooler.
#[tokio::test]
async fn a_lock_that_was_left_in_a_pool_is_an_error_with_advice() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "lock_left_in_a_pool");
    let direct = postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Transaction, "").await?;
    pooler.execute(database, &format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let error = failure(timeout(PATIENCE, Store::open(&direct, SETTINGS)).await?)?;
    assert!(matches!(error, StoreError::MigrationLocked { idle_seconds: Some(11..), .. }), "{error}");
    assert!(error.to_string().contains("pg_terminate_backend"), "{error}");
    assert!(error.is_transient());

    let holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    postgres.execute(database, holder).await?;
    let store = Store::open(&direct, SETTINGS).await?;
    put(&store, &[product("P-1")?]).await?;
    // An up-to-date database needs no lock.
    pooler.execute(database, &format!("SELECT pg_advisory_lock({LOCK})")).await?;
    timeout(PATIENCE, Store::open(&direct, SETTINGS)).await??;
    Ok(())
}

#[tokio::test]
async fn a_migration_of_another_process_is_waited_for() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "migrated_by_another");
    let direct = postgres.create_database(database).await?;
    let statement = "SELECT pg_advisory_lock(1314514953827619432), pg_sleep(2)";
    let opening = async {
        eventually("the lock is held", PATIENCE, async || {
            let locks = advisory_locks(database).await?;
            ensure!(locks == "1", "{locks}");
            Ok(())
        })
        .await?;
        let began = Instant::now();
        Ok((Store::open(&direct, SETTINGS).await?, began.elapsed()))
    };
    let (_, (store, waited)) = tokio::try_join!(postgres.execute(database, statement), opening)?;
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    put(&store, &[product("P-1")?]).await
}
