//! `pricing up`: runs the whole engine on this machine, in this process, with a private Redis beside it.
//!
//! Components start in the order of their dependencies and stop in reverse: the services first, then Redis.

mod known_catalogue;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use futures::future::BoxFuture;
use pricing_api::config::ApiConfig;
use pricing_core::config::{SharedConfig, process_environment};
use pricing_core::redis_address;
use pricing_core::telemetry;
use pricing_listener::config::ListenerConfig;
use pricing_wire::import::{ImportAnswer, ImportQuery};
use pricing_worker::config::WorkerConfig;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::import;
use crate::client::Client;
use crate::data_directory::DataDirectory;
use crate::output;
use crate::redis_child::{self, PrivateRedis};

/// How long the services may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long the services may take to stop; each bounds its own drain well below.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// A variable that hosting platforms set.
const REDIS_URL_VARIABLE: &str = "REDIS_URL";
/// The log filter; see `pricing_core::config`.
const LOG_VARIABLE: &str = "PRICING_LOG";

/// The help text on settings that are not options.
const SETTINGS: &str = "\
All other settings are environment variables, the same as those of the services: see
docs/configuration.md, or the --help of pricing-api, pricing-worker and pricing-listener.
Here PRICING_LOG defaults to warn.";

/// The addresses and the stores.
#[derive(Debug, Args)]
#[command(after_help = SETTINGS)]
pub(crate) struct Arguments {
    /// The address to serve on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The directory of the database and Redis's file; it is made readable by its owner only
    #[arg(long, value_name = "DIRECTORY", default_value = ".data")]
    data_dir: PathBuf,
    /// Use this Redis, also redis+sentinel://… or redis+cluster://…, instead of a private one; or REDIS_URL
    #[arg(long, value_name = "URL", env = "PRICING_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Use this database instead of SQLite in the data directory
    #[arg(long, value_name = "URL", env = "PRICING_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The memory of the private Redis, in megabytes: when it is full, cached prices are evicted
    #[arg(
        long,
        value_name = "MEGABYTES",
        env = "PRICING_REDIS_MEMORY_MB",
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(128..=1_048_576)
    )]
    redis_memory_mb: u32,
    /// Do not load the sample catalogue on the first start
    #[arg(long)]
    no_sample: bool,
}

/// The service name in traces, one for all services, as they share this process.
const SERVICE: &str = "pricing";

/// What the services are started with.
#[derive(Debug)]
struct Settings {
    listener: TcpListener,
    redis_url: String,
    database_url: String,
}

/// Runs everything until Ctrl-C or SIGTERM.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let shared = ApiConfig::read(&process_environment)?.shared;
    let mut log = shared.log;
    // This terminal is for users, so the services log only warnings and errors to it by default.
    if process_environment(LOG_VARIABLE).is_none() {
        log.filter = "warn".to_owned();
    }
    let telemetry = telemetry::start(&log, &shared.trace, SERVICE);
    let shutdown = pricing_core::shutdown::on_signal()?;
    let data = DataDirectory::open(&arguments.data_dir)?;
    let listen = arguments.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}; --listen names another address"))?;
    let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
    let given_redis = given(&arguments.redis_url).or_else(|| given(&std::env::var(REDIS_URL_VARIABLE).ok()));
    let given_database = given(&arguments.database_url);
    let with_sample = given_database.is_none() && !arguments.no_sample && data.expect_sample()?;
    if !with_sample {
        data.forget_sample()?;
    }
    if given_database.is_none() {
        known_catalogue::open(&data, given_redis.is_none()).await?;
    }
    let redis_directory = data.redis();
    let (redis_url, mut private_redis) = match given_redis {
        Some(url) => (url, None),
        None => tokio::select! {
            started = PrivateRedis::start(&redis_directory, arguments.redis_memory_mb) => {
                started.map(|redis| (redis.url().to_owned(), Some(redis)))?
            }
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        },
    };
    if private_redis.is_some() {
        known_catalogue::remember_redis(&data)?;
    }
    let settings =
        Settings { listener, redis_url, database_url: given_database.unwrap_or_else(|| data.database_url()) };
    let outcome = serve(settings, &data, private_redis.as_mut(), with_sample, shutdown).await;
    if let Some(redis) = private_redis {
        redis.stop().await;
    }
    telemetry.stop().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Runs the services, and prints the welcome once they are ready.
