//! `pricing recalculate`: recalculates prices for all or selected products.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pricing_wire::recalculation::{RecalculationAnswer, RecalculationRequest, RequestAnswer};
use tokio::time::sleep;

use crate::client::{Answer, ApiAddress, Client};
use crate::output;

/// How often the progress of a recalculation is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The products to recalculate.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The products; all if omitted
    #[arg(conflicts_with = "category")]
    product_ids: Vec<String>,
    /// All products of this category
    #[arg(long)]
    category: Option<String>,
    /// Let prices that a limit on moves holds go to their targets at once
    #[arg(long)]
    release: bool,
    /// Wait until it is done, and show its progress
    #[arg(long)]
    wait: bool,
    /// Print the API's last JSON response
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Requests the recalculation and waits for it if `--wait` is given.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    for product_id in &arguments.product_ids {
        // A recalculation ignores products that do not exist.
        client.send(client.get(&["api", "v1", "products", product_id])).await?;
    }
    let Arguments { product_ids, category, release, .. } = &arguments;
    let product_ids = (!product_ids.is_empty()).then(|| product_ids.clone());
    let request = RecalculationRequest { category: category.clone(), product_ids, release: *release };
    let answer = client.send(client.post(&["api", "v1", "recalculations"]).json(&request)).await?;
    let RequestAnswer { task_id, .. } = client.read(&answer)?;
    if !arguments.wait {
        output::show(if arguments.json { &answer.body } else { &task_id })?;
        return Ok(ExitCode::SUCCESS);
    }
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "recalculating {wide_bar} {pos}/{len} products, {eta} left",
    )?);
    let ended = follow(&client, task_id, &bar).await;
    bar.finish_and_clear();
    let (answer, ended) = ended?;
    output::show(&if arguments.json { answer.body } else { render(&ended) })?;
    match ended.state.as_str() {
        "done" => match arguments.category {
            Some(category) if ended.products_done == 0 => bail!("no product is of category \"{category}\""),
            _ => Ok(ExitCode::SUCCESS),
        },
        "held" => bail!(
            "the recalculation is held: {}\n  `pricing approve {}` approves it",
            ended.reason.unwrap_or_default(),
            ended.task_id
        ),
        state => bail!("the recalculation is {state}: {}", ended.reason.unwrap_or_default()),
    }
}

/// Follows a recalculation, and the one it was coalesced into, to its end.
async fn follow(
    client: &Client,
    mut task_id: String,
    bar: &ProgressBar,
) -> Result<(Answer, RecalculationAnswer)> {
    loop {
        let answer = client.send(client.get(&["api", "v1", "recalculations", &task_id])).await?;
        let now: RecalculationAnswer = client.read(&answer)?;
        if let Some(total) = now.products_total {
            bar.set_length(total);
        }
        bar.set_position(now.products_done);
        match (now.state.as_str(), &now.follow_up_task_id) {
            ("skipped", Some(follow_up)) => {
                output::note(&format!("skipped: {}", now.reason.as_deref().unwrap_or_default()));
                task_id.clone_from(follow_up);
            }
            ("done" | "failed" | "skipped" | "held", _) => return Ok((answer, now)),
            _ => sleep(POLL_INTERVAL).await,
        }
    }
}

fn render(done: &RecalculationAnswer) -> String {
    let milliseconds = done.duration_ms.and_then(|duration| u64::try_from(duration).ok()).unwrap_or_default();
    let rate = done.products_done.saturating_mul(1_000) / milliseconds.max(1);
    let mut text = format!(
        "recalculated {} products in {}.{:03} s, {rate} products/s\n",
        done.products_done,
        milliseconds / 1_000,
        milliseconds % 1_000
    );
    let _ = writeln!(text, "  changed  {:>9}", done.prices_changed);
    let _ = write!(text, "  frozen   {:>9}", done.prices_frozen);
    for (worker, ranges) in &done.workers {
        let plural = if *ranges == 1 { "" } else { "s" };
        let _ = write!(text, "\n  {worker} did {ranges} range{plural}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_can_be_read() {
        let done = r#"{"task_id":"01a2","state":"done","scope":"all","reason":null,"follow_up_task_id":null,
            "approved_by":null,"run_number":7,"policy_version":1,"progress_percent":100,"products_total":20000,
            "products_done":20000,"prices_changed":19876,"prices_frozen":3,"workers":{"worker-1":11,"worker-2":1},
            "requested_at":"2026-01-31T12:00:00Z","started_at":"2026-01-31T12:00:00.5Z",
            "finished_at":"2026-01-31T12:00:01.704Z","duration_ms":1204}"#;
        let done = serde_json::from_str(done).unwrap();
        insta::assert_snapshot!(render(&done), @r"
        recalculated 20000 products in 1.204 s, 16611 products/s
          changed      19876
          frozen           3
          worker-1 did 11 ranges
          worker-2 did 1 range
        ");
    }
}
