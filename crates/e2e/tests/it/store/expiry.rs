//! Expired prices are found, and only these. Prices are counted by what holds them back.

use anyhow::Result;
use chrono::TimeDelta;
use pricing_core::store::{PriceWrite, Store};

use super::{now, on_both_stores, price_write, product, product_id, put, write};

on_both_stores!(
    expired_prices_come_oldest_first_and_no_more_than_asked_for,
    the_next_expiry_is_the_first_of_all,
    a_renewed_price_is_not_expired,
    prices_are_counted_by_what_holds_them_back,
);

/// Puts products with prices that end so many microseconds from now.
async fn put_expiring(store: &Store, ends: &[(&str, Option<i64>)]) -> Result<()> {
    let mut writes = Vec::new();
    for ((id, end), revision) in ends.iter().zip(1..) {
        let product = product(id)?;
        put(store, std::slice::from_ref(&product)).await?;
        let mut price = price_write(&product, revision, "49.90")?;
        price.entry.valid_until = end.map(|end| now() + TimeDelta::microseconds(end));
        writes.push(price);
    }
    write(store, &writes).await
}

async fn expired_prices_come_oldest_first_and_no_more_than_asked_for(store: &Store) -> Result<()> {
    let ends =
        [("A", Some(0)), ("B", None), ("C", Some(-9)), ("D", Some(1)), ("E", Some(-1)), ("F", Some(-9))];
    put_expiring(store, &ends).await?;
    put(store, &[product("G")?]).await?;
    let expected = [product_id("C")?, product_id("F")?, product_id("E")?, product_id("A")?];
    assert_eq!(store.expired_prices(now(), 10).await?, expected);
    assert_eq!(store.expired_prices(now(), 2).await?, expected[..2]);
    assert_eq!(store.expired_prices(now() - TimeDelta::seconds(1), 10).await?, []);
    Ok(())
}

async fn the_next_expiry_is_the_first_of_all(store: &Store) -> Result<()> {
    assert_eq!(store.next_expiry().await?, None);
    put_expiring(store, &[("A", None)]).await?;
    assert_eq!(store.next_expiry().await?, None);
    put_expiring(store, &[("B", Some(7)), ("C", Some(3)), ("D", Some(5))]).await?;
    assert_eq!(store.next_expiry().await?, Some(now() + TimeDelta::microseconds(3)));
    Ok(())
}

async fn a_renewed_price_is_not_expired(store: &Store) -> Result<()> {
    put_expiring(store, &[("A", Some(-5))]).await?;
    let mut renewed = price_write(&product("A")?, 2, "49.90")?;
    renewed.entry.valid_until = Some(now() + TimeDelta::hours(1));
    write(store, &[renewed]).await?;
    assert_eq!(store.expired_prices(now(), 10).await?, []);
    Ok(())
}

async fn prices_are_counted_by_what_holds_them_back(store: &Store) -> Result<()> {
    assert!(store.count_held_prices().await?.is_empty());
    let held = [("A", Some("max_step")), ("B", None), ("C", Some("frozen")), ("D", Some("max_step"))];
    let mut writes = Vec::new();
    for ((id, held_by), revision) in held.into_iter().zip(1..) {
        let product = product(id)?;
        put(store, std::slice::from_ref(&product)).await?;
        writes.push(PriceWrite { held_by, ..price_write(&product, revision, "49.90")? });
    }
    write(store, &writes).await?;
    let counted: Vec<(String, u64)> = store.count_held_prices().await?.into_iter().collect();
    assert_eq!(counted, [("frozen".to_owned(), 1), ("max_step".to_owned(), 2)]);
    let released = PriceWrite { held_by: None, ..price_write(&product("C")?, 9, "59.90")? };
    write(store, &[released]).await?;
    assert_eq!(store.count_held_prices().await?.into_keys().collect::<Vec<_>>(), ["max_step"]);
    Ok(())
}
