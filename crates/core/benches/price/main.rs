//! How long one price and one quote take, beside their limit: `./dev bench price`.
//!
//! The limit is what a programmer would write for one policy only: the same decimal operations in straight-line Rust
//! (`native`). The two of a pair take turns in every round, and the times are medians of the rounds, so the ratios
//! mean something on any machine. That both give the same result is checked before anything is measured.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]
#![expect(clippy::panic, reason = "a bench that is asked for something else has nothing to do")]
#![expect(clippy::print_stdout, reason = "this is what it is for")]

mod facts;
mod instructions;
mod native;

use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::DateTime;
use pricing_core::domain::policy::DEFAULT_POLICY;
use pricing_core::domain::price::{PriceEntry, price};
use pricing_core::domain::quote::{Quote, quote};

use facts::{Market, SHOPPER, entry, policy};

const ROUNDS: usize = 301;
/// How long each of a pair works in a round, about: too short to be interrupted in most rounds.
const TURN: Duration = Duration::from_micros(200);

const NOW: DateTime<chrono::Utc> = DateTime::UNIX_EPOCH;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, work, calls] = &arguments[..]
        && flag == instructions::ARGUMENT
    {
        return instructions::run(work, calls.parse().expect("a number of calls"));
    }
    println!("## Functions\n\n| work | time | beside | time | times | goal |\n|---|---|---|---|---|---|");
    let entry = entry();
    quotes(&entry);
    prices();
    explanations();
}

fn quotes(entry: &PriceEntry) {
    let default = policy(DEFAULT_POLICY);
    let ours = || quote(black_box(entry), &default, black_box(&SHOPPER), NOW, None);
    let native = || native::default_quote(black_box(entry), black_box(&SHOPPER));
    assert_eq!(wire(&ours()), wire(&native()));
    compare(&("quote(), default policy", ours), &("native decimals", native), "≤ 3");

    let five = policy(facts::FIVE_OFFER_RULES);
    let ours = || quote(black_box(entry), &five, black_box(&SHOPPER), NOW, None);
    let native = || native::five_rules_quote(black_box(entry), black_box(&SHOPPER));
    assert_eq!(wire(&ours()), wire(&native()));
    compare(&("quote(), 5 rules", ours), &("native decimals", native), "≤ 3");
}

fn prices() {
    let market = Market::new();
    let ten = policy(facts::TEN_MARKET_RULES);
    let ours = || price(&black_box(&market).facts(), &ten, NOW);
    let native = || native::ten_rules_price(black_box(&market));
    assert_eq!((ours().amount, ours().limits), native());
    compare(&("price(), 10 rules", ours), &("native decimals", native), "≤ 3");
}

fn explanations() {
    let market = Market::new();
    let ten = policy(facts::TEN_MARKET_RULES);
    let facts = market.facts();
    let priced = price(&facts, &ten, NOW);
    let written = || serde_json::to_string(black_box(&priced.explanation)).expect("it can be written");
    let computed = || price(black_box(&facts), &ten, NOW);
    compare(&("its explanation as JSON", written), &("price(), 10 rules", computed), "");
}

/// With the digits and the scale that a shopper sees.
fn wire(quote: &Quote) -> (String, String) {
    (quote.final_price.to_string(), quote.discount_rate.to_string())
}

/// Measures a pair and prints its row.
fn compare<A, B>(ours: &(&str, impl Fn() -> A), beside: &(&str, impl Fn() -> B), goal: &str) {
    let (our_calls, their_calls) = (calls_in_a_turn(&ours.1), calls_in_a_turn(&beside.1));
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_times.push(picoseconds(&ours.1, our_calls));
        their_times.push(picoseconds(&beside.1, their_calls));
    }
    let (ours_ps, beside_ps) = (median(our_times), median(their_times));
    let hundredths = ours_ps * 100 / beside_ps.max(1);
    let times = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    println!("| {} | {} | {} | {} | {times} | {goal} |", ours.0, shown(ours_ps), beside.0, shown(beside_ps));
}

fn calls_in_a_turn<T>(work: &impl Fn() -> T) -> u32 {
    let mut calls = 1;
    // Other programs make a try longer, never shorter.
    while (0..5).any(|_| duration(work, calls) < TURN) {
        calls *= 2;
    }
    calls
}

fn picoseconds<T>(work: &impl Fn() -> T, calls: u32) -> u128 {
    duration(work, calls).as_nanos() * 1_000 / u128::from(calls)
}

#[inline(never)]
fn duration<T>(work: &impl Fn() -> T, calls: u32) -> Duration {
    let started = Instant::now();
    for _ in 0..calls {
        black_box(work());
    }
    started.elapsed()
}

fn median(mut values: Vec<u128>) -> u128 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn shown(picoseconds: u128) -> String {
    if picoseconds < 1_000_000 {
        format!("{} ns", picoseconds / 1_000)
    } else {
        format!("{}.{:02} µs", picoseconds / 1_000_000, picoseconds / 10_000 % 100)
    }
}
