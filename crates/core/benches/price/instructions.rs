//! The work of the hot path, so many times and nothing else, for a program that counts instructions.
//!
//! `./dev instructions` runs this under callgrind and compares what a call takes with `instructions.txt`.
//! Unlike times, the counts are the same on a busy machine.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use pricing_core::cache::{Cached, Moment, PriceCache};
use pricing_core::config::MetricsSwitch;
use pricing_core::domain::money::append_json_number;
use pricing_core::domain::policy::DEFAULT_POLICY;
use pricing_core::domain::price::price;
use pricing_core::domain::quote::quote;
use pricing_core::keys::Keys;
use pricing_core::redis::RedisConnection;
use pricing_core::telemetry::metrics::Metrics;

use crate::NOW;
use crate::facts::{Market, SHOPPER, TEN_MARKET_RULES, entry, policy};

/// What asks for this, followed by the work's name and a number of calls.
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
        "hit_in_memory" => hit_in_memory(calls),
        unknown => panic!("there is no work called {unknown}"),
    }
}

/// A look-up in L1; nothing is asked of Redis, which is not there.
fn hit_in_memory(calls: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let redis = RedisConnection::open("redis://127.0.0.1:1").expect("a URL");
        // A recorder compares the processor's clocks when it is made, which takes 5 to 15 million
        // instructions, never as many twice.
        let metrics = Metrics::new("bench", MetricsSwitch::Off);
        let (staleness, runtime) = (Duration::from_secs(3_600), tokio::runtime::Handle::current());
        let cache = PriceCache::new(1_000, staleness, &redis, Keys::new("bench:", "bench"), metrics, runtime);
        let entry = entry();
        let filled = Cached::Priced(Arc::new(entry.clone()));
        let fill = async move |_| Ok(filled);
        // That Redis does not answer is of no account.
        let found = cache.get_or_fill(entry.product_id.clone(), NOW, |_| true, |id| Box::pin(fill(id))).await;
        assert!(found.is_ok());
        let now = Moment::now();
        assert!(cache.get_l1(entry.product_id.as_str(), now, &|_| true).is_some());
        repeat(calls, || cache.get_l1(black_box(entry.product_id.as_str()), now, &|_| true));
    });
}

fn repeat<T>(calls: u32, mut work: impl FnMut() -> T) {
    for _ in 0..calls {
        black_box(work());
    }
}
