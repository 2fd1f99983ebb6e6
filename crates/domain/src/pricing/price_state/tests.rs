//! Invariants of prices over time, for random sequences of the seller's acts, facts and reads.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{DueChange, PriceState};
use crate::facts::Facts;
use crate::facts::product::{Product, ProductDraft, WrittenNumber};
use crate::facts::signal::{Signal, SignalKind, Signals, Subject};
use crate::facts::time_zone::TimeZones;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::price::price;

/// What a shop knows, and its price.
#[derive(Clone)]
struct Shop {
    product: Product,
    signals: Signals,
    policy: PricingPolicy,
    state: PriceState,
    changes: Vec<DueChange>,
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_007_200, 0).unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

fn product(base_price: Decimal) -> Product {
    let draft = ProductDraft {
        product_id: Some("P-1".to_owned()),
        currency: Some("USD".to_owned()),
        base_price: Some(WrittenNumber(base_price.to_string())),
        floor_price: Some(WrittenNumber("0.01".to_owned())),
        ..ProductDraft::default()
    };
    draft.check().unwrap()
}

fn competitor(price: Decimal, seen_at: DateTime<Utc>) -> Signals {
    let subject = Subject::Product("P-1".to_owned());
    let fact = Signal::new(subject, SignalKind::CompetitorPrice, price, seen_at);
    Signals::of_product([Signal { source: "acme".to_owned(), ..fact }], None, seen_at)
}

fn policy(version: i64, market: &str, guardrails: &str) -> PricingPolicy {
    let document = format!("name: x\nmarket: [{market}]\nguardrails: {{ {guardrails} }}");
    PricingPolicy::from_yaml(&document, version, &TimeZones::bundled()).unwrap()
}

const FOLLOW: &str = "{ name: follow, match: { competitor: { statistic: min } } }";

impl Shop {
    fn open(product: Product, signals: Signals, policy: PricingPolicy) -> Self {
        let facts = Facts { product: &product, signals: &signals, previous: None };
        let state = PriceState::after(None, &price(&facts, &policy, start()), start());
        Self { product, signals, policy, state, changes: Vec::new() }
    }

    /// Makes what has fallen due, then prices what `change` leaves.
    fn at(&mut self, now: DateTime<Utc>, change: impl FnOnce(&mut Self)) -> Decimal {
        let state = self.state.clone();
        let (state, due) = state.catch_up(&self.product, &self.signals, &self.policy, now);
        self.changes.extend(due);
        change(self);
        let previous = Some(state.previous(now));
        let facts = Facts { product: &self.product, signals: &self.signals, previous };
        let priced = price(&facts, &self.policy, now);
        if priced.amount != state.list_price {
            self.changes.push(DueChange { at: now, from: state.list_price, to: priced.amount });
        }
        self.state = PriceState::after(Some(&state), &priced, now);
        self.state.list_price
    }

    fn read(&mut self, now: DateTime<Utc>) {
        if self.state.valid_until.is_some_and(|valid_until| valid_until <= now) {
            self.at(now, |_| ());
        }
    }
}

/// Rules of a window: seconds from the start, and a change in percent.
fn window(number: usize, from: i64, length: i64, percent: i64) -> String {
    let instant = |seconds| at(seconds).to_rfc3339();
    let (from, until) = (instant(from), instant(from + length));
    format!("{{ name: w{number}, from: '{from}', until: '{until}', adjust: '{percent:+}%' }}")
}

