//! Generated products, any number of them, always the same.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pricing_e2e::HttpClient;
use reqwest::{Body, Method};

/// Rows of one piece of the document.
const ROWS_PER_PIECE: usize = 1_000;
const CATEGORIES: usize = 200;
/// Time limit of the largest import.
const PATIENCE: Duration = Duration::from_secs(900);

/// Sends the products as one CSV document, generated while it is sent.
pub(super) async fn import(api: &HttpClient, products: usize) -> Result<Duration> {
    let rows = futures::stream::iter(csv(products).map(Ok::<_, std::io::Error>));
    let request = api.request(Method::POST, "/api/v1/products/import").timeout(PATIENCE);
    let began = Instant::now();
    let reply = api.send(request.header("content-type", "text/csv").body(Body::wrap_stream(rows))).await?;
    let took = began.elapsed();
    ensure!(
        reply.status == 200 && reply.body["created"] == products && reply.body["failed"] == 0,
        "{}",
        reply.text
    );
    Ok(took)
}

/// The products as pieces of a CSV document.
fn csv(products: usize) -> impl Iterator<Item = String> + Send + 'static {
    let header =
        "product_id,name,category,brand,currency,base_price,unit_cost,floor_price,ceiling_price\n".to_owned();
    let starts = (0..products).step_by(ROWS_PER_PIECE);
    let pieces = starts.map(move |start| {
        let mut piece = String::with_capacity(ROWS_PER_PIECE * 96);
        for number in start..products.min(start + ROWS_PER_PIECE) {
            // Prices from 2.00 to 501.99, in an order that jumps about.
            let cents = 200 + (number * 7_919) % 50_000;
            let row = format_args!(
                "SKU-{number:07},Product {number},category-{},brand-{},USD,{},{},{},{}\n",
                number % CATEGORIES,
                number % 37,
                amount(cents),
                amount(cents * 6 / 10),
                amount(cents * 7 / 10),
                amount(cents * 2),
            );
            let _ = piece.write_fmt(row);
        }
        piece
    });
    std::iter::once(header).chain(pieces)
}

fn amount(cents: usize) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
