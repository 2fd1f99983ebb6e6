//! A service as a process: how it starts, says how it is, and ends.
//!
//! Here: what the `main`s of the API, the worker and the listener share. Never here: what a service does.
//!
//! Without an argument the service runs until it is told to stop. With `healthcheck`, it asks the one that
//! runs beside it, under the same configuration, whether it is ready: a container needs no other program for
//! that.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, EXIT_USAGE, SharedConfig};
use crate::tz_database::TzDatabase;
use crate::{shutdown, telemetry};

/// How long the one that is asked may take to answer; it asks Redis and the database, a second each.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What a service is told.
pub trait ServiceConfig {
    /// What every service is told.
    fn shared(&self) -> &SharedConfig;
    /// Where it listens.
    fn listen(&self) -> SocketAddr;
}

/// The whole of a service's `main`.
pub async fn run<C: ServiceConfig, E: Display>(
    name: &'static str,
    config: Result<C, ConfigError>,
    serve: impl AsyncFnOnce(TcpListener, C, CancellationToken) -> Result<(), E>,
) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(error) => return refuse(name, &error),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["healthcheck"] => return check_health(name, config.listen()),
        ["--version"] => {
            let time_zones = TzDatabase::load(config.shared().tz_directory.as_deref());
            say(&format!("{name} {} (time zones {time_zones})", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        _ => {
            return refuse(
                name,
                &"it takes no argument but healthcheck or --version; settings are variables",
            );
        }
    }
    let telemetry = telemetry::start(&config.shared().log, &config.shared().trace, name);
    let code = match bind(config.listen()).await {
        Ok((listener, shutdown)) => end(serve(listener, config, shutdown).await),
        Err(error) => end(Err(error)),
    };
    telemetry.stop().await;
    code
}

/// Serves beside the service's other tasks, which run until it is told to stop, and then lets those end too.
/// If serving fails, or one of them ends before that, because it panicked, the service stops as if it was
/// told to, with an error: without that task it would only look healthy.
pub async fn serve_beside<E: From<std::io::Error>>(
    mut tasks: JoinSet<()>,
    shutdown: &CancellationToken,
    serving: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let watching = async {
        let mut failed = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = &ended {
                tracing::error!(%error, "a task of the service has failed");
            }
            if !shutdown.is_cancelled() {
                let why = ended.map_or_else(|error| error.to_string(), |()| "it was done".to_owned());
                failed =
                    Err(std::io::Error::other(format!("a task that the service needs has ended: {why}")));
                shutdown.cancel();
            }
        }
        failed
    };
    let serving = async {
        let served = serving.await;
        // If it failed, nobody has told the others yet.
        shutdown.cancel();
        served
    };
    let (served, failed) = tokio::join!(serving, watching);
    served?;
    Ok(failed?)
}

async fn bind(listen: SocketAddr) -> std::io::Result<(TcpListener, CancellationToken)> {
    let shutdown = shutdown::on_signal()?;
    let listener = TcpListener::bind(listen).await;
    let listener =
        listener.map_err(|error| std::io::Error::new(error.kind(), format!("{listen}: {error}")))?;
    Ok((listener, shutdown))
}

fn end<E: Display>(served: Result<(), E>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the service cannot run");
            ExitCode::FAILURE
        }
    }
}

fn check_health(name: &str, listen: SocketAddr) -> ExitCode {
    match ask_readiness(listen) {
        Ok(answer) => {
            say(answer.lines().last().unwrap_or_default());
            let is_ready = answer.split(' ').nth(1) == Some("200");
            if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(&format!("{name} does not answer at {listen}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The answer of `/readyz`, as it comes over the wire.
fn ask_readiness(listen: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&reachable(listen), ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where something that listens at this address is reached from the same host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn refuse(name: &str, problem: &impl Display) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "logging has not started")]
    {
        eprintln!("{name}: {problem}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "whoever asked reads it")]
    {
        println!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_before_the_service_ends_it() {
        let shutdown = CancellationToken::new();
        let until = |shutdown: &CancellationToken| {
            let stopped = shutdown.clone().cancelled_owned();
            async {
                stopped.await;
                Ok::<(), std::io::Error>(())
            }
        };
        let mut tasks = JoinSet::new();
        // What is under way is brought to its end.
        let (done, is_done) = tokio::sync::oneshot::channel();
        let stopped = shutdown.clone().cancelled_owned();
        tasks.spawn(async {
            stopped.await;
            let _ = done.send(());
        });
        tasks.spawn(async { panic!("on purpose") });
        let served = serve_beside(tasks, &shutdown, until(&shutdown)).await;
        assert!(served.unwrap_err().to_string().contains("panicked"));
        assert!(is_done.await.is_ok());
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(shutdown.clone().cancelled_owned());
        let stop = shutdown.clone();
        let serving = async move {
            stop.cancel();
            Ok::<(), std::io::Error>(())
        };
        assert!(serve_beside(tasks, &shutdown, serving).await.is_ok());
    }

    #[tokio::test]
    async fn a_service_that_cannot_serve_ends_with_its_tasks() {
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(shutdown.clone().cancelled_owned());
        let serving = async { Err::<(), _>(std::io::Error::other("no socket")) };
        let served = tokio::time::timeout(Duration::from_secs(30), serve_beside(tasks, &shutdown, serving));
        assert_eq!(served.await.unwrap().unwrap_err().to_string(), "no socket");
    }

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
