//! `pricing approve`: a decision about a recalculation that the circuit breaker holds.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::client::{ApiAddress, Client};
use crate::output;

/// What is decided, and by whom.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recalculation
    task_id: String,
    /// Who decides
    #[arg(long, env = "USER")]
    by: String,
    /// Give it up instead
    #[arg(long)]
    reject: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Says so.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { task_id, by, reject, api } = arguments;
    let client = Client::new(&api.url)?;
    let decision = if reject { "reject" } else { "approve" };
    let request = client.post(&["api", "v1", "recalculations", &task_id, decision]);
    client.send(request.query(&[("by", by)])).await?;
    output::show(&if reject {
        format!("{task_id} is given up")
    } else {
        format!("{task_id} waits for a worker")
    })?;
    Ok(ExitCode::SUCCESS)
}
