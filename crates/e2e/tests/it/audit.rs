//! The record of who changed what: each route that writes leaves an entry, on both databases, and nothing
//! else does.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::audit::{Action, Origin};
use pricing_core::jobs::queue::JobQueue;
use pricing_core::jobs::{Job, JobKind, NewJob};
use pricing_core::keys::{DEFAULT_PREFIX, MessageKeys};
use pricing_core::redis::RedisConnection;
use pricing_core::store::{AuditEntry, AuditFilter, RunRequest, Store, StoreSettings};
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_e2e::{HttpReply, OtlpCollector, RedisServer, ServiceProcess, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Service};
use crate::support::{Api, Stores, shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);
const POLICY: &str = "name: plain\nrounding: { mode: half_even }\n";
/// Routes that take a body or a decision and change nothing, and that of events: their record is the history.
const WITHOUT_ENTRY: [&str; 6] = [
    "POST /api/v1/price",
    "POST /api/v1/prices",
    "POST /api/v1/policies/check",
    "POST /api/v1/policies/simulate",
    "POST /api/v1/publish-market-event",
    // Tested with moves that are held, in `held_moves`; one that decides about none leaves no entry.
    "POST /api/v1/held-moves/reject",
];

/// What a test sends and what it finds recorded.
struct Recorder {
    api: Api,
    key: Option<String>,
    /// The routes that were used, as in the document.
    used: BTreeSet<String>,
}

impl Recorder {
    /// Sends a request to a route, which has to answer with this status.
    async fn send(&mut self, route: &str, path: &str, body: &str, status: u16) -> Result<HttpReply> {
        let (method, _) = route.split_once(' ').context("a method")?;
        let mut request = self.api.client.request(method.parse::<Method>()?, path);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request = request.header("x-request-id", "request-7");
        if !body.is_empty() {
            let media_type = match route {
                "POST /api/v1/products/import" => "text/csv",
                _ if body.starts_with('{') => "application/json",
                _ => "application/yaml",
            };
            request = request.header("content-type", media_type).body(body.to_owned());
        }
        let reply = self.api.client.send(request).await?;
        ensure!(reply.status == status, "{route}: {} {}", reply.status, reply.text);
        self.used.insert(route.to_owned());
        Ok(reply)
    }

    /// The changes that are recorded, newest first.
    async fn changes(&self, query: &str) -> Result<Vec<Value>> {
        let mut request = self.api.client.request(Method::GET, &format!("/api/v1/audit{query}"));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let reply = self.api.client.send(request).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        reply.body["changes"].as_array().cloned().context("changes")
    }

    /// Sends a request, which has to leave exactly one entry; returns that.
    async fn records(&mut self, route: &str, path: &str, body: &str, status: u16) -> Result<Value> {
        let before = self.changes("").await?.len();
        self.send(route, path, body, status).await?;
        let changes = self.changes("").await?;
        ensure!(changes.len() == before + 1, "{route} has left {} entries", changes.len() - before);
        let change = changes.first().context("no entry")?.clone();
        ensure!(change["place"] == "127.0.0.1" && change["request_id"] == "request-7", "{change}");
        Ok(change)
    }
}

/// The action, the subject and both values of an entry.
fn what(change: &Value) -> (&str, &str, &Value, &Value) {
    let text = |name: &str| change[name].as_str().unwrap_or_default();
    (text("action"), text("subject"), &change["before"], &change["after"])
}

#[tokio::test]
async fn every_write_is_recorded_once_on_sqlite() -> Result<()> {
    let directory = tempfile::tempdir()?;
    every_write_is_recorded_once(&sqlite_url(&directory.path().join("catalogue.db"))).await
}

#[tokio::test]
async fn every_write_is_recorded_once_on_postgres() -> Result<()> {
    every_write_is_recorded_once(&shared_postgres().await?.create_database("audit").await?).await
}