async fn serve(
    settings: Settings,
    data: &DataDirectory,
    private_redis: Option<&mut PrivateRedis>,
    with_sample: bool,
    shutdown: CancellationToken,
) -> Result<()> {
    let url = reachable(settings.listener.local_addr()?)?;
    let settings_shown = Shown::of(&settings);
    let services_shutdown = shutdown.child_token();
    let mut services = tokio::spawn(run_services(settings, services_shutdown.clone()));
    let loading = private_redis.as_ref().filter(|redis| redis.is_starting()).map(|redis| redis.answering());
    let opening = async {
        let client = Client::without_key(&url)?;
        let access = ready(&client).await?;
        let welcome = welcome(&url, &settings_shown, data, &access);
        if let Some(answering) = loading {
            report_loading(data, answering, with_sample.then_some(&client), &welcome).await?;
        } else {
            if with_sample {
                load_sample(&client, data).await?;
            }
            output::show(&welcome)?;
        }
        std::future::pending().await
    };
    let redis_failure = async {
        match private_redis {
            Some(redis) => redis.failed().await,
            None => std::future::pending().await,
        }
    };
    let outcome: Result<()> = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = &mut services => return ended?.and_then(|()| bail!("the services ended unexpectedly")),
        failed = opening => failed,
        failure = redis_failure => Err(failure),
    };
    services_shutdown.cancel();
    let stopped = timeout(STOP_TIMEOUT, services).await;
    outcome?;
    stopped.map_err(|_| anyhow!("the services did not stop within {} s", STOP_TIMEOUT.as_secs()))??
}

/// Says that Redis reads its file, and when it has; then loads the sample if that is still missing.
async fn report_loading(
    data: &DataDirectory,
    answering: impl Future<Output = ()>,
    sample: Option<&Client>,
    welcome: &str,
) -> Result<()> {
    let started = Instant::now();
    let megabytes = redis_child::data_bytes(&data.redis()).div_ceil(1_000_000);
    output::show(welcome)?;
    output::note(&format!(
        "Redis reads its file ({megabytes} MB). Until it has, prices come from the database, and changes and \
         events are refused with 503."
    ));
    answering.await;
    output::note(&format!(
        "Redis has read its file after {} s more: changes and events are accepted.",
        started.elapsed().as_secs()
    ));
    if let Some(client) = sample {
        load_sample(client, data).await?;
    }
    Ok(())
}

/// Runs every service until shutdown. Besides addresses, each takes its settings from the environment.
async fn run_services(settings: Settings, shutdown: CancellationToken) -> Result<()> {
    let Settings { listener, redis_url, database_url } = settings;
    let set_urls = |shared: &mut SharedConfig| {
        shared.redis_url.clone_from(&redis_url);
        shared.database_url.clone_from(&database_url);
    };
    let mut api = ApiConfig::read(&process_environment)?;
    let mut worker = WorkerConfig::read(&process_environment)?;
    let mut bridge = ListenerConfig::read(&process_environment)?;
    set_urls(&mut api.shared);
    set_urls(&mut worker.shared);
    set_urls(&mut bridge.shared);
    // The other services only report their health; in one process, the API's report covers it.
    let worker_health = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let bridge_health = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (api_stop, worker_stop, bridge_stop) = (shutdown.clone(), shutdown.clone(), shutdown.clone());
    let services: Vec<(&'static str, BoxFuture<'static, Result<()>>)> = vec![
        ("the API", Box::pin(async { Ok(pricing_api::run(listener, api, api_stop).await?) })),
        (
            "the worker",
            Box::pin(async { Ok(pricing_worker::run(worker_health, worker, worker_stop).await?) }),
        ),
        (
            "the listener",
            Box::pin(async { Ok(pricing_listener::run(bridge_health, bridge, bridge_stop).await?) }),
        ),
    ];
    run_together(services, shutdown).await
}

