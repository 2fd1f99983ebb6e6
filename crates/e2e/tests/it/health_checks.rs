//! The built-in health check of a service: all that a container engine knows of it.

use std::time::Duration;

use anyhow::{Context, Result};
use pricing_e2e::{ServiceProcess, free_port};

use crate::fleet::{Fleet, Service};
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
    for (service, program, variable) in PROGRAMS {
        let mut member = fleet.start(service).await?;
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
