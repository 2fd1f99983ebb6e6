//! Clients of server-sent events as programmers install them follow price changes: npm's `eventsource`, and
//! `httpx-sse` and `sseclient-py` from PyPI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{Packages, ServiceProcess, eventually};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::Stores;

const PATIENCE: Duration = Duration::from_secs(60);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/event_clients").join(name)
}

/// A client, which prints each event as a line of JSON.
struct Client(ServiceProcess);

impl Client {
    /// Node's `eventsource`.
    fn of_node(api: &Member, query: &str) -> Result<Self> {
        let packages = Packages::node("eventsource", &file("package-lock.json"))?;
        let script = file("eventsource.js").display().to_string();
        let directory = packages.directory.display().to_string();
        Self::start(&packages.program, [&script, &directory, &url(api, query)])
    }

    /// A library of Python's.
    fn of_python(api: &Member, library: &str) -> Result<Self> {
        let packages = Packages::python("event-clients", &file("requirements.txt"))?;
        let script = file("follow.py").display().to_string();
        Self::start(&packages.program, [&script, library, &url(api, "")])
    }

    fn start(program: &Path, arguments: [&str; 3]) -> Result<Self> {
        Ok(Self(ServiceProcess::start_program(program, &[], &arguments)?))
    }

    /// The events so far.
    fn events(&self) -> Result<Vec<Value>> {
        let output = self.0.output()?;
        // The last line may not be complete.
        let lines = output.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        let mut events: Vec<Result<Value>> = lines.collect();
        if !output.ends_with('\n') {
            events.pop();
        }
        events.into_iter().collect()
    }

    /// The prices of the changes so far.
    fn prices(&self) -> Result<Vec<f64>> {
        let events = self.events()?;
        let changes = events.iter().filter(|event| event["event"] == "price_change");
        let price = |event: &Value| {
            let change: Value = serde_json::from_str(event["data"].as_str().context("no data")?)?;
            change["new_list_price"].as_f64().context("no price")
        };
        changes.map(price).collect()
    }

    async fn has(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Result<()> {
        eventually(what, PATIENCE, async || {
            let events = self.events()?;
            ensure!(holds(&events), "{events:#?}");
            Ok(())
        })
        .await
    }

    async fn has_position(&self) -> Result<()> {
        self.has("the first event has come", |events| {
            events.iter().any(|event| event["event"] == "position" && event["id"] != "")
        })
        .await
    }

    async fn has_prices(&self, expected: &[f64]) -> Result<()> {
        eventually(&format!("the prices {expected:?} have come"), PATIENCE, async || {
            let prices = self.prices()?;
            ensure!(prices == expected, "{prices:?}");
            Ok(())
        })
        .await
    }
}

fn url(api: &Member, query: &str) -> String {
    format!("http://{}/api/v1/price-changes{query}", api.address())
}

async fn put(api: &Member, product_id: &str, base_price: u32) -> Result<()> {
    eventually("the product is put", PATIENCE, async || {
        let product = json!({"currency": "USD", "base_price": base_price});
        let reply = api.client.put(&format!("/api/v1/products/{product_id}"), &product).await?;
        ensure!(reply.status.is_success(), "{}", reply.text);
        Ok(())
    })
    .await
}

fn is_connected_again(events: &[Value]) -> bool {
    events.iter().filter(|event| event["event"] == "open").count() >= 2
}

#[tokio::test]
async fn an_event_source_that_has_seen_no_change_resumes_after_an_outage_of_the_api() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let (mut api, other) = (fleet.start(Service::Api).await?, fleet.start(Service::Api).await?);
    put(&other, "P-1", 1).await?;
    let (all, one) = (Client::of_node(&api, "")?, Client::of_node(&api, "?product_id=P-1")?);
    for client in [&all, &one] {
        client.has_position().await?;
    }
    api.kill()?;
    put(&other, "P-1", 2).await?;
    put(&other, "P-2", 3).await?;
    api.start_again()?;
    api.wait_until_ready().await?;
    all.has_prices(&[2.0, 3.0]).await?;
    one.has_prices(&[2.0]).await?;
    for client in [&all, &one] {
        ensure!(client.events()?.iter().all(|event| event["event"] != "message" && event["event"] != "gap"));
    }
    Ok(())
}

#[tokio::test]
async fn an_event_source_survives_an_outage_of_redis_and_one_that_begins_in_it_follows() -> Result<()> {
    let mut stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let mut api = fleet.start(Service::Api).await?;
    put(&api, "P-1", 1).await?;
    let early = Client::of_node(&api, "")?;
    early.has_position().await?;
    stores.redis.kill()?;
    let late = Client::of_node(&api, "")?;
    late.has("it is connected", |events| events.iter().any(|event| event["event"] == "open")).await?;
    // Redis and the API are away at once; the clients connect again while Redis still is.
    api.kill()?;
    api.start_again()?;
    for client in [&early, &late] {
        client.has("it is connected again", is_connected_again).await?;
    }
    stores.redis.restart().await?;
    late.has_position().await?;
    put(&api, "P-1", 2).await?;
    for client in [&early, &late] {
        client.has_prices(&[2.0]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn python_clients_receive_events_and_no_keep_alive_comments() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let api = fleet.start(Service::Api).await?;
    let clients = [Client::of_python(&api, "httpx-sse")?, Client::of_python(&api, "sseclient-py")?];
    for client in &clients {
        client.has_position().await?;
    }
    put(&api, "P-1", 1).await?;
    // Begins after them, so they have a comment when this one has.
    let request = api.client.request(reqwest::Method::GET, "/api/v1/price-changes");
    let mut raw = request.send().await?;
    let comment = async {
        while let Some(chunk) = raw.chunk().await? {
            if chunk.starts_with(b":") {
                return Ok(());
            }
        }
        anyhow::bail!("the stream has ended")
    };
    tokio::time::timeout(PATIENCE, comment).await??;
    put(&api, "P-1", 2).await?;
    for client in &clients {
        client.has_prices(&[1.0, 2.0]).await?;
        let events = client.events()?;
        let kinds: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
        assert_eq!(kinds, ["position", "price_change", "price_change"], "{events:#?}");
    }
    Ok(())
}
