//! An unavailable PostgreSQL server: a transient error in time, and recovery without intervention.

use std::time::Duration;

use anyhow::Result;
use pricing_core::store::{ProductRows, Store, StoreError, StoreSettings, StoreTransaction};
use pricing_e2e::{ChaosProxy, PostgresServer, eventually, free_port};
use tokio::time::timeout;

use super::{PATIENCE, failure, now, product, put};
use crate::support::shared_postgres;

const SETTINGS: StoreSettings = StoreSettings {
    max_connections: 2,
    connect_timeout: Duration::from_millis(500),
    statement_timeout: Duration::from_millis(500),
};

/// A store behind a network that can be broken.
async fn behind_proxy(database: &str) -> Result<(Store, ChaosProxy)> {
    let postgres = shared_postgres().await?;
    postgres.create_database(database).await?;
    let proxy = ChaosProxy::start(postgres.address()).await?;
    let url = format!("postgres://postgres@{}/{database}", proxy.address());
    let store = Store::open(&url, SETTINGS).await?;
    put(&store, &[product("P-1")?]).await?;
    Ok((store, proxy))
}

async fn assert_fails_in_time_and_transiently(store: &Store) -> Result<()> {
    let error = failure(timeout(PATIENCE, store.count_products()).await?)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

async fn assert_recovers(store: &Store) -> Result<()> {
    eventually("the store answers again", PATIENCE, async || {
        put(store, &[product("P-2")?]).await?;
        Ok(store.count_products().await?)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_never_there_is_a_transient_error_in_time() -> Result<()> {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port()?);
    let error = failure(timeout(PATIENCE, Store::open(&url, SETTINGS)).await?)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_was_never_there_is_no_transient_error() -> Result<()> {
    let url = shared_postgres().await?.url("never_there");
    let error = failure(Store::open(&url, SETTINGS).await)?;
    assert!(!error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_network_that_is_cut_is_a_transient_error_in_time() -> Result<()> {
    let (store, mut proxy) = behind_proxy("a_network_that_is_cut").await?;
    let mut transaction = store.begin().await?;
    proxy.cut().await;
    let error = failure(transaction.put_products(ProductRows::of(&[product("P-3")?])?, now()).await)?;
    assert!(error.is_transient(), "{error}");
    assert_fails_in_time_and_transiently(&store).await?;
    proxy.restore().await?;
    assert_recovers(&store).await
}

/// More failures than there are connections: none may be lost to the pool, though the network never recovers
/// for the connections that were open.
#[tokio::test]
async fn a_network_that_swallows_everything_is_a_transient_error_in_time() -> Result<()> {
    let (store, mut proxy) = behind_proxy("a_network_that_swallows").await?;
    let mut transactions = [store.begin().await?, store.begin().await?];
    proxy.stall();
    for transaction in &mut transactions {
        let third = [product("P-3")?];
        let put = transaction.put_products(ProductRows::of(&third)?, now());
        let error = failure(timeout(PATIENCE, put).await?)?;
        assert!(error.is_transient(), "{error}");
    }
    drop(transactions);
    assert_fails_in_time_and_transiently(&store).await?;
    proxy.restore().await?;
    assert_recovers(&store).await
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_used_again() -> Result<()> {
    let mut postgres = PostgresServer::start().await?;
    let store = Store::open(&postgres.url("postgres"), SETTINGS).await?;
    put(&store, &[product("P-1")?]).await?;
    postgres.kill()?;
    assert_fails_in_time_and_transiently(&store).await?;
    postgres.restart().await?;
    assert_recovers(&store).await
}

#[tokio::test]
async fn a_transaction_that_idles_too_long_gives_up_its_locks() -> Result<()> {
    let database = "a_transaction_that_idles";
    let url = shared_postgres().await?.create_database(database).await?;
    let store = Store::open(&url, SETTINGS).await?;
    let kettle = product("P-1")?;
    put(&store, std::slice::from_ref(&kettle)).await?;
    let ids = std::slice::from_ref(&kettle.product_id);
    let mut frozen = store.begin().await?;
    frozen.lock_products(ids).await?;
    eventually("the lock is free", PATIENCE, async || {
        let mut next = store.begin().await?;
        next.lock_products(ids).await?;
        Ok(next.commit().await?)
    })
    .await?;
    let error = failure(frozen.commit().await)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

/// In the log and in the error: what the server said, and the setting.
fn assert_names(error: &StoreError, words: &str) {
    let text = error.to_string();
    assert!(error.is_transient() && text.contains(words), "{text}");
    assert!(text.contains("PRICING_DATABASE_CONNECTIONS"), "{text}");
}

/// Begins a transaction; a session that was closed may count for a moment.
async fn begun(store: &Store) -> Result<StoreTransaction> {
    eventually("a connection is free", PATIENCE, async || Ok(store.begin().await?)).await
}

#[tokio::test]
async fn a_server_without_a_free_connection_differs_from_a_dead_one() -> Result<()> {
    let postgres = PostgresServer::start_with(&["max_connections=9"]).await?;
    postgres.execute("postgres", "CREATE ROLE shop LOGIN; GRANT ALL ON SCHEMA public TO shop").await?;
    let url = postgres.url("postgres");
    let users_url = url.replace("postgres@", "shop@");
    // Transactions that idle keep their connections.
    let three = StoreSettings { statement_timeout: PATIENCE, max_connections: 3, ..SETTINGS };
    let several = StoreSettings { max_connections: 8, ..three };
    let user = Store::open(&users_url, three).await?;
    let store = Store::open(&users_url, several).await?;
    let mut open = Vec::new();
    // The last three are for superusers.
    for _ in 0..4 {
        open.push(begun(&store).await?);
    }
    let begun_by_user = [begun(&user).await?, begun(&user).await?];
    assert_names(&failure(user.count_products().await)?, "remaining connection slots are reserved");
    assert_names(
        &failure(Store::open(&users_url, SETTINGS).await)?,
        "remaining connection slots are reserved",
    );
    drop(begun_by_user);

    let superuser = Store::open(&url, several).await?;
    for _ in 0..5 {
        open.push(begun(&superuser).await?);
    }
    assert_names(&failure(superuser.count_products().await)?, "too many clients");
    drop(open);
    assert_recovers(&user).await
}

#[tokio::test]
async fn a_process_whose_connections_are_all_in_use_says_so() -> Result<()> {
    let url = shared_postgres().await?.create_database("all_in_use").await?;
    let store = Store::open(&url, SETTINGS).await?;
    let open = [store.begin().await?, store.begin().await?];
    assert_names(&failure(store.count_products().await)?, "all 2 of this process are in use");
    drop(open);
    assert_recovers(&store).await
}

#[tokio::test]
async fn a_read_only_database_is_named_and_can_be_read_and_opened() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "read_only");
    let url = postgres.create_database(database).await?;
    let store = Store::open(&url, SETTINGS).await?;
    put(&store, &[product("P-1")?]).await?;
    store.close().await;
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    postgres.execute("postgres", &read_only).await?;
    let store = Store::open(&url, SETTINGS).await?;
    let error = failure(
        put(&store, &[product("P-2")?])
            .await
            .map_err(|error| error.downcast::<StoreError>().unwrap_or(StoreError::TransactionFailed)),
    )?;
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(error.is_transient() && error.is_unavailable());
    assert_eq!(store.count_products().await?, 1);
    Ok(())
}
