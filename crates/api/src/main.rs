//! `pricing-api`: reads the configuration and runs the API until shutdown.

use std::process::ExitCode;

use pricing_api::config::ApiConfig;
use pricing_core::config::process_environment;
use pricing_core::service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    service::run(pricing_api::SERVICE, ApiConfig::read(&process_environment), pricing_api::run).await
}
