//! Stores, a collector of traces and a gateway that are reached over TLS, with an authority that no other
//! client trusts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::post;
use pricing_core::store::{Store, StoreSettings};
use pricing_e2e::{
    Certificates, OtlpCollector, PostgresServer, RedisServer, ServiceProcess, TlsProxy, eventually,
};
use reqwest::Method;
use serde_json::json;

use crate::fleet::{Fleet, Service};
use crate::support::{Api, Stores, new_policy};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: &str = "name: following\nmarket:\n  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }\n";
const REFUSED: &str = "invalid peer certificate: UnknownIssuer";
const SESSIONS: &str = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) \
    FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'pricing'";

fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

#[tokio::test]
async fn prices_follow_the_market_and_traces_are_exported_over_tls() -> Result<()> {
    let certificates = Arc::new(Certificates::make()?);
    let authority = certificates.authority();
    let authority = text(&authority)?;
    let redis = RedisServer::start_with_tls(&certificates).await?;
    let postgres = PostgresServer::start_with_tls(&certificates).await?;
    let collector = OtlpCollector::start().await?;
    let proxy = TlsProxy::start(collector.address(), &certificates, "h2").await?;
    let plain_url = postgres.create_database("tls").await?;
    let store = Store::open(&format!("{plain_url}?sslmode=disable"), StoreSettings::default()).await?;
    store.publish_policy(&new_policy(POLICY), None, chrono::Utc::now()).await?;
    store.close().await;

    let fleet = Fleet::new(&redis.url(), &format!("{plain_url}?sslmode=verify-ca&sslrootcert={authority}"))
        .with("SSL_CERT_FILE", authority)
        .with("PRICING_OTLP_ENDPOINT", &proxy.url());
    let api = fleet.start(Service::Api).await?;
    let _others = [fleet.start(Service::Listener).await?, fleet.start(Service::Worker).await?];
    let product = json!({"currency": "USD", "base_price": 100, "floor_price": 1});
    let reply = api.client.put("/api/v1/products/P-1", &product).await?;
    ensure!(reply.status == 201, "{}", reply.text);
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/test", "type": "pricing.competitor_price.v1",
        "data": {"product_id": "P-1", "competitor": "acme", "price": 40},
    });
    let publishing = api.client.request(Method::POST, "/api/v1/publish-market-event").json(&event);
    let reply = api.client.send(publishing).await?;
    ensure!(reply.status == 200, "{}", reply.text);

    eventually("the price follows, and is served from the cache", PATIENCE, async || {
        let reply = api.client.price("P-1", "NY", false).await?;
        ensure!(
            reply.body["final_price"] == json!(40.0) && reply.body["source"] == json!("cache"),
            "{}",
            reply.text
        );
        Ok(())
    })
    .await?;
    let sessions = postgres.execute("postgres", SESSIONS).await?;
    ensure!(!sessions.starts_with("0|") && sessions.trim().ends_with("|0"), "with TLS|without: {sessions}");
    eventually("the worker's spans are exported", PATIENCE, async || {
        let spans = collector.spans();
        ensure!(spans.iter().any(|span| span.service == "pricing-worker"), "{spans:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_untrusted_redis_is_refused() -> Result<()> {
    let redis = RedisServer::start_with_tls(&Arc::new(Certificates::make()?)).await?;
    let (stores, others) = (Stores::start().await?, Certificates::make()?);
    let (database_url, authority) = (stores.database_url(), others.authority());
    let environment = [
        ("PRICING_API_LISTEN", "127.0.0.1:0"),
        ("PRICING_REDIS_URL", &redis.url()),
        ("PRICING_DATABASE_URL", &database_url),
        ("SSL_CERT_FILE", text(&authority)?),
    ];
    let process = ServiceProcess::start("pricing-api", &environment, &[])?;
    eventually("the API says why it does not reach Redis", PATIENCE, async || {
        let output = process.output()?;
        ensure!(output.contains(REFUSED), "{output}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_untrusted_database_is_refused_if_it_is_to_be_verified() -> Result<()> {
    let certificates = Certificates::make()?;
    let postgres = PostgresServer::start_with_tls(&certificates).await?;
    let url = postgres.create_database("untrusted").await?;
    let authority = certificates.authority();
    let open =
        async |mode: &str| Store::open(&format!("{url}?sslmode={mode}"), StoreSettings::default()).await;
    for mode in ["verify-ca", "verify-full"] {
        let refusal = open(mode).await.err().context("it was opened")?;
        ensure!(refusal.to_string().contains(REFUSED), "{mode}: {refusal}");
        open(&format!("{mode}&sslrootcert={}", text(&authority)?)).await?.close().await;
    }
    open("require").await?.close().await;
    Ok(())
}

#[tokio::test]
async fn the_command_line_reaches_an_api_behind_a_gateway() -> Result<()> {
    let (stores, certificates) = (Stores::start().await?, Certificates::make()?);
    let api = stores.api().await?;
    api.import("P-1,USD,100\n").await?;
    let gateway = TlsProxy::start(api.address.parse()?, &certificates, "http/1.1").await?;
    let others = Certificates::make()?;
    for (trusted, expected) in [(&certificates, "P-1 costs 95.00 USD"), (&others, REFUSED)] {
        let authority = trusted.authority();
        let environment = [("PRICING_URL", gateway.url()), ("SSL_CERT_FILE", text(&authority)?.to_owned())];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut quote =
            ServiceProcess::start("pricing", &environment, &["quote", "P-1", "--location", "NY"])?;
        quote.wait(PATIENCE).await?;
        ensure!(quote.output()?.contains(expected), "{}", quote.output()?);
    }
    Ok(())
}

#[tokio::test]
async fn traces_are_exported_over_http_with_tls() -> Result<()> {
    let (stores, certificates) = (Stores::start().await?, Certificates::make()?);
    let exports = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&exports);
    let taking = post(async move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let collector = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", taking)).await });
    let proxy = TlsProxy::start(collector, &certificates, "http/1.1").await?;
    let authority = certificates.authority();
    let (redis_url, database_url, endpoint) = (stores.redis.url(), stores.database_url(), proxy.url());
    let more = [
        ("SSL_CERT_FILE", text(&authority)?),
        ("PRICING_OTLP_ENDPOINT", &endpoint),
        ("PRICING_OTLP_PROTOCOL", "http"),
        ("PRICING_TRACE_PRICE_RATIO", "1"),
    ];
    let api = Api::start_with(&redis_url, &database_url, &more).await?;
    api.import("P-1,USD,100\n").await?;
    eventually("spans are exported", PATIENCE, async || {
        ensure!(exports.load(Ordering::Relaxed) > 0, "nothing came");
        Ok(())
    })
    .await
}
