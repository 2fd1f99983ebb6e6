//! A look-up in L1, so many times and nothing else, for a program that counts its instructions.
//!
//! `./dev instructions` runs this under callgrind and compares what a call takes with `instructions.txt`.
//! How fast requests are answered with it: `./dev bench http`.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]
#![expect(clippy::panic, reason = "a bench that is asked for something else has nothing to do")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use pricing_core::cache::{Cached, Now, PriceCache};
use pricing_core::clock::Clock;
use pricing_core::config::MetricsSwitch;
use pricing_core::keys::Keys;
use pricing_core::redis::RedisConnection;
use pricing_core::telemetry::registry::Registry;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use rust_decimal::Decimal;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--instructions", "hit_in_memory", calls] => {
            hit_in_memory(calls.parse().expect("a number of calls"))
        }
        // What `cargo bench` asks of every bench.
        [] | ["--bench"] => {}
        unknown => panic!("there is no work called {unknown:?}"),
    }
}

/// A look-up in L1; nothing is asked of Redis, which is not there.
fn hit_in_memory(calls: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let redis = RedisConnection::open("redis://127.0.0.1:1").expect("a URL");
        // A recorder compares the processor's clocks when it is made, which takes 5 to 15 million
        // instructions, never as many twice.
        let registry = Registry::new("bench", MetricsSwitch::Off);
        let (staleness, runtime) = (Duration::from_secs(3_600), tokio::runtime::Handle::current());
        let cache =
            PriceCache::new(1_000, staleness, &redis, Keys::new("bench:", "bench"), &registry, runtime);
        let entry = entry();
        let filled = Cached::Priced(Arc::new(entry.clone()));
        let fill = async move |_| Ok(filled);
        // That Redis does not answer is of no account.
        let found = cache
            .get_or_fill(entry.product_id.clone(), DateTime::UNIX_EPOCH, |_| true, |id| Box::pin(fill(id)))
            .await;
        assert!(found.is_ok());
        let now = Now::read(&Clock::default());
        assert!(cache.get_l1(entry.product_id.as_str(), now, &|_| true).is_some());
        for _ in 0..calls {
            black_box(cache.get_l1(black_box(entry.product_id.as_str()), now, &|_| true));
        }
    });
}

fn entry() -> PriceEntry {
    PriceEntry {
        product_id: ProductId::parse("P-1").expect("an identifier"),
        category: Some("Kitchen".into()),
        currency: Currency::from_code("USD").expect("a currency"),
        base_price: Decimal::new(5199, 2),
        list_price: Decimal::new(5199, 2),
        lowest: Some(Decimal::new(2000, 2)),
        highest: Some(Decimal::new(9000, 2)),
        policy_version: 1,
        revision: 1,
        valid_until: None,
    }
}
