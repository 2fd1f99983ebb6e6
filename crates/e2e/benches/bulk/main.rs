//! Duration of an import and a recalculation, from ten thousand products to a million, compared with what the
//! databases and Redis need for the same rows and bytes alone.
//!
//! `cargo bench -p pricing-e2e --bench bulk` does both on SQLite and on PostgreSQL; `-- --most 100000` stops
//! earlier, `-- --only sqlite` leaves one out. For each database and size it starts a Redis that syncs every
//! write, the database, an API, a listener and a worker; imports made-up products; publishes a policy that
//! changes every price; and then writes the rows that came of it once more by the database's own means, into
//! empty tables of the same shape, and the same bytes into Redis by a pipeline. What that takes is the limit.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::print_stderr, reason = "what was not measured is said apart from the results")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

mod limit;
mod peer;
mod products;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pricing_e2e::{HttpClient, PostgresServer, RedisServer, ServiceProcess, free_port, line_chart};
use reqwest::Method;
use serde_json::Value;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Time limit of the largest recalculation.
const PATIENCE: Duration = Duration::from_secs(900);
/// It raises every price.
const POLICY: &str = include_str!("policy.yaml");

/// The kind of database.
enum Database {
    Sqlite { directory: tempfile::TempDir },
    Postgres { server: Box<PostgresServer> },
}

/// The results for one database and size.
struct Measured {
    database: &'static str,
    products: usize,
    import: Duration,
    import_limit: Duration,
    recalculation: Duration,
    recalculation_limit: limit::Recalculation,
    api_memory_mb: u64,
    worker_memory_mb: u64,
}

/// The options of the command line.
struct Arguments {
    most: usize,
    only: Option<Only>,
}

/// The database that is measured, if not both are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Only {
    Sqlite,
    Postgres,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure_all(&arguments))
}

async fn measure_all(arguments: &Arguments) -> Result<()> {
    let mut all = Vec::new();
    for only in [Only::Sqlite, Only::Postgres] {
        if arguments.only.is_some_and(|wanted| wanted != only) {
            continue;
        }
        for products in SIZES.into_iter().filter(|products| *products <= arguments.most) {
            let database = match only {
                Only::Sqlite => Database::Sqlite { directory: tempfile::tempdir()? },
                Only::Postgres => Database::Postgres { server: Box::new(PostgresServer::start().await?) },
            };
            let measured = measure(&database, products).await;
            all.push(measured.with_context(|| format!("{}, {products}", database.name()))?);
        }
    }
    report(&all);
    for only in [Only::Sqlite, Only::Postgres] {
        let of_it: Vec<&Measured> = all.iter().filter(|one| one.database == only.name()).collect();
        if of_it.len() > 1 {
            draw(only.name(), &of_it);
        }
    }
    peer::compare().await
}

impl Only {
    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

async fn measure(database: &Database, products: usize) -> Result<Measured> {
    let redis = RedisServer::start().await?;
    let url = database.url().await?;
    let start = async |program: &str, variable: &str| start(program, variable, &redis.url(), &url).await;
    let (mut api_process, api) = start("pricing-api", "PRICING_API_LISTEN").await?;
    let (mut listener, _) = start("pricing-listener", "PRICING_LISTENER_LISTEN").await?;
    let (mut worker, _) = start("pricing-worker", "PRICING_WORKER_LISTEN").await?;

    let import = products::import(&api, products).await?;
    let import_limit = limit::of_import(database).await?;
    let recalculation = recalculate(&api, products).await?;
    let peak_memory_mb = |process: &ServiceProcess| anyhow::Ok(process.memory_kb("VmHWM")? / 1_000);
    let (api_memory_mb, worker_memory_mb) = (peak_memory_mb(&api_process)?, peak_memory_mb(&worker)?);
    for process in [&mut api_process, &mut listener, &mut worker] {
        process.terminate(Duration::from_secs(20)).await?;
    }
    let recalculation_limit = limit::of_recalculation(database, &redis).await?;
    let database = database.name();
    Ok(Measured {
        database,
        products,
        import,
        import_limit,
        recalculation,
        recalculation_limit,
        api_memory_mb,
        worker_memory_mb,
    })
}

async fn start(
    program: &str,
    variable: &str,
    redis: &str,
    database: &str,
) -> Result<(ServiceProcess, HttpClient)> {
    let listen = format!("127.0.0.1:{}", free_port()?);
    let environment = [
        (variable, listen.as_str()),
        ("PRICING_REDIS_URL", redis),
        ("PRICING_DATABASE_URL", database),
        ("PRICING_LOG", "warn"),
    ];
    let mut process = ServiceProcess::start(program, &environment, &[])?;
    let url = format!("http://{listen}");
    process.wait_until_ready(&url).await?;
    Ok((process, HttpClient::new(url)?))
}

/// Publishes a policy that changes every price. Returns the duration of the recalculation that follows.
async fn recalculate(api: &HttpClient, products: usize) -> Result<Duration> {
    let request = api.request(Method::POST, "/api/v1/policies?author=bench&approved_by=bench").body(POLICY);
    let published = api.send(request.header("content-type", "application/yaml")).await?;
    ensure!(published.status == 201, "{}", published.text);
    let path = format!("/api/v1/recalculations/{}", published.body["task_id"].as_str().context("no task")?);
    let began = Instant::now();
    loop {
        let run = api.get(&path).await?;
        match run.body["state"].as_str() {
            Some("done") => {
                ensure!(run.body["prices_changed"] == products, "{}", run.text);
                return between(&run.body["started_at"], &run.body["finished_at"]);
            }
            Some("requested" | "running") | None if began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => bail!("{}", run.text),
        }
    }
}

fn between(started_at: &Value, finished_at: &Value) -> Result<Duration> {
    let instant = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap_or_default());
    Ok((instant(finished_at)? - instant(started_at)?).to_std()?)
}

