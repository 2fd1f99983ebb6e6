//! Prices that limits on moves hold back, in words.

use chrono::{DateTime, Utc};
use pricing_wire::held_price::HeldPrices;

use crate::output;

/// How many prices a limit holds back and until when, on one line.
pub(super) fn describe(held: &HeldPrices) -> String {
    let HeldPrices { limit, products, continues_at, reaches_target_at, products_that_stay, .. } = held;
    let is_one = *products == 1;
    let (prices, are) = if is_one { ("price", "is") } else { ("prices", "are") };
    let mut text = format!("{products} {prices} {are} held by {limit}");
    if let Some(at) = continues_at {
        let continues = if is_one { "continues at" } else { "continue from" };
        text.push_str(&format!(" and {continues} {}", time(*at)));
    }
    if let Some(at) = reaches_target_at {
        let last = if is_one { "it" } else { "the last" };
        text.push_str(&format!("; {last} reaches its target at {}", time(*at)));
    }
    match products_that_stay {
        None | Some(0) => {}
        Some(1) if is_one => text.push_str("; it stays short of its target"),
        Some(1) => text.push_str("; 1 stays short of its target"),
        Some(products) => text.push_str(&format!("; {products} stay short of their targets")),
    }
    text
}

fn time(at: DateTime<Utc>) -> String {
    output::to_the_second(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_how_many_prices_it_holds_and_until_when() {
        for (json, expected) in [
            (
                r#"{"limit":"max_step","products":872,"continues_at":"2026-11-23T13:05:00.4Z","reaches_target_at":"2026-11-24T02:00:00Z","products_that_stay":0}"#,
                "872 prices are held by max_step and continue from 2026-11-23T13:05:00Z; the last reaches its target at 2026-11-24T02:00:00Z",
            ),
            (
                r#"{"limit":"max_step","products":9,"continues_at":"2026-11-23T13:05:00Z","reaches_target_at":"2026-11-24T02:00:00Z","products_that_stay":2}"#,
                "9 prices are held by max_step and continue from 2026-11-23T13:05:00Z; the last reaches its target at 2026-11-24T02:00:00Z; 2 stay short of their targets",
            ),
            (
                r#"{"limit":"competitor_loop","products":1,"continues_at":"2026-11-23T13:05:00Z","reaches_target_at":"2026-11-23T13:05:00Z","products_that_stay":0}"#,
                "1 price is held by competitor_loop and continues at 2026-11-23T13:05:00Z; it reaches its target at 2026-11-23T13:05:00Z",
            ),
            (
                r#"{"limit":"max_step","products":1,"continues_at":null,"reaches_target_at":null,"products_that_stay":1}"#,
                "1 price is held by max_step; it stays short of its target",
            ),
            (r#"{"limit":"max_step","products":872}"#, "872 prices are held by max_step"),
        ] {
            assert_eq!(describe(&serde_json::from_str(json).unwrap()), expected);
        }
    }
}
