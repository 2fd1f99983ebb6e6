use std::cmp::Reverse;

use super::*;
use crate::facts::product::ProductDraft;
use crate::facts::signal::Signals;
use crate::facts::time_zone::TimeZones;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::price::price;

/// Simulates products at these list prices by one policy; 0 means no list price.
fn simulate(list_prices: &[i64]) -> Simulation {
    let policy =
        "name: x\nmarket:\n  - { name: fair, set_to: product.base_price }\nguardrails: { max_step: 50% }\n";
    simulate_by(&PricingPolicy::from_yaml(policy, 1, &TimeZones::bundled()).unwrap(), list_prices)
}

fn simulate_by(policy: &PricingPolicy, list_prices: &[i64]) -> Simulation {
    let mut simulation = Simulation::of(policy);
    for (number, list_price) in list_prices.iter().enumerate() {
        let draft = format!(
            r#"{{"product_id": "P-{number}", "currency": "USD", "base_price": 100, "unit_cost": 40}}"#
        );
        let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
        let signals = Signals { units_sold: Some(Decimal::TWO), ..Signals::default() };
        let in_effect = (*list_price > 0).then(|| Decimal::from(*list_price));
        let previous = in_effect.map(crate::facts::previous::Previous::of);
        let facts = Facts { product: &product, signals: &signals, previous };
        let computed = price(&facts, policy, chrono::DateTime::UNIX_EPOCH);
        simulation.add(&SimulatedPrice::new(&facts, in_effect, &computed, policy));
    }
    simulation
}

#[test]
fn frozen_prices_open_the_circuit_breaker() {
    // The rule fails for products that had a price: its condition compares what is not known.
    let rule = "{ name: sale, when: price.current != null and stock.level < 5, adjust: -10% }";
    for (limit, list_prices, reason) in [
        ("50%", &[100, 0][..], None),
        ("50%", &[100, 100, 0], Some("the prices of 2 of 3 products would be frozen (allowed: 50% of them)")),
        ("0%", &[0, 0], None),
        ("0%", &[0, 0, 100], Some("the prices of 1 of 3 products would be frozen (allowed: 0% of them)")),
        ("99.9%", &[100, 0], None),
    ] {
        let policy = format!("name: x\nmarket: [{rule}]\ncircuit_breaker: {{ frozen_products: {limit} }}\n");
        let policy = PricingPolicy::from_yaml(&policy, 1, &TimeZones::bundled()).unwrap();
        assert!(!policy.circuit_breaker.is_off());
        let reasons = policy.circuit_breaker.reasons_to_hold(&simulate_by(&policy, list_prices));
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(reasons.first().map(String::as_str), reason, "{limit} {list_prices:?}");
    }
}

#[test]
fn moves_guardrails_and_margins_add_up() {
    // 0: new; 100 is kept; 80 rises by 25 %; 125 falls by 20 %; 50 rises by half, the limit; 400 falls by
    // half.
    let report = simulate(&[0, 100, 80, 125, 50, 400]).report();
    let counts = (report.products, report.up, report.down, report.unchanged, report.frozen);
    assert_eq!(counts, (6, 2, 2, 2, 0));
    assert_eq!(report.guardrails.into_iter().collect::<Vec<_>>(), [(GuardrailName::MaxStep, 2)]);
    let effect = report.margins["USD"];
    // The first product has no price yet, so its revenue is the same before and after.
    assert_eq!(effect.revenue, Decimal::from(2 * (100 + 100 + 80 + 125 + 50 + 400)));
    assert_eq!(effect.simulated_revenue, Decimal::from(2 * (100 + 100 + 100 + 100 + 75 + 200)));
    assert_eq!(effect.margin, effect.revenue - Decimal::from(6 * 80));
    assert_eq!(effect.simulated_margin, effect.simulated_revenue - Decimal::from(6 * 80));
    let moves: Vec<(&str, Decimal)> = report
        .biggest_moves
        .iter()
        .map(|price| (price.product_id.as_str(), price.change_percent.unwrap()))
        .collect();
    assert_eq!(
        moves,
        [
            ("P-4", Decimal::from(50)),
            ("P-5", Decimal::from(-50)),
            ("P-2", Decimal::from(25)),
            ("P-3", Decimal::from(-20))
        ]
    );
}

