//! `pricing history`: how a price came to be what it is, change by change.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, CellAlignment};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{ApiAddress, Client};
use crate::output;

/// Whose history.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The product
    product_id: String,
    /// At most so many changes
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Print the API's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// The answer; amounts keep the digits they have on the wire.
#[derive(Debug, Deserialize)]
struct History {
    reduction: Option<Reduction>,
    lowest_price_30_days: Option<Box<RawValue>>,
    changes: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Reduction {
    started_at: String,
    prior_price: Box<RawValue>,
    percent: Box<RawValue>,
    is_complete: bool,
}

#[derive(Debug, Deserialize)]
struct Change {
    revision: i64,
    old_list_price: Option<Box<RawValue>>,
    new_list_price: Option<Box<RawValue>>,
    currency: String,
    policy_version: i64,
    cause: String,
    changed_at: String,
}

/// Asks, and shows the answer.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api.url)?;
    let path = ["api", "v1", "products", &arguments.product_id, "history"];
    let answer = client.send(client.get(&path).query(&[("limit", arguments.limit)])).await?;
    output::show(&if arguments.json { answer.body } else { render(&client.read(&answer)?) })?;
    Ok(ExitCode::SUCCESS)
}

fn render(history: &History) -> String {
    let mut table = output::table(["changed at", "from", "to", "", "policy", "revision", "because of"]);
    for change in &history.changes {
        let amount = |amount: &Option<Box<RawValue>>| {
            let text = amount.as_ref().map_or("-", |amount| amount.get());
            Cell::new(text).set_alignment(CellAlignment::Right)
        };
        table.add_row([
            Cell::new(&change.changed_at),
            amount(&change.old_list_price),
            amount(&change.new_list_price),
            Cell::new(&change.currency),
            Cell::new(change.policy_version),
            Cell::new(change.revision),
            Cell::new(&change.cause),
        ]);
    }
    let mut text = table.to_string();
    if let Some(lowest) = &history.lowest_price_30_days {
        let _ = write!(text, "\nlowest price of the last 30 days: {}", lowest.get());
    }
    if let Some(reduction) = &history.reduction {
        let Reduction { started_at, prior_price, percent, is_complete } = reduction;
        let known = if *is_complete { "" } else { ", as far as prices are known" };
        let _ = write!(
            text,
            "\nreduced since {started_at}: prior price {}, so {}% may be announced{known}",
            prior_price.get(),
            percent.get()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_can_be_read() {
        let history = r#"{"product_id":"P-1","reduction":{"started_at":"2026-01-31T12:00:00Z","prior_price":1.29,"percent":0,"is_complete":false},
            "lowest_price_30_days":1.29,"changes":[
                {"revision":9,"old_list_price":1.69,"new_list_price":1.29,"currency":"EUR","policy_version":3,"cause":"recalculation 7","changed_at":"2026-01-31T12:00:00Z"},
                {"revision":2,"old_list_price":null,"new_list_price":1.69,"currency":"EUR","policy_version":1,"cause":"import","changed_at":"2025-12-01T12:00:00Z"}],
            "next_before":null}"#;
        insta::assert_snapshot!(render(&serde_json::from_str(history).unwrap()));
    }
}
