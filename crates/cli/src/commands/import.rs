//! `pricing import`: streams products from a file or standard input to the API.

mod progress;

use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use pricing_wire::import::{ImportAnswer, ImportQuery, ImportWarning};
use reqwest::header::CONTENT_TYPE;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use self::progress::Progress;
use super::simulate;
use crate::client::{Answer, ApiAddress, Client, ClientError};
use crate::output;

/// Bytes read from the file at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The longest time in which no row is sent, before the last one was.
const MAX_STALL: Duration = Duration::from_secs(120);
/// The longest wait for the answer after the last row was sent. A circuit breaker has the API store all rows
/// only then.
const MAX_WAIT: Duration = Duration::from_secs(2 * 3_600);
/// The biggest moves that are shown.
const SHOWN_MOVES: usize = 10;
/// The number of refused rows that are shown; the others are counted.
const SHOWN_ROWS: usize = 20;
/// The number of products that lost a bound that are shown.
const SHOWN_PRODUCTS: usize = 10;

/// The file to import.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A CSV or NDJSON file, or - for standard input
    file: PathBuf,
    /// The file's format; by default from its extension
    #[arg(long, required_if_eq("file", "-"))]
    format: Option<Format>,
    /// Dry run: check every row, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Import even if the circuit breaker would hold the file
    #[arg(long)]
    approve: bool,
    /// Without an access key, the approver, if it is not $USER; implies --approve
    #[arg(long, value_name = "NAME")]
    approved_by: Option<String>,
    /// Print the API's JSON response
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// The format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header line
    Csv,
    /// One JSON object per line
    Ndjson,
}

impl Format {
    fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Lines before the first row.
    fn header_lines(self) -> u64 {
        match self {
            Self::Csv => 1,
            Self::Ndjson => 0,
        }
    }
}

/// Imports the file, and shows the result.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    let (format, length, source) = open(&arguments).await?;
    let mut chunks = ReaderStream::with_capacity(source, CHUNK_BYTES);
    // Awaited before the request is sent: the API does not wait long for a body that has not begun, and a
    // query that is piped into this command may sort for minutes before its first row.
    let first = chunks.next().await;
    let progress = Arc::new(Progress::new(format.header_lines(), bar(length)));
    let seen = Arc::clone(&progress);
    let chunks = futures::stream::iter(first).chain(chunks).inspect_ok(move |chunk| seen.count(chunk));
    let sent = Arc::clone(&progress);
    let end = futures::stream::poll_fn(move |_| {
        sent.end();
        Poll::Ready(None)
    });
    let body = reqwest::Body::wrap_stream(chunks.chain(end));
    let (approve, approved_by) = client.approval(arguments.approve, arguments.approved_by)?;
    let query = ImportQuery { dry_run: arguments.dry_run, approve, approved_by };
    let sending = send(&client, format, &query, body);
    let answer = tokio::select! {
        answer = sending => answer,
        limit = progress.stalled(MAX_STALL, MAX_WAIT) => {
            Err(anyhow::anyhow!("the import made no progress for {} s", limit.as_secs()))
        }
    };
    progress.finish();
    let answer =
        answer.map_err(|error| if query.dry_run { error } else { in_words(error, progress.rows()) })?;
    let summary: ImportAnswer = client.read(&answer)?;
    if arguments.json {
        output::show(&answer.body)?;
    } else {
        output::note(&progress.to_string());
        output::show(&render(&summary))?;
    }
    Ok(match summary.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(output::FAILED),
    })
}

/// The error of an import, with what is known of its rows if the API did not say what is stored.
fn in_words(error: anyhow::Error, sent: u64) -> anyhow::Error {
    if matches!(error.downcast_ref(), Some(ClientError::Refused(_))) {
        return error;
    }
    let rows = if sent == 1 { "1 row was sent".to_owned() } else { format!("{sent} rows were sent") };
    anyhow::anyhow!(
        "{error:#}\n  {rows}, and some of them may be stored; the same import can be repeated: stored rows count \
         as unchanged"
    )
}

/// Sends rows to the API's import.
pub(super) async fn send(
    client: &Client,
    format: Format,
    query: &ImportQuery,
    body: impl Into<reqwest::Body>,
) -> Result<Answer> {
    let request = client
        .upload(&["api", "v1", "products", "import"])
        .query(query)
        .header(CONTENT_TYPE, format.content_type())
        .body(body);
    client.send(request).await.map_err(|error| match error {
        held @ ClientError::Refused(_) if held.is_of_type("/problems/held-by-circuit-breaker") => {
            anyhow::anyhow!(
                "{held}\n  --dry-run shows how far prices would move, --approved-by NAME imports the file nevertheless"
            )
        }
        other => other.into(),
    })
}

