//! Tests of list prices: the rules, the guardrails, and invariants for any policy and any facts.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{Facts, ListPrice, price};
use crate::facts::previous::Previous;
use crate::facts::previous::Streak;
use crate::facts::product::{Product, ProductDraft, WrittenNumber};
use crate::facts::signal::{Signal, SignalKind, Signals, Subject};
use crate::facts::time_zone::TimeZones;
use crate::policy::check::DEFAULT_POLICY;
use crate::policy::guardrail::{Guardrails, intersection};
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::explanation::{Outcome, SEMANTICS, Step};
use crate::pricing::price_state::PriceState;
use crate::pricing::replay::{OtherSemantics, RecordedExplanation};

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn product(base_price: &str, unit_cost: &str, floor_price: &str, ceiling_price: &str) -> Product {
    let number = |text: &str| Some(WrittenNumber(text.to_owned()));
    ProductDraft {
        product_id: Some("P-1".to_owned()),
        currency: Some("USD".to_owned()),
        base_price: number(base_price),
        unit_cost: number(unit_cost),
        floor_price: number(floor_price),
        ceiling_price: number(ceiling_price),
        ..ProductDraft::default()
    }
    .check()
    .unwrap()
}

fn policy(yaml: &str) -> PricingPolicy {
    PricingPolicy::from_yaml(yaml, 1, &TimeZones::bundled()).unwrap()
}

fn previous(list_price: &str, opening_price: &str) -> Option<Previous<'static>> {
    let (list_price, opening_price) = (decimal(list_price), decimal(opening_price));
    Some(Previous { opening_price, ..Previous::of(list_price) })
}

fn competitor(price: &str) -> Signals {
    known([fact(SignalKind::CompetitorPrice, decimal(price), TimeDelta::zero())])
}

/// A fact about the product of this age.
fn fact(kind: SignalKind, value: Decimal, age: TimeDelta) -> Signal {
    let source = if kind == SignalKind::CompetitorPrice { "shop" } else { "" };
    let signal = Signal::new(Subject::Product("P-1".to_owned()), kind, value, now() - age);
    Signal { source: source.to_owned(), ..signal }
}

fn known(facts: impl IntoIterator<Item = Signal>) -> Signals {
    Signals::of_product(facts, None, now())
}

/// Prices the product and checks the amount and the names of the steps after the start.
fn check(
    product: &Product,
    signals: &Signals,
    previous: Option<Previous<'_>>,
    policy: &PricingPolicy,
    expected: &str,
) {
    let facts = Facts { product, signals, previous };
    let priced = price(&facts, policy, now());
    let steps: Vec<String> = priced.explanation.steps.iter().skip(1).filter_map(name).collect();
    assert_eq!(format!("{} {}", priced.amount, steps.join(" ")).trim(), expected);
}

/// Formats a step for the table; a rule that did not apply is left out.
fn name(step: &Step<'_>) -> Option<String> {
    match step {
        Step::Rule { rule, applied, .. } => applied.then(|| rule.name.to_owned()),
        Step::RuleFailed { rule, .. } => Some(format!("failed:{}", rule.name)),
        Step::Guardrail { guardrail, .. } => Some(format!("{guardrail:?}")),
        Step::Tie { others, .. } => Some(format!("tie:{}", others.join("+"))),
        Step::GuardrailsContradict { .. } => Some("contradict".to_owned()),
        Step::IncrementPassedOver { .. } => Some("no-multiple".to_owned()),
        Step::Start { .. } | Step::Rounding { .. } => None,
    }
}

#[test]
fn the_default_policy_leaves_a_product_alone_until_something_is_known() {
    let default = policy(DEFAULT_POLICY);
    check(&product("51.99", "", "", ""), &Signals::default(), None, &default, "51.99");
    check(
        &product("51.99", "5", "", ""),
        &competitor("48.10"),
        None,
        &default,
        "48.09 match-cheapest-competitor",
    );
    for (stock_h, demand_h, expected) in
        [(71, 23, "53.00 scarcity"), (72, 23, "48.09 match-cheapest-competitor"), (71, 24, "50.00")]
    {
        let scarce = known([
            fact(SignalKind::CompetitorPrice, decimal("48.10"), TimeDelta::zero()),
            fact(SignalKind::StockLevel, Decimal::ONE, TimeDelta::hours(stock_h)),
            fact(SignalKind::DemandIndex, decimal("1.3"), TimeDelta::hours(demand_h)),
        ]);
        check(&product("50.00", "5", "", ""), &scarce, None, &default, expected);
    }
}

