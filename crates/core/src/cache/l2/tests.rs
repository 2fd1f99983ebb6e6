//! Tests of what the cache in Redis accepts.

use super::*;
use crate::catalogue::CurrentCatalogue;
use pricing_domain::facts::money::Currency;
use rust_decimal::Decimal;

fn entry() -> PriceEntry {
    PriceEntry {
        product_id: ProductId::parse("P-1").unwrap(),
        category: Some("toys".into()),
        currency: Currency::from_code("USD").unwrap(),
        base_price: Decimal::new(5199, 2),
        list_price: Decimal::new(4990, 2),
        lowest: None,
        highest: Some(Decimal::new(60, 0)),
        policy_version: 3,
        revision: 17,
        valid_until: None,
    }
}

fn body(entry: &PriceEntry) -> String {
    let (value, _) = encode(&Cached::Priced(Arc::new(entry.clone())), Utc::now()).unwrap();
    String::from_utf8(value[REVISION_DIGITS..].to_vec()).unwrap()
}

#[test]
fn a_stored_entry_is_read_back() {
    for cached in [Cached::Priced(Arc::new(entry())), Cached::Gone { revision: i64::MAX }] {
        let (value, _) = encode(&cached, Utc::now()).unwrap();
        assert_eq!(decode(&value), Some(cached));
    }
    insta::assert_snapshot!(body(&entry()));
}

#[test]
fn an_unreadable_entry_is_a_miss() {
    let other_revision = format!("00000000000000000018{}", body(&entry()));
    for stored in ["", "17", "0000000000000000001x", "00000000000000000017{", "\u{fffd}", &other_revision] {
        assert_eq!(decode(stored.as_bytes()), None, "{stored}");
    }
}

#[test]
fn a_value_that_cannot_be_an_entry_of_the_catalogue_is_refused() {
    let catalogue = CurrentCatalogue::new("a").get();
    let found = |stored: &[u8]| checked(stored, &entry().product_id, &catalogue).map(|_| ());
    let stored = |change: fn(&mut PriceEntry)| {
        let mut entry = entry();
        change(&mut entry);
        encode(&Cached::Priced(Arc::new(entry)), Utc::now()).unwrap().0
    };
    assert_eq!(found(&stored(|_| {})), Ok(()));
    let other = |entry: &mut PriceEntry| entry.product_id = ProductId::parse("P-2").unwrap();
    assert_eq!(found(&stored(other)), Err(Refused::OtherProduct));
    assert_eq!(found(&stored(|entry| entry.revision = i64::MAX)), Err(Refused::Revision));
    let gone = encode(&Cached::Gone { revision: i64::MAX }, Utc::now()).unwrap().0;
    assert_eq!(found(&gone), Err(Refused::Revision));
    let yen = |entry: &mut PriceEntry| entry.currency = Currency::from_code("JPY").unwrap();
    assert_eq!(found(&stored(yen)), Err(Refused::Entry(EntryFault::Amount)));
    let below = |entry: &mut PriceEntry| entry.lowest = Some(Decimal::from(50));
    assert_eq!(found(&stored(below)), Err(Refused::Entry(EntryFault::BelowLowest)));
    let unknown = String::from_utf8(stored(|_| {})).unwrap().replace("USD", "ZZZ");
    assert_eq!(found(unknown.as_bytes()), Err(Refused::Unreadable));
    let mut long = stored(|_| {});
    long.resize(LARGEST_ENTRY_BYTES + 1, b' ');
    assert_eq!(found(&long), Err(Refused::Unreadable));
}

#[test]
fn an_entry_lives_no_longer_than_it_is_valid() {
    let mut entry = entry();
    entry.valid_until = Some(Utc::now() + Duration::from_secs(10));
    assert!(time_to_live(&entry, Utc::now()).unwrap() <= Duration::from_secs(10));
    entry.valid_until = Some(Utc::now() - Duration::from_secs(10));
    assert_eq!(time_to_live(&entry, Utc::now()), None);
}
