//! `pricing explain`: explains a price step by step, as a table for merchants.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use pricing_wire::explanation::{ExplanationAnswer, ExplanationQuery, ListPriceExplanation, Step, UsedFact};
use pricing_wire::held_price::HeldPrice;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::quote::percent;
use crate::client::{ApiAddress, Client};
use crate::output;

/// The width of tables without a terminal.
const DEFAULT_WIDTH: u16 = 80;

/// The product and the shopper.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The product
    product_id: String,
    /// Also explain the price of a shopper at this location
    #[arg(long)]
    location: Option<String>,
    /// The shopper is a prime member
    #[arg(long, requires = "location")]
    prime: bool,
    /// The number of units
    #[arg(long, requires = "location")]
    quantity: Option<u32>,
    /// The sales channel
    #[arg(long, requires = "location")]
    channel: Option<String>,
    /// The customer segment that the seller assigns to the shopper
    #[arg(long, requires = "location")]
    segment: Option<String>,
    /// Print the API's JSON response
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// The answer, with the parts that it carries as they were recorded.
#[derive(Debug, Deserialize)]
#[serde(try_from = "ExplanationAnswer")]
struct Explained {
    answer: ExplanationAnswer,
    list_price: ListPriceExplanation,
    quote_steps: Vec<Step>,
}

impl TryFrom<ExplanationAnswer> for Explained {
    type Error = serde_json::Error;

    fn try_from(answer: ExplanationAnswer) -> Result<Self, Self::Error> {
        let list_price = serde_json::from_str(answer.explanation.get())?;
        let steps = answer.quote.iter().flat_map(|quote| &quote.steps);
        let quote_steps = steps.map(|step| serde_json::from_str(step.get())).collect::<Result<_, _>>()?;
        Ok(Self { answer, list_price, quote_steps })
    }
}

/// Fetches the explanation and shows it.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    let path = ["api", "v1", "products", &arguments.product_id, "explanation"];
    let request = client.get(&path).query(&shopper(&arguments));
    let answer = client.send(request).await?;
    if arguments.json {
        output::show(&answer.body)?;
    } else {
        let explained = client.read(&answer)?;
        output::show(&render(&explained, arguments.location.as_deref(), None))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shopper(arguments: &Arguments) -> ExplanationQuery {
    if arguments.location.is_none() {
        return ExplanationQuery::default();
    }
    ExplanationQuery {
        user_location: arguments.location.clone(),
        is_prime_member: Some(arguments.prime),
        quantity: arguments.quantity,
        channel: arguments.channel.clone(),
        segment: arguments.segment.clone(),
    }
}

/// The explanation as text, in tables of the terminal's width or the given one.
fn render(explained: &Explained, location: Option<&str>, width: Option<u16>) -> String {
    let Explained { answer, list_price: recorded, quote_steps } = explained;
    let ExplanationAnswer { product_id, name, currency, list_price, .. } = answer;
    let mut text = format!("{name} ({product_id})\n\n");
    let _ = writeln!(
        text,
        "List price: {list_price} {currency}, made {} by policy \"{}\", version {}{}",
        output::to_the_second(recorded.priced_at),
        answer.policy_name,
        answer.policy_version,
        recorded.tz_version.as_ref().map(|version| format!(", time zones {version}")).unwrap_or_default()
    );
    let _ = writeln!(text, "{}", table("base price", &recorded.steps, width));
    for fact in &answer.facts_used {
        let _ = writeln!(text, "{}", describe_fact(fact));
    }
    if let Some(quote) = &answer.quote {
        let place = location.unwrap_or("the shopper's location");
        let _ = writeln!(text, "\nIn {place}: {} {currency}", quote.final_price);
        let _ = writeln!(text, "{}", table("list price", quote_steps, width));
    }
    let _ = write!(text, "\n{}", conclusion(explained, location));
    text
}

fn table(start: &str, steps: &[Step], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "step",
        "what it saw",
        "what it did",
        "price",
    ]);
    if let Some(width) = width.or_else(|| (!table.is_tty()).then_some(DEFAULT_WIDTH)) {
        table.set_width(width);
    }
    for step in steps {
        let [name, saw, did] = describe(start, step);
        let price = Cell::new(step.after.get()).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(name), Cell::new(saw), Cell::new(did), price]);
    }
    table.trim_fmt()
}

/// A fact, its source and its time, in lines that fit eighty columns unless a name is long.
fn describe_fact(fact: &UsedFact) -> String {
    let name = match (fact.fact.as_str(), &fact.competitor) {
        ("unit_cost", _) => "cost".to_owned(),
        ("competitor_price", Some(competitor)) => format!("price of {competitor}"),
        ("stock_level", _) => "stock".to_owned(),
        ("units_sold", _) => "units sold".to_owned(),
        ("demand_index", _) => "demand".to_owned(),
        (other, _) => other.replace('_', " "),
    };
    let source = match fact.source.as_deref() {
        Some("product") => "the product's row",
        Some(source) => source,
        None => "an unknown source",
    };
    let since = fact.since.map(|since| format!(" of {}", output::to_the_second(since))).unwrap_or_default();
    let until =
        fact.expires_at.map(|until| format!("\n  not known from {} on", output::to_the_second(until)));
    format!("{name} {}, from {source}{since}{}", fact.value, until.unwrap_or_default())
}