/// base | cost | floor | ceiling | competitor | current list price | opening price → price and reasons
const GUARDRAIL_CASES: &str = "
50 |    |    |    | 20 |    |    | 50.00 failed:match-cheapest-competitor
50 |    |    |    | 20 | 49 | 49 | 49.00 failed:match-cheapest-competitor
50 |  5 |    |    | 20 |    |    | 19.99 match-cheapest-competitor
50 |    | 30 |    | 20 |    |    | 30.00 match-cheapest-competitor FloorPrice
50 |  5 |    | 45 | 49 |    |    | 45.00 match-cheapest-competitor CeilingPrice
50 | 36 |    |    | 20 |    |    | 40.00 match-cheapest-competitor MinMargin
50 |  5 |    |    | 20 | 50 | 50 | 42.50 match-cheapest-competitor MaxStep
50 |  5 |    |    | 20 | 40 | 50 | 35.00 match-cheapest-competitor MaxStep MaxDailyMove
50 |    | 48 |    | 20 | 40 | 40 | 48.00 match-cheapest-competitor MaxStep FloorPrice
50 |  5 |    | 20 | 49 | 40 | 40 | 20.00 match-cheapest-competitor MaxStep CeilingPrice
50 | 45 |    | 40 | 20 |    |    | 50.00 match-cheapest-competitor MinMargin contradict";

#[test]
fn guardrails_stop_a_price_and_the_floors_win() {
    let default = policy(DEFAULT_POLICY);
    for line in GUARDRAIL_CASES.lines().skip(1) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [base, cost, floor, ceiling, competitor_price, list, opening, expected] = cells[..] else {
            panic!("{line}");
        };
        let previous = if list.is_empty() { None } else { previous(list, opening) };
        check(
            &product(base, cost, floor, ceiling),
            &competitor(competitor_price),
            previous,
            &default,
            expected,
        );
    }
    let unguarded = policy("name: x\nmarket: [{ name: dump, set_to: 0.01 }]");
    check(&product("50", "45.001", "", ""), &Signals::default(), None, &unguarded, "45.01 dump UnitCost");
    check(&product("50", "45", "10", ""), &Signals::default(), None, &unguarded, "10.00 dump FloorPrice");
}

#[test]
fn a_rule_that_fails_freezes_the_price() {
    let kettle = product("50", "", "", "");
    for (rule, problem) in [
        ("set_to: competitor.min", "gives null"),
        ("multiply_by: competitor.min * 2", "not possible with null"),
        ("adjust: +1%, when: stock.level > 5", "not possible with null"),
        ("adjust: +1%, when: demand.index", "gives null"),
        ("adjust: +1%, when: product.base_price", "gives a number"),
        ("set_to: product.base_price / 0", "gives null"),
        ("set_to: 5 - 5", "not above 0"),
        ("adjust: -50", "not above 0"),
        ("set_to: '\"x\"'", "gives a text"),
        ("set_to: 1000000000000", "too large"),
        ("cost_plus: 10%", "unit cost is not known"),
        ("target_margin: 10%", "unit cost is not known"),
    ] {
        let document = format!("name: x\nmarket: [{{ name: bad, {rule} }}, {{ name: later, adjust: +50% }}]");
        // Some of them are refused when published, but were not in earlier versions.
        let policy = PricingPolicy::from_stored_yaml(&document, 1, &TimeZones::bundled()).unwrap();
        for (previous, kept) in [(None, "50.00"), (previous("44", "44"), "44.00")] {
            let facts = Facts { product: &kettle, signals: &Signals::default(), previous };
            let priced = price(&facts, &policy, now());
            assert_eq!(priced.explanation.outcome, Outcome::Frozen, "{rule}");
            assert_eq!(priced.amount.to_string(), kept, "{rule}");
            let said = serde_json::to_string(&priced.explanation).unwrap();
            assert!(said.contains(problem), "{rule}: {said}");
        }
    }
    // A frozen price still respects the floor.
    check(
        &product("50", "", "47", ""),
        &Signals::default(),
        previous("44", "44"),
        &policy("name: x\nmarket: [{ name: bad, set_to: competitor.min }]"),
        "47.00 failed:bad FloorPrice",
    );
    // A new policy's rounding does not move it, and a floor moves it exactly to the floor.
    let new_grid = policy(
        "name: x\nmarket: [{ name: bad, set_to: competitor.min }]\nrounding: { price_points: [9.99, 99.99] }",
    );
    let signals = Signals::default();
    check(&product("50", "", "", ""), &signals, previous("44", "44"), &new_grid, "44.00 failed:bad");
    check(&product("50", "", "", ""), &signals, None, &new_grid, "50.00 failed:bad");
    check(
        &product("50", "", "47", ""),
        &signals,
        previous("44", "44"),
        &new_grid,
        "47.00 failed:bad FloorPrice",
    );
}

