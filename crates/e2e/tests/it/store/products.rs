//! Products come back as they were put, and are found in order.

use anyhow::Result;
use chrono::TimeDelta;
use pricing_core::store::{ProductRows, Store};

use super::{checked, digits, now, on_both_stores, product, product_id, products, put};

on_both_stores!(
    a_product_comes_back_with_every_field_and_digit,
    amounts_keep_the_decimal_places_of_their_currency,
    what_is_not_there_is_none,
    putting_a_product_again_replaces_it,
    of_two_products_with_one_identifier_the_later_is_kept,
    thousands_of_products_are_put_at_once,
    nothing_is_put_for_no_products,
    identifiers_are_paged_in_the_order_of_their_bytes,
    a_category_is_paged_and_counted_without_other_products,
    a_range_of_identifiers_has_its_end_and_not_its_beginning,
    a_removed_product_is_gone_but_its_history_stays,
    the_sellers_word_on_a_cost_has_an_instant,
);

async fn a_product_comes_back_with_every_field_and_digit(store: &Store) -> Result<()> {
    let attributes: Vec<String> =
        (0..32).map(|number| format!(r#""größe {number}":"“{number}\" \\ 漢字 🫖""#)).collect();
    let written = checked(&format!(
        r#"{{"product_id":"A-Z_1.2:3/4#5+6@7~8!","name":"Théière ' \" \\ % 🫖","category":"кухня","brand":"O'Neil",
            "currency":"EUR","base_price":49.90,"unit_cost":"0.000001","floor_price":0.10,
            "ceiling_price":999999999999.99,"attributes":{{{}}}}}"#,
        attributes.join(",")
    ))?;
    put(store, std::slice::from_ref(&written)).await?;
    let read = store.product(&written.product_id).await?;
    assert_eq!(read.as_ref().map(|read| read.attributes.len()), Some(32));
    assert_eq!(digits(&read), digits(&Some(written)));
    Ok(())
}

