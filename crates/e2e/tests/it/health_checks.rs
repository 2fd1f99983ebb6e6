//! The built-in health check of a service: all that a container engine knows of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::events::consume::EventConsumer;
use pricing_core::events::oldest::oldest_wait;
use pricing_core::keys::MessageKeys;
use pricing_core::redis::RedisConnection;
use pricing_e2e::{PostgresServer, RedisServer, ServiceProcess, eventually, free_port};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Member, Service};
use crate::support::Stores;

const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAMS: [(Service, &str, &str); 3] = [
    (Service::Api, "pricing-api", "PRICING_API_LISTEN"),
    (Service::Worker, "pricing-worker", "PRICING_WORKER_LISTEN"),
    (Service::Listener, "pricing-listener", "PRICING_LISTENER_LISTEN"),
];

/// The exit code of the program and what it says.
async fn run(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start(program, environment, arguments)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

#[tokio::test]
async fn each_service_checks_the_one_that_runs_beside_it() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    // Each says that it is ready only if the others run.
    let _others = [fleet.start(Service::Worker).await?, fleet.start(Service::Listener).await?];
    for (service, program, variable) in PROGRAMS {
        let mut member = fleet.start(service).await?;
        is(&member, "ready", ["ok", "ok"]).await?;
        // A service that listens on every address is checked on loopback.
        let everywhere = member.address().replace("127.0.0.1", "0.0.0.0");
        for listen in [member.address(), everywhere] {
            let (code, said) = run(program, &[(variable, &listen)], &["healthcheck"]).await?;
            assert_eq!(code, 0, "{program}: {said}");
            assert!(said.contains("\"status\":\"ready\""), "{said}");
        }
        member.kill()?;
        let (code, said) = run(program, &[(variable, &member.address())], &["healthcheck"]).await?;
        assert_eq!(code, 1, "{program}: {said}");
        assert!(said.contains("does not answer"), "{said}");
    }
    Ok(())
}

/// Waits until a service says this of itself, of reads and of writes.
async fn is(member: &Member, status: &str, [reads, writes]: [&str; 2]) -> Result<Value> {
    eventually(&format!("it is {status}"), PATIENCE, async || {
        let said = member.client.get("/readyz").await?;
        let found = (&said.body["status"], &said.body["reads"], &said.body["writes"]);
        ensure!(found == (&json!(status), &json!(reads), &json!(writes)), "{}", said.text);
        Ok(said.body)
    })
    .await
}