#[test]
fn actions_move_the_price_as_they_say() {
    let kettle = product("50", "30", "", "");
    for (action, expected) in [
        ("adjust: -5%", "47.50"),
        ("adjust: +0.33", "50.33"),
        ("multiply_by: 1.1", "55.00"),
        ("set_to: product.unit_cost * 2", "60.00"),
        ("match: { reference: competitor.min }", "48.10"),
        ("match: { reference: competitor.min, offset: -0.01 }", "48.09"),
        ("beat: { reference: competitor.min, by: 2% }", "47.14"),
        ("beat: { reference: competitor.min, by: 0.10 }", "48.00"),
        ("cost_plus: 25%", "37.50"),
        ("cost_plus: 4", "34.00"),
        ("target_margin: 40%", "50.00"),
    ] {
        let policy = policy(&format!("name: x\nmarket: [{{ name: only, {action} }}]"));
        check(&kettle, &competitor("48.10"), None, &policy, &format!("{expected} only"));
    }
}

#[test]
fn a_price_is_valid_until_time_alone_may_change_it() {
    let kettle = product("50", "", "", "");
    let sale = policy("name: x\nmarket: [{ name: sale, adjust: -10%, until: 2027-01-15T09:00:00Z }]");
    let facts = Facts { product: &kettle, signals: &Signals::default(), previous: None };
    let before = price(&facts, &sale, now());
    assert_eq!(before.amount, decimal("45.00"));
    assert_eq!(before.valid_until.unwrap().to_rfc3339(), "2027-01-15T09:00:00+00:00");
    let after = price(&facts, &sale, before.valid_until.unwrap());
    assert_eq!((after.amount, after.valid_until), (decimal("50.00"), None));
    // Held back by the daily limit: the move continues at midnight.
    let (signals, default) = (competitor("20"), policy(DEFAULT_POLICY));
    let kettle = product("50", "5", "", "");
    let held = Facts { product: &kettle, previous: previous("40", "50"), signals: &signals };
    let held = price(&held, &default, now());
    assert_eq!(held.valid_until.unwrap().to_rfc3339(), "2027-01-16T00:00:00+00:00");
}

#[test]
fn a_stored_explanation_gives_the_same_bytes_again() {
    let kettle = product("50", "30.1234", "", "");
    let facts = Facts { product: &kettle, signals: &competitor("48.10"), previous: previous("49", "49") };
    let default = policy(DEFAULT_POLICY);
    let stored = serde_json::to_string(&price(&facts, &default, now()).explanation).unwrap();
    assert_eq!(replayed(&stored, &default), stored);
    insta::assert_snapshot!(stored);
}

fn replayed(stored: &str, policy: &PricingPolicy) -> String {
    let recorded: RecordedExplanation = serde_json::from_str(stored).unwrap();
    serde_json::to_string(&recorded.replay(policy).unwrap().explanation).unwrap()
}

