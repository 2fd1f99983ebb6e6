//! What a transaction has committed and Redis may not have is found again, until it is marked as served; and
//! a database is recognised that is behind what it was.

use anyhow::{Result, ensure};
use pricing_core::catalogue::KnownPrice;
use pricing_core::store::{PriceWrite, Store, StoreError, Unserved, UnservedPrices};
use pricing_e2e::eventually;

use crate::support::new_policy;

use super::{PATIENCE, now, on_both_stores, price_write, product, product_id, put};

on_both_stores!(
    stored_prices_wait_until_they_are_marked_as_served,
    a_claim_is_of_one_process_at_a_time,
    a_removal_waits_too,
    what_changes_no_price_leaves_nothing_to_be_served,
    what_was_served_under_another_identity_is_served_again,
    of_two_new_identities_there_is_one,
    a_price_that_was_never_stored_is_recognised,
    a_database_that_is_behind_takes_no_prices,
);

/// Writes prices of these products, with revisions of their own.
async fn write(store: &Store, ids: &[&str]) -> Result<(Unserved, Vec<i64>)> {
    let products = ids.iter().map(|id| product(id)).collect::<Result<Vec<_>>>()?;
    put(store, &products).await?;
    let mut transaction = store.begin().await?;
    let revisions = transaction.next_revisions(ids.len()).await?;
    let priced = products.iter().zip(&revisions);
    let writes = priced.map(|(product, revision)| price_write(product, *revision, "5"));
    let writes = writes.collect::<Result<Vec<PriceWrite>>>()?;
    transaction.write_prices(store.prepare_prices(writes)?).await?;
    Ok((transaction.commit_prices().await?, revisions))
}

/// Waits until one transaction is due, and claims it.
async fn claimed(store: &Store) -> Result<UnservedPrices> {
    eventually("a transaction is due", PATIENCE, async || {
        let mut claimed = store.claim_unserved(10).await?;
        ensure!(claimed.len() == 1, "{claimed:?}");
        Ok(claimed.remove(0))
    })
    .await
}

async fn stored_prices_wait_until_they_are_marked_as_served(store: &Store) -> Result<()> {
    let (served, _) = write(store, &["P-1"]).await?;
    store.mark_served(served);
    store.forget_served().await?;
    let (_, revisions) = write(store, &["P-2", "P-3"]).await?;
    let waiting = claimed(store).await?;
    assert_eq!(waiting.product_ids, [product_id("P-2")?, product_id("P-3")?]);
    assert_eq!([waiting.first_revision, waiting.last_revision], *revisions);
    let (ids, between) = (&waiting.product_ids, (waiting.first_revision, waiting.last_revision));
    let changes = store.changes_between(ids, between.0, between.1).await?;
    assert_eq!(changes.iter().map(|change| change.revision).collect::<Vec<_>>(), revisions);
    assert_eq!(store.stored_prices(ids).await?.len(), 2);
    assert_eq!(store.changes_between(ids, between.1 + 1, i64::MAX).await?, []);
    store.mark_served(waiting.unserved);
    store.forget_served().await?;
    // Of the three transactions, only the last one is still there.
    write(store, &["P-4"]).await?;
    assert_eq!(claimed(store).await?.product_ids, [product_id("P-4")?]);
    Ok(())
}

async fn a_claim_is_of_one_process_at_a_time(store: &Store) -> Result<()> {
    write(store, &["P-1"]).await?;
    eventually("one of four has claimed it", PATIENCE, async || {
        let claims = tokio::try_join!(
            store.claim_unserved(10),
            store.claim_unserved(10),
            store.claim_unserved(10),
            store.claim_unserved(10),
        )?;
        let claims = [claims.0, claims.1, claims.2, claims.3].concat().len();
        ensure!(claims > 0, "it is not due");
        assert_eq!(claims, 1);
        Ok(())
    })
    .await?;
    // The claimant has died: it is due again.
    assert_eq!(claimed(store).await?.product_ids, [product_id("P-1")?]);
    Ok(())
}

async fn a_removal_waits_too(store: &Store) -> Result<()> {
    let (served, _) = write(store, &["P-1"]).await?;
    store.mark_served(served);
    store.forget_served().await?;
    let mut transaction = store.begin().await?;
    transaction.lock_products(&[product_id("P-1")?]).await?;
    let revision = transaction.next_revisions(1).await?[0];
    transaction.delete_product(&product_id("P-1")?, revision, "test", now()).await?;
    transaction.commit().await?;
    let waiting = claimed(store).await?;
    assert_eq!((waiting.first_revision, waiting.last_revision), (revision, revision));
    assert_eq!(store.stored_prices(&waiting.product_ids).await?, []);
    let changes = store.changes_between(&waiting.product_ids, revision, revision).await?;
    assert_eq!(changes.iter().map(|change| change.new_list_price).collect::<Vec<_>>(), [None]);
    Ok(())
}

