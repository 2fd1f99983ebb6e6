//! Tests of quotes: the tutorial's figures, the discount rate, and the guardrails.

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{Quote, Shopper, quote};
use crate::facts::Facts;
use crate::facts::limits::Limits;
use crate::facts::money::Currency;
use crate::facts::previous::Previous;
use crate::facts::price_entry::PriceEntry;
use crate::facts::product::{Product, ProductDraft, ProductId};
use crate::facts::signal::Signals;
use crate::facts::time_zone::TimeZones;
use crate::policy::check::DEFAULT_POLICY;
use crate::policy::guardrail::intersection;
use crate::policy::move_limit::Position;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::explanation::Step;
use crate::pricing::price::price;

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
        ("set_to: 'min([price.list, 80])'", "80.00", "0.2"),
        ("multiply_by: 0.9, discount: false", "90.00", "0"),
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
        "name: x\noffer: [{ name: bad, multiply_by: location.factor }, { name: free, multiply_by: shopper.quantity - 1 }, { name: good, adjust: -5% }]",
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

    #[test]
    fn rounding_breaks_no_bound_and_no_offer_is_the_list_price(
        (base, bounds) in (1_i64..3_000, proptest::array::uniform2(proptest::option::of(1_i64..3_000))),
        previous in proptest::option::of(1_i64..3_000),
        (market, offer) in (-40_i64..60, -60_i64..60),
        max_step in proptest::sample::select(vec!["", "max_step: 1%", "max_step: 7%, ceiling_of_base: 110%"]),
        increment in proptest::sample::select(vec!["", "increment: 0.05", "increment: 0.5", "increment: 5"]),
        grid in proptest::sample::select(vec!["", "ending: 0.99", "endings: [0.49, 0.99]", "price_points: [4.99, 9.99]"]),
        mode in proptest::sample::select(vec!["half_even", "half_up", "up", "down"]),
    ) {
        let rounding: Vec<String> = [format!("mode: {mode}"), increment.to_owned(), grid.to_owned()].into();
        let rounding: Vec<&str> = rounding.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        let policy = policy(&format!(
            "name: x\nmarket: [{{ name: m, adjust: {market}% }}]\noffer: [{{ name: o, when: shopper.prime, adjust: {offer}% }}]\nguardrails: {{ {max_step} }}\nrounding: {{ {} }}",
            rounding.join(", ")
        ));
        let product = product(base, bounds);
        let previous = previous.map(|cents| {
            let list_price = Decimal::new(cents, 2);
            Previous::of(list_price)
        });
        let facts = Facts { product: &product, signals: &Signals::default(), previous };
        let priced = price(&facts, &policy, now());
        let moves = previous.map(|previous| {
            policy.guardrails.move_limits(&Position::at(previous.list_price, now()), false, now())
        });
        let moves: Vec<Limits> = moves.iter().flatten().map(|limit| limit.list_price).collect();
        let within = intersection(moves.iter().chain([&priced.limits]));
        let allowed = if within.contradict() { priced.limits } else { within };
        prop_assert!(is_within(priced.amount, allowed), "{} {allowed:?}", priced.amount);
        let entry = PriceEntry { list_price: priced.amount, lowest: priced.limits.lowest, highest: priced.limits.highest, ..entry("1.00") };
        let full = quote(&entry, &policy, &shopper(false), now(), None);
        prop_assert_eq!(full.final_price.to_string(), entry.list_price.to_string());
        let quoted = quote(&entry, &policy, &shopper(true), now(), None);
        prop_assert!(is_within(quoted.final_price, entry.limits()), "{} {entry:?}", quoted.final_price);
        let moved = quoted.final_price.cmp(&entry.list_price) as i64;
        prop_assert!(moved == 0 || moved == offer.signum(), "{} by {offer}%", quoted.final_price);
        let discount = (Decimal::ONE - quoted.final_price / entry.list_price).max(Decimal::ZERO).round_dp(4);
        prop_assert_eq!(quoted.discount_rate, discount);
        let explained = quote(&entry, &policy, &shopper(true), now(), Some(&mut Vec::new()));
        prop_assert_eq!(explained, quoted);
    }

    #[test]
    fn no_offer_takes_off_more_than_the_largest_discount(
        (base, bounds) in (1_i64..3_000, proptest::array::uniform2(proptest::option::of(1_i64..3_000))),
        currency in proptest::sample::select(vec!["USD", "JPY", "KWD"]),
        (market, offer, tier) in (-40_i64..60, -150_i64..60, -99_i64..=0),
        (max_discount, frozen) in (0_i64..1_000_000, any::<bool>()),
        rounding in proptest::sample::select(vec!["", "increment: 0.05", "increment: 5, mode: down", "ending: 0.99, mode: up"]),
    ) {
        let share = Decimal::new(max_discount, 6);
        let rule = if frozen { "when: stock.level < 1, adjust: -5%".to_owned() } else { format!("adjust: {market}%") };
        let offer = if offer > -100 { format!("adjust: {offer}%") } else { format!("adjust: {offer}") };
        let policy = policy(&format!(
            "name: x\nmarket: [{{ name: m, {rule} }}]\noffer: [{{ name: o, {offer} }}, {{ name: t, quantity_tiers: [{{ from: 1, adjust: {tier}% }}] }}]\nguardrails: {{ max_discount: {}% }}\nrounding: {{ {rounding} }}",
            share * Decimal::ONE_HUNDRED
        ));
        let product = Product { currency: Currency::from_code(currency).unwrap(), ..product(base * 100, bounds.map(|bound| bound.map(|cents| cents * 100))) };
        let facts = Facts { product: &product, signals: &Signals::default(), previous: None };
        let priced = price(&facts, &policy, now());
        let quoted = quote(&priced.entry(1), &policy, &shopper(false), now(), None);
        let left = priced.amount * (Decimal::ONE - share);
        // A floor only raises the price, and a ceiling is not below the list price.
        prop_assert!(quoted.final_price >= left, "{quoted:?} of {}", priced.amount);
        let (lowest, floor) = (priced.limits.lowest.unwrap(), product.floor_price.unwrap_or_default());
        let minor_unit = Decimal::new(1, product.currency.exponent());
        prop_assert!(lowest >= left.max(floor) && (lowest < left + minor_unit || lowest == floor), "{priced:?}");
    }

    #[test]
    fn a_larger_discount_is_never_a_higher_price(
        list in 1_i64..2_000,
        lowest in proptest::option::of(1_i64..2_000),
        percent in 50_i64..150,
        amounts in proptest::array::uniform2(1_i64..2_500),
        increment in proptest::sample::select(vec!["", "increment: 0.05", "increment: 5"]),
    ) {
        let mut entry = entry("1.00");
        entry.list_price = Decimal::new(list.max(lowest.unwrap_or(1)), 2);
        entry.lowest = lowest.map(|cents| Decimal::new(cents, 2));
        let [small, large] = [amounts[0].min(amounts[1]), amounts[0].max(amounts[1])].map(|cents| Decimal::new(cents, 2));
        let by = |offer: &str, quantity| {
            let policy = policy(&format!("name: x\noffer: [{offer}, {{ name: b, multiply_by: {percent} / 100 }}]\nrounding: {{ {increment} }}"));
            let Quote { final_price, .. } = quote(&entry, &policy, &Shopper { quantity, ..shopper(false) }, now(), None);
            final_price
        };
        let tiers = format!("{{ name: a, quantity_tiers: [{{ from: 2, adjust: -{small} }}, {{ from: 3, adjust: -{large} }}] }}");
        let by_quantity = [1, 2, 3].map(|quantity| by(&tiers, quantity));
        prop_assert!(by_quantity.is_sorted_by(|less, more| less >= more), "{by_quantity:?}");
        if entry.lowest.is_some() || large < entry.list_price {
            let [small, large] = [small, large].map(|amount| by(&format!("{{ name: a, adjust: -{amount} }}"), 1));
            prop_assert!(large <= small, "{large} {small}");
        }
    }
}

