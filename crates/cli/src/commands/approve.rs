//! `pricing approve`: lists the recalculations that the circuit breaker holds, approves and rejects them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use pricing_wire::recalculation::{
    DecisionQuery, ListQuery, Listed, RecalculationAnswer, RecalculationsAnswer,
};

use crate::client::{ApiAddress, Client};
use crate::output;

/// The decision and its author.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recalculation; if omitted, held ones are listed
    task_id: Option<String>,
    /// The name of who approves or rejects it
    #[arg(long, env = "USER")]
    by: Option<String>,
    /// Reject it instead
    #[arg(long, requires = "task_id")]
    reject: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Sends the decision, or lists held recalculations.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { task_id, by, reject, api } = arguments;
    let client = Client::new(&api.url)?;
    let Some(task_id) = task_id else {
        let request = client.get(&["api", "v1", "recalculations"]).query(&ListQuery { state: Listed::Held });
        let held: RecalculationsAnswer = client.read(&client.send(request).await?)?;
        if held.recalculations.is_empty() {
            output::show("no recalculation is held")?;
        }
        for RecalculationAnswer { task_id, requested_at, reason, .. } in held.recalculations {
            let requested_at = output::in_full(requested_at);
            output::show(&format!("{task_id}  {requested_at}  {}", reason.unwrap_or_default()))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let by = super::name_of(by, "--by")?;
    let decision = if reject { "reject" } else { "approve" };
    let request = client.post(&["api", "v1", "recalculations", &task_id, decision]);
    client.send(request.query(&DecisionQuery { by })).await?;
    output::show(&if reject {
        format!("{task_id} is rejected")
    } else {
        format!("{task_id} is approved and waits for a worker")
    })?;
    Ok(ExitCode::SUCCESS)
}
