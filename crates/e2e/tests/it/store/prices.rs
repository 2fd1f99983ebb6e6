//! Prices come back as they were written, and a newer one is never replaced by an older one.

use std::borrow::Cow;
use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::{EventHold, FROZEN, PriceWrite, ProductRows, Store, StoredPrice};
use pricing_domain::facts::movement::{KnownFacts, Movement};
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::Product;
use pricing_domain::facts::signal::Signals;
use pricing_domain::pricing::price_state::PriceState;
use rust_decimal::Decimal;

use super::{digits, failure, now, on_both_stores, price_write, product, products, put, write};
use crate::support::shared_postgres;

on_both_stores!(
    a_price_comes_back_with_every_field_and_digit,
    what_another_pricing_left_behind_is_not_of_the_price,
    a_price_without_limits_comes_back_without,
    an_instant_comes_back_to_the_microsecond,
    an_explanation_comes_back_byte_for_byte,
    an_older_revision_never_replaces_a_newer_one,
    a_price_may_get_another_explanation_under_its_revision,
    within_one_batch_the_newest_revision_counts,
    of_a_batch_only_prices_in_effect_come_into_the_history,
    a_price_of_no_product_is_refused_for_good,
    revisions_ascend_however_many_draw_them,
    the_revisions_of_a_product_grow_in_the_order_of_commits,
    a_removed_products_revisions_are_not_given_to_its_successor,
);

async fn one_product(store: &Store) -> Result<Product> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    Ok(kettle)
}

fn movement() -> Result<Movement<'static>> {
    Ok(Movement {
        facts: KnownFacts { signals: Cow::Owned(Signals::default()), known_at: now() },
        policy_version: 7,
        target: Some(Decimal::from_str_exact("0.0000000000000000000000000001")?),
        held: None,
        opening_target: None,
        interval: None,
        moved_at: Some(now()),
        current_price: Some(Decimal::from_str_exact("49.9")?),
        position: None,
        product_digest: u64::MAX,
        awaited_direction: -1,
        priced_at: now(),
    })
}

/// An older version, side by side with this one, writes a price and leaves the columns that it does not know
/// as they were.
async fn what_another_pricing_left_behind_is_not_of_the_price(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    let hold = EventHold { since: now(), reason: "too far".to_owned(), rejected_by: None };
    let by_this = PriceWrite {
        movement: Some(serde_json::to_string(&movement()?)?),
        event_hold: Some(hold),
        ..price_write(&kettle, 1, "49.90")?
    };
    let read = async || store.stored_price(&kettle.product_id).await?.context("no price");
    write(store, std::slice::from_ref(&by_this)).await?;
    let stored = read().await?;
    assert!(stored.state.movement.is_some() && stored.event_hold.is_some(), "{stored:?}");

    let later = now() + TimeDelta::milliseconds(2);
    let by_older = PriceWrite {
        entry: PriceEntry { revision: 2, ..by_this.entry.clone() },
        priced_at: later,
        ..by_this
    };
    write(store, std::slice::from_ref(&by_older)).await?;
    let stored = read().await?;
    assert_eq!((stored.state.movement, stored.explanation_digest, stored.event_hold), (None, None, None));

    // A price that is frozen keeps the movement of the last pricing that was not.
    let entry = PriceEntry { revision: 3, ..by_older.entry.clone() };
    write(store, &[PriceWrite { entry, held_by: Some(FROZEN), ..by_older }]).await?;
    assert!(read().await?.state.movement.is_some());
    Ok(())
}

async fn a_price_comes_back_with_every_field_and_digit(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    let mut written = price_write(&kettle, i64::MAX, "49.90")?;
    written.entry.category = Some("кухня 🫖".into());
    written.entry.lowest = Some(Decimal::from_str_exact("0.00")?);
    written.entry.highest = Some(Decimal::from_str_exact("66.66666666666666666666666667")?);
    written.entry.policy_version = 7;
    written.entry.valid_until = Some(now() + TimeDelta::microseconds(1));
    written.opening_price = Decimal::from_str_exact("50.00")?;
    written.held_by = Some("max_step");
    let movement = movement()?;
    written.movement = Some(serde_json::to_string(&movement)?);
    write(store, std::slice::from_ref(&written)).await?;

    let expected = StoredPrice {
        state: PriceState {
            list_price: written.entry.list_price,
            valid_until: written.entry.valid_until,
            opening_price: written.opening_price,
            opened_on: written.opened_on,
            changed_at: written.changed_at,
            streak: written.streak,
            movement: Some(movement),
        },
        entry: written.entry,
        explanation: None,
        explanation_digest: Some(written.explanation_digest),
        event_hold: written.event_hold,
    };
    let read = store.stored_price(&kettle.product_id).await?;
    assert_eq!(digits(&read), digits(&Some(&expected)));
    // Once it may have to catch up, its explanation is read with it.
    let expected = StoredPrice { explanation: Some(written.explanation), ..expected };
    let ids = std::slice::from_ref(&kettle.product_id);
    let facts = store.begin().await?.lock_facts(ids).await?.read(now())?.known;
    assert_eq!(facts.len(), 1);
    assert!(facts.iter().all(|facts| digits(&facts.price) == digits(&Some(&expected))), "{facts:?}");
    Ok(())
}

