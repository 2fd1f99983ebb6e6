//! The process of a service: start-up, health check and shutdown.
//!
//! Here: the shared part of the `main` functions of the API, the worker and the listener. Never here: the
//! work of a service. Where next: [`run`].
//!
//! Without an argument the service runs until it is stopped. `healthcheck` queries the readiness of the
//! instance that runs on this host with the same configuration, so a container needs no other program for
//! that. `--help` lists every variable, and `--version` prints the version.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{
    self, ConfigError, EXIT_USAGE, Environment, LIBRARY_VARIABLES, SHARED_VARIABLES, SharedConfig, Variable,
    process_environment,
};
use crate::tz_database::TzDatabase;
use crate::{shutdown, telemetry};

/// The time limit of a health check; the service checks Redis and the database, a second each.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The configuration of a service.
pub trait ServiceConfig {
    /// The summary of the service, as a clause whose subject is its name.
    const SUMMARY: &'static str;
    /// Its own variables, besides the shared ones.
    const VARIABLES: &'static [Variable];
    /// The shared configuration.
    fn shared(&self) -> &SharedConfig;
    /// The address that it listens on.
    fn listen(&self) -> SocketAddr;
}

/// The reason that a service did not start, or ended.
pub trait ServiceError: Display + From<std::io::Error> {
    /// Whether the configuration has to change before the service can start: the exit code is then that of a
    /// configuration that cannot be used.
    fn is_of_configuration(&self) -> bool;
}

/// The request in the arguments.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Serve,
    CheckHealth,
    Help,
    Version,
}

impl Request {
    /// Parses the arguments; `None` if they are invalid.
    fn read(arguments: &[&str]) -> Option<Self> {
        match arguments {
            [] => Some(Self::Serve),
            ["healthcheck"] => Some(Self::CheckHealth),
            ["--help" | "-h"] => Some(Self::Help),
            ["--version" | "-V"] => Some(Self::Version),
            _ => None,
        }
    }
}

/// Implements a service's `main`.
pub async fn run<C: ServiceConfig, E: ServiceError>(
    name: &'static str,
    config: Result<C, ConfigError>,
    serve: impl AsyncFnOnce(TcpListener, C, CancellationToken) -> Result<(), E>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(request) = Request::read(&arguments) else {
        let unknown = arguments.join(" ");
        return refuse(name, &format!("unknown argument \"{unknown}\": use none or healthcheck; see --help"));
    };
    match request {
        Request::Help => return succeed(&help::<C>(name)),
        Request::Version => return succeed(&version(name)),
        Request::Serve | Request::CheckHealth => {}
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => return refuse(name, &error),
    };
    if request == Request::CheckHealth {
        return check_health(name, config.listen());
    }
    let telemetry = telemetry::start(&config.shared().log, &config.shared().trace, name);
    let code = match bind(config.listen()).await {
        Ok((listener, shutdown)) => end(serve(listener, config, shutdown).await),
        Err(error) => end(Err(E::from(error))),
    };
    telemetry.stop().await;
    code
}

/// Returns this program's version, and that of the time zone database that it would use.
fn version(name: &str) -> String {
    let directory = config::tz_directory(&Environment::new(&process_environment));
    let time_zones = TzDatabase::load(directory.as_deref());
    format!("{name} {} (time zones {time_zones})", env!("CARGO_PKG_VERSION"))
}

/// Returns the text of `--help`; docs/configuration.md is generated from the same tables.
fn help<C: ServiceConfig>(name: &str) -> String {
    let variables = C::VARIABLES.iter().chain(SHARED_VARIABLES).chain(LIBRARY_VARIABLES);
    let variables: Vec<String> = variables.map(Variable::to_string).collect();
    format!(
        "{name} {version}: {summary}

Usage: {name} [healthcheck | --help | --version]

    (no argument)   run until SIGTERM or SIGINT
    healthcheck     ask the {name} on this host for /readyz; exit code 0 if it is ready or degraded, else 1
    -h, --help      print this help
    -V, --version   print the version, and that of the time zone database

Settings are environment variables; an empty one counts as unset. If any cannot be used, every problem is
printed and the exit code is {EXIT_USAGE}.

{variables}",
        version = env!("CARGO_PKG_VERSION"),
        summary = C::SUMMARY,
        variables = variables.join("\n").trim_end(),
    )
}

/// Serves alongside the service's background tasks, which run until shutdown, and waits for them to end. If
/// serving fails, or a task panics, the service shuts down with an error: without that task it would only
/// appear healthy.
pub async fn serve_beside<E: From<std::io::Error>>(
    mut tasks: JoinSet<()>,
    shutdown: &CancellationToken,
    serving: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let watching = async {
        let mut failed = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = &ended {
                tracing::error!(%error, "a background task failed");
            }
            if !shutdown.is_cancelled() {
                let why = ended.map_or_else(|error| error.to_string(), |()| "it returned".to_owned());
                failed = Err(std::io::Error::other(format!(
                    "a required background task ended unexpectedly: {why}"
                )));
                shutdown.cancel();
            }
        }
        failed
    };
    let serving = async {
        let served = serving.await;
        // If serving failed, the tasks must still be stopped.
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

fn end<E: ServiceError>(served: Result<(), E>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_of_configuration() => {
            tracing::error!(%error, "the service cannot start with this configuration");
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => {
            tracing::error!(%error, "the service failed");
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

/// Returns the raw HTTP response of `/readyz`.
fn ask_readiness(listen: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&reachable(listen), ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Returns the address of a listener as seen from the same host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn succeed(text: &str) -> ExitCode {
    say(text);
    ExitCode::SUCCESS
}

fn refuse(name: &str, problem: &impl Display) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "logging has not started")]
    {
        eprintln!("{name}: {problem}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "the answer to an argument")]
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
        // Work in progress is finished.
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
    fn an_unknown_argument_is_no_request() {
        assert_eq!(Request::read(&[]), Some(Request::Serve));
        assert_eq!(Request::read(&["healthcheck"]), Some(Request::CheckHealth));
        for unknown in [&["help"][..], &["--port", "1"], &["healthcheck", "--help"]] {
            assert_eq!(Request::read(unknown), None, "{unknown:?}");
        }
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
