//! `pricing-api`: reads the configuration and runs the API until it is told to stop.

use std::process::ExitCode;

use pricing_api::config::ApiConfig;
use pricing_core::config::{EXIT_USAGE, process_environment};
use pricing_core::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config = match ApiConfig::read(&process_environment) {
        Ok(config) => config,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging has not started")]
            {
                eprintln!("pricing-api: {error}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let telemetry = telemetry::start(&config.shared.log, &config.shared.trace, pricing_api::SERVICE);
    let served = serve(config).await;
    let code = match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the API cannot run");
            ExitCode::FAILURE
        }
    };
    telemetry.stop().await;
    code
}

async fn serve(config: ApiConfig) -> Result<(), pricing_api::ApiRunError> {
    let shutdown = pricing_core::shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    pricing_api::run(listener, config, shutdown).await
}
