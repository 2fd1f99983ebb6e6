//! The golden tables over time of the domain, priced by real processes whose clock the test sets: by two APIs
//! with warm memory and no job running, and by late jobs without a reader.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use pricing_core::store::Store;
use pricing_domain::facts::product::ProductId;
use pricing_e2e::{HttpReply, SetClock, eventually};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use self::table::{Act, Case, DAY, Table, instant};
use super::{Engine, PATIENCE};
use crate::fleet::{Member, Service};
use crate::support::Stores;

#[path = "../../../../domain/tests/tables/over_time.rs"]
mod table;

const TABLE: &str = include_str!("../../../../domain/tests/over_time/limits.yaml");
/// As many cases there have to be, so that none is lost unnoticed.
const LEAST_CASES: usize = 42;

/// A price of the table, and what it says is held back.
struct Line {
    at: DateTime<Utc>,
    price: Decimal,
    held: Option<String>,
}

/// Who prices a product between the acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Two APIs that are asked a millisecond before each change and at it.
    Readers,
    /// Only jobs, when an act or the end comes.
    LateJobs,
}

/// One of everything and a second API, at a time that the test sets.
struct World {
    engine: Engine,
    other: Member,
    clock: SetClock,
    store: Store,
    between: Between,
    /// How many facts, so that each has an identifier.
    published: u64,
}

/// One case's product.
struct Priced<'a> {
    table: &'a Table,
    case: &'a Case,
    product_id: String,
    /// Each case has weeks of its own.
    shift: TimeDelta,
    fields: BTreeMap<String, String>,
}

#[tokio::test]
async fn readers_see_every_case_to_the_millisecond_without_any_job() -> Result<()> {
    prices_are_those_of_the_table(Between::Readers).await
}

#[tokio::test]
async fn late_jobs_make_every_case_with_its_instants() -> Result<()> {
    prices_are_those_of_the_table(Between::LateJobs).await
}

#[tokio::test]
async fn steps_that_fell_due_before_a_removal_are_in_the_history() -> Result<()> {
    let table: Table = serde_saphyr::from_str(TABLE)?;
    let case = table.cases.iter().find(|case| case.name.starts_with("a move beyond the step"));
    let mut world = World::start(Between::LateJobs).await?;
    let mut priced = Priced {
        table: &table,
        case: case.context("no such case")?,
        product_id: "REMOVED".to_owned(),
        shift: TimeDelta::zero(),
        fields: table.product.clone(),
    };
    for act in &priced.case.acts {
        world.clock.set(priced.instant(&act.at)?)?;
        world.make(&mut priced, act).await?;
    }
    world.clock.set(priced.instant("14:10")?)?;
    let path = "/api/v1/products/REMOVED";
    let delete = world.engine.api.client.request(Method::DELETE, path);
    assert_eq!(world.engine.api.client.send(delete).await?.status, 204);
    let recorded = world.store.price_changes(&ProductId::parse("REMOVED")?, 10).await?;
    let written: Vec<_> = recorded
        .iter()
        .map(|change| (change.changed_at.format("%H:%M").to_string(), change.new_list_price))
        .collect();
    let price = |text: &str| text.parse::<Decimal>().ok();
    let expected = [
        ("14:10", None),
        ("14:05", price("61.42")),
        ("13:05", price("72.25")),
        ("12:05", price("85")),
        ("12:00", price("100")),
    ];
    assert_eq!(written, expected.map(|(at, price)| (at.to_owned(), price)));
    Ok(())
}

