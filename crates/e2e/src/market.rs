//! A market for loads: products, and events about them whose effect on each price is known from the events
//! alone.

use anyhow::{Result, ensure};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::signal::{Signal, SignalKind, Subject};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::http_client::HttpClient;

/// The `source` of every event.
pub const EVENT_SOURCE: &str = "/chaos";

/// Without limits on moves, so that a price depends on the facts alone and not on the way that led to them.
pub const POLICY: &str = "
name: chaos
market:
  - { name: match, when: competitor.min != null and (stock.level ?? 100) > 20, match: { reference: competitor.min, offset: -0.01 } }
  - { name: demand, when: demand.index != null, multiply_by: demand.index }
  - { name: scarcity, when: (stock.level ?? 100) < 10, adjust: +6% }
guardrails: { min_margin: 10% }
rounding: { mode: half_even }
";

/// The lowest and the highest price that the products allow.
pub const BOUNDS: (i64, i64) = (12, 400);

/// How many events may come before one that is older.
const DISORDER: usize = 100;

/// An event as it is published, and the signal it stands for.
#[derive(Debug, Clone)]
pub struct Published {
    /// The CloudEvent.
    pub body: Value,
    /// Its identifier.
    pub id: String,
    /// What it says.
    pub signal: Signal,
}

/// Draws events about these many products. All are of one moment in the past, shuffled a little, so that
/// older ones come after newer ones.
#[derive(Debug, Clone)]
pub struct Market {
    random: fastrand::Rng,
    products: usize,
    beginning: DateTime<Utc>,
    drawn: usize,
}

impl Market {
    /// A market whose events are those of this random generator.
    pub fn new(products: usize, random: fastrand::Rng) -> Self {
        Self { random, products, beginning: Utc::now() - TimeDelta::hours(1), drawn: 0 }
    }
}

impl Iterator for Market {
    type Item = Published;

    fn next(&mut self) -> Option<Published> {
        let (number, random) = (self.drawn, &mut self.random);
        self.drawn += 1;
        let product_id = format!("P-{}", random.usize(0..self.products));
        // No two at the same instant.
        let place = number + random.usize(0..DISORDER);
        let micros = i64::try_from(place * 1_000 + number % 1_000).unwrap_or_default();
        let time = (self.beginning + TimeDelta::microseconds(micros)).trunc_subsecs(6);
        let (kind, event_type, source, value, data) = draw_fact(&product_id, random);
        let id = format!("event-{number}");
        let body = json!({
            "specversion": "1.0", "id": id, "source": EVENT_SOURCE, "type": event_type,
            "time": time.to_rfc3339(), "data": data,
        });
        let signal = Signal {
            source,
            event_source: Some(EVENT_SOURCE.to_owned()),
            ..Signal::new(Subject::Product(product_id), kind, value, time)
        };
        Some(Published { body, id, signal })
    }
}

fn draw_fact(
    product_id: &str,
    random: &mut fastrand::Rng,
) -> (SignalKind, &'static str, String, Decimal, Value) {
    let units = random.i64(1_500..30_000);
    match random.u8(0..4) {
        0 | 1 => {
            let competitor = format!("shop-{}", random.u8(0..3));
            let value = Decimal::new(units, 2);
            let data = json!({"product_id": product_id, "competitor": competitor, "price": number_of(value)});
            (SignalKind::CompetitorPrice, "pricing.competitor_price.v1", competitor, value, data)
        }
        2 => {
            let value = Decimal::new(units % 60, 0);
            let data = json!({"product_id": product_id, "level": number_of(value)});
            (SignalKind::StockLevel, "pricing.stock_level.v1", String::new(), value, data)
        }
        _ => {
            let value = Decimal::new(800 + units % 500, 3);
            let data = json!({"product_id": product_id, "index": number_of(value)});
            (SignalKind::DemandIndex, "pricing.demand_index.v1", String::new(), value, data)
        }
    }
}

fn number_of(value: Decimal) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or(Value::Null)
}

/// The identifier of a product of the market, by its number.
pub fn product_id(number: usize) -> Result<ProductId> {
    Ok(ProductId::parse(&format!("P-{number}"))?)
}

/// Imports the products of a market.
pub async fn import_market(client: &HttpClient, products: usize) -> Result<()> {
    let (floor, ceiling) = BOUNDS;
    let rows = (0..products).map(|number| {
        let base = 20 + number % 200;
        format!("P-{number},USD,{base}.99,10,{floor},{ceiling}\n")
    });
    let head = "product_id,currency,base_price,unit_cost,floor_price,ceiling_price\n".to_owned();
    import(client, head + &rows.collect::<String>()).await
}

/// Imports rows of CSV; an error if the import is refused or a row fails.
pub async fn import(client: &HttpClient, rows: String) -> Result<()> {
    let request = client.request(reqwest::Method::POST, "/api/v1/products/import");
    let reply = client.send(request.header("content-type", "text/csv").body(rows)).await?;
    ensure!(
        reply.status == 200 && reply.body.get("failed") == Some(&json!(0)),
        "{} {}",
        reply.status,
        reply.text
    );
    Ok(())
}