async fn every_write_is_recorded_once(database_url: &str) -> Result<()> {
    let redis = RedisServer::start().await?;
    let api = Api::start(&redis.url(), database_url).await?;
    let mut recorder = Recorder { api, key: None, used: BTreeSet::new() };
    writes_of_products(&mut recorder).await?;
    writes_of_policies(&mut recorder).await?;
    writes_of_operations(&mut recorder, database_url, &redis).await?;
    writes_of_keys(&mut recorder).await?;
    let document = recorder.api.client.get("/openapi.json").await?.body;
    let paths = document["paths"].as_object().context("paths")?;
    let routes = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flat_map(|item| item.keys());
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let writes: BTreeSet<String> = routes
        .filter(|route| !route.starts_with("GET ") && !WITHOUT_ENTRY.contains(&route.as_str()))
        .collect();
    assert_eq!(recorder.used, writes, "a route that writes has no case here");
    Ok(())
}

async fn writes_of_products(recorder: &mut Recorder) -> Result<()> {
    const PRODUCT: &str = "PUT /api/v1/products/{product_id}";
    const IMPORT: &str = "POST /api/v1/products/import";
    let body = |price: u32| json!({"currency": "USD", "base_price": price}).to_string();
    let created = recorder.records(PRODUCT, "/api/v1/products/P-1", &body(10), 201).await?;
    let (action, subject, before, after) = what(&created);
    assert_eq!((action, subject, before), ("product.put", "P-1", &Value::Null));
    assert_eq!((after["base_price"].as_f64(), &created["actor"]), (Some(10.0), &Value::Null));
    let changed = recorder.records(PRODUCT, "/api/v1/products/P-1", &body(12), 200).await?;
    let prices = ["before", "after"].map(|value| changed[value]["base_price"].as_f64());
    assert_eq!(prices, [Some(10.0), Some(12.0)]);
    let count = recorder.changes("").await?.len();
    recorder.send(PRODUCT, "/api/v1/products/P-1", &body(12), 200).await?;
    assert_eq!(recorder.changes("").await?.len(), count, "what changes nothing is not recorded");

    let header = "product_id,currency,base_price,unit_cost\n";
    let rows = format!("{header}P-1,USD,12,\nP-2,USD,20,7.50\n");
    let imported = recorder.records(IMPORT, "/api/v1/products/import", &rows, 200).await?;
    assert_eq!(imported["action"], "products.import");
    let fields = imported["after"]["products"].as_object().context("products")?;
    let changed = fields["P-2"].as_object().context("fields")?.keys();
    let changed: Vec<&str> = changed.map(String::as_str).collect();
    assert_eq!((fields.len(), changed), (1, vec!["base_price", "currency", "name", "unit_cost"]));
    let cost = &fields["P-2"]["unit_cost"];
    assert_eq!((&cost[0], cost[1].as_f64()), (&Value::Null, Some(7.5)));
    let found = recorder.changes("?subject=P-2").await?;
    assert_eq!(found, [imported], "a product finds the imports that changed it");
    assert_eq!(recorder.changes("?subject=P-1").await?.len(), 2, "the import did not change it");

    const DELETE: &str = "DELETE /api/v1/products/{product_id}";
    let deleted = recorder.records(DELETE, "/api/v1/products/P-1", "", 204).await?;
    let (action, subject, before, after) = what(&deleted);
    assert_eq!((action, subject, after), ("product.delete", "P-1", &Value::Null));
    assert_eq!(before["base_price"].as_f64(), Some(12.0));
    recorder.send(DELETE, "/api/v1/products/P-1", "", 404).await?;
    assert_eq!(recorder.changes("?subject=P-1").await?.len(), 3);
    Ok(())
}

async fn writes_of_policies(recorder: &mut Recorder) -> Result<()> {
    let draft = "/api/v1/policies/drafts/spring";
    let put = "PUT /api/v1/policies/drafts/{name}";
    let stored = recorder.records(put, &format!("{draft}?author=kim"), POLICY, 204).await?;
    assert_eq!((&stored["actor"], &stored["is_as_stated"]), (&json!("kim"), &json!(true)));
    assert_eq!((what(&stored).0, what(&stored).1), ("draft.put", "spring"));
    let removed = recorder.records("DELETE /api/v1/policies/drafts/{name}", draft, "", 204).await?;
    assert_eq!((what(&removed).0, &removed["before"]["author"]), ("draft.delete", &json!("kim")));
    let publish = "/api/v1/policies?author=zoe&note=test";
    let published = recorder.records("POST /api/v1/policies", publish, POLICY, 201).await?;
    let (action, subject, before, after) = what(&published);
    assert_eq!((action, subject, &before["version"]), ("policy.publish", "2", &json!(1)));
    let digest = after["sha256"].as_str().context("a digest")?;
    assert_eq!((&after["name"], &after["author"], digest.len()), (&json!("plain"), &json!("zoe"), 64));
    let back = "/api/v1/policies/1/rollback?author=zoe&approved_by=kim";
    let rolled = recorder.records("POST /api/v1/policies/{version}/rollback", back, "", 201).await?;
    assert_eq!((what(&rolled).0, &rolled["after"]["approved_by"]), ("policy.rollback", &json!("kim")));
    Ok(())
}

