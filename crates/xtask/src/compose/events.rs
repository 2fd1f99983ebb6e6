//! Requests prices, publishes events, and reads the facts that the engine stored.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::containers::Stack;
use super::http::{Answer, ask_any};

/// A price as returned by the API.
pub(super) struct Price {
    pub(super) final_price: Value,
    pub(super) base_price: Decimal,
    pub(super) source: String,
    pub(super) revision: u64,
}

pub(super) fn ask_price(product_id: &str) -> Result<Price> {
    let body = json!({"product_id": product_id, "user_location": "NY"}).to_string();
    let Answer { status, body } = ask_any("POST", "/api/v1/price", Some(&body))?;
    ensure!(status == 200, "the price of {product_id}: {status} {body}");
    let missing = |field: &str| format!("the price of {product_id} has no {field}: {body}");
    Ok(Price {
        final_price: body["final_price"].clone(),
        base_price: body["base_price"].to_string().parse().with_context(|| missing("base_price"))?,
        source: body["source"].as_str().with_context(|| missing("source"))?.to_owned(),
        revision: body["revision"].as_u64().with_context(|| missing("revision"))?,
    })
}

/// Publishes a competitor's price.
pub(super) fn publish(event_id: &str, product_id: &str, price: Decimal) -> Result<Answer> {
    // Formatted manually, as an amount in a JSON value would be binary floating point.
    let event = format!(
        r#"{{"specversion": "1.0", "id": "{event_id}", "source": "/compose-check",
        "type": "pricing.competitor_price.v1",
        "data": {{"product_id": "{product_id}", "competitor": "acme", "price": {price}}}}}"#
    );
    ask_any("POST", "/api/v1/publish-market-event", Some(&event))
}

/// Returns the competitor's known prices by product: the stored facts themselves, as a price's explanation is
/// that of its last change.
pub(super) fn known_prices(stack: &Stack) -> Result<BTreeMap<String, Decimal>> {
    let query = "select subject, value from signals where subject_kind = 'product' \
        and kind = 'competitor_price' and source = 'acme'";
    let rows = stack.compose(&["exec", "-T", "postgres", "psql", "-U", "pricing", "-Atc", query])?;
    rows.lines().map(read_row).collect()
}

/// Returns the competitor's known price of a product.
pub(super) fn known_price(stack: &Stack, product_id: &str) -> Result<Option<Decimal>> {
    Ok(known_prices(stack)?.remove(product_id))
}

fn read_row(row: &str) -> Result<(String, Decimal)> {
    let (product, price) = row.split_once('|').with_context(|| format!("\"{row}\" is no row"))?;
    Ok((product.to_owned(), price.parse().with_context(|| format!("\"{row}\" has no price"))?))
}
