//! `pricing approve`: lists the recalculations that the circuit breaker holds, approves and rejects them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Deserialize;

use crate::client::{ApiAddress, Client};
use crate::output;

/// The decision and its author.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recalculation; without it, held ones are listed
    task_id: Option<String>,
    /// Who decides
    #[arg(long, env = "USER")]
    by: Option<String>,
    /// Reject it instead
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

/// Sends the decision, or lists held recalculations.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { task_id, by, reject, api } = arguments;
    let client = Client::new(&api.url)?;
    let Some(task_id) = task_id else {
        let request = client.get(&["api", "v1", "recalculations"]).query(&[("state", "held")]);
        let held: Held = client.read(&client.send(request).await?)?;
        if held.recalculations.is_empty() {
            output::show("no recalculation is held")?;
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
        format!("{task_id} is rejected")
    } else {
        format!("{task_id} is approved and waits for a worker")
    })?;
    Ok(ExitCode::SUCCESS)
}
