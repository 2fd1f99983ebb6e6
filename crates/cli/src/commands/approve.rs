//! `pricing approve`: what the circuit breaker holds, and decisions about it.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Deserialize;

use crate::client::{ApiAddress, Client};
use crate::output;

/// What is decided, and by whom.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recalculation; without it, those that are held are listed
    task_id: Option<String>,
    /// Who decides
    #[arg(long, env = "USER")]
    by: Option<String>,
    /// Give it up instead
    #[arg(long, requires = "task_id")]
    reject: bool,
    #[command(flatten)]
    api: ApiAddress,
}

#[derive(Debug, Deserialize)]
struct Held {
    recalculations: Vec<Recalculation>,
}

#[derive(Debug, Deserialize)]
struct Recalculation {
    task_id: String,
    requested_at: String,
    reason: Option<String>,
}

/// Says so, or lists.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { task_id, by, reject, api } = arguments;
    let client = Client::new(&api.url)?;
    let Some(task_id) = task_id else {
        let request = client.get(&["api", "v1", "recalculations"]).query(&[("state", "held")]);
        let held: Held = client.read(&client.send(request).await?)?;
        if held.recalculations.is_empty() {
            output::show("nothing is held")?;
        }
        for Recalculation { task_id, requested_at, reason } in held.recalculations {
            output::show(&format!("{task_id}  {requested_at}  {}", reason.unwrap_or_default()))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let by = super::name_of(by, "--by")?;
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