async fn a_price_without_limits_comes_back_without(store: &Store) -> Result<()> {
    let mut kettle = product("P-1")?;
    kettle.category = None;
    put(store, std::slice::from_ref(&kettle)).await?;
    let written = price_write(&kettle, 1, "0.00")?;
    write(store, std::slice::from_ref(&written)).await?;
    let read = store.stored_price(&kettle.product_id).await?;
    assert_eq!(digits(&read.map(|price| price.entry)), digits(&Some(written.entry)));
    Ok(())
}

async fn an_instant_comes_back_to_the_microsecond(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    let instants = [
        ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),
        ("2026-01-31T23:59:59.999999999Z", "2026-01-31T23:59:59.999999Z"),
        ("2026-03-29T02:30:00.000001+02:00", "2026-03-29T00:30:00.000001Z"),
        ("9999-12-31T23:59:59.1Z", "9999-12-31T23:59:59.100000Z"),
    ];
    for (revision, (written, expected)) in (1..).zip(instants) {
        let mut price = price_write(&kettle, revision, "49.90")?;
        price.entry.valid_until = Some(written.parse::<DateTime<Utc>>()?);
        write(store, &[price]).await?;
        let read = store.stored_price(&kettle.product_id).await?;
        assert_eq!(read.and_then(|price| price.entry.valid_until), Some(expected.parse()?));
    }
    Ok(())
}

async fn an_explanation_comes_back_byte_for_byte(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    // What a database that parses JSON would change: spaces, order, a key twice, trailing zeros, escapes.
    let written = "{ \"b\":1.500,\"a\" : [ ],\"b\":1e2,\n\t\"c\":\"\\u00e9 é \\\\ \\/ 漢字 🫖 '\"}";
    let mut price = price_write(&kettle, 1, "49.90")?;
    price.explanation = written.to_owned();
    write(store, &[price]).await?;
    assert_eq!(store.explanation(&kettle.product_id).await?.as_deref(), Some(written));
    Ok(())
}

async fn an_older_revision_never_replaces_a_newer_one(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    write(store, &[price_write(&kettle, 5, "50.00")?]).await?;
    for (revision, list_price) in [(4, "40.00"), (5, "55.00")] {
        let mut late = price_write(&kettle, revision, list_price)?;
        late.explanation = "late".to_owned();
        write(store, &[late]).await?;
        let read = store.stored_price(&kettle.product_id).await?;
        assert_eq!(digits(&read.map(|price| price.entry.list_price)), "Some(50.00)");
        assert_eq!(store.explanation(&kettle.product_id).await?.as_deref(), Some("{}"));
    }
    let history = store.price_changes(&kettle.product_id, 10).await?;
    assert!(history.iter().map(|change| change.revision).eq([5]), "{history:?}");
    Ok(())
}

async fn a_price_may_get_another_explanation_under_its_revision(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    let first = price_write(&kettle, 5, "50.00")?;
    write(store, std::slice::from_ref(&first)).await?;
    let again = PriceWrite {
        explanation: "again".to_owned(),
        explanation_digest: i64::MAX,
        previous_list_price: Some(first.entry.list_price),
        ..first
    };
    write(store, std::slice::from_ref(&again)).await?;
    assert_eq!(store.explanation(&kettle.product_id).await?.as_deref(), Some("again"));
    let read = store.stored_price(&kettle.product_id).await?;
    assert_eq!(read.as_ref().and_then(|price| price.explanation_digest), Some(i64::MAX));
    assert_eq!(digits(&read.map(|price| price.entry)), digits(&Some(again.entry)));
    let history = store.price_changes(&kettle.product_id, 10).await?;
    assert_eq!(history.len(), 1, "{history:?}");
    Ok(())
}

async fn within_one_batch_the_newest_revision_counts(store: &Store) -> Result<()> {
    let kettle = one_product(store).await?;
    let batch = [
        price_write(&kettle, 1, "10.00")?,
        price_write(&kettle, 3, "30.00")?,
        price_write(&kettle, 2, "20.00")?,
    ];
    write(store, &batch).await?;
    let read = store.stored_price(&kettle.product_id).await?;
    assert_eq!(read.map(|price| price.entry.revision), Some(3));
    assert_eq!(store.price_changes(&kettle.product_id, 10).await?.len(), 1);
    Ok(())
}

async fn of_a_batch_only_prices_in_effect_come_into_the_history(store: &Store) -> Result<()> {
    let products = products(["P-1".to_owned(), "P-2".to_owned()])?;
    put(store, &products).await?;
    let [late, first] = &products[..] else { bail!("not two") };
    write(store, &[price_write(late, 5, "50.00")?]).await?;
    write(store, &[price_write(late, 4, "40.00")?, price_write(first, 6, "60.00")?]).await?;
    for (product, revision) in [(late, 5), (first, 6)] {
        let history = store.price_changes(&product.product_id, 10).await?;
        assert!(history.iter().map(|change| change.revision).eq([revision]), "{history:?}");
    }
    Ok(())
}