fn any_guardrails() -> impl Strategy<Value = String> {
    let step = proptest::option::of(2_i64..30);
    let daily = proptest::option::of(10_i64..60);
    let pause = proptest::option::of(60_i64..7_200);
    (step, daily, pause, 60_i64..7_200).prop_map(|(step, daily, pause, interval)| {
        let parts = [
            step.map(|step| format!("max_step: {step}%")),
            daily.map(|daily| format!("max_daily_move: {daily}%")),
            pause.map(|pause| format!("min_time_between_changes: {pause}s")),
            Some(format!("step_interval: {interval}s")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    })
}

fn any_windows() -> impl Strategy<Value = Vec<String>> {
    let any_window = (1_i64..50_000, 1_i64..20_000, prop_oneof![-60_i64..-1, 1_i64..80]);
    proptest::collection::vec(any_window, 1..5).prop_map(|windows| {
        let windows = windows.into_iter().enumerate();
        windows.map(|(number, (from, length, percent))| window(number, from, length, percent)).collect()
    })
}

fn cents() -> impl Strategy<Value = Decimal> {
    (100_i64..50_000).prop_map(|cents| Decimal::new(cents, 2))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// (a)
    #[test]
    fn windows_without_market_facts_return_to_the_first_price(
        (base, guardrails, windows) in (cents(), any_guardrails(), any_windows()),
        reads in proptest::collection::vec(1_i64..90_000, 0..6),
    ) {
        let mut shop = Shop::open(product(base), Signals::default(), policy(1, &windows.join(", "), &guardrails));
        let mut reads = reads;
        reads.sort_unstable();
        reads.into_iter().for_each(|read| shop.read(at(read)));
        prop_assert_eq!(shop.at(at(100_000), |_| ()), base);
        prop_assert_eq!(shop.state.valid_until, None);
    }

    /// (b): acts that end as they began leave a held price where it is, while its limit lasts.
    #[test]
    fn no_sequence_of_acts_that_ends_as_it_began_moves_a_held_price(
        (base, held_at, step) in (cents(), 10_i64..400, 2_i64..30),
        acts in proptest::collection::vec((0_usize..5, 10_i64..300), 1..8),
    ) {
        let guardrails = format!("max_step: {step}%");
        let target = (base * Decimal::new(held_at, 2)).round_dp(2).max(Decimal::new(1, 2));
        let mut shop = Shop::open(product(base), Signals::default(), policy(1, FOLLOW, &guardrails));
        let held = shop.at(at(60), |shop| shop.signals = competitor(target, at(60)));
        let mut version = 1;
        for (number, (act, percent)) in (2_i64..).zip(acts) {
            let part = Decimal::new(percent, 2);
            shop.at(at(60 + number), |shop| match act {
                0 => shop.product = product((base * part).round_dp(2).max(Decimal::ONE)),
                1 => shop.product.name = format!("name {number}"),
                _ => {
                    version += 1;
                    let market = match act {
                        2 => format!("{FOLLOW}, {{ name: more, multiply_by: '{part}' }}"),
                        3 => format!("{FOLLOW}, {{ name: set, set_to: '{}' }}", base * part),
                        _ => "{ name: freezes, adjust: +1%, when: stock.level > 5 }".to_owned(),
                    };
                    shop.policy = policy(version, &market, &guardrails);
                }
            });
        }
        let end = shop.at(at(200), |shop| {
            shop.product = product(base);
            shop.policy = policy(version + 1, FOLLOW, &guardrails);
        });
        prop_assert_eq!(end, held);
    }

    /// (c)
    #[test]
    fn a_quiet_market_lets_every_price_reach_its_target_in_the_stated_time(
        (base, competitors_price, guardrails) in (cents(), cents(), any_guardrails()),
        more in proptest::collection::vec((1_i64..3_600, cents()), 0..4),
    ) {
        let mut shop = Shop::open(product(base), Signals::default(), policy(1, FOLLOW, &guardrails));
        let mut now = 60;
        shop.at(at(now), |shop| shop.signals = competitor(competitors_price, at(now)));
        let mut target = competitors_price;
        for (later, price) in more {
            now += later;
            shop.at(at(now), |shop| shop.signals = competitor(price, at(now)));
            target = price;
        }
        let previous = Some(shop.state.previous(at(now)));
        let facts = Facts { product: &shop.product, signals: &shop.signals, previous };
        let held = price(&facts, &shop.policy, at(now)).explanation.held;
        match held {
            None => prop_assert_eq!(shop.state.list_price, target),
            Some(held) => {
                prop_assert_eq!(held.target, target);
                let there = held.reaches_target_at.expect("prices of a dollar and more move by cents");
                let mut early = shop.clone();
                prop_assert_ne!(early.at(there - TimeDelta::milliseconds(1), |_| ()), target);
                prop_assert_eq!(shop.at(there, |_| ()), target);
            }
        }
    }

    /// (d)
    #[test]
    fn reads_and_facts_that_repeat_what_is_known_change_nothing(
        (base, guardrails, windows) in (cents(), any_guardrails(), any_windows()),
        facts in proptest::collection::vec((1_i64..50_000, cents()), 1..5),
        others in proptest::collection::vec((1_i64..90_000, any::<bool>()), 1..20),
    ) {
        let market = format!("{FOLLOW}, {}", windows.join(", "));
        let quiet = Shop::open(product(base), Signals::default(), policy(1, &market, &guardrails));
        let run = |mut shop: Shop, others: &[(i64, bool)]| {
            let facts = facts.iter().map(|(second, price)| (*second, Some(*price), false));
            let others = others.iter().map(|(second, is_read)| (*second, None, *is_read));
            let mut events: Vec<_> = facts.chain(others).collect();
            events.sort_by_key(|(second, price, _)| (*second, price.is_none()));
            for (second, price, is_read) in events {
                let now = at(second);
                match (price, is_read) {
                    (Some(price), _) => {
                        shop.at(now, |shop| shop.signals = competitor(price, now));
                    }
                    (None, true) => shop.read(now),
                    (None, false) => {
                        let known = shop.signals.competitor_min();
                        shop.at(now, |shop| shop.signals = known.map_or_else(Signals::default, |price| competitor(price, now)));
                    }
                }
            }
            shop.at(at(400_000), |_| ());
            shop.changes
        };
        prop_assert_eq!(run(quiet.clone(), &others), run(quiet, &[]));
    }
}
