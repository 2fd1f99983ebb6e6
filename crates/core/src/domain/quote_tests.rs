//! Quotes: the tutorial's figures, the discount rate, and the guardrails.

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::super::explanation::Step;
use super::super::money::Currency;
use super::super::policy::{DEFAULT_POLICY, PricingPolicy};
use super::super::price::PriceEntry;
use super::super::product::ProductId;
use super::super::time_zone::TimeZones;
use super::{Shopper, quote};

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn entry(list_price: &str) -> PriceEntry {
    PriceEntry {
        product_id: ProductId::parse("P-1").unwrap(),
        category: Some("toys".into()),
        currency: Currency::from_code("USD").unwrap(),
        base_price: decimal(list_price),
        list_price: decimal(list_price),
        lowest: None,
        highest: None,
        policy_version: 1,
        revision: 1,
        valid_until: None,
    }
}

fn shopper(prime: bool) -> Shopper<'static> {
    Shopper { location: "NY", prime, quantity: 1, channel: None, segment: None, location_factor: None }
}

fn policy(yaml: &str) -> PricingPolicy {
    PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap()
}

#[test]
fn the_default_policy_gives_the_tutorials_prices() {
    let default = policy(DEFAULT_POLICY);
    let entry = entry("51.99");
    for (prime, price, discount) in [(false, "49.39", "0"), (true, "46.92", "0.05")] {
        let quote = quote(&entry, &default, &shopper(prime), now(), None);
        assert_eq!(
            (quote.final_price.to_string().as_str(), quote.discount_rate.to_string().as_str()),
            (price, discount)
        );
    }
    let near = Shopper { location_factor: Some(decimal("1.1")), ..shopper(false) };
    assert_eq!(quote(&entry, &default, &near, now(), None).final_price, decimal("57.19"));
}

#[test]
fn offer_rules_see_the_shopper() {
    let bob = Shopper {
        location: "NY",
        prime: true,
        quantity: 12,
        channel: Some("app"),
        segment: None,
        location_factor: None,
    };
    for (rule, price, discount) in [
        ("adjust: -10%, when: shopper.quantity >= 10", "90.00", "0.1"),
        ("adjust: -10%, when: shopper.quantity < 10", "100.00", "0"),
        ("adjust: -2.50, when: shopper.channel == 'app'", "97.50", "0.025"),
        ("adjust: +3%, when: \"shopper.location in ['NY', 'LA']\"", "103.00", "0"),
        ("set_to: 'min([price.list, 80])'", "80.00", "0"),
        ("adjust: -1%, when: product.category == 'toys'", "99.00", "0.01"),
        ("adjust: -50%, until: 2020-01-01T00:00:00Z", "100.00", "0"),
    ] {
        let policy = policy(&format!("name: x\noffer: [{{ name: only, {rule} }}]"));
        let entry = entry("100.00");
        let quote = quote(&entry, &policy, &bob, now(), None);
        assert_eq!(
            (quote.final_price.to_string().as_str(), quote.discount_rate.to_string().as_str()),
            (price, discount),
            "{rule}"
        );
    }
}

#[test]
fn a_failing_offer_rule_is_passed_over_and_said() {
    let policy = policy(
        "name: x\noffer: [{ name: bad, multiply_by: location.factor }, { name: free, multiply_by: 0 }, { name: good, adjust: -5% }]",
    );
    let entry = entry("10.00");
    let shopper = shopper(false);
    let mut steps = Vec::new();
    let quote = quote(&entry, &policy, &shopper, now(), Some(&mut steps));
    assert_eq!((quote.final_price, quote.failed_rules), (decimal("9.50"), 2));
    let failed = steps.iter().filter(|step| matches!(step, Step::RuleFailed { .. })).count();
    assert_eq!(failed, 2);
}

proptest! {
    #[test]
    fn no_offer_leaves_the_limits(
        list in 1_i64..1_000_000,
        lowest in proptest::option::of(1_i64..1_000_000),
        above in proptest::option::of(0_i64..1_000_000),
        percent in -99_i64..500,
        prime in any::<bool>(),
    ) {
        let mut entry = entry("1.00");
        entry.list_price = Decimal::new(list, 2);
        entry.lowest = lowest.map(|cents| Decimal::new(cents, 2));
        entry.highest = above.map(|cents| entry.lowest.unwrap_or(Decimal::ONE) + Decimal::new(cents, 2));
        let policy = policy(&format!("name: x\noffer: [{{ name: a, when: shopper.prime, adjust: {percent}% }}, {{ name: b, multiply_by: 0.7 }}]"));
        let quote = quote(&entry, &policy, &shopper(prime), now(), None);
        prop_assert!(entry.lowest.is_none_or(|lowest| quote.final_price >= lowest));
        prop_assert!(entry.highest.is_none_or(|highest| quote.final_price <= highest));
        prop_assert!(quote.final_price > Decimal::ZERO && quote.discount_rate < Decimal::ONE);
    }
}
