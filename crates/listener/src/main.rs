//! `pricing-listener`: reads the configuration and runs the listener until it is signalled to stop.

use std::process::ExitCode;

use pricing_core::config::process_environment;
use pricing_core::service;
use pricing_listener::config::ListenerConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    service::run(pricing_listener::SERVICE, ListenerConfig::read(&process_environment), pricing_listener::run)
        .await
}