/// A step's name, its input and its effect.
fn describe(start: &str, step: &Step) -> [String; 3] {
    let rule = || step.rule.clone().unwrap_or_default();
    match step.step.as_str() {
        "start" => [start.to_owned(), String::new(), String::new()],
        "rule" => [rule(), what_a_rule_saw(step), what_a_rule_did(step)],
        "rule_failed" => {
            let problem = step.problem.as_deref().unwrap_or("for an unknown reason");
            [rule(), what_a_rule_saw(step), format!("FAILED: {problem}")]
        }
        "tie" => {
            let chosen = step.chosen.as_deref().unwrap_or("the first");
            let did = format!("{chosen} is taken, the first in the policy");
            ["tie".to_owned(), format!("as good: {}", step.others.join(", ")), did]
        }
        "guardrail" => {
            let name = step.guardrail.as_deref().unwrap_or("guardrail");
            [guardrail(name).to_owned(), digits(step.before.as_deref()), "stopped at the limit".to_owned()]
        }
        "guardrails_contradict" => {
            let (lowest, highest) = (digits(step.lowest.as_deref()), digits(step.highest.as_deref()));
            let saw = format!("floor {lowest} above ceiling {highest}");
            ["guardrails contradict".to_owned(), saw, "the floor wins".to_owned()]
        }
        "rounding" => {
            let mode = step.mode.as_deref().unwrap_or("unknown mode");
            let did = format!("rounded, {}", mode.replace('_', " "));
            ["rounding".to_owned(), digits(step.before.as_deref()), did]
        }
        "increment_passed_over" => {
            let saw = format!("multiples of {}", digits(step.increment.as_deref()));
            ["increment".to_owned(), saw, "none fits: kept to the minor unit".to_owned()]
        }
        // From an engine newer than this program.
        other => [other.replace('_', " "), digits(step.before.as_deref()), String::new()],
    }
}

/// The rule's condition, then each value it read and the competitor's price it used, one per line.
fn what_a_rule_saw(step: &Step) -> String {
    let condition = step.when.clone();
    let values = step.inputs.iter().map(|(name, value)| match value.get() {
        "null" => format!("{name}: not known"),
        known => format!("{name}: {known}"),
    });
    let whose =
        if step.competitors.is_empty() { "competitor".to_owned() } else { step.competitors.join(", ") };
    let reference = step.reference.iter().map(|price| format!("{whose}'s price: {}", price.get()));
    condition.into_iter().chain(values).chain(reference).collect::<Vec<_>>().join("\n")
}

fn what_a_rule_did(step: &Step) -> String {
    let action = step.action.as_deref().unwrap_or_default();
    if step.applied { action.to_owned() } else { format!("not applied ({action})") }
}

fn guardrail(name: &str) -> &str {
    match name {
        "max_step" => "largest move per step",
        "max_daily_move" => "largest move per day",
        "ceiling_price" => "ceiling price",
        "ceiling_of_base" => "ceiling over the base price",
        "floor_of_base" => "floor under the base price",
        "minimum_advertised_price" => "minimum advertised price",
        "min_time_between_changes" => "pause between changes",
        "competitor_loop" => "loop with competitors",
        "unit_cost" => "never below cost",
        "min_margin" => "minimum margin",
        "floor_price" => "floor price",
        other => other,
    }
}

fn digits(amount: Option<&RawValue>) -> String {
    amount.map(|amount| amount.get().to_owned()).unwrap_or_default()
}

/// The conclusion, one sentence per line.
fn conclusion(explained: &Explained, location: Option<&str>) -> String {
    let ExplanationAnswer { name, currency, list_price, quote, valid_until, held, .. } = &explained.answer;
    let mut text = match quote {
        Some(quote) => format!(
            "{name} costs {} {currency} in {}, with a discount of {}.",
            quote.final_price,
            location.unwrap_or("the shopper's location"),
            percent(quote.discount_rate),
        ),
        None => format!("The list price of {name} is {list_price} {currency}."),
    };
    if explained.list_price.outcome == "frozen" {
        text.push_str("\nA rule failed, so the list price in effect stays, within the guardrails.");
    }
    if let Some(held) = held {
        let HeldPrice { by, target, continues_at, reaches_target_at } = held;
        let by = guardrail(by);
        let _ = write!(text, "\nIts target is {target} {currency}; a limit, the {by}, holds it back.");
        if let Some(at) = *continues_at {
            let _ = write!(text, "\nIt continues at {}.", output::to_the_second(at));
        }
        match *reaches_target_at {
            Some(at) => {
                let _ = write!(text, "\nIt reaches its target at {}.", output::to_the_second(at));
            }
            None => text
                .push_str("\nIt stays short of its target until a fact, the product or the policy changes."),
        }
    }
    if let Some(until) = *valid_until {
        let _ = write!(text, "\nTime alone may change it from {} on.", output::to_the_second(until));
    }
    text
}

#[cfg(test)]
mod tests;
