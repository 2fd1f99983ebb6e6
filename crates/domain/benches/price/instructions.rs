//! The work of the hot path a given number of times and nothing else, for a program that counts instructions.
//!
//! `./dev instructions` runs this under callgrind and compares what a call takes with `instructions.txt`.
//! Unlike times, the counts are the same on a busy machine.

use std::hint::black_box;

use pricing_domain::facts::money::append_json_number;
use pricing_domain::policy::DEFAULT_POLICY;
use pricing_domain::pricing::price::price;
use pricing_domain::pricing::quote::quote;

use crate::NOW;
use crate::facts::{Market, SHOPPER, TEN_MARKET_RULES, entry, policy};

/// The argument that selects this mode, followed by the work's name and a number of calls.
pub(crate) const ARGUMENT: &str = "--instructions";

/// Does the work so many times.
pub(crate) fn run(work: &str, calls: u32) {
    match work {
        "quote_default_policy" => {
            let (entry, policy) = (entry(), policy(DEFAULT_POLICY));
            repeat(calls, || quote(black_box(&entry), &policy, black_box(&SHOPPER), NOW, None));
        }
        "price_10_rules" => {
            let (market, policy) = (Market::new(), policy(TEN_MARKET_RULES));
            repeat(calls, || price(&black_box(&market).facts(), &policy, NOW));
        }
        "explanation_as_json" => {
            let (market, policy) = (Market::new(), policy(TEN_MARKET_RULES));
            let facts = market.facts();
            let priced = price(&facts, &policy, NOW);
            let mut json = Vec::with_capacity(4_096);
            repeat(calls, || {
                json.clear();
                black_box(&priced.explanation).append_json(&mut json)
            });
        }
        "amount_as_json" => {
            let (amount, mut json) = (entry().list_price, Vec::with_capacity(64));
            repeat(calls, || {
                json.clear();
                append_json_number(&mut json, black_box(amount));
            });
        }
        unknown => panic!("there is no work called {unknown}"),
    }
}

fn repeat<T>(calls: u32, mut work: impl FnMut() -> T) {
    for _ in 0..calls {
        black_box(work());
    }
}
