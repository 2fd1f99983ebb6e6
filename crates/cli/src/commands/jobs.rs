//! `pricing jobs`: lists failed jobs and messages that are no market events, with their reasons, and requeues
//! jobs.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use pricing_wire::failed_job::{DeadEvent, DeadJob, JobsAnswer, JobsQuery};

use crate::client::{ApiAddress, Client};
use crate::output;

/// The characters of a message that are shown; the JSON response has more.
const MAX_MESSAGE_CHARS: usize = 100;

/// The action.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List failed jobs, and messages that are no market events, newest first
    List {
        /// The maximum number of jobs, and of messages
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print the API's JSON response
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Show a failed job with its payload
    Show {
        /// The job
        task_id: String,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Requeue failed jobs
    Requeue {
        /// The jobs
        #[arg(required = true)]
        task_ids: Vec<String>,
        #[command(flatten)]
        api: ApiAddress,
    },
}

/// Runs the action.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Action::List { limit, json, api } => {
            let client = Client::new(&api)?;
            let query = JobsQuery { limit: Some(limit.try_into().unwrap_or(usize::MAX)) };
            let answer = client.send(client.get(&["api", "v1", "jobs"]).query(&query)).await?;
            let text = if json { answer.body } else { render(&client.read(&answer)?) };
            output::show(&text)?;
        }
        Action::Show { task_id, api } => {
            let client = Client::new(&api)?;
            let answer = client.send(client.get(&["api", "v1", "jobs", &task_id])).await?;
            let job: serde_json::Value = client.read(&answer)?;
            output::show(&serde_json::to_string_pretty(&job)?)?;
        }
        Action::Requeue { task_ids, api } => {
            let client = Client::new(&api)?;
            for task_id in task_ids {
                client.send(client.post(&["api", "v1", "jobs", &task_id, "requeue"])).await?;
                output::show(&format!("{task_id} waits for a worker"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn render(jobs: &JobsAnswer) -> String {
    let mut text = format!("{} jobs outstanding, {} failed", jobs.outstanding, jobs.dead);
    if !jobs.jobs.is_empty() {
        let _ = write!(text, "\n{}", table_of_jobs(&jobs.jobs));
    }
    if jobs.dead_event_count > 0 {
        let _ = write!(text, "\n{} messages were no market events", jobs.dead_event_count);
    }
    if !jobs.dead_events.is_empty() {
        let _ = write!(text, "\n{}", table_of_messages(&jobs.dead_events));
    }
    text
}

fn table_of_jobs(jobs: &[DeadJob]) -> Table {
    let mut table = output::table(["job", "kind", "tries", "failed at", "why"]);
    for job in jobs {
        let (tries, died_at) = (job.tries.to_string(), output::in_full(job.died_at));
        table.add_row([&job.task_id, &job.kind, &tries, &died_at, &job.reason]);
    }
    table
}

fn table_of_messages(messages: &[DeadEvent]) -> Table {
    let mut table = output::table(["message", "came over", "looked at", "why it is no event"]);
    for DeadEvent { message, stream_id, died_at, reason, .. } in messages {
        let came_over = stream_id.as_deref().unwrap_or("the channel");
        table.add_row([&beginning(message), came_over, &output::in_full(*died_at), reason]);
    }
    table
}

/// The beginning of a message, without what would move the cursor of a terminal.
fn beginning(message: &str) -> String {
    let shown = message.chars().map(|char| if char.is_control() { ' ' } else { char });
    let mut shown: String = shown.take(MAX_MESSAGE_CHARS).collect();
    if message.chars().nth(MAX_MESSAGE_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_messages_are_tables_that_say_why() {
        let jobs = JobsAnswer {
            outstanding: 3,
            dead: 1,
            jobs: vec![DeadJob {
                task_id: "events:1-0:2-0:2".to_owned(),
                kind: "apply_events".to_owned(),
                reason: "the database refused".to_owned(),
                tries: 6,
                died_at: "2026-01-31T12:00:00Z".parse().unwrap(),
            }],
            dead_event_count: 2,
            dead_events: vec![DeadEvent {
                id: "1769860800000-0".to_owned(),
                message: "{\"price\":\u{1b}[31m5".to_owned(),
                reason: "not JSON: expected value at line 1 column 1".to_owned(),
                stream_id: None,
                died_at: "2026-01-31T12:00:00Z".parse().unwrap(),
            }],
        };
        insta::assert_snapshot!(render(&jobs));
    }
}
