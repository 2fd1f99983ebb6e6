//! One build of the engine: its services, each a process, with a Redis and a database of their own.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pricing_e2e::{HttpClient, PostgresServer, RedisServer, ServiceProcess, free_port};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use sqlx::Connection;
use tokio::process::Command;

const ROUND_DURATION: &str = "3s";
const BATCH: usize = 100;
/// Rounds of a load until one in which no request is refused.
const MAX_TRIES: usize = 5;
/// Time limit of an import or a recalculation.
const PATIENCE: Duration = Duration::from_secs(600);

/// The requests of a load.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    FromMemory,
    FromRedis,
    Batch,
}

/// The kind of database.
#[derive(Clone, Copy)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

/// The result of one round of `wrk`.
#[derive(Deserialize)]
pub(crate) struct Answers {
    requests: f64,
    duration_us: f64,
    failed: u64,
    pub(crate) p99_us: f64,
}

enum Stored {
    Sqlite(tempfile::TempDir),
    Postgres { _server: Box<PostgresServer>, url: String },
}

/// One build, running.
pub(crate) struct Side {
    products: usize,
    api: HttpClient,
    api_url: String,
    /// An API that serves nothing from memory.
    forgetful_url: String,
    api_process: ServiceProcess,
    api_idle_kb: u64,
    redis: RedisServer,
    redis_idle_bytes: f64,
    stored: Stored,
    _others: Vec<ServiceProcess>,
}

impl Side {
    /// Starts the services in a directory and imports the products.
    pub(crate) async fn start(directory: &Path, products: usize, database: Database) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let stored = match database {
            Database::Sqlite => Stored::Sqlite(tempfile::tempdir()?),
            Database::Postgres => {
                let server = Box::new(PostgresServer::start().await?);
                let url = server.create_database("against").await?;
                Stored::Postgres { _server: server, url }
            }
        };
        let shared = [
            ("PRICING_REDIS_URL", redis.url()),
            ("PRICING_DATABASE_URL", stored.url()),
            ("PRICING_LOG", "warn".to_owned()),
        ];
        let start = async |program, variable: &'static str, more: &[(&'static str, &str)]| {
            start(&directory.join(program), variable, &shared, more).await
        };
        let (api_process, api_url) = start("pricing-api", "PRICING_API_LISTEN", &[]).await?;
        let nothing_in_memory = [("PRICING_L1_MAX_STALENESS", "0s")];
        let (forgetful, forgetful_url) =
            start("pricing-api", "PRICING_API_LISTEN", &nothing_in_memory).await?;
        let (worker, _) = start("pricing-worker", "PRICING_WORKER_LISTEN", &[]).await?;
        let (listener, _) = start("pricing-listener", "PRICING_LISTENER_LISTEN", &[]).await?;
        let side = Self {
            products,
            api: HttpClient::new(&api_url)?,
            api_url,
            forgetful_url,
            api_idle_kb: api_process.memory_kb("VmRSS")?,
            api_process,
            redis_idle_bytes: redis_memory(&redis).await?,
            redis,
            stored,
            _others: vec![forgetful, worker, listener],
        };
        side.import(0).await?;
        side.read_each().await?;
        Ok(side)
    }

    /// Measures the throughput and latency of a load. A round in which requests were refused, because the
    /// machine was busy with something else, is repeated.
    pub(crate) async fn answer(&self, load: Load, connections: usize) -> Result<Answers> {
        for _ in 0..MAX_TRIES {
            let answers = self.ask(load, connections).await?;
            if answers.failed == 0 {
                return Ok(answers);
            }
        }
        bail!("{}: requests were refused in each of {MAX_TRIES} rounds; try fewer --connections", load.name())
    }

    async fn ask(&self, load: Load, connections: usize) -> Result<Answers> {
        let (base_url, path, items) = match load {
            Load::FromMemory => (&self.api_url, "/api/v1/price", 1),
            Load::FromRedis => (&self.forgetful_url, "/api/v1/price", 1),
            Load::Batch => (&self.api_url, "/api/v1/prices", BATCH),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/http/load.lua");
        let output = Command::new("wrk")
            .args(["-t1", "-c", &connections.to_string(), "-d", ROUND_DURATION, "-s"])
            .arg(script)
            .args([&format!("{base_url}{path}"), "--", path])
            .args([self.products.to_string(), items.to_string()])
            .kill_on_drop(true)
            .output()
            .await
            .context("running wrk; it is in the package of that name")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result =
            text.lines().find_map(|line| line.strip_prefix("RESULT ")).with_context(|| text.clone())?;
        let answers: Answers = serde_json::from_str(result)?;
        ensure!(answers.requests > 0.0, "{}: {text}", load.name());
        Ok(answers)
    }

    /// Imports all products, with different prices each round. Returns the milliseconds it took.
    pub(crate) async fn import(&self, round: usize) -> Result<f64> {
        let mut rows = String::from(
            "product_id,name,category,currency,base_price,unit_cost,floor_price,ceiling_price\n",
        );
        for number in 0..self.products {
            let cents = 1_000 + (number * 7_919 + round * 13) % 50_000;
            let amount =
                |percent: usize| format!("{}.{:02}", cents * percent / 10_000, cents * percent / 100 % 100);
            let (base, cost, floor, ceiling) = (amount(100), amount(60), amount(70), amount(200));
            let category = number % 200;
            writeln!(
                rows,
                "B-{number:05},Product {number},category-{category},USD,{base},{cost},{floor},{ceiling}"
            )?;
        }
        let request = self.api.request(Method::POST, "/api/v1/products/import").timeout(PATIENCE);
        let started = Instant::now();
        let reply = self.api.send(request.header("content-type", "text/csv").body(rows)).await?;
        let took = started.elapsed();
        ensure!(reply.status == 200 && reply.body["failed"] == 0, "{}", reply.text);
        let counted = if round == 0 { &reply.body["created"] } else { &reply.body["updated"] };
        ensure!(*counted == self.products, "{}", reply.text);
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Publishes a policy that changes every price. Returns the milliseconds that the recalculation took.
    pub(crate) async fn recalculate(&self, round: usize) -> Result<f64> {
        let policy = format!(
            "name: against\nmarket: [{{ name: raise, when: 'demand.index == null', adjust: +{round}% }}]\n\
             offer: [{{ name: prime, when: shopper.prime, adjust: -5% }}]\nguardrails: {{ min_margin: 10% }}\n"
        );
        let request =
            self.api.request(Method::POST, "/api/v1/policies?author=bench&approved_by=bench").body(policy);
        let published = self.api.send(request.header("content-type", "application/yaml")).await?;
        ensure!(published.status == 201, "{}", published.text);
        let task = published.body["task_id"].as_str().context("no task")?;
        let started = Instant::now();
        loop {
            let run = self.api.get(&format!("/api/v1/recalculations/{task}")).await?;
            match run.body["state"].as_str() {
                Some("done") => {
                    ensure!(run.body["prices_changed"] == self.products, "{}", run.text);
                    let instant = |field: &str| {
                        chrono::DateTime::parse_from_rfc3339(run.body[field].as_str().unwrap_or_default())
                    };
                    let took = (instant("finished_at")? - instant("started_at")?).to_std()?;
                    return Ok(took.as_secs_f64() * 1e3);
                }
                Some("requested" | "running") | None if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => bail!("{}", run.text),
            }
        }
    }

    /// Bytes per product in the database, in Redis and in the API's memory, after all were read.
    pub(crate) async fn stored(&self) -> Result<Vec<(&'static str, f64)>> {
        self.read_each().await?;
        let database = self.stored.bytes().await?;
        let redis = redis_memory(&self.redis).await? - self.redis_idle_bytes;
        let api_kb = self.api_process.memory_kb("VmRSS")?.saturating_sub(self.api_idle_kb);
        let products = self.products as f64;
        Ok(vec![
            (self.stored.name(), database / products),
            ("Redis' memory", redis / products),
            ("the API's memory", api_kb as f64 * 1_024.0 / products),
        ])
    }

    /// Afterwards every product is in memory.
    async fn read_each(&self) -> Result<()> {
        for first in (0..self.products).step_by(BATCH) {
            let ids = first..self.products.min(first + BATCH);
            let items: Vec<_> = ids.map(|number| json!({"product_id": format!("B-{number:05}")})).collect();
            let reply =
                self.api.post("/api/v1/prices", &json!({"user_location": "NY", "items": items})).await?;
            ensure!(reply.status == 200 && !reply.text.contains("\"error\""), "{}", reply.text);
        }
        Ok(())
    }
}

impl Load {
    pub(crate) const ALL: [Self; 3] = [Self::FromMemory, Self::FromRedis, Self::Batch];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FromMemory => "price, from memory",
            Self::FromRedis => "price, from Redis",
            Self::Batch => "100 prices, from memory",
        }
    }
}

