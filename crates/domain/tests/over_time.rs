//! Golden tables over time: acts of the seller and facts of the market in, each list price with its instant
//! out, one YAML file for each subject.
//!
//! Each case is priced three times: only when something happens, with reads at many instants between, and
//! with recalculations and repeated facts between. All three must give the same prices at the same instants.
//! `GOLDEN_BLESS=1 cargo test -p pricing-domain --test over_time` writes what comes out into the tables; read
//! the difference before keeping it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "where one of these panics, the test has failed"
)]

#[path = "tables/over_time.rs"]
mod table;
mod tables;

use std::collections::BTreeMap;
use std::fs;

use chrono::{DateTime, TimeDelta, Utc};
use pricing_domain::facts::Facts;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::{Product, ProductDraft, WrittenNumber};
use pricing_domain::facts::signal::{Signal, SignalKind, Signals, Subject};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::price::{MoveLimiting, price_with};
use pricing_domain::pricing::price_state::PriceState;
use rust_decimal::Decimal;

use table::{Act, Case, Table};

/// As many cases there have to be, so that none is lost unnoticed.
const LEAST_CASES: usize = 25;

/// A product with its market and its price, as services keep them.
struct Shop<'a> {
    table: &'a Table,
    fields: BTreeMap<String, String>,
    facts: Vec<Signal>,
    policies: Vec<PricingPolicy>,
    /// What the last pricing was made of, and what it left behind.
    last: Option<(Product, Signals, usize, PriceState)>,
    currency: Option<Currency>,
    prices: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Reads,
    Recalculations,
}

#[test]
fn every_case_gives_its_prices_whenever_it_is_asked() {
    let is_blessing = std::env::var_os("GOLDEN_BLESS").is_some();
    let mut cases = 0;
    let mut differences = Vec::new();
    for file in tables::files("over_time") {
        let text = fs::read_to_string(&file).expect("the table can be read");
        let table: Table =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!table.about.is_empty());
        let mut blessed = text.clone();
        for case in &table.cases {
            cases += 1;
            let prices = prices_of(&table, case, Between::Nothing);
            for between in [Between::Reads, Between::Recalculations] {
                assert_eq!(prices_of(&table, case, between), prices, "{}, with {between:?}", case.name);
            }
            if prices != case.prices {
                let place = format!("{} \"{}\"", file.display(), case.name);
                differences.push(format!("{place}\n  is  {prices:#?}\n  not {:#?}", case.prices));
                blessed = bless(&blessed, &case.name, &prices);
            }
        }
        if is_blessing && blessed != text {
            fs::write(&file, blessed).expect("the table can be written");
        }
    }
    assert!(cases >= LEAST_CASES, "only {cases} cases");
    assert!(is_blessing || differences.is_empty(), "{}", differences.join("\n"));
}

/// Each change of the list price with its instant, and what a limit holds back.
fn prices_of(table: &Table, case: &Case, between: Between) -> Vec<String> {
    let mut shop = Shop {
        table,
        fields: table.product.clone(),
        facts: Vec::new(),
        policies: Vec::new(),
        last: None,
        currency: None,
        prices: Vec::new(),
    };
    let mut now = instant(&case.acts.first().expect("an act").at);
    for act in &case.acts {
        let at = instant(&act.at);
        shop.pass(now, at, between);
        shop.act(act, at);
        now = at;
    }
    let end = instant(&case.end);
    shop.pass(now, end, between);
    shop.read(end);
    shop.prices
}

