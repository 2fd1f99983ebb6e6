//! `pricing history`: shows the changes of a price.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Cell, CellAlignment};
use pricing_wire::history::{HistoryAnswer, HistoryQuery};
use pricing_wire::reduction::{IncompleteBecause, ReductionAnswer};
use rust_decimal::Decimal;

use crate::client::{ApiAddress, Client};
use crate::output;

/// The product and the page.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The product
    product_id: String,
    /// The maximum number of changes
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// Print the API's JSON response
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Fetches the history and shows it.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    let path = ["api", "v1", "products", &arguments.product_id, "history"];
    let query = HistoryQuery { limit: Some(arguments.limit), before: None };
    let answer = client.send(client.get(&path).query(&query)).await?;
    output::show(&if arguments.json { answer.body } else { render(&client.read(&answer)?) })?;
    Ok(ExitCode::SUCCESS)
}

fn render(history: &HistoryAnswer) -> String {
    let mut table = output::table(["changed at", "from", "to", "", "policy", "revision", "because of"]);
    for change in &history.changes {
        let amount = |amount: Option<Decimal>| {
            let text = amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string());
            Cell::new(text).set_alignment(CellAlignment::Right)
        };
        table.add_row([
            Cell::new(output::to_the_second(change.changed_at)),
            amount(change.old_list_price),
            amount(change.new_list_price),
            Cell::new(&change.currency),
            Cell::new(change.policy_version),
            Cell::new(change.revision),
            Cell::new(&change.cause),
        ]);
    }
    let mut text = table.to_string();
    if let Some(lowest) = &history.lowest_price_30_days {
        let _ = write!(text, "\nlowest price of the last 30 days: {lowest}");
    }
    if let Some(reduction) = &history.reduction {
        let _ = write!(text, "\nreduced at {}", in_words(reduction));
    }
    if let Some(reduction) = &history.progressive_reduction {
        let _ = write!(text, "\nreduced step by step since {}", in_words(reduction));
        text.push_str(
            "\n  lawful only if each step was announced as a part of one growing reduction, where the law has that rule",
        );
    }
    text
}

/// The start of the reduction, the prior price, and the reasons against announcing it.
fn in_words(reduction: &ReductionAnswer) -> String {
    let ReductionAnswer { started_at, prior_price, percent, incomplete_because, .. } = reduction;
    let started_at = output::in_full(*started_at);
    if incomplete_because.is_empty() {
        return format!("{started_at}: prior price {prior_price}, so {percent}% may be announced");
    }
    let reasons = incomplete_because.iter().map(|reason| match IncompleteBecause::parse(reason) {
        Some(IncompleteBecause::PricesUnknown) => {
            "the list prices of some of the 30 days before are not known"
        }
        Some(IncompleteBecause::OffersForEveryShopper) => {
            "offers or location factors that every shopper gets were in force"
        }
        None => reason,
    });
    let reasons: Vec<&str> = reasons.collect();
    let reasons = reasons.join(", and ");
    format!(
        "{started_at}: by list prices the prior price is {prior_price} ({percent}%), which is not enough to announce it: {reasons}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_can_be_read() {
        let history = r#"{"product_id":"P-1","lowest_price_30_days":1.29,
            "reduction":{"started_at":"2026-01-31T12:00:00Z","prior_price":1.69,"percent":23.67,"is_complete":true,"incomplete_because":[]},
            "progressive_reduction":{"started_at":"2026-01-01T12:00:00Z","prior_price":1.89,"percent":31.75,"is_complete":false,
                "incomplete_because":["prices_unknown","offers_for_every_shopper"]},
            "changes":[
                {"revision":9,"old_list_price":1.69,"new_list_price":1.29,"currency":"EUR","policy_version":3,"cause":"recalculation 7","changed_at":"2026-01-31T12:00:00Z"},
                {"revision":5,"old_list_price":1.89,"new_list_price":1.69,"currency":"EUR","policy_version":1,"cause":"import","changed_at":"2026-01-01T12:00:00Z"},
                {"revision":2,"old_list_price":null,"new_list_price":1.89,"currency":"EUR","policy_version":1,"cause":"import","changed_at":"2025-12-20T12:00:00Z"}],
            "next_before":null}"#;
        insta::assert_snapshot!(render(&serde_json::from_str(history).unwrap()));
    }
}
