//! `pricing simulate`: shows the effect of a policy on all prices, before it is published.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use pricing_wire::simulation::{
    CatalogueWarning, FinalPriceMove, Line, Listed, MoveRange, RuleEffect, ShopperEffect, SimulateQuery,
    SimulatedPrice, SimulationReport,
};
use rust_decimal::Decimal;

use super::{held_price, policy};
use crate::client::{ApiAddress, Client};
use crate::output;

/// The longest line of an answer.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// The width of the longest bar of the distribution.
const BAR_WIDTH: u64 = 40;

/// The policy to simulate.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The policy, YAML or JSON; `-` for standard input
    file: PathBuf,
    /// Write each product whose price would change or be frozen to this CSV file
    #[arg(long, value_name = "FILE")]
    products: Option<PathBuf>,
    /// Write the other products, too
    #[arg(long, requires = "products")]
    all: bool,
    /// Print the API's report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Simulates, and shows the report.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    let products = match (&arguments.products, arguments.all) {
        (None, _) => Listed::None,
        (Some(_), false) => Listed::Moved,
        (Some(_), true) => Listed::All,
    };
    let policy = policy::read(&arguments.file)?;
    let request = client.upload(&["api", "v1", "policies", "simulate"]).query(&SimulateQuery { products });
    let response = client.open(policy::with_policy(request, policy)).await?;
    let mut products = arguments.products.as_ref().map(ProductFile::create).transpose()?;
    let bar = ProgressBar::no_length()
        .with_style(ProgressStyle::with_template("simulating {wide_bar} {pos}/{len} products, {eta} left")?);
    let mut bytes = response.bytes_stream();
    let mut rest = Vec::new();
    let mut report = None;
    while let Some(chunk) = bytes.next().await {
        rest.extend_from_slice(&chunk.context("the answer ended early")?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line: Line = serde_json::from_slice(&line).context("unexpected line in the answer")?;
            if let Some(progress) = line.progress {
                bar.set_length(progress.total);
                bar.set_position(progress.products);
            }
            if let (Some(product), Some(products)) = (line.product, &mut products) {
                products.write(&product)?;
            }
            if let Some(problem) = line.error {
                bail!("the simulation failed: {}", problem.detail);
            }
            report = line.report.or(report);
        }
        if rest.len() > MAX_LINE_BYTES {
            bail!("a line of the answer is too long");
        }
    }
    bar.finish_and_clear();
    let report = report.context("the answer ended before the report")?;
    if let Some(products) = products {
        products.finish()?;
    }
    let text = if arguments.json {
        report.get().to_owned()
    } else {
        render(&arguments.file.display().to_string(), &serde_json::from_str(report.get())?)
    };
    output::show(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Products as rows that a spreadsheet reads.
struct ProductFile(csv::Writer<BufWriter<File>>);

impl ProductFile {
    fn create(path: &PathBuf) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let mut rows = csv::Writer::from_writer(BufWriter::new(file));
        rows.write_record([
            "product_id",
            "currency",
            "list_price",
            "simulated_list_price",
            "change_percent",
            "outcome",
            "guardrails",
            "failed_rule",
            "problem",
            "held_by",
            "target",
            "continues_at",
            "reaches_target_at",
        ])?;
        Ok(Self(rows))
    }

    fn write(&mut self, product: &SimulatedPrice) -> Result<()> {
        let held = product.held.as_ref();
        let time = |at: Option<DateTime<Utc>>| at.map(output::in_full).unwrap_or_default();
        let row = [
            &*product.product_id,
            &*product.currency,
            &digits(product.list_price),
            &product.simulated_list_price.to_string(),
            &digits(product.change_percent),
            &*product.outcome,
            &product.guardrails.join(" "),
            product.failed_rule.as_deref().unwrap_or_default(),
            product.problem.as_deref().unwrap_or_default(),
            held.map_or("", |held| &held.by),
            &digits(held.map(|held| held.target)),
            &time(held.and_then(|held| held.continues_at)),
            &time(held.and_then(|held| held.reaches_target_at)),
        ];
        Ok(self.0.write_record(row)?)
    }

    fn finish(mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

fn digits(number: Option<Decimal>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn render(document: &str, report: &SimulationReport) -> String {
    let mut text = format!("{} products, nothing was changed\n", report.products);
    for (name, count) in
        [("up", report.up), ("down", report.down), ("unchanged", report.unchanged), ("frozen", report.frozen)]
    {
        let _ = writeln!(text, "  {name:<9} {count:>9}");
    }
    let _ = writeln!(text, "the median product moves by {}%", report.median_change_percent);
    append_distribution(&mut text, &report.distribution);
    if !report.rules.is_empty() {
        let _ = writeln!(text, "{:<27} {:>9} {:>9}", "market rules", "apply to", "fail for");
    }
    for RuleEffect { name, applied, failed } in &report.rules {
        let nothing = if *applied == 0 { "  applies to no product now" } else { "" };
        let _ = writeln!(text, "  {name:<25} {applied:>9} {failed:>9}{nothing}");
    }
    if !report.guardrails.is_empty() {
        let _ = writeln!(text, "guardrails that stop a price");
    }
    for (name, count) in report.guardrails.iter().collect::<BTreeMap<_, _>>() {
        let _ = writeln!(text, "  {name:<25} {count:>9}");
    }
    render_limits(&mut text, report);
    for (currency, margin) in &report.margins {
        let _ = writeln!(
            text,
            "{currency}, at the units sold in the last 28 days, of {} products whose cost and sales are known\n  revenue {} -> {}\n  margin  {} -> {}",
            margin.products, margin.revenue, margin.simulated_revenue, margin.margin, margin.simulated_margin
        );
    }
    append_biggest_moves(&mut text, report.biggest_moves.iter());
    render_panel(&mut text, &report.panel);
    for CatalogueWarning { about, problem, products, examples } in &report.catalogue_warnings {
        let noun = if *products == 1 { "product" } else { "products" };
        let _ =
            writeln!(text, "warning: {about}: {problem}, for {products} {noun} ({})", examples.join(", "));
    }
    for reason in &report.held {
        let _ = writeln!(text, "publishing it needs approval: {reason}");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "{}", policy::located_warning(document, warning));
    }
    text.trim_end().to_owned()
}

/// Appends what each limit on moves holds back, and how many moves exceed one step.
fn render_limits(text: &mut String, report: &SimulationReport) {
    for held in &report.held_prices {
        let (largest, median) = (digits(held.largest_distance_percent), digits(held.median_distance_percent));
        let _ = writeln!(text, "{}", held_price::describe(held));
        let _ = writeln!(text, "  they are up to {largest}% from their targets, the median is {median}%");
    }
    match report.moves_beyond_max_step {
        0 => {}
        1 => text.push_str("1 product moves at once by more than max_step\n"),
        products => {
            let _ = writeln!(text, "{products} products move at once by more than max_step");
        }
    }
}

/// The guardrails that stop a price, and whether it moves by more than one step.
fn notes(product: &SimulatedPrice) -> String {
    let guardrails = product.guardrails.iter().map(|guardrail| &**guardrail);
    let beyond = product.is_beyond_max_step.then_some("beyond max_step");
    guardrails.chain(beyond).collect::<Vec<_>>().join(", ")
}

/// Appends the moves of the final prices of each shopper.
fn render_panel(text: &mut String, panel: &[ShopperEffect]) {
    if !panel.is_empty() {
        let _ = writeln!(
            text,
            "{:<27} {:>9} {:>9} {:>9} {:>9}",
            "final prices for", "up", "down", "unchanged", "median"
        );
    }
    for ShopperEffect { name, up, down, unchanged, median_change_percent, .. } in panel {
        let median = format!("{median_change_percent}%");
        let _ = writeln!(text, "  {name:<25} {up:>9} {down:>9} {unchanged:>9} {median:>9}");
    }
    for shopper in panel.iter().filter(|shopper| !shopper.biggest_moves.is_empty()) {
        let _ = writeln!(text, "the biggest moves for {}", shopper.name);
        for moved in &shopper.biggest_moves {
            let FinalPriceMove { product_id, currency, final_price, simulated_final_price, change_percent } =
                moved;
            let _ = writeln!(
                text,
                "  {product_id:<20} {final_price:>10} -> {simulated_final_price:>10} {currency} {change_percent:>8}%"
            );
        }
    }
}

/// Appends a line with a bar for each range that has products.
pub(super) fn append_distribution(text: &mut String, distribution: &[MoveRange]) {
    let most = distribution.iter().map(|range| range.products).max().unwrap_or_default().max(1);
    for range in distribution.iter().filter(|range| range.products > 0) {
        let width = usize::try_from((range.products * BAR_WIDTH).div_ceil(most)).unwrap_or(0);
        let _ = writeln!(text, "  {:>13} {:>9} {}", range_name(range), range.products, "█".repeat(width));
    }
}

/// Appends a heading and a line for each of these products, if there are any.
pub(super) fn append_biggest_moves<'a>(
    text: &mut String,
    products: impl ExactSizeIterator<Item = &'a SimulatedPrice>,
) {
    if products.len() > 0 {
        let _ = writeln!(text, "the biggest moves");
    }
    for product in products {
        let _ = writeln!(
            text,
            "  {:<20} {:>10} -> {:>10} {} {:>8}%  {}",
            product.product_id,
            digits(product.list_price),
            product.simulated_list_price,
            product.currency,
            digits(product.change_percent),
            notes(product)
        );
    }
}

fn range_name(range: &MoveRange) -> String {
    match (range.from_percent, range.to_percent) {
        (Some(0), Some(0)) => "none".to_owned(),
        (Some(from), Some(to)) => format!("{from:+}..{to:+}%").replace("+0", "0"),
        (None, Some(to)) => format!("below {to:+}%"),
        (Some(from), None) => format!("above {from:+}%"),
        (None, None) => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_can_be_read() {
        let report = r#"{"products":20000,"up":1200,"down":300,"unchanged":18500,"frozen":7,"median_change_percent":0,
            "distribution":[{"from_percent":null,"to_percent":-50,"products":0},{"from_percent":-5,"to_percent":-1,"products":300},
                {"from_percent":0,"to_percent":0,"products":18500},{"from_percent":0,"to_percent":1,"products":200},
                {"from_percent":50,"to_percent":null,"products":1000}],
            "rules":[{"name":"follow","applied":1500,"failed":7},{"name":"toys","applied":0,"failed":0}],
            "guardrails":{"max_step":41},"moves_beyond_max_step":7,
            "held_prices":[{"limit":"max_step","products":41,"largest_distance_percent":60.5,"median_distance_percent":12,
                "continues_at":"2026-11-23T13:05:00Z","reaches_target_at":"2026-11-24T02:00:00Z","products_that_stay":3}],
            "failed_rules":{"follow":7},
            "margins":{"USD":{"products":900,"revenue":1000.50,"simulated_revenue":1100.00,"margin":200.10,"simulated_margin":299.60}},
            "biggest_moves":[{"product_id":"P-7","currency":"USD","list_price":10.00,"simulated_list_price":15.00,"change_percent":50,"outcome":"priced","guardrails":["floor_price"],"is_beyond_max_step":true}],
            "panel":[{"name":"anonymous","location":null,"location_factor":null,"segment":null,"channel":null,"prime":false,"quantity":1,
                    "up":0,"down":0,"unchanged":20000,"median_change_percent":0,"distribution":[],"biggest_moves":[]},
                {"name":"prime","location":"NY","location_factor":0.95,"segment":null,"channel":null,"prime":true,"quantity":1,
                    "up":0,"down":20000,"unchanged":0,"median_change_percent":-94.74,"distribution":[{"from_percent":null,"to_percent":-50,"products":20000}],
                    "biggest_moves":[{"product_id":"P-7","currency":"USD","final_price":9.50,"simulated_final_price":0.50,"change_percent":-94.74}]}],
            "catalogue_warnings":[{"about":"tenner","problem":"would leave nothing, and is passed over","products":12,"examples":["P-3","P-4","P-9"]}],
            "held":["1000 of 20000 products would move by more than 10% (allowed: 2% of them)"],
            "warnings":[{"field":"rounding.endings[0]","problem":"is no multiple of the increment","line":7,"column":12}]}"#;
        insta::assert_snapshot!(render("spring.yaml", &serde_json::from_str(report).unwrap()));
    }
}