async fn prices_are_those_of_the_table(between: Between) -> Result<()> {
    let table: Table = serde_saphyr::from_str(TABLE)?;
    ensure!(table.cases.len() >= LEAST_CASES, "{}: only {} cases", table.about, table.cases.len());
    let mut world = World::start(between).await?;
    let mut differences = Vec::new();
    for (week, case) in (0..).zip(&table.cases) {
        let mut priced = Priced {
            table: &table,
            case,
            product_id: format!("CASE-{week}"),
            shift: TimeDelta::weeks(week),
            fields: table.product.clone(),
        };
        if let Err(error) = world.follow(&mut priced).await {
            differences.push(format!("{}: {error:#}", case.name));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

impl World {
    async fn start(between: Between) -> Result<Self> {
        let clock = SetClock::at(instant("00:00")?)?;
        let stores = Stores::start().await?;
        let database_url = stores.database_url();
        let environment = clock.environment();
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(variable, value)| (*variable, value.as_str())).collect();
        let engine = Engine::start_with(stores, &database_url, "name: plain\n", &environment).await?;
        let other = engine.fleet.start(Service::Api).await?;
        let store = engine.store().await?;
        let mut world = Self { engine, other, clock, store, between, published: 0 };
        world.stop_jobs()?;
        Ok(world)
    }

    async fn follow(&mut self, priced: &mut Priced<'_>) -> Result<()> {
        let lines = priced.lines()?;
        let mut acts = priced.case.acts.iter().peekable();
        let mut before: Option<&Line> = None;
        for line in &lines {
            let act = acts.next_if(|act| priced.instant(&act.at).is_ok_and(|at| at == line.at));
            if let (Some(before), Between::Readers) = (before, self.between) {
                self.clock.set(line.at - TimeDelta::milliseconds(1))?;
                self.reads(priced, before).await.with_context(|| format!("before {}", line.at))?;
            }
            before = Some(line);
            if let Some(act) = act {
                self.clock.set(line.at)?;
                self.make(priced, act).await.with_context(|| act.at.clone())?;
                let reads = async || self.reads(priced, line).await;
                eventually("both APIs have it", PATIENCE, reads).await?;
            } else if self.between == Between::Readers {
                self.clock.set(line.at)?;
                self.reads(priced, line).await.with_context(|| format!("at {}", line.at))?;
            }
        }
        ensure!(acts.next().is_none(), "the table has no price of an act");
        self.clock.set(priced.instant(&priced.case.end)?)?;
        if self.between == Between::LateJobs {
            self.recalculate(priced, false).await?;
        }
        self.reads(priced, lines.last().context("no prices")?).await.context("at the end")?;
        let expected = changes(lines.iter().map(|line| (line.at, line.price)));
        let history = history(&self.store, &priced.product_id).await?;
        ensure!(history == expected, "the history is\n  {history:?}\nnot {expected:?}");
        Ok(())
    }

    /// Both APIs answer this price, and say what is held back; which of them is asked first changes.
    async fn reads(&self, priced: &Priced<'_>, line: &Line) -> Result<()> {
        let mut apis = [&self.engine.api, &self.other];
        if line.at.timestamp() / 60 % 2 == 0 {
            apis.reverse();
        }
        for api in apis {
            let reply = api.client.price(&priced.product_id, "NY", false).await?;
            let price: Decimal = reply.body["final_price"].to_string().parse().context(reply.text)?;
            ensure!(price == line.price, "it costs {price}, not {}", line.price);
        }
        let Some(held) = &line.held else { return Ok(()) };
        let path = format!("/api/v1/products/{}/explanation", priced.product_id);
        let reply = self.other.client.get(&path).await?;
        let said = priced.written_hold(&reply.body["held"])?;
        ensure!(said == *held, "what is held back is \"{said}\", not \"{held}\"");
        Ok(())
    }

    /// Makes everything of an act, at one instant.
    async fn make(&mut self, priced: &mut Priced<'_>, act: &Act) -> Result<()> {
        self.start_jobs()?;
        if let Some(name) = &act.policy {
            let (path, policy) = ("/api/v1/policies?author=test", priced.policy(name)?);
            let published = self.accepted(Method::POST, path, "application/yaml", &policy).await?;
            self.engine.ended(published.body["task_id"].as_str().context("no task_id")?).await?;
        }
        let is_first = std::ptr::eq(act, &priced.case.acts[0]);
        if is_first || !act.product.is_empty() {
            priced.fields.extend(act.product.clone());
            let path = format!("/api/v1/products/{}", priced.product_id);
            let product = product(&priced.fields)?.to_string();
            self.accepted(Method::PUT, &path, "application/json", &product).await?;
        }
        self.publish(priced, act).await?;
        if act.release {
            self.recalculate(priced, true).await?;
        }
        self.stop_jobs()
    }

    /// Publishes an act's facts in one batch, and waits until they are applied.
    async fn publish(&mut self, priced: &Priced<'_>, act: &Act) -> Result<()> {
        let time = priced.instant(&act.at)?.to_rfc3339();
        let events: Vec<Value> = facts(&priced.product_id, act)?
            .into_iter()
            .map(|(event_type, data)| {
                self.published += 1;
                let event_type = format!("pricing.{event_type}.v1");
                json!({
                    "specversion": "1.0", "id": self.published.to_string(), "source": "/test", "time": time,
                    "type": event_type, "data": data,
                })
            })
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        let applied = async || self.engine.worker.metric("pricing_events_applied_total", "\"applied\"").await;
        let expected = applied().await? + u64::try_from(events.len())?;
        let (path, media_type) = ("/api/v1/publish-market-event", "application/cloudevents-batch+json");
        self.accepted(Method::POST, path, media_type, &serde_json::to_string(&events)?).await?;
        eventually("they are applied", PATIENCE, async || {
            ensure!(applied().await? >= expected);
            Ok(())
        })
        .await
    }

    async fn recalculate(&mut self, priced: &Priced<'_>, release: bool) -> Result<()> {
        self.start_jobs()?;
        let body = json!({"product_ids": [priced.product_id], "release": release});
        let (path, media_type) = ("/api/v1/recalculations", "application/json");
        let requested = self.accepted(Method::POST, path, media_type, &body.to_string()).await?;
        let ended = self.engine.ended(requested.body["task_id"].as_str().context("no task_id")?).await?;
        ensure!(ended["state"] == "done", "{ended}");
        self.stop_jobs()
    }

    /// Sends a request until it is accepted: on a busy host Redis may not answer for a moment.
    async fn accepted(&self, method: Method, path: &str, media_type: &str, body: &str) -> Result<HttpReply> {
        let client = &self.engine.api.client;
        eventually("it is accepted", PATIENCE, async || {
            let request = client.request(method.clone(), path).header("content-type", media_type);
            let reply = client.send(request.body(body.to_owned())).await?;
            ensure!(reply.status.is_success(), "{path}: {}", reply.text);
            Ok(reply)
        })
        .await
    }

    /// Nothing but the APIs runs until [`start_jobs`](Self::start_jobs).
    fn stop_jobs(&mut self) -> Result<()> {
        self.engine.worker.process.freeze()?;
        self.engine.listener.process.freeze()
    }

    fn start_jobs(&mut self) -> Result<()> {
        self.engine.worker.process.thaw()?;
        self.engine.listener.process.thaw()
    }
}

impl Priced<'_> {
    fn instant(&self, written: &str) -> Result<DateTime<Utc>> {
        Ok(instant(written)? + self.shift)
    }

    /// A policy of the table, in this case's weeks.
    fn policy(&self, name: &str) -> Result<String> {
        let source = self.table.policies.get(name).context("no such policy")?;
        let day = (instant("00:00")? + self.shift).format("%Y-%m-%d").to_string();
        Ok(format!("name: {name}\n{}", source.replace(DAY, &day)))
    }

    fn lines(&self) -> Result<Vec<Line>> {
        let read = |text: &String| {
            let (written, rest) = text.split_once(", ").unwrap_or((text, ""));
            let (at, price) = written.rsplit_once(' ').context("an instant and a price")?;
            let held = rest.contains("target").then(|| rest.to_owned());
            Ok(Line { at: self.instant(at)?, price: price.parse()?, held })
        };
        self.case.prices.iter().map(read).collect()
    }

    /// What the explanation says is held back, as the table writes it.
    fn written_hold(&self, held: &Value) -> Result<String> {
        let written = |field: &str| -> Result<Option<String>> {
            let Some(at) = held[field].as_str() else { return Ok(None) };
            let at = DateTime::parse_from_rfc3339(at)?.to_utc() - self.shift;
            Ok(Some(at.format("%d %H:%M:%S%.f").to_string()))
        };
        let continues =
            written("continues_at")?.map_or("stays".to_owned(), |at| format!("continues at {at}"));
        let reaches = written("reaches_target_at")?.map(|at| format!(", reaches it at {at}"));
        let target: Decimal = held["target"].to_string().parse()?;
        Ok(format!("target {target:.2}, {continues}{}", reaches.unwrap_or_default()))
    }
}

/// The facts of an act, each with its type.
fn facts(product_id: &str, act: &Act) -> Result<Vec<(&'static str, Value)>> {
    let mut facts = Vec::new();
    for (competitor, price) in &act.competitors {
        let of = json!({"product_id": product_id, "competitor": competitor});
        facts.push(if price.is_empty() {
            ("fact_withdrawn", with(of, "kind", json!("competitor_price")))
        } else {
            ("competitor_price", with(of, "price", serde_json::from_str(price)?))
        });
    }
    let others = [
        ("demand_index", "index", &act.demand),
        ("stock_level", "level", &act.stock),
        ("unit_cost", "cost", &act.cost),
    ];
    for (event_type, field, value) in others {
        let Some(value) = value else { continue };
        let of = json!({"product_id": product_id});
        facts.push((event_type, with(of, field, serde_json::from_str(value)?)));
    }
    Ok(facts)
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

fn product(fields: &BTreeMap<String, String>) -> Result<Value> {
    let mut product = json!({"currency": "USD"});
    for (field, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let is_text = ["name", "category", "currency"].contains(&field.as_str());
        product[field] = if is_text { json!(value) } else { serde_json::from_str(value)? };
    }
    Ok(product)
}

/// The first price, and each that differs from the one before it.
fn changes(prices: impl Iterator<Item = (DateTime<Utc>, Decimal)>) -> Vec<(DateTime<Utc>, Decimal)> {
    let mut changes: Vec<(DateTime<Utc>, Decimal)> = Vec::new();
    for (at, price) in prices {
        // Several acts at one instant leave one price.
        changes.pop_if(|(last_at, _)| *last_at == at);
        if changes.last().is_none_or(|(_, last)| *last != price) {
            changes.push((at, price));
        }
    }
    changes
}

async fn history(store: &Store, product_id: &str) -> Result<Vec<(DateTime<Utc>, Decimal)>> {
    let recorded = store.price_changes(&ProductId::parse(product_id)?, 1_000).await?;
    let prices: Option<Vec<_>> =
        recorded.iter().rev().map(|change| Some((change.changed_at, change.new_list_price?))).collect();
    Ok(changes(prices.context("a product was removed")?.into_iter()))
}
