//! A second way to every price: a model written from docs/policies.md, and not from the engine, prices random
//! cases and has to agree with it to the digit.
//!
//! It shares nothing with the engine but the documents it hands over: its numbers are fractions, its calendar
//! knows nothing but what a wall clock shows. Where the two differ, the page decides which one is wrong.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "where one of these panics, the test has failed; it says what it has tried"
)]

mod clock;
mod compare;
mod draw;
mod draw_expression;
mod draw_facts;
mod draw_policy;
mod edges;
mod expression;
mod facts;
mod fraction;
mod guardrails;
mod list_price;
mod offers;
mod policy;
mod rounding;
mod rules;

use std::collections::BTreeMap;

use compare::{Case, differences};
use draw::Draw;
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;

/// Policies, and cases priced by each of them.
const POLICIES: u64 = 2_500;
const CASES_OF_A_POLICY: u64 = 8;
/// `MODEL_SEED=7` tries others, `MODEL_POLICY=12` one policy of them alone, `MODEL_SHOWN=100` shows more
/// differences.
const SEED: u64 = 20;
/// What the cases are to exercise: so many kinds of things, each in so many cases.
const LEAST_KINDS: usize = 65;
const LEAST_CASES_OF_A_KIND: u32 = 50;
/// So many differences are shown.
const SHOWN: usize = 3;

#[test]
fn the_model_and_the_engine_agree() {
    let seed = from_environment("MODEL_SEED").unwrap_or(SEED);
    let only = from_environment("MODEL_POLICY");
    let zones = TimeZones::bundled();
    let mut draw = Draw::new(seed);
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    let mut differing: Vec<String> = Vec::new();
    for number in 0..POLICIES {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        draw.seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let place = draw.place();
        let policy = draw.policy(&place);
        let yaml = policy.yaml();
        let compiled = match PricingPolicy::from_yaml(&yaml, 1, &zones) {
            Ok(compiled) => compiled,
            Err(problems) => {
                differing.push(format!("policy {number} is refused: {problems:#?}\n{yaml}"));
                continue;
            }
        };
        for _ in 0..CASES_OF_A_POLICY {
            let case = Case::draw(&mut draw, &place, &policy);
            let (found, notes) = differences(&case, &policy, &compiled, &mut draw);
            notes.into_iter().for_each(|note| *tally.entry(note).or_default() += 1);
            if !found.is_empty() {
                differing.push(format!("policy {number}, {found:#?}\n{yaml}{case:?}\n"));
            }
        }
    }
    for (note, cases) in &tally {
        println!("{cases:6} {note}");
    }
    let rare = tally.iter().filter(|(_, cases)| **cases < LEAST_CASES_OF_A_KIND).map(|(note, _)| note);
    assert!(only.is_some() || tally.len() >= LEAST_KINDS && rare.count() == 0, "too little is tried");
    let shown = differing
        .iter()
        .take(
            from_environment("MODEL_SHOWN").map_or(SHOWN, |shown| shown.try_into().expect("a small number")),
        )
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(differing.is_empty(), "MODEL_SEED={seed}: {} cases differ, such as\n{shown}", differing.len());
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|written| written.parse().expect("a whole number"))
}
