//! `pricing watch`: prints price changes as they happen.

mod event_stream;

use std::process::ExitCode;
use std::time::Duration;

use anstyle::AnsiColor;
use anyhow::Result;
use clap::Args;
use futures::StreamExt;
use pricing_wire::price_change::{FollowQuery, PriceChangeEvent};
use rust_decimal::Decimal;
use tokio::time::sleep;

use self::event_stream::{EventStream, ReceivedEvent};
use crate::client::{ApiAddress, Client};
use crate::output;

/// The pause before a stream that ended is opened again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The products to watch.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only this product
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// Print each change as JSON, as the API sends it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiAddress,
}

/// Watches until Ctrl-C. Changes made while the API is unreachable are shown when it is back.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let client = Client::new(&arguments.api)?;
    if let Some(product_id) = &arguments.product {
        // A product that does not exist would never change.
        client.send(client.get(&["api", "v1", "products", product_id])).await?;
    }
    let watching = async {
        let mut last_id = None;
        // If the API cannot be reached at first, that is an error; later, it is retried.
        let mut connected_once = false;
        loop {
            match follow(&client, &arguments, &mut last_id, &mut connected_once).await {
                Err(error) if !connected_once => return Err(error),
                Err(error) => output::note(&format!("{error:#}; retrying")),
                Ok(()) => output::note("the API has ended the stream; retrying"),
            }
            sleep(RETRY_PAUSE).await;
        }
    };
    tokio::select! {
        failed = watching => failed,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Follows price changes on one connection, until it ends.
async fn follow(
    client: &Client,
    arguments: &Arguments,
    last_id: &mut Option<String>,
    connected_once: &mut bool,
) -> Result<()> {
    let query = FollowQuery { product_id: arguments.product.clone() };
    let mut request = client.stream(&["api", "v1", "price-changes"]).query(&query);
    if let Some(last_id) = last_id.as_ref() {
        request = request.header("last-event-id", last_id);
    }
    let mut chunks = client.open(request).await?.bytes_stream();
    *connected_once = true;
    let mut events = EventStream::default();
    while let Some(chunk) = chunks.next().await {
        for event in events.take(&chunk?) {
            show(&event, arguments.json)?;
            if event.id.is_some() {
                *last_id = event.id;
            }
        }
    }
    Ok(())
}

fn show(event: &ReceivedEvent, json: bool) -> Result<()> {
    match event.kind.as_str() {
        "price_change" if json => output::show(&event.data)?,
        "price_change" => output::show_coloured(&render(&serde_json::from_str(&event.data)?))?,
        "gap" => output::note(&event.data),
        _ => {}
    }
    Ok(())
}

fn render(change: &PriceChangeEvent) -> String {
    let PriceChangeEvent { product_id, old_list_price, new_list_price, currency, cause, changed_at, .. } =
        change;
    let moved = match (*old_list_price, *new_list_price) {
        (_, None) => output::paint("removed", AnsiColor::Yellow),
        (None, Some(new)) => format!("{new} {currency}"),
        (Some(old), Some(new)) => {
            let (percent, colour) = percent(old, new);
            format!("{old} → {new} {currency}  {}", output::paint(&percent, colour))
        }
    };
    format!("{}  {product_id}  {moved}  ({cause})", output::to_the_second(*changed_at))
}

/// The change in percent, and its colour.
fn percent(old: Decimal, new: Decimal) -> (String, AnsiColor) {
    let colour = if new > old { AnsiColor::Green } else { AnsiColor::Red };
    let sign = if new > old { "+" } else { "" };
    let moved = (new - old).checked_mul(Decimal::ONE_HUNDRED).and_then(|moved| moved.checked_div(old));
    (moved.map(|moved| format!("{sign}{}%", moved.round_dp(1).normalize())).unwrap_or_default(), colour)
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn rendered(old: &str, new: &str) -> Result<String> {
        let json = format!(
            r#"{{"product_id":"P-1","revision":7,"old_list_price":{old},"new_list_price":{new},"currency":"USD",
                "policy_version":1,"cause":"event 1 of /acme","changed_at":"2026-01-31T12:00:00Z"}}"#
        );
        Ok(strip_str(&render(&serde_json::from_str(&json)?)).to_string())
    }

    #[test]
    fn a_change_is_one_line() -> Result<()> {
        assert_eq!(
            rendered("49.90", "47.40")?,
            "2026-01-31T12:00:00Z  P-1  49.90 → 47.40 USD  -5%  (event 1 of /acme)"
        );
        assert_eq!(rendered("3", "4")?, "2026-01-31T12:00:00Z  P-1  3 → 4 USD  +33.3%  (event 1 of /acme)");
        assert_eq!(rendered("null", "4.10")?, "2026-01-31T12:00:00Z  P-1  4.10 USD  (event 1 of /acme)");
        assert_eq!(rendered("4", "null")?, "2026-01-31T12:00:00Z  P-1  removed  (event 1 of /acme)");
        Ok(())
    }
}
