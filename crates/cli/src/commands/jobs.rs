//! `pricing jobs`: lists failed jobs (dead letters) with their reasons, and requeues them.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use pricing_wire::failed_job::{JobsAnswer, JobsQuery};

use crate::client::{ApiAddress, Client};
use crate::output;

/// The action.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List failed jobs, newest first
    List {
        /// The maximum number of jobs
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
            let client = Client::new(&api.url)?;
            let query = JobsQuery { limit: Some(limit.try_into().unwrap_or(usize::MAX)) };
            let answer = client.send(client.get(&["api", "v1", "jobs"]).query(&query)).await?;
            let text = if json { answer.body } else { render(&client.read(&answer)?) };
            output::show(&text)?;
        }
        Action::Show { task_id, api } => {
            let client = Client::new(&api.url)?;
            let answer = client.send(client.get(&["api", "v1", "jobs", &task_id])).await?;
            let job: serde_json::Value = client.read(&answer)?;
            output::show(&serde_json::to_string_pretty(&job)?)?;
        }
        Action::Requeue { task_ids, api } => {
            let client = Client::new(&api.url)?;
            for task_id in task_ids {
                client.send(client.post(&["api", "v1", "jobs", &task_id, "requeue"])).await?;
                output::show(&format!("{task_id} waits for a worker"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn render(jobs: &JobsAnswer) -> String {
    let summary = format!("{} jobs outstanding, {} failed", jobs.outstanding, jobs.dead);
    if jobs.jobs.is_empty() {
        return summary;
    }
    let mut table = output::table(["job", "kind", "tries", "failed at", "why"]);
    for job in &jobs.jobs {
        let (tries, died_at) = (job.tries.to_string(), output::in_full(job.died_at));
        table.add_row([&job.task_id, &job.kind, &tries, &died_at, &job.reason]);
    }
    format!("{summary}\n{table}")
}

#[cfg(test)]
mod tests {
    use pricing_wire::failed_job::DeadJob;

    use super::*;

    #[test]
    fn jobs_are_a_table_that_says_why() {
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
        };
        insta::assert_snapshot!(render(&jobs));
    }
}
