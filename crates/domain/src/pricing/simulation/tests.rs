use std::cmp::Reverse;

use super::*;
use crate::facts::product::ProductDraft;
use crate::facts::signal::Signals;
use crate::facts::time_zone::TimeZones;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::price::price;
use crate::pricing::price_state::PriceState;

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
        let reasons = policy.circuit_breaker.reasons_to_hold(&simulate_by(&policy, list_prices), &[]);
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
fn prices_that_a_limit_holds_back_are_counted() {
    // 100 is kept; 50 stops at 75 and 400 at 200.
    let report = simulate(&[0, 100, 50, 400]).report();
    let [held] = report.held_prices[..] else { panic!("{:?}", report.held_prices) };
    assert_eq!((held.limit, held.products, held.products_that_stay), (GuardrailName::MaxStep, 2, 0));
    assert_eq!(held.largest_distance_percent, Decimal::from(50));
    // A third and a half.
    assert_eq!(held.median_distance_percent, Decimal::new(4167, 2));
    let hour = |hours| Some(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hours));
    assert_eq!((held.continues_at, held.reaches_target_at), (hour(1), hour(1)));
    assert_eq!(report.moves_beyond_max_step, 0, "what is not known to be the seller's is limited");
}

#[test]
fn moves_beyond_the_step_are_counted_and_are_the_biggest() {
    let now = chrono::DateTime::UNIX_EPOCH;
    let policy = |version, guardrails: &str| {
        let rules = "[{ name: dear, multiply_by: product.unit_cost / 10 }]";
        let yaml = format!("name: x\nmarket: {rules}\nguardrails: {{ {guardrails} }}\n");
        PricingPolicy::from_yaml(&yaml, version, &TimeZones::bundled()).unwrap()
    };
    let plain = "name: x\n";
    let before = PricingPolicy::from_yaml(plain, 1, &TimeZones::bundled()).unwrap();
    for (guardrails, beyond) in [("max_step: 15%", 2), ("max_step: 10%", 3), ("max_daily_move: 1%", 0)] {
        let policy = policy(2, guardrails);
        let mut simulation = Simulation::of(&policy);
        // The base price is multiplied by 1, 1.15, 1.16 and 5.
        for cost in ["10", "11.5", "11.6", "50"] {
            let draft = format!(
                r#"{{"product_id": "P-{cost}", "currency": "USD", "base_price": 100, "unit_cost": {cost}}}"#
            );
            let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
            let signals = Signals::default();
            let facts = Facts { product: &product, signals: &signals, previous: None };
            let state = PriceState::after(None, &price(&facts, &before, now), now);
            let facts = Facts { previous: Some(state.previous(now)), ..facts };
            let computed = price(&facts, &policy, now);
            simulation.add(&SimulatedPrice::new(&facts, Some(state.list_price), &computed, &policy));
        }
        let report = simulation.report();
        assert_eq!(report.moves_beyond_max_step, beyond, "{guardrails}");
        let marks: Vec<bool> = report.biggest_moves.iter().map(|price| price.is_beyond_max_step).collect();
        let expected: Vec<bool> = (0..3).map(|place| place < beyond).collect();
        assert_eq!(marks, expected, "{guardrails}");
        assert!(report.held_prices.is_empty(), "{guardrails}");
    }
}