#[test]
fn every_move_is_in_one_range() {
    let mut simulation = Simulation::default();
    for change in -6_000..=12_000 {
        simulation.add_move(Decimal::new(change, 4));
    }
    let distribution = simulation.report().distribution;
    let total: u64 = distribution.iter().map(|range| range.products).sum();
    assert_eq!(total, simulation.moves());
    let at = |from, to| {
        let range = distribution.iter().find(|range| (range.from_percent, range.to_percent) == (from, to));
        range.map(|range| range.products)
    };
    assert_eq!(at(Some(0), Some(0)), Some(1), "{distribution:?}");
    assert_eq!(at(Some(0), Some(1)), Some(99), "1 % belongs to the next");
    assert_eq!(at(Some(-1), Some(0)), Some(99), "-1 % belongs to the one before");
    assert_eq!(at(Some(1), Some(5)), Some(400));
    assert_eq!(at(Some(-5), Some(-1)), Some(400));
    assert_eq!(at(None, Some(-50)), Some(1_001));
    assert_eq!(at(Some(50), None), Some(7_001));
}

#[test]
fn the_median_and_the_biggest_are_those_of_a_sorted_list() {
    for number in 1..200_u64 {
        let mut random = fastrand::Rng::with_seed(number);
        let changes: Vec<i64> = (0..number).map(|_| random.i64(-30..60)).collect();
        let prices: Vec<i64> = changes.iter().map(|_| random.i64(60..200)).collect();
        let mut simulation = Simulation::default();
        changes.iter().for_each(|change| simulation.add_move(Decimal::new(*change, 2)));
        let mut sorted = changes.clone();
        sorted.sort_unstable();
        let middle = [sorted[(changes.len() - 1) / 2], sorted[changes.len() / 2]];
        let mean = Decimal::new(middle.into_iter().sum(), 2) / Decimal::TWO;
        assert_eq!(simulation.median_move(), mean, "{changes:?}");

        let simulation = simulate(&prices);
        let mut expected: Vec<Decimal> = prices
            .iter()
            .map(|price| {
                let price = Decimal::from(*price);
                let moved =
                    Decimal::ONE_HUNDRED.clamp(price * Decimal::new(5, 1), price * Decimal::new(15, 1));
                in_percent((moved.round_dp(2) - price) / price).abs()
            })
            .filter(|change| !change.is_zero())
            .collect();
        expected.sort_unstable_by_key(|change| Reverse(*change));
        expected.truncate(BIGGEST_MOVES);
        let biggest: Vec<Decimal> = simulation
            .report()
            .biggest_moves
            .iter()
            .map(|price| price.change_percent.unwrap_or_default().abs())
            .collect();
        assert_eq!(biggest, expected);
    }
}

#[test]
fn a_price_says_of_itself_what_stopped_it() {
    let report = simulate(&[400]).report();
    let price = &report.biggest_moves[0];
    assert_eq!(price.list_price.map(|price| price.to_string()).as_deref(), Some("400"));
    assert_eq!(price.simulated_list_price.to_string(), "200.00");
    assert_eq!(price.change_percent.map(|percent| percent.to_string()).as_deref(), Some("-50"));
    assert_eq!(price.outcome, Outcome::Priced);
    assert_eq!(price.guardrails, [GuardrailName::MaxStep]);
}

#[test]
fn each_rule_says_for_how_many_it_does_something() {
    for (apply, expected) in [
        ("all", [("fair", 3, 0), ("Toys", 1, 0), ("toys", 0, 0), ("scarce", 1, 1)]),
        ("first_match", [("fair", 3, 0), ("Toys", 0, 0), ("toys", 0, 0), ("scarce", 0, 0)]),
    ] {
        let policy = format!(
            "name: x
apply: {{ market: {apply} }}
market:
  - {{ name: toys, only: {{ categories: [toys] }}, adjust: -10% }}
  - {{ name: scarce, when: stock.level < 5, adjust: +1% }}
  - {{ name: fair, priority: 1, set_to: product.base_price }}
  - {{ name: Toys, priority: 1, only: {{ categories: [Toys] }}, adjust: -10% }}
"
        );
        let policy = PricingPolicy::from_yaml(&policy, 1, &TimeZones::bundled()).unwrap();
        let mut simulation = Simulation::of(&policy);
        for (id, category, stock) in
            [("P-1", "Toys", Some(4)), ("P-2", "Games", None), ("P-3", "Games", Some(9))]
        {
            let draft = format!(
                r#"{{"product_id": "{id}", "currency": "USD", "base_price": 100, "category": "{category}"}}"#
            );
            let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
            let signals = Signals { stock_level: stock.map(Decimal::from), ..Signals::default() };
            let facts = Facts { product: &product, signals: &signals, previous: None };
            let computed = price(&facts, &policy, chrono::DateTime::UNIX_EPOCH);
            simulation.add(&SimulatedPrice::new(&facts, None, &computed, &policy));
        }
        let report = simulation.report();
        let rules: Vec<(&str, u64, u64)> =
            report.rules.iter().map(|rule| (&*rule.name, rule.applied, rule.failed)).collect();
        assert_eq!(rules, expected, "{apply}");
        assert_eq!(report.failed_rules.values().sum::<u64>(), report.frozen);
    }
}