#[test]
fn an_explanation_of_another_engine_is_not_taken_for_one_of_this() {
    let kettle = product("50", "30", "", "");
    let facts = Facts { product: &kettle, signals: &Signals::default(), previous: None };
    let default = policy(DEFAULT_POLICY);
    let stored = serde_json::to_string(&price(&facts, &default, now()).explanation).unwrap();
    let number = format!("\"semantics\":{SEMANTICS},");
    for (semantics, recorded) in [("", 1), ("\"semantics\":99,", 99)] {
        let other: RecordedExplanation =
            serde_json::from_str(&stored.replacen(&number, semantics, 1)).unwrap();
        assert_eq!(other.replay(&default).map(|price| price.amount), Err(OtherSemantics { recorded }));
    }
}

prop_compose! {
    fn any_facts()(
        base in 1_i64..100_000,
        cost in proptest::option::of(1_i64..100_000),
        floor in proptest::option::of(1_i64..100_000),
        above_floor in proptest::option::of(0_i64..50_000),
        competitors in proptest::collection::vec((1_i64..100_000, proptest::option::of(any::<bool>()), 0_i64..200), 0..4),
        advertised in proptest::option::of(1_i64..100_000),
        (demand_age, units_sold) in (0_i64..600, proptest::option::of(0_i64..500)),
        lasts in proptest::option::of(1_i64..600),
        (streak, pause) in (proptest::option::of((-12_i32..12, 0_i64..30)), proptest::option::of(0_i64..200)),
        stock in proptest::option::of(0_i64..50),
        demand in proptest::option::of(0_i64..30),
        previous in proptest::option::of((1_i64..100_000, 1_i64..100_000)),
    ) -> (Product, Signals, Option<Previous<'static>>) {
        let cents = |cents: i64| Decimal::new(cents, 2);
        let text = |cents_: Option<i64>| cents_.map(|value| cents(value).to_string()).unwrap_or_default();
        let ceiling = above_floor.map(|above| floor.unwrap_or(1) + above);
        let mut product = product(&cents(base).to_string(), &text(cost), &text(floor), &text(ceiling));
        product.minimum_advertised_price = advertised.map(cents);
        let prices = competitors.iter().enumerate().map(|(index, (price, in_stock, age_h))| Signal {
            source: index.to_string(),
            in_stock: *in_stock,
            ..fact(SignalKind::CompetitorPrice, cents(*price), TimeDelta::hours(*age_h))
        });
        let age = TimeDelta::minutes(demand_age);
        let stock = stock.map(|level| fact(SignalKind::StockLevel, level.into(), age));
        let demand = demand.map(|demand| fact(SignalKind::DemandIndex, Decimal::new(demand, 1), age));
        let sold = units_sold.map(|units| fact(SignalKind::UnitsSold, units.into(), age));
        let ends = |signal: Signal| Signal {
            expires_at: lasts.map(|minutes| now() + TimeDelta::minutes(minutes)),
            event_source: lasts.map(|_| "/source".to_owned()),
            ..signal
        };
        let signals = known(prices.chain(stock).chain(demand).chain(sold).map(ends));
        let previous = previous.map(|(list, open)| Previous {
            opening_price: cents(open),
            changed_at: pause.map(|minutes| now() - TimeDelta::minutes(minutes)),
            streak: streak.map(|(moves, hours)| Streak { moves, since: now() - TimeDelta::hours(hours) }),
            ..Previous::of(cents(list))
        });
        (product, signals, previous)
    }
}