/// Runs services until all have ended. When one ends, all are stopped; the first error is returned.
async fn run_together(
    services: Vec<(&'static str, BoxFuture<'static, Result<()>>)>,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut running = JoinSet::new();
    for (name, service) in services {
        running.spawn(async move { service.await.with_context(|| format!("{name} has failed")) });
    }
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        shutdown.cancel();
        outcome = outcome.and(ended.unwrap_or_else(|error| Err(error.into())));
    }
    outcome
}

/// The URL at which a client on this machine reaches a service that listens on this address.
fn reachable(mut address: SocketAddr) -> Result<Url> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    Ok(Url::parse(&format!("http://{address}"))?)
}

/// Waits until the services answer; returns what they say of access control.
async fn ready(client: &Client) -> Result<String> {
    let started = Instant::now();
    loop {
        match client.send(client.get(&["readyz"])).await {
            Ok(answer) => return Ok(access_of(&client.read(&answer)?)),
            Err(error) if started.elapsed() > READY_TIMEOUT => {
                return Err(error).with_context(|| {
                    format!("the services were not ready within {} s", READY_TIMEOUT.as_secs())
                });
            }
            Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}

/// What the answer of `/readyz` says of access control.
fn access_of(readiness: &serde_json::Value) -> String {
    let checks = readiness["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let access = checks.iter().find(|check| check["name"] == "access");
    access.and_then(|check| check["detail"].as_str()).unwrap_or("unknown").to_owned()
}

async fn load_sample(client: &Client, data: &DataDirectory) -> Result<()> {
    let query = ImportQuery { dry_run: false, approve: false, approved_by: None };
    let loading = import::send(client, import::Format::Csv, &query, SAMPLE_PRODUCTS);
    let answer = loading.await.context("could not load the sample catalogue")?;
    let summary: ImportAnswer = client.read(&answer)?;
    if summary.failed > 0 {
        bail!("{} products of the sample catalogue were refused", summary.failed);
    }
    data.forget_sample()?;
    output::note(&format!("loaded a sample catalogue of {} products", summary.created));
    Ok(())
}

/// The sample catalogue, loaded on the first start.
const SAMPLE_PRODUCTS: &str = include_str!("../../../../data/sample-products.csv");

/// The addresses of Redis and the database, without passwords.
struct Shown {
    redis: String,
    database: String,
}

impl Shown {
    fn of(settings: &Settings) -> Self {
        let redis = redis_address::without_password(&settings.redis_url);
        Self { redis, database: without_password(&settings.database_url) }
    }
}

/// The welcome text: addresses, access control, and the first steps.
fn welcome(url: &Url, Shown { redis, database }: &Shown, data: &DataDirectory, access: &str) -> String {
    format!(
        "The pricing engine is up.
  API       {url}
  docs      {url}docs
  metrics   {url}metrics
  data      {data}
  redis     {redis}
  database  {database}
  access    {access}

Ask for a price:
  curl -s {url}api/v1/price -H 'content-type: application/json' \\
    -d '{{\"product_id\": \"P-100\", \"user_location\": \"NY\", \"is_prime_member\": true}}'

Ctrl-C stops everything.",
        data = data.path().display(),
    )
}

/// A URL without its password, for display.
fn without_password(written: &str) -> String {
    match Url::parse(written) {
        Ok(mut url) if url.password().is_some() => {
            // Fails only for URLs without a host, which have no password.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => written.to_owned(),
    }
}

#[cfg(test)]
mod tests;