/// The detail of a check, which has to have this status.
fn detail(said: &Value, name: &str, status: &str) -> Result<String> {
    let checks = said["checks"].as_array().context("no checks")?;
    let check =
        checks.iter().find(|check| check["name"] == name).with_context(|| format!("no {name}: {said}"))?;
    ensure!(check["status"] == status, "{check}");
    Ok(check["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_redis_that_answers_and_takes_no_writes_is_reported_by_every_service() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let mut members = Vec::new();
    for (service, ..) in PROGRAMS {
        members.push(fleet.start(service).await?);
    }
    for member in &members {
        is(member, "ready", ["ok", "ok"]).await?;
    }
    let mut connection = stores.redis.connection().await?;
    let mut set = async |setting: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async::<()>(&mut connection).await
    };
    set("maxmemory", "1").await?;
    for member in &members {
        let said = is(member, "degraded", ["ok", "failing"]).await?;
        let detail = detail(&said, "redis_writes", "failed")?;
        assert!(detail.contains("OOM"), "{detail}");
        eventually("the metric says so", PATIENCE, async || {
            let status = member.metric("pricing_check_status", "redis_writes").await?;
            ensure!(status == 2, "{status}");
            Ok(())
        })
        .await?;
        assert_eq!(member.client.get("/healthz").await?.status, 200, "a restart does not help");
    }
    set("maxmemory", "0").await?;
    set("maxmemory-policy", "allkeys-lru").await?;
    for member in &members {
        let said = is(member, "degraded", ["ok", "failing"]).await?;
        let detail = detail(&said, "redis_settings", "failed")?;
        assert!(detail.contains("allkeys-lru evicts events"), "{detail}");
        eventually("it is logged", PATIENCE, async || {
            let log = member.process.output()?;
            ensure!(log.contains("allkeys-lru evicts events"), "{log}");
            Ok(())
        })
        .await?;
    }
    set("maxmemory-policy", "noeviction").await?;
    set("appendonly", "no").await?;
    let said = is(&members[0], "ready", ["ok", "ok"]).await?;
    assert!(detail(&said, "redis_settings", "warning")?.contains("appendonly"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_read_only_is_reported() -> Result<()> {
    let postgres = PostgresServer::start().await?;
    let url = postgres.create_database("read_only_health").await?;
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &url);
    let mut members = Vec::new();
    for (service, ..) in PROGRAMS {
        members.push(fleet.start(service).await?);
    }
    is(&members[0], "ready", ["ok", "ok"]).await?;
    let set = async |read_only: &str| {
        let setting =
            format!("ALTER DATABASE read_only_health SET default_transaction_read_only = {read_only}");
        postgres.execute("postgres", &setting).await?;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'read_only_health'";
        postgres.execute("postgres", end).await
    };
    set("on").await?;
    for member in &members[..2] {
        // Sessions of before end first.
        eventually("it names the reason", PATIENCE, async || {
            let said = is(member, "degraded", ["ok", "failing"]).await?;
            ensure!(detail(&said, "database_writes", "failed")?.contains("read-only"), "{said}");
            detail(&said, "database", "ok").map(|_| ())
        })
        .await?;
    }
    set("off").await?;
    is(&members[0], "ready", ["ok", "ok"]).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_worker_or_a_listener_events_wait_and_every_service_says_so() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let api = fleet.start(Service::Api).await?;
    let said = is(&api, "degraded", ["ok", "ok"]).await?;
    assert!(detail(&said, "worker", "failed")?.contains("events wait"), "{said}");
    detail(&said, "listener", "failed")?;
    let mut worker = fleet.start(Service::Worker).await?;
    let listener = fleet.start(Service::Listener).await?;
    is(&api, "ready", ["ok", "ok"]).await?;
    // One that stops says so; one that dies is missed after a while.
    assert!(worker.terminate().await?);
    let said = is(&api, "degraded", ["ok", "ok"]).await?;
    detail(&said, "worker", "failed")?;
    detail(&said, "listener", "ok")?;
    drop(listener);
    eventually("the listener is missed", PATIENCE, async || {
        detail(&is(&api, "degraded", ["ok", "ok"]).await?, "listener", "failed").map(|_| ())
    })
    .await
}

#[tokio::test]
async fn a_service_that_misses_everything_is_not_healthy() -> Result<()> {
    let stores = Stores::start().await?;
    let fleet = Fleet::new(&stores.redis.url(), &stores.database_url());
    let listener = fleet.start(Service::Listener).await?;
    drop(stores);
    let variable = [("PRICING_LISTENER_LISTEN", listener.address())];
    let environment: Vec<(&str, &str)> =
        variable.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (code, said) = run("pricing-listener", &environment, &["healthcheck"]).await?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("\"status\":\"unavailable\""), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_at_once() -> Result<()> {
    let port = free_port()?;
    for (_, program, variable) in PROGRAMS {
        let listen = format!("127.0.0.1:{port}");
        let (code, said) = run(program, &[(variable, &listen)], &["--version"]).await?;
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with(&format!("{program} ")), "{said}");
        let (code, said) = run(program, &[(variable, &listen)], &["nonsense"]).await?;
        assert_eq!(code, 64, "{said}");
        assert!(said.contains("healthcheck"), "{said}");
        let (code, said) = run(program, &[(variable, "nowhere")], &["healthcheck"]).await?;
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(variable), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_oldest_event_is_the_one_that_is_not_acknowledged() -> Result<()> {
    let server = RedisServer::start().await?;
    let (redis, keys) = (RedisConnection::open(&server.url())?, MessageKeys::new("oldest:"));
    assert_eq!(oldest_wait(&redis, &keys).await?, None, "there is no stream");
    let mut connection = server.connection().await?;
    // Of 1970, so that their order is known.
    for id in ["1000-0", "2000-0"] {
        let mut add = redis::cmd("XADD");
        add.arg(keys.event_log()).arg(id).arg("event").arg("x").query_async::<()>(&mut connection).await?;
    }
    let oldest_ms = async || -> Result<i64> {
        let wait = oldest_wait(&redis, &keys).await?.context("none waits")?;
        Ok(Utc::now().timestamp_millis() - i64::try_from(wait.as_millis())?)
    };
    let is_about = |published_ms: i64, expected_ms: i64| (published_ms - expected_ms).abs() < 500;
    assert!(is_about(oldest_ms().await?, 1_000), "no listener has started");
    let consumer = EventConsumer::new(&server.url(), &redis, &keys, "one")?;
    consumer.ensure_group().await?;
    let mut reader = consumer.reader().await?;
    let first = reader.next(&[], 1).await?;
    assert!(is_about(oldest_ms().await?, 1_000), "it is pending");
    consumer.acknowledge(&[first[0].id.clone()]).await?;
    assert!(is_about(oldest_ms().await?, 2_000), "it is not delivered");
    let second = reader.next(&[], 1).await?;
    consumer.acknowledge(&[second[0].id.clone()]).await?;
    assert_eq!(oldest_wait(&redis, &keys).await?, None);
    Ok(())
}
