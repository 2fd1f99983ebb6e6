//! What a run has found: promises that were kept or broken, printed as they are known.

use std::time::Duration;

use anyhow::{Result, bail};
use pricing_e2e::steady_load::Failure;
use pricing_e2e::{HttpClient, Member, eventually};

/// Kinds of failed requests that are quoted.
const QUOTED: usize = 5;

/// The broken promises so far.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    broken: Vec<String>,
}

impl Verdict {
    /// Records whether a promise was kept.
    pub(crate) fn promise(&mut self, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => println!("   ok      {what}"),
            Err(error) => {
                println!("   BROKEN  {what}: {error:#}");
                self.broken.push(what.to_owned());
            }
        }
    }

    /// Records a promise that there are none of these.
    pub(crate) fn none(&mut self, what: &str, failures: &[Failure]) {
        let outcome = if failures.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(quote(failures))) };
        self.promise(&format!("no {what}"), outcome);
    }

    /// Records that the services logged no error but those that are expected.
    pub(crate) fn no_errors_logged(
        &mut self,
        member: &Member,
        is_expected: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let said = member.output()?;
        let errors = said.lines().filter(|line| line.contains("ERROR") && !is_expected(line));
        let errors: Vec<&str> = errors.take(QUOTED).collect();
        let outcome = if errors.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(errors.join("\n"))) };
        self.promise(&format!("{} logged no unexplained error", member.service().program()), outcome);
        Ok(())
    }

    /// Fails if a promise was broken.
    pub(crate) fn end(self) -> Result<()> {
        if self.broken.is_empty() {
            return Ok(());
        }
        bail!("{} promises were broken: {}", self.broken.len(), self.broken.join("; "))
    }
}

/// The number of failures, and each kind once.
pub(crate) fn quote(failures: &[Failure]) -> String {
    let mut kinds: Vec<&str> = failures.iter().map(|failure| failure.what.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.truncate(QUOTED);
    format!("{} failed: {}", failures.len(), kinds.join(" | "))
}

/// Publishes the market's policy.
pub(crate) async fn publish_policy(api: &HttpClient, policy: &str) -> Result<()> {
    let path = "/api/v1/policies?author=check&approved_by=check";
    let request = api.request(reqwest::Method::POST, path).header("content-type", "application/yaml");
    let reply = api.send(request.body(policy.to_owned())).await?;
    anyhow::ensure!(reply.status == 201, "{} {}", reply.status, reply.text);
    Ok(())
}

/// Recalculates everything, and waits until it is done.
pub(crate) async fn recalculate(api: &HttpClient, patience: Duration) -> Result<()> {
    let reply = api.post("/api/v1/recalculations", &serde_json::json!({})).await?;
    anyhow::ensure!(reply.status == 202, "{} {}", reply.status, reply.text);
    let mut task = text_of(&reply.body, "task_id");
    eventually("the recalculation is done", patience, async || {
        let reply = api.get(&format!("/api/v1/recalculations/{task}")).await?;
        let follow_up = text_of(&reply.body, "follow_up_task_id");
        if !follow_up.is_empty() {
            task = follow_up;
        }
        anyhow::ensure!(text_of(&reply.body, "state") == "done", "{}", reply.text);
        Ok(())
    })
    .await
}

fn text_of(body: &serde_json::Value, field: &str) -> String {
    body.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