async fn a_price_of_no_product_is_refused_for_good(store: &Store) -> Result<()> {
    let unknown = price_write(&product("unknown")?, 1, "10.00")?;
    let mut transaction = store.begin().await?;
    let error = failure(transaction.write_prices(store.prepare_prices(vec![unknown])?).await)?;
    assert!(!error.is_transient(), "{error}");
    Ok(())
}

async fn revisions_ascend_however_many_draw_them(store: &Store) -> Result<()> {
    let mut drawing = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        drawing.spawn(async move {
            let mut transaction = store.begin().await?;
            let revisions = transaction.next_revisions(50).await?;
            transaction.commit().await?;
            anyhow::Ok(revisions)
        });
    }
    let mut drawn = HashSet::new();
    while let Some(revisions) = drawing.join_next().await {
        let revisions = revisions??;
        assert_eq!(revisions.len(), 50);
        assert!(revisions.is_sorted() && revisions.iter().all(|revision| *revision > 0));
        drawn.extend(revisions);
    }
    assert_eq!(drawn.len(), 1_000, "no revision was given out twice");
    Ok(())
}

async fn the_revisions_of_a_product_grow_in_the_order_of_commits(store: &Store) -> Result<()> {
    let written = products(["P-1".to_owned(), "P-2".to_owned()])?;
    put(store, &written).await?;
    let mut writing = tokio::task::JoinSet::new();
    for number in 1..=20 {
        let (store, mut products) = (store.clone(), written.clone());
        if number % 2 == 0 {
            products.reverse();
        }
        writing.spawn(async move {
            let ids: Vec<_> = products.iter().map(|product| product.product_id.clone()).collect();
            let mut transaction = store.begin().await?;
            let facts = transaction.lock_facts(&ids).await?.read(now())?.known;
            let revisions = transaction.next_revisions(facts.len()).await?;
            let mut writes = Vec::new();
            for (facts, revision) in facts.iter().zip(revisions) {
                let known = facts.price.as_ref().map_or(0, |price| price.entry.revision);
                assert!(known < revision, "{known} was committed before {revision} was drawn");
                let mut write = price_write(&facts.product, revision, &format!("{number}.00"))?;
                write.previous_list_price = facts.price.as_ref().map(|price| price.entry.list_price);
                writes.push(write);
            }
            transaction.write_prices(store.prepare_prices(writes)?).await?;
            Ok(transaction.commit().await?)
        });
    }
    let outcomes: Vec<Result<()>> = writing.join_all().await;
    outcomes.into_iter().collect::<Result<Vec<()>>>()?;
    for product in written {
        let history = store.price_changes(&product.product_id, 100).await?;
        assert_eq!(history.len(), 20);
        let mut pairs = history.iter().zip(history.iter().skip(1));
        let linked = pairs.all(|(newer, older)| newer.old_list_price == older.new_list_price);
        assert!(linked, "each price follows the one before it: {history:?}");
    }
    Ok(())
}

async fn a_removed_products_revisions_are_not_given_to_its_successor(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    let mut last = 0;
    for _ in 0..3 {
        let mut transaction = store.begin().await?;
        transaction.put_products(ProductRows::of(std::slice::from_ref(&kettle))?, now()).await?;
        let drawn = transaction.next_revisions(2).await?;
        let [written, removed] = drawn[..] else {
            bail!("{drawn:?} are not two");
        };
        assert!(last < written && written < removed, "{drawn:?} after {last}");
        transaction
            .write_prices(store.prepare_prices(vec![price_write(&kettle, written, "49.90")?])?)
            .await?;
        transaction.delete_product(&kettle.product_id, removed, "test", now()).await?;
        transaction.commit().await?;
        last = removed;
    }
    assert_eq!(store.price_changes(&kettle.product_id, 10).await?.len(), 6);
    Ok(())
}

/// The database holds this by triggers, as a foreign key is too slow; so it also holds for products removed
/// by hand.
#[tokio::test]
async fn postgres_keeps_prices_and_products_together() -> Result<()> {
    let name = "postgres_keeps_prices_and_products_together";
    let store = super::postgres(name).await?;
    let pair = products(["P-1".to_owned(), "P-2".to_owned()])?;
    put(&store, &pair).await?;
    for (product, revision) in pair.iter().zip(1..) {
        write(&store, &[price_write(product, revision, "50.00")?]).await?;
    }
    let server = shared_postgres().await?;
    for statement in [
        "UPDATE products SET product_id = 'P-3' WHERE product_id = 'P-1'",
        "UPDATE prices SET product_id = 'P-3' WHERE product_id = 'P-1'",
        "TRUNCATE products",
    ] {
        let error = server.execute(name, statement).await.unwrap_err();
        assert!(format!("{error:#}").contains("would part prices from their products"), "{error:#}");
    }
    server.execute(name, "DELETE FROM products WHERE product_id = 'P-1'").await?;
    let priced = server.execute(name, "SELECT product_id FROM prices").await?;
    assert_eq!(priced.trim(), "P-2");
    Ok(())
}
