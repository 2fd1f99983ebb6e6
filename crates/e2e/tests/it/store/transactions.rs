//! A transaction is everything or nothing, and two on the same product take turns.

use std::time::Duration;

use anyhow::Result;
use pricing_core::store::{ProductRows, Store, StoreError};
use tokio::time::timeout;

use super::{PATIENCE, now, on_both_stores, price_write, product, product_id, products, put};

on_both_stores!(
    what_is_not_committed_is_rolled_back,
    what_is_not_committed_is_not_seen_by_others,
    after_a_failed_statement_nothing_can_be_committed,
    after_an_abandoned_statement_nothing_can_be_committed,
    failed_transactions_use_up_no_connections,
    two_transactions_on_one_product_take_turns,
    locking_in_opposite_orders_is_no_deadlock,
    two_who_put_the_same_new_products_take_turns,
    reading_does_not_wait_for_writing,
);

async fn what_is_not_committed_is_rolled_back(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    let mut transaction = store.begin().await?;
    transaction.put_products(ProductRows::of(std::slice::from_ref(&kettle))?, now()).await?;
    transaction.write_prices(store.prepare_prices(vec![price_write(&kettle, 1, "49.90")?])?).await?;
    drop(transaction);
    // The next transaction that locks the product waits for the end of the one before.
    let mut next = store.begin().await?;
    assert_eq!(next.lock_products(std::slice::from_ref(&kettle.product_id)).await?.known, []);
    next.commit().await?;
    assert_eq!(store.price_changes(&kettle.product_id, 10).await?, []);
    Ok(())
}

async fn what_is_not_committed_is_not_seen_by_others(store: &Store) -> Result<()> {
    let mut transaction = store.begin().await?;
    transaction.put_products(ProductRows::of(&[product("P-1")?])?, now()).await?;
    assert_eq!(store.count_products().await?, 0);
    transaction.commit().await?;
    assert_eq!(store.count_products().await?, 1);
    Ok(())
}

async fn after_a_failed_statement_nothing_can_be_committed(store: &Store) -> Result<()> {
    let mut transaction = store.begin().await?;
    transaction.put_products(ProductRows::of(&[product("P-1")?])?, now()).await?;
    let unknown = price_write(&product("unknown")?, 1, "49.90")?;
    assert!(transaction.write_prices(store.prepare_prices(vec![unknown])?).await.is_err());
    let outcome = transaction.commit().await;
    assert!(matches!(outcome, Err(StoreError::TransactionFailed)), "{outcome:?}");
    put(store, &[product("P-2")?]).await?;
    assert_eq!(store.product_ids(None, 10).await?, [product_id("P-2")?]);
    Ok(())
}

async fn after_an_abandoned_statement_nothing_can_be_committed(store: &Store) -> Result<()> {
    let many = products((0..2_000).map(|number| format!("P-{number}")))?;
    let mut transaction = store.begin().await?;
    assert!(timeout(Duration::ZERO, transaction.put_products(ProductRows::of(&many)?, now())).await.is_err());
    let outcome = transaction.commit().await;
    assert!(matches!(outcome, Err(StoreError::TransactionFailed)), "{outcome:?}");
    put(store, &[product("Q")?]).await?;
    assert_eq!(store.product_ids(None, 10).await?, [product_id("Q")?]);
    Ok(())
}

async fn failed_transactions_use_up_no_connections(store: &Store) -> Result<()> {
    let unknown = [price_write(&product("unknown")?, 1, "49.90")?];
    for _ in 0..50 {
        assert!(store.begin().await?.write_prices(store.prepare_prices(unknown.to_vec())?).await.is_err());
    }
    put(store, &[product("P-1")?]).await
}

async fn two_transactions_on_one_product_take_turns(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let mut first = store.begin().await?;
    first.lock_products(std::slice::from_ref(&kettle.product_id)).await?;

    let (theirs, id) = (store.clone(), kettle.product_id.clone());
    let mut second = tokio::spawn(async move {
        let mut second = theirs.begin().await?;
        anyhow::Ok(second.lock_facts(&[id]).await?.read(now())?.known)
    });
    let early = timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "the second waits: {early:?}");

    let mut renamed = kettle.clone();
    renamed.name = "Pot".to_owned();
    first.put_products(ProductRows::of(&[renamed])?, now()).await?;
    first.write_prices(store.prepare_prices(vec![price_write(&kettle, 1, "49.90")?])?).await?;
    first.commit().await?;
    let seen = second.await??;
    assert!(seen.iter().all(|facts| facts.product.name == "Pot"), "{seen:?}");
    assert!(seen.iter().all(|facts| facts.price.is_some()), "{seen:?}");
    assert_eq!(seen.len(), 1);
    Ok(())
}

async fn locking_in_opposite_orders_is_no_deadlock(store: &Store) -> Result<()> {
    let written = products((0..200).map(|number| format!("P-{number}")))?;
    put(store, &written).await?;
    let mut ids: Vec<_> = written.into_iter().map(|product| product.product_id).collect();
    let mut locking = tokio::task::JoinSet::new();
    for _ in 0..12 {
        ids.reverse();
        let (store, ids) = (store.clone(), ids.clone());
        locking.spawn(async move {
            let mut transaction = store.begin().await?;
            assert_eq!(transaction.lock_products(&ids).await?.known.len(), 200);
            tokio::task::yield_now().await;
            transaction.commit().await
        });
    }
    Ok(locking.join_all().await.into_iter().collect::<Result<(), _>>()?)
}

async fn two_who_put_the_same_new_products_take_turns(store: &Store) -> Result<()> {
    let mut new = products((0..200).map(|number| format!("P-{number}")))?;
    let mut putting = tokio::task::JoinSet::new();
    for _ in 0..12 {
        new.reverse();
        let (store, new) = (store.clone(), new.clone());
        putting.spawn(async move { put(&store, &new).await });
    }
    putting.join_all().await.into_iter().collect::<Result<()>>()?;
    assert_eq!(store.count_products().await?, 200);
    Ok(())
}

async fn reading_does_not_wait_for_writing(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let mut transaction = store.begin().await?;
    transaction.lock_products(std::slice::from_ref(&kettle.product_id)).await?;
    let mut renamed = kettle.clone();
    renamed.name = "Pot".to_owned();
    transaction.put_products(ProductRows::of(&[renamed])?, now()).await?;
    let read = timeout(PATIENCE, store.product(&kettle.product_id)).await?;
    assert_eq!(read?, Some(kettle));
    Ok(())
}