impl Answers {
    pub(crate) fn rate(&self) -> f64 {
        self.requests * 1e6 / self.duration_us
    }
}

impl FromStr for Database {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" => Ok(Self::Postgres),
            other => bail!("{other} is neither sqlite nor postgres"),
        }
    }
}

impl Stored {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => {
                format!("sqlite://{}", directory.path().join("catalogue.db").display())
            }
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite's files",
            Self::Postgres { .. } => "PostgreSQL's relations",
        }
    }

    async fn bytes(&self) -> Result<f64> {
        match self {
            Self::Sqlite(directory) => {
                let files = std::fs::read_dir(directory.path())?;
                let lengths = files.map(|file| Ok(file?.metadata()?.len() as f64));
                lengths.sum::<Result<f64>>()
            }
            Self::Postgres { url, .. } => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let bytes: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
                    .fetch_one(&mut connection)
                    .await?;
                Ok(bytes as f64)
            }
        }
    }
}

async fn start(
    program: &Path,
    variable: &str,
    shared: &[(&str, String)],
    more: &[(&str, &str)],
) -> Result<(ServiceProcess, String)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let mut environment: Vec<(&str, &str)> =
        shared.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push((variable, &listen));
    environment.extend(more);
    let mut process = ServiceProcess::start_program(program, &environment, &[])?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    Ok((process, url))
}

async fn redis_memory(redis: &RedisServer) -> Result<f64> {
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let information: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
    let used = information.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("no used_memory")?.trim().parse()?)
}