async fn the_sellers_word_on_a_cost_has_an_instant(store: &Store) -> Result<()> {
    let later = |seconds| now() + TimeDelta::seconds(seconds);
    let costly = |cost: &str| {
        checked(&format!(r#"{{"product_id":"P-1","currency":"USD","base_price":50,"unit_cost":{cost}}}"#))
    };
    let stated_at = async || {
        let ids = [product_id("P-1")?];
        let product = store.product(&ids[0]).await?;
        let locked = store.begin().await?.lock_products(&ids).await?;
        let facts = store.facts(&ids, now()).await?;
        let instants = [
            product.and_then(|product| product.cost_stated_at),
            locked.known.first().and_then(|product| product.cost_stated_at),
            facts.known.first().and_then(|facts| facts.product.cost_stated_at),
        ];
        assert_eq!([instants[0]; 3], instants);
        anyhow::Ok(instants[0])
    };
    put(store, &[costly("30")?.stated_at(later(1))]).await?;
    assert_eq!(stated_at().await?, Some(later(1)));
    put(store, &[costly("null")?.stated_at(later(2))]).await?;
    assert_eq!(stated_at().await?, Some(later(1)), "a row without a cost says nothing about it");
    put(store, &[costly("0")?.stated_at(later(3))]).await?;
    assert_eq!(stated_at().await?, Some(later(1)), "nor does a cost of 0");
    put(store, &[costly("30")?.stated_at(later(4))]).await?;
    for (again, expected) in [(5, 5), (3, 5)] {
        let mut transaction = store.begin().await?;
        transaction.state_costs(&["P-0", "P-1"], later(again)).await?;
        transaction.commit().await?;
        assert_eq!(stated_at().await?, Some(later(expected)), "{again}");
    }
    put(store, &[costly("31")?.stated_at(later(3))]).await?;
    assert_eq!(stated_at().await?, Some(later(5)), "a request that began earlier is no later word");
    Ok(())
}

async fn amounts_keep_the_decimal_places_of_their_currency(store: &Store) -> Result<()> {
    let mut written = Vec::new();
    for (currency, price) in [("JPY", "1200"), ("USD", "50.00"), ("BHD", "1.500"), ("CLF", "1.0000")] {
        let product = checked(&format!(
            r#"{{"product_id":"{currency}","currency":"{currency}","base_price":{price},"floor_price":{price}}}"#
        ))?;
        assert_eq!(product.base_price.to_string(), price);
        written.push(product);
    }
    put(store, &written).await?;
    for product in written {
        assert_eq!(digits(&store.product(&product.product_id).await?), digits(&Some(product)));
    }
    Ok(())
}

async fn what_is_not_there_is_none(store: &Store) -> Result<()> {
    let absent = product_id("absent")?;
    assert_eq!(store.product(&absent).await?, None);
    assert_eq!(store.stored_price(&absent).await?, None);
    assert_eq!(store.explanation(&absent).await?, None);
    assert_eq!(store.price_changes(&absent, 10).await?, []);
    assert_eq!(store.signals(&absent, now()).await?, Default::default());
    assert_eq!(store.product_ids(None, 10).await?, []);
    assert_eq!(store.count_products().await?, 0);
    assert!(store.location_factors().await?.is_empty());
    assert_eq!(store.latest_policies(10).await?, []);

    let mut transaction = store.begin().await?;
    assert_eq!(transaction.lock_products(std::slice::from_ref(&absent)).await?.known, []);
    assert_eq!(transaction.lock_facts(std::slice::from_ref(&absent)).await?.read(now())?.known, []);
    assert!(!transaction.delete_product(&absent, 1, "test", now()).await?);
    Ok(transaction.commit().await?)
}

async fn putting_a_product_again_replaces_it(store: &Store) -> Result<()> {
    let mut kettle = checked(
        r#"{"product_id":"P-1","name":"Kettle","category":"kitchen","brand":"Acme","currency":"USD",
            "base_price":9.90,"unit_cost":4,"floor_price":5,"ceiling_price":20,"attributes":{"colour":"red"}}"#,
    )?;
    put(store, std::slice::from_ref(&kettle)).await?;
    kettle = checked(r#"{"product_id":"P-1","name":"Pot","currency":"JPY","base_price":1200}"#)?;
    put(store, std::slice::from_ref(&kettle)).await?;
    assert_eq!(digits(&store.product(&kettle.product_id).await?), digits(&Some(kettle)));
    assert_eq!(store.count_products().await?, 1);
    Ok(())
}

async fn of_two_products_with_one_identifier_the_later_is_kept(store: &Store) -> Result<()> {
    let first = product("P-1")?;
    let mut second = first.clone();
    second.name = "Pot".to_owned();
    put(store, &[first, second.clone()]).await?;
    assert_eq!(store.product(&second.product_id).await?, Some(second));
    Ok(())
}

async fn thousands_of_products_are_put_at_once(store: &Store) -> Result<()> {
    let written = products((0..2_500).rev().map(|number| format!("P-{number:04}")))?;
    put(store, &written).await?;
    assert_eq!(store.count_products().await?, 2_500);
    let ids: Vec<_> = written.iter().map(|product| product.product_id.clone()).collect();
    let mut transaction = store.begin().await?;
    let locked = transaction.lock_products(&ids).await?;
    assert!(locked.known.iter().eq(written.iter().rev()), "ordered by identifier");
    assert_eq!(transaction.lock_facts(&ids).await?.read(now())?.known.len(), 2_500);
    Ok(())
}

async fn nothing_is_put_for_no_products(store: &Store) -> Result<()> {
    let mut transaction = store.begin().await?;
    transaction.put_products(ProductRows::of(&[])?, now()).await?;
    transaction.write_prices(store.prepare_prices(Vec::new())?).await?;
    assert_eq!(transaction.put_signals(&[]).await?, 0);
    assert_eq!(transaction.next_revisions(0).await?, [0; 0]);
    assert_eq!(transaction.lock_facts(&[]).await?.read(now())?.known, []);
    Ok(transaction.commit().await?)
}

async fn identifiers_are_paged_in_the_order_of_their_bytes(store: &Store) -> Result<()> {
    // A dictionary would put a before B, and pass over the signs.
    let in_order = ["#9", "-a", "/", "A", "B", "P-10", "P-100", "P-2", "P_1", "a", "a!", "a-", "b", "~"];
    put(store, &products(in_order.iter().rev().map(ToString::to_string))?).await?;
    let mut read = Vec::new();
    loop {
        let page = store.product_ids(read.last(), 4).await?;
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert!(read.iter().map(|id| id.as_str()).eq(in_order), "{read:?}");
    Ok(())
}

async fn a_category_is_paged_and_counted_without_other_products(store: &Store) -> Result<()> {
    let mut written = products((0..9).map(|number| format!("P-{number}")))?;
    for (product, category) in written.iter_mut().zip([Some("garden"), None, Some("kitchen")].iter().cycle())
    {
        product.category = category.map(str::to_owned);
    }
    put(store, &written).await?;
    let first = store.product_ids_of_category("kitchen", None, 2).await?;
    assert_eq!(first, [product_id("P-2")?, product_id("P-5")?]);
    let second = store.product_ids_of_category("kitchen", first.last(), 2).await?;
    assert_eq!(second, [product_id("P-8")?]);
    assert_eq!(store.product_ids_of_category("kitchen", second.last(), 2).await?, []);
    assert_eq!(store.product_ids_of_category("cellar", None, 2).await?, []);
    assert_eq!(store.count_products_of_category("kitchen").await?, 3);
    assert_eq!(store.count_products_of_category("cellar").await?, 0);
    Ok(())
}

async fn a_range_of_identifiers_has_its_end_and_not_its_beginning(store: &Store) -> Result<()> {
    let mut written = products(["!", "A", "B", "a", "b", "~~"].map(str::to_owned))?;
    for product in written.iter_mut().skip(3) {
        product.category = Some("garden".to_owned());
    }
    put(store, &written).await?;
    let (a, b) = (product_id("A")?, product_id("b")?);
    for (category, after, through, limit, expected) in [
        (None, None, None, 10, vec!["!", "A", "B", "a", "b", "~~"]),
        (None, Some(&a), Some(&b), 10, vec!["B", "a", "b"]),
        (None, Some(&a), Some(&b), 2, vec!["B", "a"]),
        (None, Some(&b), None, 10, vec!["~~"]),
        (None, None, Some(&a), 10, vec!["!", "A"]),
        (None, Some(&b), Some(&a), 10, vec![]),
        (Some("garden"), None, Some(&b), 10, vec!["a", "b"]),
        (Some("garden"), Some(&b), None, 10, vec!["~~"]),
        (Some("kitchen"), Some(&a), None, 10, vec!["B"]),
    ] {
        let read = store.product_ids_in_range(category, after, through, limit).await?;
        assert!(
            read.iter().map(|id| id.as_str()).eq(expected),
            "{category:?} {after:?} {through:?}: {read:?}"
        );
    }
    Ok(())
}

async fn a_removed_product_is_gone_but_its_history_stays(store: &Store) -> Result<()> {
    let kettle = product("P-1")?;
    put(store, std::slice::from_ref(&kettle)).await?;
    super::write(store, &[super::price_write(&kettle, 1, "49.90")?]).await?;
    let mut transaction = store.begin().await?;
    assert!(transaction.delete_product(&kettle.product_id, 2, "product", now()).await?);
    transaction.commit().await?;

    let id = &kettle.product_id;
    assert_eq!(store.product(id).await?, None);
    assert_eq!(store.stored_price(id).await?, None);
    assert_eq!(store.explanation(id).await?, None);
    let history = store.price_changes(id, 10).await?;
    let prices: Vec<_> = history
        .iter()
        .map(|change| (change.revision, digits(&change.old_list_price), digits(&change.new_list_price)))
        .collect();
    let expected = [(2, "Some(49.90)", "None"), (1, "None", "Some(49.90)")];
    assert_eq!(prices, expected.map(|(revision, old, new)| (revision, old.to_owned(), new.to_owned())));
    Ok(())
}