#[test]
fn every_move_is_in_one_range() {
    let mut simulation = Simulation::default();
    for change in -6_000..=12_000 {
        simulation.list_prices.add(Decimal::new(change, 4));
    }
    let distribution = simulation.list_prices().distribution();
    let total: u64 = distribution.iter().map(|range| range.products).sum();
    assert_eq!(total, simulation.list_prices().products());
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
        changes.iter().for_each(|change| simulation.list_prices.add(Decimal::new(*change, 2)));
        let mut sorted = changes.clone();
        sorted.sort_unstable();
        let middle = [sorted[(changes.len() - 1) / 2], sorted[changes.len() / 2]];
        let mean = Decimal::new(middle.into_iter().sum(), 2) / Decimal::TWO;
        assert_eq!(simulation.list_prices().median(), mean, "{changes:?}");

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

/// Simulates products at 100 and 50, whose prices are quoted by the first policy, by the second one.
fn simulate_panel(before: &PricingPolicy, after: &PricingPolicy, panel: &[PanelShopper]) -> Simulation {
    let now = chrono::DateTime::UNIX_EPOCH;
    let mut simulation = Simulation::of(after).with_panel(panel);
    for base_price in [100, 50] {
        let draft =
            format!(r#"{{"product_id": "P-{base_price}", "currency": "USD", "base_price": {base_price}}}"#);
        let product = serde_json::from_str::<ProductDraft>(&draft).unwrap().check().unwrap();
        let facts = Facts { product: &product, signals: &Signals::default(), previous: None };
        let in_effect = price(&facts, before, now);
        let simulated = price(&facts, after, now);
        let simulated_price = SimulatedPrice::new(&facts, Some(in_effect.amount), &simulated, after)
            .with_final_prices(
                &in_effect.entry(1).final_prices(panel, before, now),
                &simulated.entry(1).final_prices(panel, after, now),
            );
        simulation.add(&simulated_price);
    }
    // One that never had a price does not move.
    simulation.add_unmoved(1);
    simulation
}

#[test]
fn offers_that_go_too_far_open_the_circuit_breaker_for_the_shoppers_that_get_them() {
    let policy = |offer: &str, more: &str| {
        let yaml = format!(
            "name: x\noffer: [{offer}]\ncircuit_breaker: {{ median_move: 10%, moved_products: 50%, moved_by: 20%{more} }}\n"
        );
        PricingPolicy::from_yaml(&yaml, 1, &TimeZones::bundled()).unwrap()
    };
    let nothing = "{ name: none, adjust: 0% }";
    let location = "{ name: location, multiply_by: location.factor ?? 1 }";
    let factors = [("DE".to_owned(), Decimal::new(8, 1)), ("SF".to_owned(), Decimal::TWO)].into();
    let bulk = ", panel: [{ name: bulk, quantity: 10, segment: trade }]";
    for (before, after, panel, expected) in [
        (nothing, nothing, "", &[][..]),
        (
            nothing,
            "{ name: prime, when: shopper.prime, adjust: -95% }",
            "",
            &[
                "for prime: 2 of 3 products would move by more than 20% (allowed: 50% of them)",
                "for prime: the median product would move by -95% (allowed: 10%)",
            ],
        ),
        (nothing, "{ name: prime, when: shopper.prime, adjust: -10% }", "", &[]),
        ("{ name: prime, adjust: -95% }", "{ name: prime, adjust: -95% }", "", &[]),
        (
            nothing,
            location,
            "",
            &[
                "for location DE: the median product would move by -20% (allowed: 10%)",
                "for location SF: 2 of 3 products would move by more than 20% (allowed: 50% of them)",
                "for location SF: the median product would move by 100% (allowed: 10%)",
            ],
        ),
        (nothing, "{ name: t, quantity_tiers: [{ from: 10, adjust: -15% }] }", "", &[]),
        (
            nothing,
            "{ name: t, only: { segments: [trade] }, quantity_tiers: [{ from: 10, adjust: -15% }] }",
            bulk,
            &["for bulk: the median product would move by -15% (allowed: 10%)"],
        ),
        (nothing, "{ name: a, adjust: -95% }", ", panel: []", &[]),
    ] {
        let (before, after) = (policy(before, ""), policy(after, panel));
        let panel = after.circuit_breaker.panel.shoppers(&factors);
        let simulation = simulate_panel(&before, &after, &panel);
        let reasons = after.circuit_breaker.reasons_to_hold(&simulation, &panel);
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(reasons, expected);
        assert_eq!(after.circuit_breaker.reasons_to_hold(&simulation, &[]), [], "not of its panel");
    }
}

#[test]
fn what_moves_the_list_price_is_not_said_again_for_each_shopper() {
    let policy = |market: &str| {
        let yaml = format!(
            "name: x\nmarket: [{{ name: m, adjust: {market} }}]\noffer: [{{ name: o, when: shopper.prime, adjust: -10% }}]\ncircuit_breaker: {{ median_move: 10% }}\n"
        );
        PricingPolicy::from_yaml(&yaml, 1, &TimeZones::bundled()).unwrap()
    };
    let (before, after) = (policy("0%"), policy("-50%"));
    let panel = after.circuit_breaker.panel.shoppers(&std::collections::HashMap::new());
    let simulation = simulate_panel(&before, &after, &panel);
    let reasons = after.circuit_breaker.reasons_to_hold(&simulation, &panel);
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(reasons, ["the median product would move by -50% (allowed: 10%)"]);
}

#[test]
fn the_report_has_the_final_prices_of_each_shopper() {
    let policy = |yaml: &str| PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap();
    let before = policy("name: x\noffer: [{ name: prime, when: shopper.prime, adjust: -5% }]\n");
    let after = policy(
        "name: x\noffer: [{ name: prime, when: shopper.prime, adjust: -95%, only: { products: [P-100] } }, { name: all, adjust: +1%, when: not shopper.prime }]\n",
    );
    let panel = after.circuit_breaker.panel.shoppers(&std::collections::HashMap::new());
    let report = simulate_panel(&before, &after, &panel).report();
    assert_eq!((report.up, report.down, report.unchanged), (0, 0, 2), "no list price moves");
    let [anonymous, prime] = &report.panel[..] else { panic!("{report:?}") };
    assert_eq!((&*anonymous.shopper.shopper.name, &*prime.shopper.shopper.name), ("anonymous", "prime"));
    assert_eq!((anonymous.up, anonymous.down, anonymous.unchanged), (2, 0, 0));
    assert_eq!(anonymous.median_change_percent, Decimal::ONE);
    assert_eq!((prime.up, prime.down, prime.unchanged), (1, 1, 0));
    let moves: Vec<(&str, String, String, String)> = prime
        .biggest_moves
        .iter()
        .map(|moved| {
            let amounts = [moved.final_price, moved.simulated_final_price, moved.change_percent];
            let [now, simulated, percent] = amounts.map(|amount| amount.to_string());
            (moved.product_id.as_str(), now, simulated, percent)
        })
        .collect();
    let row = |id: &'static str, [now, simulated, percent]: [&str; 3]| {
        (id, now.to_owned(), simulated.to_owned(), percent.to_owned())
    };
    assert_eq!(moves, [row("P-100", ["95.00", "5.00", "-94.74"]), row("P-50", ["47.50", "50.00", "5.26"])]);
}

#[test]
fn few_of_the_largest_moves_of_a_shopper_are_kept() {
    let mut shopper = ShopperSimulation::of(PanelShopper {
        shopper: crate::facts::named_shopper::NamedShopper::new("a"),
        location_factor: None,
    });
    for number in 0..200_i64 {
        let product_id = ProductId::parse(&format!("P-{number}")).unwrap();
        let (in_effect, simulated) = (Some(Decimal::ONE_HUNDRED), Decimal::from(100 + (number * 37) % 200));
        shopper.add(&product_id, "USD", FinalPrice { in_effect, simulated });
        shopper.add(&product_id, "USD", FinalPrice { in_effect: None, simulated });
    }
    let effect = shopper.effect(400);
    assert_eq!((effect.up, effect.down, effect.unchanged), (199, 0, 201));
    let moves: Vec<String> =
        effect.biggest_moves.iter().map(|moved| moved.change_percent.to_string()).collect();
    assert_eq!(moves, ["199", "198", "197", "196", "195"]);
}

#[test]
fn instants_at_which_offers_begin_and_end_are_foreseen() {
    let yaml = "name: x\nmarket: [{ name: m, adjust: -1%, from: 2026-01-03T00:00:00Z }]\noffer: [{ name: o, adjust: -95%, from: 2026-01-02T00:00:00Z, until: 2026-01-04T00:00:00Z }]\n";
    let policy = PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap();
    let instants = policy.instants_after("2026-01-01T00:00:00Z".parse().unwrap());
    let days: Vec<String> = instants.iter().map(|instant| instant.format("%d").to_string()).collect();
    assert_eq!(days, ["02", "03", "04"]);
}