impl Shop<'_> {
    /// Lets time go by, with what happens between.
    fn pass(&mut self, from: DateTime<Utc>, to: DateTime<Utc>, between: Between) {
        let mut at = from;
        // Uneven, so that it meets no instant at which something falls due.
        let tick = TimeDelta::milliseconds(431_117);
        while between != Between::Nothing && at + tick < to {
            at += tick;
            match between {
                Between::Nothing => {}
                Between::Reads => self.read(at),
                Between::Recalculations => self.price(at, MoveLimiting::Limited, false),
            }
        }
    }

    fn act(&mut self, act: &Act, at: DateTime<Utc>) {
        self.fields.extend(act.product.clone());
        if let Some(name) = &act.policy {
            let version = i64::try_from(self.policies.len()).expect("a small number") + 1;
            let source = format!("name: {name}\n{}", self.table.policies.get(name).expect("a policy"));
            let policy = PricingPolicy::from_yaml(&source, version, &TimeZones::bundled());
            self.policies.push(policy.unwrap_or_else(|problems| panic!("{name}: {problems:?}")));
        }
        for (competitor, price) in &act.competitors {
            self.facts.retain(|known| known.source != *competitor);
            if !price.is_empty() {
                let fact = fact(SignalKind::CompetitorPrice, price, at);
                self.facts.push(Signal { source: competitor.clone(), ..fact });
            }
        }
        let others = [
            (SignalKind::DemandIndex, &act.demand),
            (SignalKind::StockLevel, &act.stock),
            (SignalKind::UnitCost, &act.cost),
        ];
        for (kind, value) in others.into_iter().filter_map(|(kind, value)| Some((kind, value.as_ref()?))) {
            self.facts.retain(|known| known.kind != kind);
            self.facts.push(fact(kind, value, at));
        }
        let limiting = if act.release { MoveLimiting::Released } else { MoveLimiting::Limited };
        self.price(at, limiting, true);
    }

    /// Reads the price, which is computed only if it has expired.
    fn read(&mut self, now: DateTime<Utc>) {
        let is_due = |state: &PriceState| state.valid_until.is_some_and(|valid_until| valid_until <= now);
        if self.last.as_ref().is_some_and(|(.., state)| is_due(state)) {
            self.price(now, MoveLimiting::Limited, false);
        }
    }

    /// Makes what has fallen due, then prices as of now.
    fn price(&mut self, now: DateTime<Utc>, limiting: MoveLimiting, is_act: bool) {
        let caught_up = self.last.take().map(|(product, signals, policy, state)| {
            let (state, changes) = state.catch_up(&product, &signals, &self.policies[policy], now);
            let said = changes.iter().map(|change| format!("{} {}", written(change.at), change.to));
            self.prices.extend(said);
            state
        });
        let product = product(&self.fields);
        let currency = self.currency.replace(product.currency);
        let caught_up = caught_up.filter(|_| currency == Some(product.currency));
        let signals = Signals::of_product(self.facts.clone(), Some(&product), now);
        let policy = self.policies.len() - 1;
        let previous = caught_up.as_ref().map(|state| state.previous(now));
        let facts = Facts { product: &product, signals: &signals, previous };
        let priced = price_with(&facts, &self.policies[policy], now, limiting);
        let before = caught_up.as_ref().map(|state| state.list_price);
        if is_act || before != Some(priced.amount) {
            let held = priced.explanation.held.map(|held| {
                let on = held
                    .continues_at
                    .map_or("stays".to_owned(), |at| format!("continues at {}", written(at)));
                let there = held.reaches_target_at.map(|at| format!(", reaches it at {}", written(at)));
                format!(", target {}, {on}{}", held.target, there.unwrap_or_default())
            });
            let frozen = if priced.explanation.outcome.name() == "frozen" { ", frozen" } else { "" };
            self.prices.push(format!(
                "{} {}{frozen}{}",
                written(now),
                priced.amount,
                held.unwrap_or_default()
            ));
        }
        let state = PriceState::after(caught_up.as_ref(), &priced, now);
        let state_json = serde_json::to_string(&state.movement).expect("it can be written");
        let read_back = serde_json::from_str(&state_json).expect("it can be read");
        assert_eq!(state.movement, read_back, "{state_json}");
        self.last = Some((product.clone(), signals.clone(), policy, state));
    }
}

fn fact(kind: SignalKind, value: &str, at: DateTime<Utc>) -> Signal {
    Signal::new(Subject::Product("P-1".to_owned()), kind, decimal(value), at)
}

fn product(fields: &BTreeMap<String, String>) -> Product {
    let mut fields: BTreeMap<String, String> =
        fields.iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut number = |name: &str| fields.remove(name).map(WrittenNumber);
    let draft = ProductDraft {
        product_id: Some("P-1".to_owned()),
        base_price: number("base_price"),
        unit_cost: number("unit_cost"),
        floor_price: number("floor_price"),
        ceiling_price: number("ceiling_price"),
        minimum_advertised_price: number("minimum_advertised_price"),
        category: fields.remove("category"),
        name: fields.remove("name"),
        currency: Some(fields.remove("currency").unwrap_or_else(|| "USD".to_owned())),
        ..ProductDraft::default()
    };
    draft.check().unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The text with what came out at the end of this case.
fn bless(text: &str, name: &str, prices: &[String]) -> String {
    let (mut is_here, mut is_list) = (false, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(rest) = trimmed.strip_prefix("- name: ") {
            is_here = rest.trim_matches('"') == name;
            lines.push(line.to_owned());
            if is_here {
                lines.push("    prices:".to_owned());
                lines.extend(prices.iter().map(|price| format!("      - {price:?}")));
            }
            continue;
        }
        is_list = is_here && (trimmed == "prices:" || is_list && line.starts_with("      - \""));
        if !is_list {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn instant(text: &str) -> DateTime<Utc> {
    table::instant(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn written(at: DateTime<Utc>) -> String {
    at.format("%d %H:%M:%S%.f").to_string()
}