fn report(all: &[Measured]) {
    println!(
        "## Import and recalculation\n\n| database | products | import s | its limit s | times | recalculation s | its limit s | times | api MB | worker MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for one in all {
        let (import, import_limit) = (one.import.as_secs_f64(), one.import_limit.as_secs_f64());
        let (run, run_limit) = (one.recalculation.as_secs_f64(), one.recalculation_limit.sum().as_secs_f64());
        println!(
            "| {} | {} | {import:.2} | {import_limit:.2} | {:.2} | {run:.2} | {run_limit:.2} | {:.2} | {} | {} |",
            one.database,
            one.products,
            import / import_limit,
            run / run_limit,
            one.api_memory_mb,
            one.worker_memory_mb
        );
    }
    println!(
        "\nA recalculation's limit is the sum of reading the products, loading prices and changes, and SETs:\n"
    );
    for one in all {
        let limit = &one.recalculation_limit;
        println!(
            "- {} {}: {:.2} s, {:.2} s, {:.2} s",
            one.database,
            one.products,
            limit.scan.as_secs_f64(),
            limit.load.as_secs_f64(),
            limit.set.as_secs_f64()
        );
    }
    for window in all.windows(2).filter(|window| window[0].database == window[1].database) {
        let (small, large) = (&window[0], &window[1]);
        let exponent = |time: fn(&Measured) -> Duration| {
            let ratio = time(large).as_secs_f64() / time(small).as_secs_f64();
            ratio.log10() / (large.products / small.products).ilog10().max(1) as f64
        };
        println!(
            "\nGrowth, {} from {} to {}: import n^{:.2}, recalculation n^{:.2}",
            large.database,
            small.products,
            large.products,
            exponent(|one| one.import),
            exponent(|one| one.recalculation)
        );
    }
}

/// The time per product should not depend on the number of products.
fn draw(database: &str, all: &[&Measured]) {
    let sizes: Vec<String> = all.iter().map(|one| one.products.to_string()).collect();
    let per_product = |time: fn(&Measured) -> Duration| -> Vec<f64> {
        all.iter().map(|one| time(one).as_secs_f64() * 1e6 / one.products as f64).collect()
    };
    let lines = [per_product(|one| one.import), per_product(|one| one.recalculation)];
    let title = format!("{database}: import and recalculation, time for a product");
    println!("\n{}", line_chart(&title, ("products", &sizes), "µs", &lines));
}

impl Database {
    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => Only::Sqlite.name(),
            Self::Postgres { .. } => Only::Postgres.name(),
        }
    }

    async fn url(&self) -> Result<String> {
        match self {
            Self::Sqlite { directory } => {
                Ok(format!("sqlite://{}", directory.path().join("catalogue.db").display()))
            }
            Self::Postgres { server } => server.create_database(limit::DATABASE).await,
        }
    }
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self { most: usize::MAX, only: None };
        // Cargo adds --bench.
        let mut given = given.filter(|argument| argument != "--bench");
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--most" => arguments.most = given.next().context("--most takes a number")?.parse()?,
                "--only" => {
                    arguments.only = match given.next().as_deref().map(str::to_ascii_lowercase).as_deref() {
                        Some("sqlite") => Some(Only::Sqlite),
                        Some("postgres" | "postgresql") => Some(Only::Postgres),
                        _ => bail!("--only takes sqlite or postgres"),
                    };
                }
                unknown => bail!("unknown argument {unknown}"),
            }
        }
        Ok(arguments)
    }
}
