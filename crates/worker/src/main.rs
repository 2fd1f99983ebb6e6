//! `pricing-worker`: reads the configuration and runs the worker until it is signalled to stop.

use std::process::ExitCode;

use pricing_core::config::process_environment;
use pricing_core::service;
use pricing_worker::config::WorkerConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    service::run(pricing_worker::SERVICE, WorkerConfig::read(&process_environment), pricing_worker::run).await
}