fn any_policy() -> impl Strategy<Value = PricingPolicy> {
    let rule = proptest::sample::select(vec![
        "adjust: +250%",
        "adjust: -99%",
        "adjust: -7.77",
        "multiply_by: demand.index ?? 1",
        "set_to: competitor.median",
        "match: { reference: competitor.min, offset: -0.01 }",
        "beat: { reference: competitor.max, by: 5% }",
        "cost_plus: 12.5%",
        "target_margin: 33%",
        "adjust: +6%, when: stock.level < 10",
        "set_to: product.base_price / (stock.level ?? 1)",
        "match: { competitor: { statistic: min, in_stock: true, not_older_than: 48h }, offset: -1% }",
        "beat: { competitor: { nth: 2 }, by: 0.01 }",
        "index: { competitor: { name: '1' }, at: 97.5% }",
        "stock_cover: [{ below: 7, adjust: +8% }, { below: 30, adjust: 0% }, { adjust: -12% }]",
        "sell_through: [{ below: 20%, adjust: -15% }, { below: 60%, adjust: 0 }]",
        "surge: { sensitivity: 50%, cap: +40%, decay: 6h }",
        "adjust: -10%, priority: 5, schedule: { zone: Europe/Berlin, days: [sat, sun], from: '22:00', until: '02:00' }",
    ]);
    let percent = || proptest::sample::select(vec!["0%", "5%", "33.3%", "90%"]);
    let rounding = proptest::sample::select(vec![
        "{}",
        "{ ending: 0.99 }",
        "{ mode: up, increment: 0.05 }",
        "{ ending: 9.95 }",
        "{ endings: [0.49, 0.99] }",
        "{ mode: down, price_points: [4.99, 9.99, 19.99, 49.99, 99.99] }",
    ]);
    let more = proptest::sample::select(vec![
        "",
        ", floor_of_base: 60%, ceiling_of_base: 140%",
        ", min_time_between_changes: 1h",
        ", competitor_loop: { moves: 3, within: 12h }",
    ]);
    let apply = proptest::sample::select(vec!["all", "first_match"]);
    let rest = (rounding, more, apply);
    (proptest::collection::vec(rule, 0..5), percent(), percent(), percent(), rest).prop_map(
        |(rules, margin, step, day, (rounding, more, apply))| {
            let rules: Vec<String> =
                rules.iter().enumerate().map(|(index, rule)| format!("{{ name: r{index}, {rule} }}")).collect();
            policy(&format!(
                "name: any\napply: {{ market: {apply} }}\nmarket: [{}]\nguardrails: {{ min_margin: {margin}, max_step: {step}, max_daily_move: {day}{more} }}\nrounding: {rounding}",
                rules.join(", ")
            ))
        },
    )
}

