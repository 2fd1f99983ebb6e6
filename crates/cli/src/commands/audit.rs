//! `pricing audit`: shows or exports who changed what.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use pricing_wire::audit::{AuditAnswer, AuditQuery, RecordedChangeAnswer};
use serde_json::value::RawValue;

use crate::client::{ApiAddress, Client};
use crate::output;

/// Changes in one request.
const PAGE: u32 = 1_000;
/// The longest value in the table, in characters; --json has all of it.
const MAX_SHOWN_CHARS: usize = 120;

/// Which changes, and the form of the output.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only changes by this name
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, such as product.put
    #[arg(long)]
    action: Option<String>,
    /// Only changes of this product, policy version, draft, task, job, key or import
    #[arg(long)]
    subject: Option<String>,
    /// Only changes from this instant on, such as 2026-01-31T12:00:00Z
    #[arg(long)]
    since: Option<DateTime<Utc>>,
    /// Only changes before this instant
    #[arg(long)]
    until: Option<DateTime<Utc>>,
    /// The maximum number of changes
    #[arg(long, default_value_t = 50, conflicts_with = "all")]
    limit: u32,
    /// All changes, for an export
    #[arg(long)]
    all: bool,
    /// Print each change as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Fetches the changes, page by page, and shows them as they come.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { actor, action, subject, since, until, limit, all, json, api } = arguments;
    let client = Client::new(&api)?;
    let mut query = AuditQuery { actor, action, subject, since, until, limit: None, before: None };
    let mut left = if all { u64::MAX } else { limit.into() };
    let mut shown = Vec::new();
    while left > 0 {
        query.limit = Some(u32::try_from(left).unwrap_or(u32::MAX).min(PAGE));
        let answer = client.send(client.get(&["api", "v1", "audit"]).query(&query)).await?;
        let AuditAnswer { changes, next_before } = client.read(&answer)?;
        left = left.saturating_sub(changes.len() as u64);
        if json {
            for change in &changes {
                output::show(&serde_json::to_string(change)?)?;
            }
        } else {
            shown.extend(changes);
        }
        query.before = next_before;
        if next_before.is_none() {
            break;
        }
    }
    if !json {
        output::show(&render(&shown))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(changes: &[RecordedChangeAnswer]) -> String {
    if changes.is_empty() {
        return "no such change is recorded".to_owned();
    }
    let mut table = output::table(["when", "who", "action", "subject", "before", "after", "from"]);
    for change in changes {
        let who = match (&change.actor, change.is_as_stated) {
            (Some(actor), true) => format!("{actor} (as stated)"),
            (Some(actor), false) => actor.clone(),
            (None, _) => "unnamed".to_owned(),
        };
        table.add_row([
            output::to_the_second(change.recorded_at),
            who,
            change.action.clone(),
            change.subject.clone(),
            shortened(change.before.as_deref().map(RawValue::get)),
            shortened(change.after.as_deref().map(RawValue::get)),
            change.place.clone(),
        ]);
    }
    table.to_string()
}

fn shortened(value: Option<&str>) -> String {
    let text = value.unwrap_or("-");
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_can_be_read() {
        let answer = r#"{"next_before":null,"changes":[
            {"id":3,"recorded_at":"2026-01-31T12:00:00.5Z","actor":"zoe","is_as_stated":false,"key_id":"1f0c9a7be452","action":"product.put","subject":"P-1","before":{"base_price":51.99},"after":{"base_price":49.99},"place":"192.0.2.1","request_id":null,"trace_id":null},
            {"id":2,"recorded_at":"2026-01-31T11:00:00Z","actor":"adam","is_as_stated":true,"key_id":null,"action":"policy.publish","subject":"2","before":{"version":1},"after":{"version":2},"place":"127.0.0.1","request_id":null,"trace_id":null},
            {"id":1,"recorded_at":"2026-01-31T10:00:00Z","actor":null,"is_as_stated":false,"key_id":null,"action":"products.import","subject":"import","before":null,"after":{"products":{}},"place":"engine","request_id":null,"trace_id":null}]}"#;
        let answer: AuditAnswer = serde_json::from_str(answer).unwrap();
        insta::assert_snapshot!(render(&answer.changes));
        assert_eq!(render(&[]), "no such change is recorded");
        assert_eq!(shortened(Some(&"é".repeat(200))).chars().count(), MAX_SHOWN_CHARS + 1);
    }
}
