//! The newest signal counts, and a product's own before its category's.

use anyhow::Result;
use chrono::TimeDelta;
use pricing_core::store::Store;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use rust_decimal::Decimal;

use super::{digits, now, on_both_stores, product, put};

on_both_stores!(
    an_older_signal_never_replaces_a_newer_one,
    of_two_signals_of_one_instant_the_first_stays,
    within_one_batch_the_newest_signal_counts,
    a_microsecond_makes_a_signal_newer,
    the_values_of_signals_keep_their_digits,
    a_products_own_signals_come_before_its_categorys,
    facts_have_the_signals_that_reading_gives,
    facts_are_those_of_the_named_products_however_many,
    locations_have_their_latest_factor,
    amounts_of_a_product_can_be_forgotten,
    amounts_of_before_a_change_of_currency_do_not_come_back,
    facts_up_to_a_removal_are_dropped_whenever_they_come,
    a_fact_that_was_written_during_a_removal_can_be_dropped,
    a_price_in_another_currency_than_its_product_is_left_out,
    a_withdrawn_fact_is_not_known_until_there_is_a_later_one,
    a_fact_comes_back_with_its_currency_its_end_and_its_source,
);

async fn amounts_of_a_product_can_be_forgotten(store: &Store) -> Result<()> {
    let of = |id: &str| Subject::Product(id.to_owned());
    let signals = [
        competitor(of("P-1"), "acme", "41.90")?,
        own(SignalKind::UnitCost, "20", 0)?,
        own(SignalKind::StockLevel, "7", 0)?,
        competitor(of("P-2"), "acme", "41.90")?,
    ];
    put_signals(store, &signals).await?;
    let mut transaction = store.begin().await?;
    let yen = Currency::from_code("JPY")?;
    transaction.forget_amounts(&[(ProductId::parse("P-1")?, yen)], now()).await?;
    transaction.commit().await?;
    let left = read(store).await?;
    assert_eq!((left.competitor_prices.len(), left.unit_cost), (0, None));
    assert_eq!(digits(&left.stock_level), "Some(7)");
    let other = store.signals(&ProductId::parse("P-2")?, now()).await?;
    assert_eq!(other.competitor_prices.len(), 1);
    Ok(())
}

async fn amounts_of_before_a_change_of_currency_do_not_come_back(store: &Store) -> Result<()> {
    let yen = Currency::from_code("JPY")?;
    let mut transaction = store.begin().await?;
    transaction.forget_amounts(&[(ProductId::parse("P-1")?, yen)], now()).await?;
    transaction.commit().await?;
    let of = || Subject::Product("P-1".to_owned());
    let late = [
        competitor(of(), "late", "41")?,
        own(SignalKind::UnitCost, "20", 0)?,
        own(SignalKind::StockLevel, "7", 0)?,
        Signal { currency: Some(yen), ..competitor(of(), "yen", "4100")? },
        Signal { observed_at: now() + TimeDelta::microseconds(1), ..competitor(of(), "later", "42")? },
    ];
    assert_eq!(put_signals(store, &late).await?, 3);
    let known = read(store).await?;
    assert_eq!(names(&known), ["later", "yen"]);
    assert_eq!((digits(&known.stock_level), known.unit_cost), ("Some(7)".to_owned(), None));
    let ids = [ProductId::parse("P-1")?, ProductId::parse("P-2")?];
    let last = store.begin().await?.last_currencies(&ids).await?;
    assert_eq!(last.into_iter().collect::<Vec<_>>(), [(ids[0].clone(), Some(yen))]);
    Ok(())
}

async fn facts_up_to_a_removal_are_dropped_whenever_they_come(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    put_signals(store, &[own(SignalKind::StockLevel, "7", 0)?, own(SignalKind::UnitCost, "20", 2)?]).await?;
    let removed_at = now() + TimeDelta::microseconds(1);
    let mut transaction = store.begin().await?;
    transaction.delete_product(&kettle.product_id, 1, "test", removed_at).await?;
    transaction.commit().await?;
    let left = read(store).await?;
    assert_eq!((left.stock_level, digits(&left.unit_cost)), (None, "Some(20)".to_owned()));
    // Of the very instant of the removal, and before; and a category's, which is not about the product.
    let late = [
        own(SignalKind::StockLevel, "8", 1)?,
        own(SignalKind::DemandIndex, "2", 0)?,
        own(SignalKind::UnitsSold, "3", 2)?,
        signal(Subject::Category("P-1".to_owned()), SignalKind::DemandIndex, "4", 0)?,
    ];
    assert_eq!(put_signals(store, &late).await?, 2);
    put(store, std::slice::from_ref(&kettle)).await?;
    let known = read(store).await?;
    assert_eq!((known.stock_level, known.demand_index), (None, None));
    assert_eq!(digits(&known.units_sold), "Some(3)");
    Ok(())
}

