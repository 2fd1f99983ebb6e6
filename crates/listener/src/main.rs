//! `pricing-listener`: reads the configuration and runs the listener until it is told to stop.

use std::process::ExitCode;

use pricing_core::config::{EXIT_USAGE, process_environment};
use pricing_core::telemetry;
use pricing_listener::ListenerRunError;
use pricing_listener::config::ListenerConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = match ListenerConfig::read(&process_environment) {
        Ok(config) => config,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging has not started")]
            {
                eprintln!("pricing-listener: {error}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let telemetry = telemetry::start(&config.shared.log, &config.shared.trace, pricing_listener::SERVICE);
    let served = serve(config).await;
    let code = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the listener cannot run");
            ExitCode::FAILURE
        }
    };
    telemetry.stop().await;
    code
}

async fn serve(config: ListenerConfig) -> Result<(), ListenerRunError> {
    let shutdown = pricing_core::shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    pricing_listener::run(listener, config, shutdown).await
}
