//! A load of events and reads during other work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rust_decimal::Decimal;

use super::events::{ask_price, publish};
use crate::pause::pause;

const EVENT_INTERVAL: Duration = Duration::from_millis(10);
/// The products P-100 to P-999.
const FIRST_PRODUCT: u32 = 100;
const PRODUCTS: u32 = 900;

/// The result of the published events.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// By product, the number of the last event that was acknowledged.
    pub(super) last: BTreeMap<String, u32>,
    pub(super) acknowledged: u32,
    pub(super) refused: u32,
}

/// The result of the reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) count: u32,
    pub(super) slowest: Duration,
}

/// Publishes and reads until the work is done. Fails if the work or a read does.
pub(super) fn during<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Published, Reads)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_until(&stop));
        let reading = scope.spawn(|| read_until(&stop));
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        let panicked = |_| anyhow!("a thread has panicked");
        let (published, reads) = (publishing.join().map_err(panicked), reading.join().map_err(panicked));
        Ok((worked?, published?, reads??))
    })
}

fn publish_until(stop: &AtomicBool) -> Published {
    let mut published = Published::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let product_id = product(number);
        // While Redis is unavailable, nothing is acknowledged.
        match publish(&format!("killed-{number}"), &product_id, price_of(number)) {
            Ok(answer) if answer.status == 200 => {
                published.last.insert(product_id, number);
                published.acknowledged += 1;
            }
            Ok(_) | Err(_) => published.refused += 1,
        }
        number += 1;
        pause(EVENT_INTERVAL);
    }
    published
}

fn read_until(stop: &AtomicBool) -> Result<Reads> {
    let mut reads = Reads::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        ask_price(&product(reads.count))?;
        reads.slowest = reads.slowest.max(began.elapsed());
        reads.count += 1;
    }
    Ok(reads)
}

fn product(number: u32) -> String {
    format!("P-{}", FIRST_PRODUCT + number % PRODUCTS)
}

/// Returns a price that identifies its event.
fn price_of(number: u32) -> Decimal {
    Decimal::new(100_000 + i64::from(number), 2)
}

/// Returns the products for which the engine knows neither the last acknowledged event nor a later one.
pub(super) fn lost(published: &Published, known: &BTreeMap<String, Decimal>) -> Vec<String> {
    let is_lost = |(product, number): &(&String, &u32)| {
        known.get(*product).is_none_or(|price| *price < price_of(**number))
    };
    published.last.iter().filter(is_lost).map(|(product, _)| product.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lost_unless_it_or_a_later_one_is_known() {
        let last = [("P-1", 3), ("P-2", 3), ("P-3", 3), ("P-4", 3)];
        let last = last.map(|(product, number)| (product.to_owned(), number)).into();
        let published = Published { last, ..Published::default() };
        let known = [("P-1", 3), ("P-2", 4), ("P-3", 2)];
        let known = known.map(|(product, number)| (product.to_owned(), price_of(number))).into();
        assert_eq!(lost(&published, &known), ["P-3", "P-4"]);
        assert_eq!(price_of(7).to_string(), "1000.07");
    }
}
