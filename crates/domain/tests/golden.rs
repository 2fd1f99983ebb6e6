//! Golden tables: facts and a policy in, the price and each step to it out, one YAML file for each subject.
//!
//! `GOLDEN_BLESS=1 cargo test -p pricing-core --test golden` writes what comes out into the tables; read the
//! difference before keeping it.

#![expect(clippy::expect_used, clippy::panic, reason = "where one of these panics, the test has failed")]

mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use pricing_domain::facts::Facts;
use pricing_domain::facts::previous::Previous;
use pricing_domain::facts::previous::Streak;
use pricing_domain::facts::product::{Product, ProductDraft, WrittenNumber};
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::guardrail::GuardrailName;
use pricing_domain::pricing::explanation::Step;
use pricing_domain::pricing::price::{ListPrice, price};
use pricing_domain::pricing::quote::quote;
use pricing_domain::pricing::replay::RecordedExplanation;
use rust_decimal::Decimal;
use serde::Deserialize;

/// The instant of a case that says none: a Monday.
const NOON: &str = "2026-11-23T12:00:00Z";
/// As many cases there have to be, so that none is lost unnoticed.
const LEAST_CASES: usize = 150;

/// A file of cases with what they have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What it shows.
    about: String,
    #[serde(default)]
    product: BTreeMap<String, String>,
    #[serde(default)]
    policy: String,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Over those of the table.
    #[serde(default)]
    product: BTreeMap<String, String>,
    /// In place of the table's.
    policy: Option<String>,
    /// In place of both: one of `policies`.
    policy_file: Option<String>,
    #[serde(default)]
    competitors: BTreeMap<String, CompetitorCase>,
    stock: Option<String>,
    /// How long ago the stock was such; now if absent. So with the others.
    stock_age: Option<String>,
    sold: Option<String>,
    sold_age: Option<String>,
    demand: Option<String>,
    demand_age: Option<String>,
    /// For how long the demand is known, from when it was such; for good if absent.
    demand_lasts: Option<String>,
    /// What an event said of the cost.
    cost: Option<String>,
    cost_age: Option<String>,
    /// How long ago the seller stated the product's own cost; longer ago than anything if absent.
    stated_age: Option<String>,
    previous: Option<PreviousCase>,
    now: Option<String>,
    /// Then the price is this shopper's.
    shopper: Option<ShopperCase>,
    #[serde(default)]
    price: String,
    #[serde(default)]
    why: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompetitorCase {
    price: String,
    in_stock: Option<bool>,
    age: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviousCase {
    list_price: String,
    opening_price: Option<String>,
    changed: Option<String>,
    streak: Option<i32>,
    streak_age: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShopperCase {
    #[serde(default)]
    location: String,
    #[serde(default)]
    prime: bool,
    quantity: Option<u32>,
    channel: Option<String>,
    segment: Option<String>,
    location_factor: Option<String>,
}

#[test]
fn every_case_gives_its_price_for_its_reasons() {
    let is_blessing = std::env::var_os("GOLDEN_BLESS").is_some();
    let mut cases = 0;
    let mut differences = Vec::new();
    for file in tables::files("golden") {
        let text = fs::read_to_string(&file).expect("the table can be read");
        let table: Table =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!table.about.is_empty());
        let mut blessed = text.clone();
        for case in &table.cases {
            cases += 1;
            let (price, why) = outcome(&table, case);
            if (&price, &why) != (&case.price, &case.why) {
                let place = format!("{} \"{}\"", file.display(), case.name);
                differences
                    .push(format!("{place}\n  is  {price} {why:#?}\n  not {} {:#?}", case.price, case.why));
                blessed = bless(&blessed, &case.name, &price, &why);
            }
        }
        if is_blessing && blessed != text {
            fs::write(&file, blessed).expect("the table can be written");
        }
    }
    assert!(cases >= LEAST_CASES, "only {cases} cases");
    assert!(is_blessing || differences.is_empty(), "{}", differences.join("\n"));
}

/// The price and the steps of a case; the replay of its explanation is checked on the way.
fn outcome(table: &Table, case: &Case) -> (String, Vec<String>) {
    let source = case.policy.as_ref().unwrap_or(&table.policy);
    let source =
        case.policy_file.as_ref().map_or_else(|| format!("name: golden\n{source}"), |name| example(name));
    let policy = match PricingPolicy::from_yaml(&source, 1, &TimeZones::bundled()) {
        Ok(policy) => policy,
        Err(problems) => {
            return ("refused".to_owned(), problems.iter().map(ToString::to_string).collect());
        }
    };
    let now = instant(case.now.as_deref().unwrap_or(NOON));
    let ago = |written: &Option<String>| now - written.as_deref().map_or(TimeDelta::zero(), duration);
    let product = Product {
        cost_stated_at: case.stated_age.as_ref().map(|_| ago(&case.stated_age)),
        ..product(table, case)
    };
    let signals = Signals::of_product(facts_of(case, now), Some(&product), now);
    let previous = case.previous.as_ref().map(|previous| Previous {
        opening_price: decimal(previous.opening_price.as_ref().unwrap_or(&previous.list_price)),
        changed_at: previous.changed.as_ref().map(|_| ago(&previous.changed)),
        streak: previous.streak.map(|moves| Streak { moves, since: ago(&previous.streak_age) }),
        ..Previous::of(decimal(&previous.list_price))
    });
    let facts = Facts { product: &product, signals: &signals, previous };
    let priced = price(&facts, &policy, now);
    let stored = serde_json::to_string(&priced.explanation).expect("it can be written");
    let recorded: RecordedExplanation = serde_json::from_str(&stored).expect("it can be read");
    let replayed = recorded.replay(&policy).map(|price| serde_json::to_string(&price.explanation));
    assert_eq!(replayed.expect("it is of this engine").expect("it can be written"), stored, "{}", case.name);
    let Some(shopper) = &case.shopper else {
        let mut why: Vec<String> = priced.explanation.steps.iter().filter_map(in_words).collect();
        why.extend(priced.valid_until.map(|until| format!("until {}", until.format("%F %TZ"))));
        return (priced.amount.to_string(), why);
    };
    quoted(&priced, &policy, shopper, now)
}

/// What a case says is known about the market.
fn facts_of(case: &Case, now: DateTime<Utc>) -> Vec<Signal> {
    let ago = |written: &Option<String>| now - written.as_deref().map_or(TimeDelta::zero(), duration);
    let fact = |kind, value: &str, age| {
        Signal::new(Subject::Product("P-1".to_owned()), kind, decimal(value), ago(age))
    };
    let of_competitors = case.competitors.iter().map(|(competitor, known)| {
        let signal = fact(SignalKind::CompetitorPrice, &known.price, &known.age);
        Signal { source: competitor.clone(), in_stock: known.in_stock, ..signal }
    });
    let others = [
        (SignalKind::StockLevel, &case.stock, &case.stock_age, &None),
        (SignalKind::UnitsSold, &case.sold, &case.sold_age, &None),
        (SignalKind::DemandIndex, &case.demand, &case.demand_age, &case.demand_lasts),
        (SignalKind::UnitCost, &case.cost, &case.cost_age, &None),
    ];
    let others = others.into_iter().filter_map(|(kind, value, age, lasts)| {
        let expires_at = lasts.as_deref().map(|lasts| ago(age) + duration(lasts));
        Some(Signal { expires_at, ..fact(kind, value.as_deref()?, age) })
    });
    of_competitors.chain(others).collect()
}

/// The price of one shopper, and the steps to it from the list price.
fn quoted(
    priced: &ListPrice<'_>,
    policy: &PricingPolicy,
    shopper: &ShopperCase,
    now: DateTime<Utc>,
) -> (String, Vec<String>) {
    let entry = priced.entry(1);
    let asking = Shopper {
        location: if shopper.location.is_empty() { "NY" } else { &shopper.location },
        prime: shopper.prime,
        quantity: shopper.quantity.unwrap_or(1),
        channel: shopper.channel.as_deref(),
        segment: shopper.segment.as_deref(),
        location_factor: shopper.location_factor.as_deref().map(decimal),
    };
    let mut steps = Vec::new();
    let quoted = quote(&entry, policy, &asking, now, Some(&mut steps));
    let mut why: Vec<String> = steps.iter().filter_map(in_words).collect();
    if !quoted.discount_rate.is_zero() {
        why.push(format!("discount {}", quoted.discount_rate));
    }
    (quoted.final_price.to_string(), why)
}

/// A policy of `policies`.
fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("policies/{name}.yaml"));
    fs::read_to_string(file).expect("the example can be read")
}