async fn what_changes_no_price_leaves_nothing_to_be_served(store: &Store) -> Result<()> {
    let (served, revisions) = write(store, &["P-1"]).await?;
    store.mark_served(served);
    store.forget_served().await?;
    let mut explained = price_write(&product("P-1")?, revisions[0], "5")?;
    explained.explanation_digest = 7;
    explained.previous_list_price = Some(explained.entry.list_price);
    let mut transaction = store.begin().await?;
    transaction.next_revisions(1).await?;
    transaction.write_prices(store.prepare_prices(vec![explained])?).await?;
    transaction.commit().await?;
    let mut rolled_back = store.begin().await?;
    let revision = rolled_back.next_revisions(1).await?[0];
    let price = price_write(&product("P-1")?, revision, "6")?;
    rolled_back.write_prices(store.prepare_prices(vec![price])?).await?;
    drop(rolled_back);
    write(store, &["P-2"]).await?;
    assert_eq!(claimed(store).await?.product_ids, [product_id("P-2")?]);
    Ok(())
}

async fn what_was_served_under_another_identity_is_served_again(store: &Store) -> Result<()> {
    let (served, _) = write(store, &["P-1"]).await?;
    let identity = store.replace_identity(store.catalogue.get().identity()).await?;
    // This process does not know yet, and has put the price under the keys of the former identity.
    store.mark_served(served);
    store.forget_served().await?;
    let served = claimed(store).await?.unserved;
    store.catalogue.replace(&identity);
    // What was claimed before the replacement was put under the former keys, too.
    store.mark_served(served);
    store.forget_served().await?;
    let served = claimed(store).await?.unserved;
    assert_eq!(served.catalogue().identity(), identity);
    store.mark_served(served);
    store.forget_served().await?;
    write(store, &["P-2"]).await?;
    assert_eq!(claimed(store).await?.product_ids, [product_id("P-2")?]);
    Ok(())
}

async fn of_two_new_identities_there_is_one(store: &Store) -> Result<()> {
    let former = store.identity().await?;
    let (one, other) = tokio::try_join!(store.replace_identity(&former), store.replace_identity(&former))?;
    assert_eq!((&one, &one), (&other, &store.identity().await?));
    assert_ne!(one, former);
    assert_eq!(store.replace_identity("another").await?, one);
    Ok(())
}

async fn a_price_that_was_never_stored_is_recognised(store: &Store) -> Result<()> {
    let (_, revisions) = write(store, &["P-1", "P-2"]).await?;
    let is_before = async |id: &str, revision: i64| {
        let known = KnownPrice { product_id: product_id(id)?, revision };
        anyhow::Ok(store.progress(Some(&known)).await?.is_before(&known))
    };
    assert_eq!(store.catalogue.get().newest().map(|known| known.revision), revisions.last().copied());
    assert!(!is_before("P-2", revisions[1]).await? && !is_before("P-1", revisions[0]).await?);
    assert!(is_before("P-2", revisions[1] + 1).await?);
    // A sequence that is ahead of what is stored hides nothing.
    let mut drawing = store.begin().await?;
    drawing.next_revisions(40).await?;
    drawing.commit().await?;
    assert!(is_before("P-2", revisions[1] + 1).await? && is_before("P-3", revisions[0]).await?);
    // A removal is as good as a price.
    let mut removing = store.begin().await?;
    let revision = removing.next_revisions(1).await?[0];
    removing.delete_product(&product_id("P-2")?, revision, "test", now()).await?;
    removing.commit().await?;
    assert!(!is_before("P-2", revision).await?);
    Ok(())
}

async fn a_database_that_is_behind_takes_no_prices(store: &Store) -> Result<()> {
    write(store, &["P-1"]).await?;
    // A notification has said so.
    let seen = store.progress(None).await?.last_revision + 1;
    store.catalogue.get().note(&product_id("P-2")?, seen);
    let mut behind = store.begin().await?;
    let drawn = behind.next_revisions(1).await;
    ensure!(matches!(drawn, Err(StoreError::Behind { .. })), "{drawn:?}");
    drop(behind);
    // Under another identity, what was known of the former one does not count.
    store.catalogue.replace(&store.replace_identity(store.catalogue.get().identity()).await?);
    store.publish_policy(&new_policy("name: first"), None, now()).await?;
    let (_, revisions) = write(store, &["P-3"]).await?;
    // The price of a policy that the database does not have.
    let mut price = price_write(&product("P-3")?, revisions[0] + 1, "6")?;
    price.entry.policy_version = 2;
    let mut behind = store.begin().await?;
    price.entry.revision = behind.next_revisions(1).await?[0];
    behind.write_prices(store.prepare_prices(vec![price])?).await?;
    let committed = behind.commit().await;
    ensure!(matches!(committed, Err(StoreError::Behind { .. })), "{committed:?}");
    assert_eq!(store.stored_prices(&[product_id("P-3")?]).await?[0].entry.revision, revisions[0]);
    Ok(())
}
