//! `pricing quote`: shows the price of a product for one shopper now, creates keys of quote locks, and
//! verifies locks.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use pricing_domain::facts::product::amount_from_json;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::quote_lock;
use crate::client::{ApiAddress, Client};
use crate::output;

/// The header that names the cache tier of the answer.
const CACHE_HEADER: &str = "x-cache";

const HELP: &str = "\
A product that is called new-key or verify is written after the options: pricing quote --location NY -- verify";

/// The product and the shopper, or what to do with locks.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    lock: Option<quote_lock::Action>,
    /// The product
    #[arg(required = true)]
    product_id: Option<String>,
    /// The shopper's location
    #[arg(long, required = true)]
    location: Option<String>,
    /// The shopper is a prime member
    #[arg(long)]
    prime: bool,
    /// The number of units
    #[arg(long, default_value_t = 1)]
    quantity: u32,
    /// The sales channel
    #[arg(long)]
    channel: Option<String>,
    /// The customer segment that the seller assigns to the shopper
    #[arg(long)]
    segment: Option<String>,
    /// Lock the price, and print the lock
    #[arg(long = "lock")]
    is_locked: bool,
    /// Print the API's JSON response
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// The body of a price request.
#[derive(Debug, Serialize)]
struct PriceRequest<'a> {
    product_id: &'a str,
    user_location: &'a str,
    is_prime_member: bool,
    quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lock: bool,
}

/// The answer; amounts keep the digits they have on the wire.
#[derive(Debug, Deserialize)]
struct PriceDetail {
    product_id: String,
    #[serde(deserialize_with = "amount_from_json")]
    final_price: Decimal,
    #[serde(deserialize_with = "amount_from_json")]
    base_price: Decimal,
    #[serde(deserialize_with = "amount_from_json")]
    list_price: Decimal,
    #[serde(deserialize_with = "amount_from_json")]
    discount_rate: Decimal,
    source: String,
    currency: String,
    policy_version: i64,
    revision: i64,
    valid_until: Option<String>,
    #[serde(default)]
    personalised: bool,
    lock: Option<String>,
}

/// Requests the quote and shows it, or works with locks.
pub(crate) async fn run(mut arguments: Arguments) -> Result<ExitCode> {
    match arguments.lock.take() {
        Some(action) => quote_lock::run(action).await,
        None => quote(arguments).await,
    }
}

async fn quote(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    let request = client.post(&["api", "v1", "price"]).json(&PriceRequest {
        product_id: arguments.product_id.as_deref().unwrap_or_default(),
        user_location: arguments.location(),
        is_prime_member: arguments.prime,
        quantity: arguments.quantity,
        channel: arguments.channel.as_deref(),
        segment: arguments.segment.as_deref(),
        lock: arguments.is_locked,
    });
    let answer = client.send(request).await?;
    if arguments.json {
        output::show(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cache = answer.headers.get(CACHE_HEADER).and_then(|value| value.to_str().ok());
    let detail = client.read(&answer)?;
    output::show(&render(&detail, cache, &arguments))?;
    Ok(ExitCode::SUCCESS)
}

fn render(detail: &PriceDetail, cache: Option<&str>, arguments: &Arguments) -> String {
    let PriceDetail {
        product_id,
        final_price,
        base_price,
        list_price,
        currency,
        policy_version,
        revision,
        source,
        ..
    } = detail;
    let prime = if arguments.prime { " with prime" } else { "" };
    let location = arguments.location();
    let mut text = format!("{product_id} costs {final_price} {currency} in {location}{prime}\n");
    let _ = writeln!(text, "  base price    {base_price} {currency}");
    let _ = writeln!(text, "  list price    {list_price} {currency}");
    let _ = writeln!(text, "  discount      {}", percent(detail.discount_rate));
    let _ = writeln!(text, "  policy        version {policy_version}, price revision {revision}");
    if let Some(until) = &detail.valid_until {
        let _ = writeln!(text, "  valid until   {until}");
    }
    if detail.personalised {
        let _ = writeln!(text, "  personalised  yes: something personal could have changed it");
    }
    if let Some(lock) = &detail.lock {
        let _ = writeln!(text, "  lock          {lock}");
    }
    let cache = cache.map(|cache| format!(" ({cache})")).unwrap_or_default();
    let _ = writeln!(text, "  answered from {source}{cache}");
    let _ = write!(text, "why: {}", explain_command(arguments));
    text
}

impl Arguments {
    /// The location, which a quote has.
    fn location(&self) -> &str {
        self.location.as_deref().unwrap_or_default()
    }
}

/// A rate in percent: `0.05` is `5%`.
pub(super) fn percent(rate: Decimal) -> String {
    format!("{}%", (rate * Decimal::ONE_HUNDRED).normalize())
}

/// The command that explains this price.
fn explain_command(arguments: &Arguments) -> String {
    let product_id = arguments.product_id.as_deref().unwrap_or_default();
    let mut command = format!("pricing explain {product_id} --location {}", arguments.location());
    if arguments.prime {
        command.push_str(" --prime");
    }
    if arguments.quantity != 1 {
        let _ = write!(command, " --quantity {}", arguments.quantity);
    }
    if let Some(channel) = &arguments.channel {
        let _ = write!(command, " --channel {channel}");
    }
    if let Some(segment) = &arguments.segment {
        let _ = write!(command, " --segment {segment}");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits() -> Result<()> {
        let detail = serde_json::from_str(
            r#"{"product_id":"P-1","final_price":49.90,"base_price":52.00,"list_price":52.50,"discount_rate":0.050,
                "source":"cache","currency":"USD","policy_version":1,"revision":12,"valid_until":null}"#,
        )?;
        let arguments = Arguments {
            lock: None,
            product_id: Some("P-1".to_owned()),
            location: Some("NY".to_owned()),
            prime: true,
            quantity: 3,
            channel: Some("app".to_owned()),
            segment: Some("vip".to_owned()),
            is_locked: false,
            json: false,
            api: ApiAddress { url: reqwest::Url::parse("http://127.0.0.1:8000")?, key_file: None },
        };
        insta::assert_snapshot!(render(&detail, Some("l1"), &arguments), @r"
        P-1 costs 49.90 USD in NY with prime
          base price    52.00 USD
          list price    52.50 USD
          discount      5%
          policy        version 1, price revision 12
          answered from cache (l1)
        why: pricing explain P-1 --location NY --prime --quantity 3 --channel app --segment vip
        ");
        Ok(())
    }
}
