//! Telemetry: log lines and metrics.
//!
//! Here: how a service starts logging ([`start_logging`]) and the inventory of all metrics ([`metrics`]). Never
//! here: what is worth saying; each module logs at its own boundary, once.

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error, for the whole process. Further calls change nothing, so that several
/// services can share a process.
pub fn start_logging(config: &LogConfig) {
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let registry = tracing_subscriber::registry().with(filter);
    let in_terminal = std::io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Auto => in_terminal,
        LogFormat::Json => false,
        LogFormat::Text => true,
    };
    let started = if as_text {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(in_terminal);
        registry.with(lines).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        registry.with(lines).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
