//! `pricing approve`: lists the recalculations and the moves of prices that the circuit breaker holds,
//! approves and rejects them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use pricing_wire::held_move::{
    DecidedMovesAnswer, HeldMoveAnswer, HeldMovesAnswer, HeldMovesDecision, HeldMovesQuery,
};
use pricing_wire::recalculation::{
    DecisionQuery, ListQuery, Listed, RecalculationAnswer, RecalculationsAnswer,
};

use crate::client::{ApiAddress, Client};
use crate::output;

/// What is written in place of a recalculation for the moves that market events would make.
const EVENTS: &str = "events";
/// The most moves that are listed; the others are counted.
const MAX_LISTED: u32 = 20;

/// The decision and its author.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The recalculation, or `events` for the moves that market events would make; if omitted, what is held
    /// is listed
    task_id: Option<String>,
    /// Only the move of this product; may be given several times
    #[arg(long = "product", value_name = "PRODUCT", requires = "task_id")]
    products: Vec<String>,
    /// The name of who approves or rejects it
    #[arg(long, env = "USER")]
    by: Option<String>,
    /// Reject it instead
    #[arg(long, requires = "task_id")]
    reject: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Sends the decision, or lists what is held.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { task_id, products, by, reject, api } = arguments;
    let client = Client::new(&api)?;
    let Some(task_id) = task_id else { return list(&client).await };
    let by = client.stated_name(by, "--by")?;
    let decision = if reject { "reject" } else { "approve" };
    if task_id == EVENTS {
        let product_ids = (!products.is_empty()).then_some(products);
        let request = client.post(&["api", "v1", "held-moves", decision]).query(&DecisionQuery { by });
        let answer = client.send(request.json(&HeldMovesDecision { product_ids })).await?;
        let DecidedMovesAnswer { moves } = client.read(&answer)?;
        let (noun, verb) = if moves == 1 { ("move", "is") } else { ("moves", "are") };
        output::show(&format!(
            "{moves} {noun} of prices {verb} {}",
            if reject { "rejected" } else { "approved" }
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(products.is_empty(), "--product goes with `{EVENTS}`, not with a recalculation");
    let request = client.post(&["api", "v1", "recalculations", &task_id, decision]);
    client.send(request.query(&DecisionQuery { by })).await?;
    output::show(&if reject {
        format!("{task_id} is rejected")
    } else {
        format!("{task_id} is approved and waits for a worker")
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client) -> Result<ExitCode> {
    let request = client.get(&["api", "v1", "recalculations"]).query(&ListQuery { state: Listed::Held });
    let held: RecalculationsAnswer = client.read(&client.send(request).await?)?;
    if held.recalculations.is_empty() {
        output::show("no recalculation is held")?;
    }
    for RecalculationAnswer { task_id, requested_at, reason, .. } in held.recalculations {
        let requested_at = output::in_full(requested_at);
        output::show(&format!("{task_id}  {requested_at}  {}", reason.unwrap_or_default()))?;
    }
    let first = HeldMovesQuery { limit: Some(MAX_LISTED), after: None };
    let request = client.get(&["api", "v1", "held-moves"]).query(&first);
    let HeldMovesAnswer { count, moves, .. } = client.read(&client.send(request).await?)?;
    match count {
        0 => output::show("no move of a price by market events is held")?,
        1 => output::show("1 move of a price by market events is held:")?,
        _ => output::show(&format!("{count} moves of prices by market events are held:"))?,
    }
    let listed = u64::try_from(moves.len()).unwrap_or(u64::MAX);
    for HeldMoveAnswer { product_id, held_since, reason, .. } in moves {
        output::show(&format!("{product_id}  {}  {reason}", output::in_full(held_since)))?;
    }
    if let Some(more) = count.checked_sub(listed).filter(|more| *more > 0) {
        output::show(&format!("and {more} more"))?;
    }
    Ok(ExitCode::SUCCESS)
}