async fn a_fact_that_was_written_during_a_removal_can_be_dropped(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    let mut transaction = store.begin().await?;
    transaction.delete_product(&kettle.product_id, 1, "test", now()).await?;
    transaction.commit().await?;
    let later = own(SignalKind::StockLevel, "7", 1)?;
    put_signals(store, &[later]).await?;
    let mut transaction = store.begin().await?;
    transaction.drop_forgotten(std::slice::from_ref(&kettle.product_id)).await?;
    transaction.commit().await?;
    assert_eq!(digits(&read(store).await?.stock_level), "Some(7)", "a later one stays");
    Ok(())
}

async fn a_price_in_another_currency_than_its_product_is_left_out(store: &Store) -> Result<()> {
    put(store, &[product("P-1")?]).await?;
    let of = |id: &str| Subject::Product(id.to_owned());
    let said = |id: &str, name: &str, code| {
        Ok::<_, anyhow::Error>(Signal {
            currency: Some(Currency::from_code(code)?),
            ..competitor(of(id), name, "41")?
        })
    };
    let batch = [said("P-1", "euro", "EUR")?, said("P-1", "dollar", "USD")?, said("P-2", "euro", "EUR")?];
    assert_eq!(put_signals(store, &batch).await?, 2);
    assert_eq!(names(&read(store).await?), ["dollar"]);
    // What was said before the product came is in its currency or does not count.
    put(store, &[product("P-2")?]).await?;
    assert_eq!(names(&store.signals(&ProductId::parse("P-2")?, now()).await?), Vec::<&str>::new());
    Ok(())
}

async fn a_withdrawn_fact_is_not_known_until_there_is_a_later_one(store: &Store) -> Result<()> {
    put_signals(store, &[own(SignalKind::StockLevel, "7", 0)?]).await?;
    let withdrawn = own(SignalKind::StockLevel, "0", 2)?;
    let withdrawn = Signal { expires_at: Some(withdrawn.observed_at), ..withdrawn };
    assert_eq!(put_signals(store, &[withdrawn]).await?, 1);
    let then = now() + TimeDelta::seconds(1);
    let id = ProductId::parse("P-1")?;
    assert_eq!(store.signals(&id, then).await?.stock_level, None);
    assert_eq!(put_signals(store, &[own(SignalKind::StockLevel, "8", 1)?]).await?, 0);
    assert_eq!(put_signals(store, &[own(SignalKind::StockLevel, "9", 3)?]).await?, 1);
    assert_eq!(digits(&store.signals(&id, then).await?.stock_level), "Some(9)");
    Ok(())
}

async fn a_fact_comes_back_with_its_currency_its_end_and_its_source(store: &Store) -> Result<()> {
    put(store, &[product("P-1")?]).await?;
    let written = Signal {
        currency: Some(Currency::from_code("USD")?),
        expires_at: Some(now() + TimeDelta::microseconds(1)),
        event_source: Some("/feeds/größer".to_owned()),
        ..competitor(Subject::Product("P-1".to_owned()), "acme", "41.90")?
    };
    put_signals(store, std::slice::from_ref(&written)).await?;
    let expected = Signals::of_product([written], None, now());
    assert_eq!(expected.next_expiry(now()), Some(now() + TimeDelta::microseconds(1)));
    assert_eq!(digits(&read(store).await?), digits(&expected));
    let ids = [ProductId::parse("P-1")?];
    let facts = store.facts(&ids, now()).await?;
    assert!(facts.known.iter().all(|facts| facts.signals == expected), "{facts:?}");
    let gone = store.facts(&ids, now() + TimeDelta::microseconds(1)).await?;
    assert!(gone.known.iter().all(|facts| facts.signals == Signals::default()), "{gone:?}");
    Ok(())
}

fn names(signals: &Signals) -> Vec<&str> {
    signals.competitor_prices.iter().map(|known| known.competitor.as_str()).collect()
}

fn signal(subject: Subject, kind: SignalKind, value: &str, microseconds: i64) -> Result<Signal> {
    let observed_at = now() + TimeDelta::microseconds(microseconds);
    Ok(Signal {
        in_stock: (kind == SignalKind::CompetitorPrice).then_some(false),
        ..Signal::new(subject, kind, Decimal::from_str_exact(value)?, observed_at)
    })
}

fn own(kind: SignalKind, value: &str, microseconds: i64) -> Result<Signal> {
    signal(Subject::Product("P-1".to_owned()), kind, value, microseconds)
}