fn product(base: i64, [floor, ceiling]: [Option<i64>; 2]) -> Product {
    let cents = |cents: i64| Decimal::new(cents, 2);
    let draft = format!(r#"{{"product_id": "P-1", "currency": "USD", "base_price": {}}}"#, cents(base));
    let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
    Product { floor_price: floor.map(cents), ceiling_price: ceiling.map(cents), ..product }
}

/// Whether the amount is within the limits; above the highest only if no whole cent lies between the two.
fn is_within(amount: Decimal, limits: Limits) -> bool {
    let is_not_below = limits.lowest.is_none_or(|lowest| amount >= lowest);
    let has_room = limits.highest.is_some_and(|highest| {
        let cent = highest.trunc_with_scale(2);
        cent > Decimal::ZERO && limits.lowest.is_none_or(|lowest| cent >= lowest)
    });
    is_not_below && (!has_room || limits.highest.is_none_or(|highest| amount <= highest))
}

#[test]
fn a_price_is_personalised_if_something_personal_could_have_changed_it() {
    let entry = entry("100");
    for (offer, expected) in [
        ("adjust: -5%", false),
        ("adjust: -5%, when: shopper.quantity > 1", false),
        ("adjust: -5%, only: { channels: [app] }", false),
        ("quantity_tiers: [{ from: 1, adjust: -1% }]", false),
        ("adjust: -5%, when: shopper.channel == \"app\"", false),
        // What was looked at counts, whether the rule applied or not.
        ("adjust: -5%, when: shopper.prime", true),
        ("adjust: -5%, when: not shopper.prime", true),
        ("adjust: -5%, when: shopper.segment == \"vip\"", true),
        ("adjust: -5%, only: { segments: [vip] }", true),
        ("adjust: -5%, only: { locations: [NY] }", true),
        ("adjust: -5%, only: { locations: [NJ] }", true),
        ("multiply_by: location.factor ?? 1", true),
        ("multiply_by: location.factor", true),
        ("set_to: \"shopper.prime ? 90 : 95\"", true),
        // Something else says already that the rule does not apply.
        ("adjust: -5%, only: { segments: [vip], categories: [games] }", false),
        ("adjust: -5%, only: { locations: [NY], channels: [app] }", false),
        ("adjust: -5%, only: { products: [P-2] }, when: shopper.prime", false),
        ("adjust: -5%, until: 2026-10-01T00:00:00Z, when: shopper.prime", false),
        ("multiply_by: location.factor ?? 0.9, when: price.list > 100", false),
        ("multiply_by: location.factor ?? 0.9, when: price.list >= 100", true),
    ] {
        for apply in ["all", "first_match", "best_for_shopper"] {
            let policy =
                policy(&format!("name: x\napply: {{ offer: {apply} }}\noffer: [{{ name: a, {offer} }}]"));
            let quote = quote(&entry, &policy, &shopper(false), now(), None);
            assert_eq!(quote.is_personalised, expected, "{apply} {offer}");
        }
    }
}

#[test]
fn a_rule_after_the_first_that_matches_is_not_looked_at() {
    let entry = entry("100");
    let rules = "offer: [{ name: a, adjust: -1% }, { name: b, adjust: -5%, when: shopper.prime }]";
    for (apply, expected) in [("all", true), ("first_match", false), ("best_for_shopper", true)] {
        let policy = policy(&format!("name: x\napply: {{ offer: {apply} }}\n{rules}"));
        assert_eq!(quote(&entry, &policy, &shopper(true), now(), None).is_personalised, expected, "{apply}");
    }
}