fn product(table: &Table, case: &Case) -> Product {
    let mut fields = table.product.clone();
    fields.extend(case.product.clone());
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_empty());
    let draft = ProductDraft {
        product_id: Some(take("product_id").unwrap_or_else(|| "P-1".to_owned())),
        name: None,
        category: take("category"),
        brand: take("brand"),
        currency: Some(take("currency").unwrap_or_else(|| "USD".to_owned())),
        base_price: take("base_price").map(WrittenNumber),
        unit_cost: take("unit_cost").map(WrittenNumber),
        floor_price: take("floor_price").map(WrittenNumber),
        ceiling_price: take("ceiling_price").map(WrittenNumber),
        minimum_advertised_price: take("minimum_advertised_price").map(WrittenNumber),
        attributes: fields,
    };
    draft.check().unwrap_or_else(|problems| panic!("{}: {problems:?}", case.name))
}

/// A step in a line; none for the start and for rules that did not apply.
fn in_words(step: &Step<'_>) -> Option<String> {
    let name = |guardrail: &GuardrailName| serde_json::to_value(guardrail).expect("a name");
    match step {
        Step::Start { .. } | Step::Rule { applied: false, .. } => None,
        Step::Rule { rule, before, after, .. } => Some(format!("{} {before} to {after}", rule.name)),
        Step::RuleFailed { rule, problem, .. } => Some(format!("{} failed, {problem}", rule.name)),
        Step::Tie { chosen, others, .. } => Some(format!("{chosen} ties with {}", others.join(" and "))),
        Step::Guardrail { guardrail, before, after } => {
            Some(format!("{} {before} to {after}", name(guardrail).as_str().expect("a text")))
        }
        Step::GuardrailsContradict { lowest, highest, .. } => {
            Some(format!("floor {lowest} over ceiling {highest}"))
        }
        Step::Rounding { before, after, .. } => Some(format!("rounding {before} to {after}")),
        Step::IncrementPassedOver { increment, .. } => Some(format!("no multiple of {increment}")),
        unheard_of => panic!("give this step words: {unheard_of:?}"),
    }
}

/// The text with what came out at the end of this case.
fn bless(text: &str, name: &str, price: &str, why: &[String]) -> String {
    let mut is_here = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(rest) = trimmed.strip_prefix("- name: ") {
            is_here = rest.trim_matches('"') == name;
            lines.push(line.to_owned());
            if is_here {
                lines.push(format!("    price: {price}"));
                let quoted: Vec<String> = why.iter().map(|line| format!("{line:?}")).collect();
                lines.push(format!("    why: [{}]", quoted.join(", ")));
            }
        } else if !is_here || !(trimmed.starts_with("price: ") || trimmed.starts_with("why: ")) {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn instant(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_utc()
}

/// `90s`, `30m`, `2h` or `3d`.
fn duration(text: &str) -> TimeDelta {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: i64 = number.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    match unit {
        "s" => TimeDelta::seconds(number),
        "m" => TimeDelta::minutes(number),
        "h" => TimeDelta::hours(number),
        "d" => TimeDelta::days(number),
        _ => panic!("{text}"),
    }
}