fn competitor(subject: Subject, name: &str, price: &str) -> Result<Signal> {
    let mut signal = signal(subject, SignalKind::CompetitorPrice, price, 0)?;
    signal.source = name.to_owned();
    Ok(signal)
}

async fn put_signals(store: &Store, signals: &[Signal]) -> Result<u64> {
    let mut transaction = store.begin().await?;
    let accepted = transaction.put_signals(signals).await?;
    transaction.commit().await?;
    Ok(accepted)
}

async fn read(store: &Store) -> Result<Signals> {
    Ok(store.signals(&ProductId::parse("P-1")?, now()).await?)
}

async fn an_older_signal_never_replaces_a_newer_one(store: &Store) -> Result<()> {
    assert_eq!(put_signals(store, &[own(SignalKind::StockLevel, "7", 2_000_000)?]).await?, 1);
    assert_eq!(put_signals(store, &[own(SignalKind::StockLevel, "9", 1_000_000)?]).await?, 0);
    assert_eq!(digits(&read(store).await?.stock_level), "Some(7)");
    assert_eq!(put_signals(store, &[own(SignalKind::StockLevel, "5", 3_000_000)?]).await?, 1);
    assert_eq!(digits(&read(store).await?.stock_level), "Some(5)");
    Ok(())
}

async fn of_two_signals_of_one_instant_the_first_stays(store: &Store) -> Result<()> {
    let first = own(SignalKind::StockLevel, "7", 0)?;
    let second = own(SignalKind::StockLevel, "9", 0)?;
    assert_eq!(put_signals(store, &[first, second.clone()]).await?, 1);
    assert_eq!(put_signals(store, &[second]).await?, 0);
    assert_eq!(digits(&read(store).await?.stock_level), "Some(7)");
    Ok(())
}

async fn within_one_batch_the_newest_signal_counts(store: &Store) -> Result<()> {
    let batch = [
        own(SignalKind::StockLevel, "1", 1)?,
        own(SignalKind::StockLevel, "3", 3)?,
        own(SignalKind::StockLevel, "2", 2)?,
    ];
    assert_eq!(put_signals(store, &batch).await?, 1);
    assert_eq!(digits(&read(store).await?.stock_level), "Some(3)");
    Ok(())
}

async fn a_microsecond_makes_a_signal_newer(store: &Store) -> Result<()> {
    // On both sides of a full second, where a text without its zeros would sort wrongly.
    for microseconds in [876_543, 876_544, 876_545, 976_544, 1_876_544] {
        let newer = own(SignalKind::StockLevel, &microseconds.to_string(), microseconds)?;
        assert_eq!(put_signals(store, std::slice::from_ref(&newer)).await?, 1);
        assert_eq!(read(store).await?.stock_level, Some(newer.value));
    }
    Ok(())
}

async fn the_values_of_signals_keep_their_digits(store: &Store) -> Result<()> {
    let batch = [
        own(SignalKind::StockLevel, "0", 0)?,
        own(SignalKind::DemandIndex, "0.0000000000000000000000000001", 0)?,
        own(SignalKind::UnitCost, "12.345600", 0)?,
        competitor(Subject::Product("P-1".to_owned()), "Größer & Co", "0.00")?,
        competitor(Subject::Product("P-1".to_owned()), "a", "79228162514264337593543950335")?,
        competitor(Subject::Product("P-1".to_owned()), "b", "12345678901234567.890123456789")?,
    ];
    assert_eq!(put_signals(store, &batch).await?, 6);
    let expected = Signals::of_product(batch, None, now());
    assert_eq!(digits(&read(store).await?), digits(&expected));
    Ok(())
}

async fn a_products_own_signals_come_before_its_categorys(store: &Store) -> Result<()> {
    put(store, &[product("P-1")?]).await?;
    let category = || Subject::Category("kitchen".to_owned());
    let batch = [
        own(SignalKind::StockLevel, "7", 0)?,
        signal(category(), SignalKind::StockLevel, "100", 9)?,
        signal(category(), SignalKind::DemandIndex, "1.5", 0)?,
        signal(Subject::Category("garden".to_owned()), SignalKind::UnitCost, "1", 0)?,
        signal(Subject::Product("P-2".to_owned()), SignalKind::UnitCost, "2", 0)?,
        competitor(category(), "Acme", "10.00")?,
        competitor(category(), "Best", "20.00")?,
        competitor(Subject::Product("P-1".to_owned()), "Best", "19.00")?,
    ];
    assert_eq!(put_signals(store, &batch).await?, 8);
    let signals = read(store).await?;
    assert_eq!(digits(&signals.stock_level), "Some(7)");
    assert_eq!(digits(&signals.demand_index), "Some(1.5)");
    assert_eq!(signals.unit_cost, None);
    let prices: Vec<_> = signals
        .competitor_prices
        .iter()
        .map(|known| format!("{} {}", known.competitor, known.price))
        .collect();
    assert_eq!(prices, ["Acme 10.00", "Best 19.00"]);
    Ok(())
}

