//! Moves by market events: counted within a window, one transaction at a time, and held with the facts that
//! the product keeps being priced by.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::TimeDelta;
use pricing_core::store::{EventHold, PriceWrite, Store};
use pricing_domain::facts::movement::{KnownFacts, Movement};
use pricing_domain::facts::product::Product;
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use pricing_domain::pricing::event_move::EventMove;
use rust_decimal::Decimal;
use tokio::time::timeout;

use super::{digits, now, on_both_stores, price_write, product, product_id, products, put, write};

on_both_stores!(
    a_count_comes_back_with_every_digit,
    moves_beyond_a_distance_count_within_the_window,
    counts_go_with_their_products_and_when_they_are_old,
    who_counts_waits_for_who_counts_already,
    a_product_with_a_held_move_has_the_facts_of_its_last_pricing,
    held_moves_are_listed_until_they_are_rejected,
    a_count_of_products_ends_at_its_limit,
);

fn by_events(before: &str, after: &str, minutes_ago: i64) -> Result<EventMove> {
    Ok(EventMove {
        list_price_before: Decimal::from_str_exact(before)?,
        list_price: Decimal::from_str_exact(after)?,
        moved_at: now() - TimeDelta::minutes(minutes_ago),
    })
}

async fn put_moves(store: &Store, moves: &[(&str, EventMove)]) -> Result<()> {
    let named = moves.iter().map(|(id, by_events)| Ok((product_id(id)?, *by_events)));
    let mut transaction = store.begin().await?;
    transaction.put_event_moves(&named.collect::<Result<Vec<_>>>()?).await?;
    Ok(transaction.commit().await?)
}

async fn count(store: &Store, by_millionths: i64, minutes: i64) -> Result<u64> {
    let since = now() - TimeDelta::minutes(minutes);
    Ok(store.begin().await?.count_event_moves(by_millionths, since).await?)
}

async fn a_count_comes_back_with_every_digit(store: &Store) -> Result<()> {
    put(store, &products(["A".to_owned(), "B".to_owned()])?).await?;
    put_moves(store, &[("A", by_events("1.00", "2.00", 9)?)]).await?;
    let last = by_events("66.66666666666666666666666667", "0.70", 1)?;
    put_moves(store, &[("A", last), ("B", by_events("70.00", "71.00", 60)?)]).await?;
    let ids = [product_id("A")?, product_id("B")?];
    let since = now() - TimeDelta::minutes(60);
    let mut known = store.begin().await?.event_moves(&ids, since).await?;
    assert_eq!(digits(&known.remove(&ids[0])), digits(&Some(last)));
    assert!(known.is_empty(), "what began at the beginning of the window does not count: {known:?}");
    Ok(())
}

async fn moves_beyond_a_distance_count_within_the_window(store: &Store) -> Result<()> {
    put(store, &products(["A", "B", "C", "D"].map(str::to_owned))?).await?;
    let moves = [
        ("A", by_events("70.00", "0.70", 59)?),
        ("B", by_events("70.00", "63.00", 1)?),
        ("C", by_events("70.00", "77.01", 1)?),
        ("D", by_events("70.00", "0.70", 61)?),
    ];
    put_moves(store, &moves).await?;
    for (by_millionths, minutes, counted) in
        [(100_000, 60, 2), (100_000, 30, 1), (99_999, 30, 2), (200_000, 60, 1), (990_000, 60, 0)]
    {
        assert_eq!(count(store, by_millionths, minutes).await?, counted, "{by_millionths} {minutes}");
    }
    Ok(())
}

async fn counts_go_with_their_products_and_when_they_are_old(store: &Store) -> Result<()> {
    put(store, &products(["A", "B", "C", "D"].map(str::to_owned))?).await?;
    let moves = ["A", "B", "C", "D"].into_iter().zip([10, 20, 30, 40]);
    let moves = moves.map(|(id, minutes)| Ok((id, by_events("70.00", "0.70", minutes)?)));
    put_moves(store, &moves.collect::<Result<Vec<_>>>()?).await?;
    let mut transaction = store.begin().await?;
    transaction.delete_product(&product_id("A")?, 1, "test", now()).await?;
    transaction.commit().await?;
    assert_eq!(count(store, 0, 60).await?, 3);
    let until = now() - TimeDelta::minutes(30);
    assert_eq!(store.forget_event_moves(until, 1).await?, 1);
    assert_eq!(store.forget_event_moves(until, 9).await?, 1);
    assert_eq!(store.forget_event_moves(until, 9).await?, 0);
    assert_eq!(count(store, 0, 60).await?, 1);
    Ok(())
}

