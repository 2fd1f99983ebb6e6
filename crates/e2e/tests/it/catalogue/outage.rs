//! A PostgreSQL server that is away: an error in time that says to try again, and nothing to do when it is
//! back.

use std::time::Duration;

use anyhow::Result;
use pricing_core::catalogue::{Catalogue, CatalogueSettings, ProductRows};
use pricing_e2e::{ChaosProxy, PostgresServer, eventually, free_port};
use tokio::time::timeout;

use super::{PATIENCE, failure, now, product, put};
use crate::support::shared_postgres;

const SETTINGS: CatalogueSettings = CatalogueSettings {
    max_connections: 2,
    connect_timeout: Duration::from_millis(500),
    statement_timeout: Duration::from_millis(500),
};

/// A catalogue behind a network that can be broken.
async fn behind_proxy(database: &str) -> Result<(Catalogue, ChaosProxy)> {
    let postgres = shared_postgres().await?;
    postgres.create_database(database).await?;
    let proxy = ChaosProxy::start(postgres.address()).await?;
    let url = format!("postgres://postgres@{}/{database}", proxy.address());
    let catalogue = Catalogue::open(&url, SETTINGS).await?;
    put(&catalogue, &[product("P-1")?]).await?;
    Ok((catalogue, proxy))
}

async fn assert_fails_in_time_and_transiently(catalogue: &Catalogue) -> Result<()> {
    let error = failure(timeout(PATIENCE, catalogue.count_products()).await?)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

async fn assert_recovers(catalogue: &Catalogue) -> Result<()> {
    eventually("the catalogue answers again", PATIENCE, async || {
        put(catalogue, &[product("P-2")?]).await?;
        Ok(catalogue.count_products().await?)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_never_there_is_a_transient_error_in_time() -> Result<()> {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port()?);
    let error = failure(timeout(PATIENCE, Catalogue::open(&url, SETTINGS)).await?)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_was_never_there_is_no_transient_error() -> Result<()> {
    let url = shared_postgres().await?.url("never_there");
    let error = failure(Catalogue::open(&url, SETTINGS).await)?;
    assert!(!error.is_transient(), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_network_that_is_cut_is_a_transient_error_in_time() -> Result<()> {
    let (catalogue, mut proxy) = behind_proxy("a_network_that_is_cut").await?;
    let mut transaction = catalogue.begin().await?;
    proxy.cut().await;
    let error = failure(transaction.put_products(ProductRows::of(&[product("P-3")?])?, now()).await)?;
    assert!(error.is_transient(), "{error}");
    assert_fails_in_time_and_transiently(&catalogue).await?;
    proxy.restore().await?;
    assert_recovers(&catalogue).await
}

/// More failures than there are connections: none may be lost to the pool, though the network never recovers
/// for the connections that were open.
#[tokio::test]
async fn a_network_that_swallows_everything_is_a_transient_error_in_time() -> Result<()> {
    let (catalogue, mut proxy) = behind_proxy("a_network_that_swallows").await?;
    let mut transactions = [catalogue.begin().await?, catalogue.begin().await?];
    proxy.stall();
    for transaction in &mut transactions {
        let third = [product("P-3")?];
        let put = transaction.put_products(ProductRows::of(&third)?, now());
        let error = failure(timeout(PATIENCE, put).await?)?;
        assert!(error.is_transient(), "{error}");
    }
    drop(transactions);
    assert_fails_in_time_and_transiently(&catalogue).await?;
    proxy.restore().await?;
    assert_recovers(&catalogue).await
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_used_again() -> Result<()> {
    let mut postgres = PostgresServer::start().await?;
    let catalogue = Catalogue::open(&postgres.url("postgres"), SETTINGS).await?;
    put(&catalogue, &[product("P-1")?]).await?;
    postgres.kill()?;
    assert_fails_in_time_and_transiently(&catalogue).await?;
    postgres.restart().await?;
    assert_recovers(&catalogue).await
}

#[tokio::test]
async fn a_transaction_that_idles_too_long_gives_up_its_locks() -> Result<()> {
    let database = "a_transaction_that_idles";
    let url = shared_postgres().await?.create_database(database).await?;
    let catalogue = Catalogue::open(&url, SETTINGS).await?;
    let kettle = product("P-1")?;
    put(&catalogue, std::slice::from_ref(&kettle)).await?;
    let ids = std::slice::from_ref(&kettle.product_id);
    let mut frozen = catalogue.begin().await?;
    frozen.lock_products(ids).await?;
    eventually("the lock is free", PATIENCE, async || {
        let mut next = catalogue.begin().await?;
        next.lock_products(ids).await?;
        Ok(next.commit().await?)
    })
    .await?;
    let error = failure(frozen.commit().await)?;
    assert!(error.is_transient(), "{error}");
    Ok(())
}
