//! `pricing policy`: checks, publishes, compares and rolls back policies.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use pricing_wire::policy::{CheckAnswer, PoliciesAnswer, PolicyAnswer, PublishPolicyAnswer, PublishQuery};
use pricing_wire::problem::FieldError;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;

use super::held_price;
use crate::client::{ApiAddress, Client, ClientError};
use crate::output;

/// The action.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the published versions, newest first
    List {
        /// Print the API's JSON response
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Print the document of a version
    Show {
        /// A version, or `latest`
        #[arg(default_value = "latest")]
        version: String,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// List all problems of a policy, with their positions; publishes nothing
    Check {
        /// The policy, YAML or JSON; `-` for standard input
        file: PathBuf,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Publish a policy: new prices are computed by it from now on
    Publish {
        /// The policy, YAML or JSON; `-` for standard input
        file: PathBuf,
        #[command(flatten)]
        publication: Publication,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Publish an earlier version again
    Rollback {
        /// The version to publish again
        version: u64,
        #[command(flatten)]
        publication: Publication,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Show what changed from one version to another
    Diff {
        /// The version to compare from, or `latest`
        from: String,
        /// The version to compare to, or `latest`
        #[arg(default_value = "latest")]
        to: String,
        #[command(flatten)]
        api: ApiAddress,
    },
}

/// The author, reason and condition of a publication.
#[derive(Debug, Args)]
struct Publication {
    /// The author of the version
    #[arg(long, env = "USER")]
    author: Option<String>,
    /// The reason for the version
    #[arg(long)]
    note: Option<String>,
    /// Publish only if this is still the latest version
    #[arg(long, value_name = "VERSION")]
    only_after: Option<u64>,
    /// Publish even if a circuit breaker would hold the policy
    #[arg(long)]
    approve: bool,
    /// Without an access key, the approver, if it is not $USER; implies --approve
    #[arg(long, value_name = "NAME")]
    approved_by: Option<String>,
}

/// Runs the action.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Action::List { json, api } => {
            let client = Client::new(&api)?;
            let answer = client.send(client.get(&["api", "v1", "policies"])).await?;
            output::show(&if json { answer.body } else { render(&client.read(&answer)?) })?;
        }
        Action::Show { version, api } => {
            let client = Client::new(&api)?;
            let answer = client.send(client.get(&["api", "v1", "policies", &version])).await?;
            let PolicyAnswer { source, .. } = client.read(&answer)?;
            output::show(source.trim_end())?;
        }
        Action::Check { file, api } => return check(&Client::new(&api)?, &file).await,
        Action::Publish { file, publication, api } => {
            let client = Client::new(&api)?;
            let request = with_policy(client.upload(&["api", "v1", "policies"]), read(&file)?);
            publish(&client, &file.display().to_string(), publication.put_into(&client, request)?).await?;
        }
        Action::Rollback { version, publication, api } => {
            let client = Client::new(&api)?;
            let path = ["api", "v1", "policies", &version.to_string(), "rollback"];
            let document = format!("version {version}");
            publish(&client, &document, publication.put_into(&client, client.upload(&path))?).await?;
        }
        Action::Diff { from, to, api } => {
            let client = Client::new(&api)?;
            let path = ["api", "v1", "policies", &from, "diff", &to];
            let answer = client.send(client.get(&path)).await?;
            output::show(answer.body.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The policy in a file, or on standard input.
pub(super) fn read(file: &Path) -> Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

impl Publication {
    fn put_into(self, client: &Client, request: RequestBuilder) -> Result<RequestBuilder> {
        let Self { author, note, only_after, approve, approved_by } = self;
        let author = client.stated_name(author, "--author")?;
        let (approve, approved_by) = client.approval(approve, approved_by)?;
        let request = request.query(&PublishQuery { author, note, approve, approved_by });
        Ok(match only_after {
            Some(version) => request.header("If-Match", format!("\"{version}\"")),
            None => request,
        })
    }
}

async fn publish(client: &Client, document: &str, request: RequestBuilder) -> Result<()> {
    let answer = client.send(request).await.map_err(|error| match error {
        held @ ClientError::Refused(_) if held.is_of_type("/problems/held-by-circuit-breaker") => {
            anyhow::anyhow!("{held}\n  --approve publishes it nevertheless")
        }
        other => other.into(),
    })?;
    let published: PublishPolicyAnswer = client.read(&answer)?;
    let PublishPolicyAnswer { version, task_id, warnings, .. } = &published;
    for warning in warnings {
        output::show(&located_warning(document, warning))?;
    }
    output::show(&format!(
        "version {version} is published; recalculation {task_id} moves the products over"
    ))?;
    for line in what_is_held(&published) {
        output::show(&line)?;
    }
    Ok(())
}

/// A line for each limit that holds prices back.
fn what_is_held(published: &PublishPolicyAnswer) -> Vec<String> {
    let mut lines: Vec<String> = published.held_prices.iter().map(held_price::describe).collect();
    if !published.is_simulated && !lines.is_empty() {
        lines.push("(before this version: the catalogue was not simulated)".to_owned());
    }
    lines
}

/// The request with a policy as its body.
pub(super) fn with_policy(request: RequestBuilder, policy: String) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/yaml").body(policy)
}

async fn check(client: &Client, file: &Path) -> Result<ExitCode> {
    let request = with_policy(client.post(&["api", "v1", "policies", "check"]), read(file)?);
    let answer = client.send(request).await?;
    let CheckAnswer { problems, warnings, .. } = client.read(&answer)?;
    let document = file.display().to_string();
    for problem in &problems {
        output::show(&located(&document, problem))?;
    }
    for warning in &warnings {
        output::show(&located_warning(&document, warning))?;
    }
    if !problems.is_empty() {
        bail!("{} problem{}", problems.len(), if problems.len() == 1 { "" } else { "s" });
    }
    if warnings.is_empty() {
        output::show(&format!("{document}: nothing is wrong with it"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A problem in the format of compilers, so that editors find the position.
fn located(document: &str, problem: &FieldError) -> String {
    format!("{}: {problem}", place(document, problem))
}

/// The same for a warning: something that is allowed and probably not intended.
pub(super) fn located_warning(document: &str, warning: &FieldError) -> String {
    format!("{}: warning: {warning}", place(document, warning))
}

fn place(document: &str, error: &FieldError) -> String {
    match (error.line, error.column) {
        (Some(line), Some(column)) => format!("{document}:{line}:{column}"),
        _ => document.to_owned(),
    }
}

fn render(policies: &PoliciesAnswer) -> String {
    let mut table = output::table(["version", "name", "published at", "by", "note"]);
    for policy in &policies.policies {
        let mark = if policy.version == policies.current_version { " in use" } else { "" };
        let version = format!("{}{mark}", policy.version);
        let published_at = output::to_the_second(policy.published_at);
        table.add_row([&version, &policy.name, &published_at, &policy.author, &policy.note]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use pricing_wire::policy::PolicyVersion;

    use super::*;

    #[test]
    fn versions_are_a_table_that_marks_the_one_in_use() {
        let policy = |version, name: &str| PolicyVersion {
            version,
            name: name.to_owned(),
            author: "zoe".to_owned(),
            note: "for the summer".to_owned(),
            published_at: "2026-01-31T12:00:00Z".parse().unwrap(),
        };
        let policies =
            PoliciesAnswer { current_version: 2, policies: vec![policy(2, "summer"), policy(1, "default")] };
        insta::assert_snapshot!(render(&policies));
    }

    #[test]
    fn a_publication_says_what_is_held_and_whether_that_is_simulated() {
        for (is_simulated, held_prices, expected) in [
            (true, "[]", &[][..]),
            (false, "[]", &[]),
            (true, r#"[{"limit":"max_step","products":872}]"#, &["872 prices are held by max_step"]),
            (
                false,
                r#"[{"limit":"competitor_loop","products":1},{"limit":"max_step","products":2}]"#,
                &[
                    "1 price is held by competitor_loop",
                    "2 prices are held by max_step",
                    "(before this version: the catalogue was not simulated)",
                ],
            ),
        ] {
            let published = format!(
                r#"{{"version":2,"task_id":"x","warnings":[],"held_prices":{held_prices},"is_simulated":{is_simulated}}}"#
            );
            assert_eq!(what_is_held(&serde_json::from_str(&published).unwrap()), expected, "{published}");
        }
    }

    #[test]
    fn problems_have_positions_that_editors_find() {
        let problem = FieldError {
            field: "market[0].when".to_owned(),
            problem: "unknown variable \"stock.levle\"".to_owned(),
            allowed: Some("stock.level".to_owned()),
            line: Some(4),
            column: Some(5),
        };
        assert_eq!(
            located("summer.yaml", &problem),
            "summer.yaml:4:5: market[0].when: unknown variable \"stock.levle\" (allowed: stock.level)"
        );
        assert_eq!(
            located_warning("summer.yaml", &problem),
            "summer.yaml:4:5: warning: market[0].when: unknown variable \"stock.levle\" (allowed: stock.level)"
        );
    }
}
