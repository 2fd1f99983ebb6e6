//! Duration of one price and one quote, compared with their limit: `./dev bench price`.
//!
//! The limit is what a programmer would write for one policy only: the same decimal operations in
//! straight-line Rust (`native`). How they are compared: `measure`. That both give the same result is checked
//! before anything is measured.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]
#![expect(clippy::panic, reason = "a bench that is asked for something else has nothing to do")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "this is what it is for")]

mod facts;
mod instructions;
mod measure;
mod native;

use std::hint::black_box;

use chrono::DateTime;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::policy::DEFAULT_POLICY;
use pricing_domain::pricing::price::price;
use pricing_domain::pricing::quote::{Quote, quote};

use facts::{Market, SHOPPER, entry, policy};
use measure::compare;

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
    let written = || {
        let mut json = Vec::with_capacity(4_096);
        black_box(&priced.explanation).append_json(&mut json).expect("it can be written");
        json
    };
    let computed = || price(black_box(&facts), &ten, NOW);
    compare(&("its explanation as JSON", written), &("price(), 10 rules", computed), "");
}

/// With the digits and the scale that a shopper sees.
fn wire(quote: &Quote) -> (String, String) {
    (quote.final_price.to_string(), quote.discount_rate.to_string())
}