async fn facts_have_the_signals_that_reading_gives(store: &Store) -> Result<()> {
    let mut plain = product("P-3")?;
    plain.category = None;
    let products = [product("P-1")?, product("P-2")?, plain];
    put(store, &products).await?;
    let batch = [
        own(SignalKind::StockLevel, "7", 0)?,
        signal(Subject::Category("kitchen".to_owned()), SignalKind::StockLevel, "100", 9)?,
        signal(Subject::Product("P-3".to_owned()), SignalKind::DemandIndex, "1.10", 0)?,
    ];
    put_signals(store, &batch).await?;
    let ids = products.map(|product| product.product_id);
    let facts = store.begin().await?.lock_facts(&ids).await?.read(now())?.known;
    assert_eq!(facts.len(), 3);
    for facts in facts {
        let read = store.signals(&facts.product.product_id, now()).await?;
        assert_ne!(read, Signals::default());
        assert_eq!(digits(&facts.signals), digits(&read));
    }
    Ok(())
}

/// Few and many, side by side and apart, with some that do not exist; in each case another way of reading may
/// be taken.
async fn facts_are_those_of_the_named_products_however_many(store: &Store) -> Result<()> {
    let id = |number: usize| ProductId::parse(&format!("P-{number:03}"));
    let mut products = Vec::new();
    for number in (0..300).filter(|number| number % 100 != 50) {
        let mut product = product(id(number)?.as_str())?;
        product.category = (number % 3 > 0).then(|| format!("category-{}", number % 3));
        products.push(product);
    }
    put(store, &products).await?;
    let of_category = |number: usize| Subject::Category(format!("category-{number}"));
    let mut batch = vec![signal(of_category(1), SignalKind::DemandIndex, "1.5", 0)?];
    batch.push(signal(of_category(9), SignalKind::DemandIndex, "9", 0)?);
    for number in (0..310).step_by(7) {
        let subject = Subject::Product(id(number)?.as_str().to_owned());
        batch.push(signal(subject, SignalKind::StockLevel, &number.to_string(), 0)?);
    }
    put_signals(store, &batch).await?;
    let numbers: [Vec<usize>; 7] = [
        vec![1, 7, 8],
        (100..110).collect(),
        (60..140).collect(),
        (0..300).collect(),
        (0..300).step_by(3).collect(),
        // As many as there are products from the first to the last of them: one is not there, and one there
        // is not named.
        (20..100).filter(|number| *number != 70).collect(),
        (0..99).map(|number| 400 + number).collect(),
    ];
    for numbers in numbers {
        let ids = numbers.iter().map(|number| id(*number)).collect::<Result<Vec<_>, _>>()?;
        let expected: Vec<_> = products.iter().filter(|product| ids.contains(&product.product_id)).collect();
        let mut transaction = store.begin().await?;
        let locked = transaction.lock_products(&ids).await?;
        assert!(locked.known.iter().eq(expected.iter().copied()), "{numbers:?}");
        let facts = transaction.lock_facts(&ids).await?.read(now())?.known;
        assert!(facts.iter().map(|facts| &facts.product).eq(expected), "{numbers:?}");
        assert_eq!(store.facts(&ids, now()).await?.known, facts);
        for facts in facts.iter().step_by(5) {
            let read = store.signals(&facts.product.product_id, now()).await?;
            assert_eq!(digits(&facts.signals), digits(&read), "{:?}", facts.product.product_id);
        }
    }
    Ok(())
}

async fn locations_have_their_latest_factor(store: &Store) -> Result<()> {
    let factor = |location: &str, value, microseconds| {
        signal(Subject::Location(location.to_owned()), SignalKind::LocationFactor, value, microseconds)
    };
    put_signals(store, &[factor("NY", "1.10", 0)?, factor("LA", "0.95", 0)?]).await?;
    let mut elsewhere = factor("NY", "1.20", 1)?;
    elsewhere.source = "another".to_owned();
    put_signals(store, &[elsewhere]).await?;
    let factors = store.location_factors().await?;
    assert_eq!(factors.len(), 2);
    assert_eq!(digits(&factors.get("NY")), "Some(1.20)");
    assert_eq!(digits(&factors.get("LA")), "Some(0.95)");
    Ok(())
}
