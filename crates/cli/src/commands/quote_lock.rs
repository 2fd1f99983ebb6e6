//! `pricing quote new-key` and `pricing quote verify`: the keys of quote locks, and their verification
//! without the engine.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use pricing_core::quote_lock::{Claims, Expected, PublicKeys, SigningKeys, new_key_pem, verify};
use pricing_domain::Shopper;
use reqwest::Url;

use crate::client::{ApiAddress, Client};
use crate::output;

/// The longest set of keys, in bytes.
const MAX_KEYS_BYTES: usize = 65_536;

/// What to do with locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Create a key that signs quote locks, in a new file that only this user can read
    NewKey {
        /// The file to create
        file: PathBuf,
    },
    /// Verify a quote lock: exit code 0 if it holds, 1 with the reason if not
    Verify(VerifyArguments),
}

/// The lock, the keys, and what it has to be for.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The lock
    token: String,
    /// The public keys: a file with a JSON Web Key Set, or the address of one, such as
    /// http://127.0.0.1:8000/api/v1/quote-lock-keys
    #[arg(long, value_name = "FILE|URL")]
    keys: String,
    /// A file with the access key for such an address, which gets none otherwise
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The product that it has to be for
    #[arg(long)]
    product: Option<String>,
    /// The number of units that it has to be for
    #[arg(long)]
    quantity: Option<u32>,
    /// The location of the shopper that it has to be for; the shopper is not compared without it
    #[arg(long)]
    location: Option<String>,
    /// That shopper is a prime member
    #[arg(long, requires = "location")]
    prime: bool,
    /// The sales channel of that shopper
    #[arg(long, requires = "location")]
    channel: Option<String>,
    /// The customer segment of that shopper
    #[arg(long, requires = "location")]
    segment: Option<String>,
}

/// Does it.
pub(crate) async fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::NewKey { file } => create_key(&file),
        Action::Verify(arguments) => verify_lock(&arguments).await,
    }
}

fn create_key(file: &Path) -> Result<ExitCode> {
    let pem = new_key_pem()?;
    let public = serde_json::to_string(&SigningKeys::from_pem(&[&pem])?.public_keys())?;
    let mut options = OpenOptions::new();
    // A key is never overwritten: locks may be out that it has signed.
    let created = options.write(true).create_new(true).mode(0o600).open(file);
    let mut created = created.with_context(|| format!("{} cannot be created", file.display()))?;
    created.write_all(pem.as_bytes())?;
    created.sync_all()?;
    output::show(&public)?;
    output::note(&format!("name it in PRICING_QUOTE_LOCK_KEY_FILE: {}", file.display()));
    Ok(ExitCode::SUCCESS)
}

async fn verify_lock(arguments: &VerifyArguments) -> Result<ExitCode> {
    let keys = read_keys(arguments).await.with_context(|| format!("the keys of {}", arguments.keys))?;
    let expected = Expected {
        product_id: arguments.product.as_deref(),
        quantity: arguments.quantity,
        shopper: arguments.shopper(),
    };
    match verify(arguments.token.trim(), &keys, &expected, Utc::now()) {
        Ok(claims) => {
            output::show(&render(&claims))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => bail!("the lock does not hold: {refusal}"),
    }
}

impl VerifyArguments {
    /// The shopper, as the API reads one: without white space around texts.
    fn shopper(&self) -> Option<Shopper<'_>> {
        self.location.as_deref().map(|location| Shopper {
            prime: self.prime,
            channel: self.channel.as_deref().map(str::trim),
            segment: self.segment.as_deref().map(str::trim),
            ..Shopper::at(location.trim())
        })
    }
}

async fn read_keys(arguments: &VerifyArguments) -> Result<PublicKeys> {
    let text = match Url::parse(&arguments.keys) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            // The address may be another company's: variables that are set for the API do not count.
            let client = match arguments.key_file.clone() {
                Some(file) => Client::new(&ApiAddress { url, key_file: Some(file) })?,
                None => Client::without_key(&url)?,
            };
            client.send(client.get(&[])).await?.body
        }
        _ => fs::read_to_string(&arguments.keys)?,
    };
    ensure!(text.len() <= MAX_KEYS_BYTES, "they have more than {MAX_KEYS_BYTES} bytes");
    Ok(PublicKeys::from_json(&text)?)
}

fn render(claims: &Claims) -> String {
    let Claims { product_id, amount, currency, quantity, revision, exp, .. } = claims;
    let until = DateTime::from_timestamp(*exp, 0).map(|until| until.to_rfc3339()).unwrap_or_default();
    let units = if *quantity == 1 { "one unit".to_owned() } else { format!("each of {quantity} units") };
    format!(
        "the lock holds: {product_id} costs {amount} {currency} for {units} until {until} (revision {revision})"
    )
}
