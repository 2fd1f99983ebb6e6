//! What the tests of several modules share.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use pricing_core::engine::Engine;
use pricing_core::store::{NewPolicy, Store, StoreSettings};
use pricing_e2e::{HttpClient, HttpReply, PostgresServer, RedisServer, ServiceProcess, free_port};
use pricing_worker::config::WorkerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The one PostgreSQL of this test binary. Each test makes a database of its own in it, named after itself.
///
/// A test that kills or restarts the server starts its own instead.
pub(crate) async fn shared_postgres() -> Result<&'static PostgresServer> {
    // A `static` because the tests of a binary have nothing else in common. It is never dropped; the
    // server ends with the process.
    static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
    SERVER.get_or_try_init(PostgresServer::start).await
}

/// An engine in this process, with a Redis key prefix of its own.
pub(crate) async fn open_engine(database_url: &str, redis: &RedisServer, prefix: &str) -> Result<Engine> {
    open_engine_at(database_url, &redis.url(), prefix).await
}

/// [`open_engine`] with the address of a Redis, which need not answer.
pub(crate) async fn open_engine_at(database_url: &str, redis_url: &str, prefix: &str) -> Result<Engine> {
    let environment = |name: &str| match name {
        "PRICING_DATABASE_URL" => Some(database_url.to_owned()),
        "PRICING_REDIS_URL" => Some(redis_url.to_owned()),
        "PRICING_KEY_PREFIX" => Some(prefix.to_owned()),
        _ => None,
    };
    Ok(Engine::open(&WorkerConfig::read(&environment)?.shared, "test", 10).await?)
}

/// An API process with a client for it.
pub(crate) struct Api {
    pub(crate) client: HttpClient,
    /// Where it listens.
    pub(crate) address: String,
    process: ServiceProcess,
}

impl Api {
    /// Starts `pricing-api` on a free port and waits until it is ready.
    pub(crate) async fn start(redis_url: &str, database_url: &str) -> Result<Self> {
        Self::start_with(redis_url, database_url, &[]).await
    }

    /// [`start`](Self::start) with more environment variables.
    pub(crate) async fn start_with(
        redis_url: &str,
        database_url: &str,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let base_url = format!("http://{listen}");
        let mut environment = vec![
            ("PRICING_API_LISTEN", listen.as_str()),
            ("PRICING_REDIS_URL", redis_url),
            ("PRICING_DATABASE_URL", database_url),
        ];
        environment.extend(more);
        let mut process = ServiceProcess::start("pricing-api", &environment, &[])?;
        process.wait_until_ready(&base_url).await?;
        Ok(Self { client: HttpClient::new(&base_url)?, address: listen, process })
    }

    /// The number of its open files below this directory, including files without a name.
    pub(crate) fn open_files(&self, directory: &Path) -> Result<usize> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))?;
        // One that is closed meanwhile has no target.
        let targets = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        Ok(targets.filter(|target| target.starts_with(directory)).count())
    }

    /// Imports CSV rows under a header with `product_id,currency,base_price`; all of them have to be taken.
    pub(crate) async fn import(&self, rows: &str) -> Result<()> {
        let reply = self.import_as("text/csv", &format!("product_id,currency,base_price\n{rows}")).await?;
        ensure!(reply.status == 200 && reply.body["failed"] == 0, "the import says {}", reply.text);
        Ok(())
    }

    /// Imports a body of this media type.
    pub(crate) async fn import_as(&self, content_type: &str, body: &str) -> Result<HttpReply> {
        let request = self.client.request(reqwest::Method::POST, "/api/v1/products/import");
        let request = request.header("content-type", content_type).body(body.to_owned());
        self.client.send(request).await
    }

    /// Asks for a price and expects one.
    pub(crate) async fn price(&self, product_id: &str, prime: bool) -> Result<HttpReply> {
        let reply = self.client.price(product_id, "NY", prime).await?;
        ensure!(reply.status == 200, "{product_id}: {} {}", reply.status, reply.text);
        Ok(reply)
    }

    /// The sum of a metric's series whose labels contain this text.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let text = self.client.get("/metrics").await?.text;
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values = series.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>());
        values.sum::<Result<u64, _>>().context("a count is a whole number")
    }
}

/// A private Redis and an SQLite file, for as many API processes as a test wants.
pub(crate) struct Stores {
    pub(crate) redis: RedisServer,
    directory: TempDir,
}

impl Stores {
    pub(crate) async fn start() -> Result<Self> {
        Ok(Self { redis: RedisServer::start().await?, directory: tempfile::tempdir()? })
    }

    pub(crate) fn database_url(&self) -> String {
        sqlite_url(&self.directory.path().join("catalogue.db"))
    }

    /// One more API process on these stores.
    pub(crate) async fn api(&self) -> Result<Api> {
        Api::start(&self.redis.url(), &self.database_url()).await
    }

    /// The catalogue of these stores, opened by the test itself.
    pub(crate) async fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.database_url(), StoreSettings::default()).await?)
    }
}

/// The URL of an SQLite file.
pub(crate) fn sqlite_url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

/// A policy to publish.
pub(crate) fn new_policy(source: &str) -> NewPolicy {
    NewPolicy {
        name: "test".to_owned(),
        source: source.to_owned(),
        author: "test".to_owned(),
        note: String::new(),
    }
}

/// The body of a price request.
pub(crate) fn price_request(product_id: &str, location: &str, prime: bool) -> Value {
    json!({"product_id": product_id, "user_location": location, "is_prime_member": prime})
}