async fn writes_of_operations(
    recorder: &mut Recorder,
    database_url: &str,
    redis: &RedisServer,
) -> Result<()> {
    let path = "/api/v1/recalculations";
    let requested = recorder.records("POST /api/v1/recalculations", path, "", 202).await?;
    assert_eq!((what(&requested).0, &requested["after"]), ("recalculation.request", &json!("all")));
    let store = Store::open(database_url, StoreSettings::default()).await?;
    let now = Utc::now();
    for task_id in ["held-1", "held-2"] {
        let scope = RecalculationScope::Category(task_id.to_owned());
        let request = RunRequest { task_id: task_id.to_owned(), scope, requested_at: now, approved_by: None };
        store.request_run(&request).await?;
        ensure!(store.hold_run(task_id, "too far", 1, now).await?);
    }
    for (task_id, decision, state) in [("held-1", "approve", "requested"), ("held-2", "reject", "failed")] {
        let route = format!("POST /api/v1/recalculations/{{task_id}}/{decision}");
        let path = format!("/api/v1/recalculations/{task_id}/{decision}?by=zoe");
        let decided = recorder.records(&route, &path, "", 202).await?;
        assert_eq!(what(&decided).0, format!("recalculation.{decision}"));
        assert_eq!(
            (&decided["before"]["state"], &decided["after"]["state"]),
            (&json!("held"), &json!(state))
        );
    }
    let count = recorder.changes("").await?.len();
    recorder.send("POST /api/v1/held-moves/approve", "/api/v1/held-moves/approve?by=zoe", "", 200).await?;
    assert_eq!(recorder.changes("").await?.len(), count, "no move was held");

    let keys = MessageKeys::new(DEFAULT_PREFIX);
    let queue = JobQueue::new(&RedisConnection::open(&redis.url())?, &keys);
    let _worker = Fleet::new(&redis.url(), database_url).start(Service::Worker).await?;
    queue.dead_letter("dead", Some(JobKind::ApplyEvents), "on purpose", 1).await?;
    let job = Job::ApplyEvents { events: Vec::new(), published_at: None };
    queue.enqueue(&NewJob { task_id: "dead".to_owned(), job }).await?;
    let (route, path) = ("POST /api/v1/jobs/{task_id}/requeue", "/api/v1/jobs/dead/requeue");
    let requeued = eventually("the job is dead and is requeued", PATIENCE, async || {
        let sent = recorder.api.client.request(Method::POST, path).header("x-request-id", "request-7");
        let reply = recorder.api.client.send(sent).await?;
        ensure!(reply.status == 202, "{}", reply.text);
        recorder.changes("?action=job.requeue").await
    })
    .await?;
    recorder.used.insert(route.to_owned());
    assert_eq!((requeued.len(), what(&requeued[0]).1), (1, "dead"));
    Ok(())
}

async fn writes_of_keys(recorder: &mut Recorder) -> Result<()> {
    let order =
        json!({"name": "adam", "scopes": ["keys:admin", "audit:read", "catalogue:write"]}).to_string();
    let reply = recorder.send("POST /api/v1/keys", "/api/v1/keys", &order, 201).await?;
    let (id, secret) = (reply.body["id"].as_str().context("an id")?, reply.body["secret"].as_str());
    recorder.key = secret.map(str::to_owned);
    let created = recorder.changes("?limit=1").await?.remove(0);
    assert_eq!((what(&created).0, what(&created).1), ("key.create", id));
    ensure!(!created.to_string().contains(secret.context("a secret")?), "the secret is recorded");
    let path = format!("/api/v1/keys/{id}/rotate");
    let keep = json!({"old_expires_at": Utc::now() + chrono::Duration::hours(1)}).to_string();
    let rotated = recorder.records("POST /api/v1/keys/{id}/rotate", &path, &keep, 201).await?;
    assert_eq!((&rotated["before"]["id"], &rotated["actor"]), (&json!(id), &json!("adam")));
    assert_eq!((&rotated["is_as_stated"], &rotated["key_id"]), (&json!(false), &json!(id)));
    let successor = what(&rotated).1;
    let path = format!("/api/v1/keys/{successor}");
    let revoked = recorder.records("DELETE /api/v1/keys/{id}", &path, "", 204).await?;
    assert_eq!((what(&revoked).0, &revoked["before"]["name"]), ("key.revoke", &json!("adam")));
    Ok(())
}

