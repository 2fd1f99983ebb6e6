//! Load shedding: an API gets more requests than it can answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::eventually;
use pricing_e2e::wire_client::{WireClient, post};
use serde_json::json;

use crate::support::{Api, Stores};

const PRODUCTS: usize = 1_000;
/// The least number of prices that are requested meanwhile.
const SINGLES: usize = 50;
/// Clients that request one batch after another: so many that their work occupies a thread for far longer
/// than the API's limit on the scheduling delay, on a fast machine too. (On one, 64 were too few.)
const BATCH_CLIENTS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_refused_before_prices_in_memory_and_taken_again_afterwards() -> Result<()> {
    let stores = Stores::start().await?;
    let settings = [("PRICING_L1_MAX_STALENESS", "10m")];
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
    let rows: String = (0..PRODUCTS).map(|number| format!("P-{number},USD,100\n")).collect();
    api.import(&rows).await?;
    let items: Vec<_> = (0..PRODUCTS).map(|number| json!({"product_id": format!("P-{number}")})).collect();
    let batch = json!({"user_location": "NY", "items": items});
    // Afterwards they are in memory.
    ensure!(api.client.post("/api/v1/prices", &batch).await?.status == 200);

    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..BATCH_CLIENTS)
        .map(|_| {
            let (address, request) =
                (api.address.clone(), post("/api/v1/prices", "application/json", &batch.to_string()));
            tokio::spawn(ask_for_batches(address, request, Arc::clone(&stop), Arc::clone(&refused)))
        })
        .collect();
    let singles = async {
        for number in 0.. {
            let reply = api.client.price(&format!("P-{}", number % PRODUCTS), "NY", false).await?;
            // A host this busy may take longer for an answer than the API's time limit; that is no refusal.
            let is_late = reply.body["type"] == "/problems/timeout";
            ensure!(reply.status == 200 || is_late, "a price in memory was refused: {}", reply.text);
            if refused.load(Ordering::SeqCst) > 0 && number > SINGLES {
                break;
            }
        }
        Ok(())
    };
    let answered = tokio::time::timeout(PATIENCE, singles).await;
    stop.store(true, Ordering::SeqCst);
    answered.context("no batch was refused")??;
    for client in clients {
        client.await??;
    }

    let metrics = api.client.get("/metrics").await?.text;
    let counted =
        metrics.lines().find_map(|line| line.strip_prefix("pricing_requests_refused_total{work=\"batch\"} "));
    let counted: usize = counted.context("no count of what was refused")?.parse()?;
    ensure!(counted == refused.load(Ordering::SeqCst), "{counted} counted, {refused:?} refused");
    eventually("batches are taken again", PATIENCE, async || {
        let status = api.client.post("/api/v1/prices", &batch).await?.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

/// Requests one batch after another; each is answered, or refused as documented.
async fn ask_for_batches(
    address: String,
    request: Vec<u8>,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
) -> Result<()> {
    let mut client = WireClient::connect(&address).await?;
    while !stop.load(Ordering::SeqCst) {
        let answer = client.ask(&request).await?;
        let body = String::from_utf8_lossy(answer.body);
        if body.contains("\"/problems/timeout\"") {
            // As above: a host this busy is late, which is no refusal.
            continue;
        }
        if answer.status == 503 {
            ensure!(body.contains("\"/problems/overloaded\""), "{body}");
            ensure!(answer.head.contains("retry-after: 1\r\n"), "no Retry-After: {}", answer.head);
            refused.fetch_add(1, Ordering::SeqCst);
        } else {
            answer.ok()?;
        }
    }
    Ok(())
}