/// Asserts that no price is below a floor, or above the ceiling unless the floors leave no price below it.
fn assert_within_guardrails(product: &Product, priced: &ListPrice<'_>) {
    assert!(priced.amount > Decimal::ZERO);
    assert_eq!(priced.amount.scale(), 2);
    assert!(product.floor_price.is_none_or(|floor| priced.amount >= floor));
    assert!(priced.limits.lowest.is_none_or(|lowest| priced.amount >= lowest));
    if let Some(ceiling) = product.ceiling_price.filter(|ceiling| priced.amount > *ceiling) {
        // A cent below the price is below a floor, or below the coarsest increment of the policies here.
        let room = priced.limits.lowest.unwrap_or_default() + Decimal::new(5, 2);
        assert!(room > ceiling, "{} is above {ceiling}", priced.amount);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn guardrails_hold_and_replays_agree((product, signals, previous) in any_facts(), policy in any_policy()) {
        let facts = Facts { product: &product, signals: &signals, previous };
        let priced = price(&facts, &policy, now());
        assert_within_guardrails(&product, &priced);
        let stored = serde_json::to_string(&priced.explanation).unwrap();
        let mut written = Vec::new();
        priced.explanation.append_json(&mut written).unwrap();
        prop_assert_eq!(&String::from_utf8(written).unwrap(), &stored);
        prop_assert_eq!(replayed(&stored, &policy), stored);
        // Time alone does not change the price before `valid_until`.
        let state = PriceState::after(None, &priced, now());
        let later = |at| {
            let previous = previous.map(|_| state.previous(at));
            price(&Facts { previous, ..facts }, &policy, at).amount
        };
        if let Some(valid_until) = priced.valid_until {
            prop_assert!(valid_until > now());
            prop_assert_eq!(later(valid_until - TimeDelta::microseconds(1)), priced.amount);
        } else {
            prop_assert_eq!(later(now() + TimeDelta::days(400)), priced.amount);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_frozen_price_stays_unless_a_bound_is_against_it(
        (product, signals, previous) in any_facts(),
        mut policy in any_policy(),
    ) {
        let failing = self::policy("name: x\nmarket: [{ name: fails, set_to: product.base_price - price.now }]");
        policy.market.splice(0..0, failing.market);
        let facts = Facts { product: &product, signals: &signals, previous };
        let priced = price(&facts, &policy, now());
        prop_assert_eq!(priced.explanation.outcome, Outcome::Frozen);
        let in_effect = facts.price_in_effect();
        let allowed = priced.limits.clamp(in_effect);
        if allowed == in_effect {
            prop_assert_eq!(priced.amount, in_effect);
        } else {
            // The coarsest increment of the policies here.
            prop_assert!((priced.amount - allowed).abs() <= Decimal::new(5, 2), "{} {allowed}", priced.amount);
        }
    }
}

proptest! {
    #[test]
    fn one_more_guardrail_never_lowers_the_lowest_bound(
        (product, signals, previous) in any_facts(),
        (margin, floor) in (0_i64..100, 0_i64..100),
    ) {
        let facts = Facts { product: &product, signals: &signals, previous };
        let lowest = |min_margin: Option<i64>, floor_of_base: Option<i64>| {
            let part = |percent: i64| Decimal::new(percent, 2);
            let (min_margin, floor_of_base) = (min_margin.map(part), floor_of_base.map(part));
            let guardrails = Guardrails { min_margin, floor_of_base, ..Guardrails::default() };
            intersection(guardrails.bounds(&facts).iter().map(|bound| &bound.limits)).lowest
        };
        for with_margin in [None, Some(margin)] {
            prop_assert!(lowest(with_margin, Some(floor)) >= lowest(with_margin, None));
        }
        for with_floor in [None, Some(floor)] {
            prop_assert!(lowest(Some(margin), with_floor) >= lowest(None, with_floor));
        }
    }
}

/// A policy whose only market rule follows competitors' prices.
fn any_following_policy() -> impl Strategy<Value = PricingPolicy> {
    let rule = proptest::sample::select(vec![
        "match: { reference: competitor.min, offset: -0.01 }",
        "match: { competitor: { statistic: median }, offset: +2% }",
        "match: { competitor: { name: '1' } }",
        "beat: { reference: competitor.max, by: 5% }",
        "beat: { competitor: { nth: 2 }, by: 0.01 }",
        "index: { competitor: { statistic: min, not_older_than: 90h }, at: 97.5% }",
        "set_to: competitor.median * 1.05",
    ]);
    let limits = proptest::sample::select(vec![
        "{}",
        "{ max_step: 5%, max_daily_move: 33.3% }",
        "{ floor_of_base: 60%, ceiling_of_base: 140%, min_margin: 5% }",
        "{ min_time_between_changes: 1h }",
        "{ competitor_loop: { moves: 3, within: 12h } }",
    ]);
    let rounding = proptest::sample::select(vec![
        "{}",
        "{ mode: up, ending: 0.99 }",
        "{ mode: half_up, endings: [0.49, 0.99] }",
        "{ mode: down, price_points: [4.99, 9.99, 19.99, 49.99, 99.99] }",
    ]);
    (rule, limits, rounding).prop_map(|(rule, limits, rounding)| {
        policy(&format!(
            "name: any\nmarket: [{{ name: follow, {rule} }}]\nguardrails: {limits}\nrounding: {rounding}"
        ))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_cheaper_competitor_never_raises_a_price(
        (product, signals, previous) in any_facts(),
        policy in any_following_policy(),
        (which, kept_percent) in (0_usize..4, 1_i64..=100),
    ) {
        let moves = previous.and_then(|previous| previous.streak).map_or(0, |streak| streak.moves.unsigned_abs());
        // After as many moves as a loop allows, only the other direction is free, and of a price beyond all
        // price points, rounding leads far back.
        let is_looping = moves >= policy.guardrails.competitor_loop.moves;
        if is_looping && !policy.rounding.price_points.is_empty() {
            return Ok(());
        }
        let mut cheaper = signals.clone();
        if let Some(competitor) = cheaper.competitor_prices.get_mut(which) {
            competitor.price *= Decimal::new(kept_percent, 2);
        }
        let [(before, _), (after, is_frozen)] = [&signals, &cheaper].map(|signals| {
            let priced = price(&Facts { product: &product, signals, previous }, &policy, now());
            (priced.amount, priced.explanation.outcome == Outcome::Frozen)
        });
        // A rule that fails, as it would give less than a cent, keeps the price.
        if is_frozen {
            return Ok(());
        }
        prop_assert!(after <= before, "{before} became {after}");
    }
}