async fn who_counts_waits_for_who_counts_already(store: &Store) -> Result<()> {
    put(store, &products(["A".to_owned()])?).await?;
    let mut first = store.begin().await?;
    first.lock_event_moves().await?;
    let mut second = Box::pin(async {
        let mut second = store.begin().await?;
        second.lock_event_moves().await?;
        second.count_event_moves(0, now() - TimeDelta::hours(1)).await
    });
    assert!(timeout(Duration::from_millis(50), &mut second).await.is_err());
    first.put_event_moves(&[(product_id("A")?, by_events("70.00", "0.70", 0)?)]).await?;
    first.commit().await?;
    assert_eq!(second.await?, 1);
    Ok(())
}

/// A price made by these facts, with a held move.
fn held_price(product: &Product, revision: i64, signals: Signals) -> Result<PriceWrite> {
    let movement = Movement {
        facts: KnownFacts { signals: Cow::Owned(signals), known_at: now() },
        policy_version: 1,
        target: Some(Decimal::from(70)),
        held: None,
        opening_target: None,
        interval: None,
        moved_at: None,
        current_price: Some(Decimal::from(70)),
        position: None,
        product_digest: 0,
        awaited_direction: 0,
        priced_at: now(),
    };
    let hold = EventHold { since: now(), reason: "too far".to_owned(), rejected_by: None };
    let movement = Some(serde_json::to_string(&movement)?);
    Ok(PriceWrite { event_hold: Some(hold), movement, ..price_write(product, revision, "70.00")? })
}

async fn a_product_with_a_held_move_has_the_facts_of_its_last_pricing(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let cost = |value: i64| {
        Signal::new(Subject::Product("P-1".to_owned()), SignalKind::UnitCost, value.into(), now())
    };
    let mut transaction = store.begin().await?;
    transaction.put_signals(&[cost(1)]).await?;
    transaction.commit().await?;
    let before = Signals::of_product([cost(50)], Some(&kettle), now());
    let held = held_price(&kettle, 1, before.clone())?;
    write(store, std::slice::from_ref(&held)).await?;
    let ids = std::slice::from_ref(&kettle.product_id);
    let read = store.facts(ids, now()).await?.known;
    let locked = store.begin().await?.lock_facts(ids).await?.read(now())?.known;
    let decoded = store.begin().await?.facts_of(vec![kettle.clone()]).await?.read(now())?.known;
    for facts in [read, locked, decoded] {
        let facts = facts.first().context("no facts")?;
        assert_eq!(facts.signals, before);
        let other = facts.held.as_ref().context("nothing is held")?;
        assert_eq!(other.signals.unit_cost, Some(Decimal::ONE));
        assert_eq!(Some(&other.hold), held.event_hold.as_ref());
    }
    let let_go = PriceWrite { event_hold: None, ..held_price(&kettle, 2, before)? };
    write(store, &[let_go]).await?;
    let facts = store.facts(ids, now()).await?.known;
    let facts = facts.first().context("no facts")?;
    assert_eq!((&facts.held, facts.signals.unit_cost), (&None, Some(Decimal::ONE)));
    Ok(())
}

async fn held_moves_are_listed_until_they_are_rejected(store: &Store) -> Result<()> {
    let all = products((0..5).map(|number| format!("P-{number}")))?;
    put(store, &all).await?;
    let writes = all.iter().map(|product| held_price(product, 1, Signals::default()));
    let mut writes = writes.collect::<Result<Vec<_>>>()?;
    writes[4].event_hold = None;
    write(store, &writes).await?;
    let rejected = EventHold { since: now(), reason: String::new(), rejected_by: Some("zoe".to_owned()) };
    write(store, &[PriceWrite { event_hold: Some(rejected), ..held_price(&all[0], 2, Signals::default())? }])
        .await?;
    assert_eq!(store.count_held_moves().await?, 3);
    let page = store.held_moves(None, 2).await?;
    assert_eq!(page.count, 3);
    let listed: Vec<&str> = page.moves.iter().map(|held| held.product_id.as_str()).collect();
    assert_eq!(listed, ["P-1", "P-2"]);
    assert_eq!((digits(&page.moves[0].list_price), page.moves[0].since), ("70.00".to_owned(), now()));
    assert_eq!((page.moves[0].reason.as_str(), page.moves[0].currency.as_str()), ("too far", "USD"));
    let rest = store.held_moves(Some("P-2"), 2).await?;
    assert!(rest.moves.iter().map(|held| held.product_id.as_str()).eq(["P-3"]), "{rest:?}");
    Ok(())
}

async fn a_count_of_products_ends_at_its_limit(store: &Store) -> Result<()> {
    put(store, &products((0..5).map(|number| format!("P-{number}")))?).await?;
    let mut transaction = store.begin().await?;
    for (limit, counted) in [(1, 1), (5, 5), (6, 5), (u64::MAX, 5)] {
        assert_eq!(transaction.count_products_up_to(limit).await?, counted, "{limit}");
    }
    Ok(())
}