/// The rows' format, their length in bytes if it is known, and their source.
async fn open(arguments: &Arguments) -> Result<(Format, Option<u64>, File)> {
    let path = &arguments.file;
    let Some(format) = arguments.format.or_else(|| Format::of_path(path)) else {
        bail!("{} does not end in .csv, .ndjson or .jsonl: say which with --format", path.display());
    };
    let cannot_open = || format!("cannot open {}", path.display());
    let file = if path == Path::new("-") {
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        File::from_std(input.with_context(cannot_open)?.into())
    } else {
        File::open(path).await.with_context(cannot_open)?
    };
    let metadata = file.metadata().await.with_context(cannot_open)?;
    if metadata.is_dir() {
        bail!("{} is a directory", path.display());
    }
    // A pipe has no length.
    let length = metadata.is_file().then_some(metadata.len());
    Ok((format, length, file))
}

/// The progress bar, on standard error if that is a terminal.
fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:24} {percent:>3}%  {bytes} of {total_bytes}  {msg}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn render(summary: &ImportAnswer) -> String {
    let heading = if summary.dry_run { "checked, nothing written" } else { "imported" };
    let mut text = format!("{heading}: {} rows\n", summary.rows);
    let _ = writeln!(text, "  created   {:>9}", summary.created);
    let _ = writeln!(text, "  updated   {:>9}", summary.updated);
    let _ = writeln!(text, "  unchanged {:>9}", summary.unchanged);
    if summary.repeated > 0 {
        let _ = writeln!(text, "  repeated  {:>9}", summary.repeated);
    }
    let _ = write!(text, "  failed    {:>9}", summary.failed);
    append_moves(&mut text, summary);
    append_notes(&mut text, summary);
    for row in summary.errors.iter().take(SHOWN_ROWS) {
        for error in &row.errors {
            let _ = write!(text, "\nline {}: {error}", row.line);
        }
    }
    let not_shown = u64::try_from(summary.errors.len().saturating_sub(SHOWN_ROWS)).unwrap_or(u64::MAX);
    match not_shown.saturating_add(summary.errors_left_out) {
        0 => {}
        1 => text.push_str("\nand 1 more row failed"),
        more => {
            let _ = write!(text, "\nand {more} more rows failed");
        }
    }
    text
}

/// Appends how far list prices move, if any does.
fn append_moves(text: &mut String, summary: &ImportAnswer) {
    let moves = &summary.moves;
    if moves.up + moves.down + moves.frozen > 0 {
        let heading = if summary.dry_run { "list prices would move" } else { "list prices moved" };
        let _ = write!(text, "\n{heading}: {} up, {} down, {} not", moves.up, moves.down, moves.unchanged);
        if moves.frozen > 0 {
            let _ = write!(text, ", {} frozen", moves.frozen);
        }
        let _ = writeln!(text, "; the median by {}%", moves.median_change_percent);
        simulate::append_distribution(text, &moves.distribution);
        simulate::append_biggest_moves(text, moves.biggest_moves.iter().take(SHOWN_MOVES));
        text.truncate(text.trim_end().len());
    }
    for reason in &summary.held {
        let _ = write!(text, "\nimporting it needs approval (--approved-by NAME): {reason}");
    }
}

/// Appends notes on rows that were imported and are probably not intended.
fn append_notes(text: &mut String, summary: &ImportAnswer) {
    if !summary.attributes.is_empty() {
        let _ = write!(text, "\nas attributes: {}", summary.attributes.join(", "));
    }
    for (count, what) in [
        (summary.lost.unit_cost, "unit cost"),
        (summary.lost.floor_price, "floor price"),
        (summary.lost.ceiling_price, "ceiling price"),
        (summary.lost.minimum_advertised_price, "minimum advertised price"),
    ] {
        let _ = match (count, summary.dry_run) {
            (0, _) => Ok(()),
            (1, true) => write!(text, "\n1 product would lose its {what}"),
            (1, false) => write!(text, "\n1 product has lost its {what}"),
            (many, true) => write!(text, "\n{many} products would lose their {what}"),
            (many, false) => write!(text, "\n{many} products have lost their {what}"),
        };
    }
    let lost = summary.lost.product_ids.len();
    if lost > 0 {
        let shown = lost.min(SHOWN_PRODUCTS);
        let ids: Vec<&str> = summary.lost.product_ids.iter().take(shown).map(String::as_str).collect();
        let _ = write!(text, "\nthese are {}", ids.join(", "));
        let left_out = u64::try_from(lost - shown).unwrap_or_default() + summary.lost.product_ids_left_out;
        if left_out > 0 {
            let _ = write!(text, " and {left_out} more");
        }
    }
    for ImportWarning { warning, line, rows } in &summary.warnings {
        let more = rows.saturating_sub(1);
        let where_else = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = write!(text, "\nwarning: {warning} (line {line}{where_else})");
    }
    if summary.not_compared > 0 {
        let rows = summary.not_compared;
        let _ = write!(
            text,
            "\nwarning: {rows} rows were not compared with all earlier ones: a product may be there twice"
        );
    }
}

#[cfg(test)]
mod tests;
