//! A private Prometheus that scrapes the targets of a test, with the shipped rules.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::child::SupervisedChild;
use crate::eventually::eventually;
use crate::http_client::HttpClient;
use crate::ports::on_free_port;
use crate::programs::find_program;
use crate::scratch_directory::ScratchDirectory;
use crate::tied_command::{Signal, tied_command};

const START_PATIENCE: Duration = Duration::from_secs(180);
const SCRAPE_INTERVAL: &str = "1s";

/// A `prometheus` on a loopback port with a private directory. Killed on drop.
// Fields are dropped in order: the process before its directory.
#[derive(Debug)]
pub struct PrometheusServer {
    _process: SupervisedChild,
    client: HttpClient,
    _directory: ScratchDirectory,
}

impl PrometheusServer {
    /// Starts a server that scrapes these jobs, each a name and addresses, and evaluates the rules in these
    /// files.
    pub async fn start(jobs: &[(&str, Vec<String>)], rule_files: &[PathBuf]) -> Result<Self> {
        let program = find_program("prometheus", "prometheus")?;
        let directory = ScratchDirectory::new("prometheus")?;
        let configuration = directory.path().join("prometheus.yml");
        std::fs::write(&configuration, render(jobs, rule_files)?)?;
        let log = directory.path().join("output.log");
        let (process, client) = on_free_port(async |port| {
            let mut command = tied_command(&program, Signal::Kill, None)?;
            command.arg(format!("--config.file={}", configuration.display()));
            command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let mut process = SupervisedChild::spawn("prometheus", command, &log)?;
            let client = HttpClient::new(format!("http://127.0.0.1:{port}"))?;
            let ready = eventually("prometheus is ready", START_PATIENCE, async || {
                let reply = client.get("/-/ready").await?;
                ensure!(reply.status == 200, "{}", reply.text);
                Ok(())
            });
            process.until_ready(ready).await?;
            Ok((process, client))
        })
        .await?;
        Ok(Self { _process: process, client, _directory: directory })
    }

    /// Returns the current series of an expression.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let request = self.client.request(reqwest::Method::GET, "/api/v1/query");
        let reply = self.client.send(request.query(&[("query", expression)])).await?;
        ensure!(reply.status == 200, "{expression}: {}", reply.text);
        Ok(reply.body.pointer("/data/result").and_then(Value::as_array).context("no result")?.clone())
    }
}

/// Runs `promtool`, with a text as input if given, and returns its output; an error if it fails.
pub fn promtool(arguments: &[&str], input: Option<&str>) -> Result<String> {
    let program = find_program("promtool", "prometheus")?;
    let directory = ScratchDirectory::new("promtool")?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(input) = input {
        let file = directory.path().join("input");
        std::fs::write(&file, input)?;
        command.stdin(std::fs::File::open(&file)?);
    }
    let output = command.output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}

fn render(jobs: &[(&str, Vec<String>)], rule_files: &[PathBuf]) -> Result<String> {
    let mut text = format!(
        "global:\n  scrape_interval: {SCRAPE_INTERVAL}\n  evaluation_interval: {SCRAPE_INTERVAL}\nrule_files:\n"
    );
    for file in rule_files {
        writeln!(text, "  - {}", file.display())?;
    }
    text.push_str("scrape_configs:\n");
    for (job, addresses) in jobs {
        writeln!(text, "  - job_name: {job}\n    static_configs: [{{ targets: {addresses:?} }}]")?;
    }
    Ok(text)
}
