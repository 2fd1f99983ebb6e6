//! The history of a price has every change once, and nothing else.

use anyhow::{Result, bail};
use pricing_core::store::{MAX_CAUSE_CHARS, Store, StoreSettings};
use rust_decimal::Decimal;
use sqlx::Connection;

use super::{digits, now, on_both_stores, price_write, product, put, sqlite_url, write};
use crate::support::shared_postgres;

on_both_stores!(
    a_change_of_price_is_in_the_history_with_every_field,
    a_price_that_did_not_change_is_not_in_the_history,
    a_change_written_twice_is_in_the_history_once,
    history_is_read_newest_first_and_no_more_than_asked_for,
    a_cause_that_is_too_long_is_cut_between_characters,
    the_newest_change_of_each_product_is_found,
);

const TAMPERING: [&str; 2] = ["UPDATE price_changes SET cause = ''", "DELETE FROM price_changes"];

async fn a_change_of_price_is_in_the_history_with_every_field(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let mut change = price_write(&kettle, 3, "49.90")?;
    change.previous_list_price = Some(Decimal::from_str_exact("50.00")?);
    change.entry.policy_version = 7;
    change.cause = "évènement \"4711\"".to_owned();
    write(store, std::slice::from_ref(&change)).await?;

    let history = store.price_changes(&kettle.product_id, 10).await?;
    let [read] = history.as_slice() else {
        bail!("{history:?} is not one change");
    };
    assert_eq!((read.revision, &read.product_id), (3, &kettle.product_id));
    assert_eq!(digits(&read.old_list_price), "Some(50.00)");
    assert_eq!(digits(&read.new_list_price), "Some(49.90)");
    assert_eq!((&*read.currency, read.policy_version), (kettle.currency.code(), 7));
    assert_eq!((&read.cause, read.changed_at), (&change.cause, now()));
    Ok(())
}

async fn a_price_that_did_not_change_is_not_in_the_history(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    write(store, &[price_write(&kettle, 1, "50.00")?]).await?;
    let mut same = price_write(&kettle, 2, "50.00")?;
    same.previous_list_price = Some(Decimal::from(50));
    write(store, &[same]).await?;
    let read = store.stored_price(&kettle.product_id).await?;
    assert_eq!(read.map(|price| price.entry.revision), Some(2));
    assert_eq!(store.price_changes(&kettle.product_id, 10).await?.len(), 1);
    Ok(())
}

async fn a_change_written_twice_is_in_the_history_once(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    for _ in 0..2 {
        write(store, &[price_write(&kettle, 1, "50.00")?]).await?;
    }
    assert_eq!(store.price_changes(&kettle.product_id, 10).await?.len(), 1);
    Ok(())
}

async fn history_is_read_newest_first_and_no_more_than_asked_for(store: &Store) -> Result<()> {
    let (kettle, other) = (product("P-1")?, product("P-2")?);
    put(store, &[kettle.clone(), other.clone()]).await?;
    for revision in 1..=12 {
        let written =
            [&kettle, &other].map(|product| price_write(product, revision, &format!("{revision}.00")));
        write(store, &written.into_iter().collect::<Result<Vec<_>>>()?).await?;
    }
    let history = store.price_changes(&kettle.product_id, 3).await?;
    assert!(history.iter().map(|change| change.revision).eq([12, 11, 10]), "{history:?}");
    assert!(history.iter().all(|change| change.product_id == kettle.product_id), "{history:?}");
    Ok(())
}

async fn a_cause_that_is_too_long_is_cut_between_characters(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let mut change = price_write(&kettle, 1, "49.90")?;
    change.cause = "漢".repeat(MAX_CAUSE_CHARS + 1);
    write(store, &[change]).await?;
    let history = store.price_changes(&kettle.product_id, 1).await?;
    assert!(history.iter().all(|change| change.cause == "漢".repeat(MAX_CAUSE_CHARS)), "{history:?}");
    Ok(())
}

async fn the_newest_change_of_each_product_is_found(store: &Store) -> Result<()> {
    let written = ["P-1", "P-2", "P-3", "P-4"].map(product).into_iter().collect::<Result<Vec<_>>>()?;
    put(store, &written).await?;
    let [first, second, third, unpriced] = written.as_slice() else {
        bail!("{written:?} are not four");
    };
    for (product, revision, price) in [
        (first, 9, "9.00"),
        (first, 10, "10.00"),
        (second, 11, "11.00"),
        (third, 12, "12.00"),
        (first, 13, "9.90"),
    ] {
        write(store, &[price_write(product, revision, price)?]).await?;
    }
    let ids = [second, first, unpriced, second].map(|product| product.product_id.clone());
    let newest = store.newest_changes(&ids).await?;
    let prices: Vec<_> = newest.iter().map(|change| (change.revision, change.product_id.as_str())).collect();
    assert_eq!(prices, [(13, "P-1"), (11, "P-2")]);
    for change in &newest {
        assert_eq!(store.price_changes(&change.product_id, 1).await?, std::slice::from_ref(change));
    }
    assert_eq!(store.newest_changes(&[]).await?, []);
    Ok(())
}

#[tokio::test]
async fn sqlite_refuses_to_change_history() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let url = sqlite_url(&directory);
    let store = Store::open(&url, StoreSettings::default()).await?;
    put(&store, &[product("P-1")?]).await?;
    write(&store, &[price_write(&product("P-1")?, 1, "50.00")?]).await?;
    let mut connection = sqlx::SqliteConnection::connect(&url).await?;
    for statement in TAMPERING {
        let error = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("price_changes is append-only"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn postgres_refuses_to_change_history() -> Result<()> {
    let name = "postgres_refuses_to_change_history";
    let store = super::postgres(name).await?;
    put(&store, &[product("P-1")?]).await?;
    write(&store, &[price_write(&product("P-1")?, 1, "50.00")?]).await?;
    for statement in TAMPERING.into_iter().chain(["TRUNCATE price_changes"]) {
        let error = shared_postgres().await?.execute(name, statement).await.unwrap_err();
        assert!(format!("{error:#}").contains("price_changes is append-only"), "{error:#}");
    }
    Ok(())
}