#[tokio::test]
async fn the_record_is_append_only_and_rolls_back_with_its_change() -> Result<()> {
    let server = shared_postgres().await?;
    let directory = tempfile::tempdir()?;
    let postgres_url = server.create_database("audit_append_only").await?;
    for url in [sqlite_url(&directory.path().join("catalogue.db")), postgres_url] {
        let store = Store::open(&url, StoreSettings::default()).await?;
        let entry = |subject: &str| AuditEntry {
            action: Action::ProductPut,
            subject: subject.to_owned(),
            before: None,
            after: Some("{}".to_owned()),
        };
        let mut abandoned = store.begin().await?;
        abandoned.record_change(&Origin::engine(), &entry("abandoned"), Utc::now()).await?;
        drop(abandoned);
        let mut committed = store.begin().await?;
        committed.record_change(&Origin::engine(), &entry("committed"), Utc::now()).await?;
        committed.commit().await?;
        let changes = store.recorded_changes(&AuditFilter::default(), None, 10).await?;
        let subjects: Vec<&str> = changes.iter().map(|change| change.subject.as_str()).collect();
        assert_eq!(subjects, ["committed"]);
        store.close().await;
    }
    for statement in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let refused = server.execute("audit_append_only", statement).await;
        let refused = refused.err().context(statement)?;
        ensure!(format!("{refused:#}").contains("append-only"), "{statement}: {refused:#}");
    }
    Ok(())
}

#[tokio::test]
async fn an_entry_names_the_trace_of_its_request() -> Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let (stores, collector) = (Stores::start().await?, OtlpCollector::start().await?);
    let endpoint = collector.endpoint();
    for (product_id, settings) in [("P-1", vec![]), ("P-2", vec![("PRICING_OTLP_ENDPOINT", &*endpoint)])] {
        let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &settings).await?;
        let put = api.client.request(Method::PUT, &format!("/api/v1/products/{product_id}"));
        let put = put.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
        let reply = api.client.send(put.json(&json!({"currency": "USD", "base_price": 1}))).await?;
        ensure!(reply.status == 201, "{}", reply.text);
        let changes = api.client.get(&format!("/api/v1/audit?subject={product_id}")).await?.body;
        assert_eq!(changes["changes"][0]["trace_id"], TRACE, "{product_id}: {changes}");
    }
    Ok(())
}

#[tokio::test]
async fn the_command_line_shows_and_exports_the_record() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let environment = [("PRICING_URL", format!("http://{}", api.address))];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let pricing = async |arguments: &[&str]| {
        let mut process = ServiceProcess::start("pricing", &environment, arguments)?;
        let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
        anyhow::Ok((code, process.output()?))
    };
    assert_eq!(pricing(&["audit"]).await?, (0, "no such change is recorded\n".to_owned()));
    for number in 1..=3 {
        let product = json!({"currency": "USD", "base_price": number});
        api.client.put(&format!("/api/v1/products/P-{number}"), &product).await?;
    }
    let (code, table) = pricing(&["audit", "--action", "product.put", "--limit", "2"]).await?;
    assert!(code == 0 && table.contains("P-3") && table.contains("unnamed"), "{table}");
    assert!(!table.contains("P-1"), "the limit is 2: {table}");
    let (_, lines) = pricing(&["audit", "--all", "--json", "--subject", "P-1"]).await?;
    let change: Value = serde_json::from_str(lines.trim()).with_context(|| lines.clone())?;
    assert_eq!(
        (&change["action"], change["after"]["base_price"].as_f64()),
        (&json!("product.put"), Some(1.0))
    );
    let (code, refused) = pricing(&["audit", "--action", "product.steal"]).await?;
    assert!(code == 1 && refused.contains("product.put, product.delete"), "{refused}");
    Ok(())
}
