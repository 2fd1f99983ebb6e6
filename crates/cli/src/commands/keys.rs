//! `pricing keys`: creates, lists, rotates and revokes access keys, over the API or, for the first one, in
//! the database.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use pricing_core::access::new_key::KeyOrder;
use pricing_core::access::scope::{Scope, Scopes};
use pricing_core::audit::Origin;
use pricing_core::store::{Store, StoreSettings};
use pricing_wire::key::{KeyAnswer, KeysAnswer, NewKeyAnswer, NewKeyRequest, RotateKeyRequest};

use super::database::{DatabaseArguments, Location};
use crate::client::{ApiAddress, Client};
use crate::output;

const HELP: &str = "\
Once a key exists, the API asks every caller for one: send it as `Authorization: Bearer KEY`. This command
line takes its own from PRICING_KEY, or from the file that --key-file or PRICING_KEY_FILE names.

The first key is created where the database is: --direct opens it. See docs/access.md.";

/// The action.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key, and print it: it cannot be shown again
    Create {
        /// Who will act with it: a person or a program
        #[arg(long)]
        name: String,
        /// What it may be used for: scopes separated by commas, or `all`
        #[arg(long, value_name = "SCOPES", value_parser = scopes)]
        scopes: Scopes,
        /// How long it can be used, such as 90d; it does not expire if omitted
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// Open the database instead of calling the API
        #[arg(long)]
        direct: bool,
        #[command(flatten)]
        database: DatabaseArguments,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// List the keys, newest first, without their secrets
    List {
        /// Print the API's JSON response
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Replace a key by a new one with its name and scopes, and print that
    Rotate {
        /// The identifier: the 12 digits after `pricing_`
        id: String,
        /// How long the old key can still be used; not at all if omitted
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        keep_old_for: Option<Duration>,
        /// How long the new key can be used; it does not expire if omitted
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        api: ApiAddress,
    },
    /// Revoke keys: within five seconds they open nothing
    Revoke {
        /// The identifiers
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        api: ApiAddress,
    },
}

fn scopes(written: &str) -> Result<Scopes, String> {
    match written {
        "all" => Ok(Scopes::all()),
        _ => written.parse::<Scopes>().map_err(|error| error.to_string()),
    }
}

/// Runs the action.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.action {
        Action::Create { name, scopes, expires_in, direct: true, database, api: _ } => {
            create_in_database(database.location()?, &name, scopes, expires_in).await?;
        }
        Action::Create { name, scopes, expires_in, direct: false, database: _, api } => {
            let scopes = scopes.iter().map(Scope::as_str).map(str::to_owned).collect();
            let request = NewKeyRequest { name, scopes, expires_at: after(expires_in)? };
            let client = Client::new(&api)?;
            show_new(&client, client.post(&["api", "v1", "keys"]).json(&request)).await?;
        }
        Action::List { json, api } => {
            let client = Client::new(&api)?;
            let answer = client.send(client.get(&["api", "v1", "keys"])).await?;
            output::show(&if json { answer.body } else { render(&client.read(&answer)?) })?;
        }
        Action::Rotate { id, keep_old_for, expires_in, api } => {
            let request =
                RotateKeyRequest { old_expires_at: after(keep_old_for)?, expires_at: after(expires_in)? };
            let client = Client::new(&api)?;
            show_new(&client, client.post(&["api", "v1", "keys", &id, "rotate"]).json(&request)).await?;
        }
        Action::Revoke { ids, api } => {
            let client = Client::new(&api)?;
            for id in ids {
                client.send(client.delete(&["api", "v1", "keys", &id])).await?;
                output::show(&format!("{id} is revoked: every process refuses it within five seconds"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The instant after this time.
fn after(time: Option<Duration>) -> Result<Option<DateTime<Utc>>> {
    let instant = |time| {
        let time = chrono::Duration::from_std(time).ok()?;
        Utc::now().checked_add_signed(time)
    };
    time.map(|time| instant(time).context("the time is too long")).transpose()
}

/// Sends a request that creates a key. The key is alone on standard output, for a script that keeps it.
async fn show_new(client: &Client, request: reqwest::RequestBuilder) -> Result<()> {
    let NewKeyAnswer { secret, key } = client.read(&client.send(request).await?)?;
    output::note(&introduction(&key.id, &key.name, &key.scopes.join(" ")));
    output::show(&secret)?;
    Ok(())
}

fn introduction(id: &str, name: &str, scopes: &str) -> String {
    format!("key {id} of {name} for {scopes}; it cannot be shown again:")
}

/// Creates a key where the database is.
async fn create_in_database(
    location: Location,
    name: &str,
    scopes: Scopes,
    expires_in: Option<Duration>,
) -> Result<()> {
    let url = match (&location, location.sqlite_file()) {
        (Location::Postgres(url), _) => url.clone(),
        (_, Some(file)) if file.exists() => format!("sqlite://{}", file.display()),
        (_, Some(file)) => {
            bail!("there is no catalogue at {}: start the engine once, or name it", file.display())
        }
        (_, None) => bail!("no database is named"),
    };
    let order = KeyOrder::new(name, scopes, after(expires_in)?, Utc::now())?;
    let settings = StoreSettings { max_connections: 1, ..StoreSettings::default() };
    let store = Store::open(&url, settings).await.context("cannot open the database")?;
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let created_by = format!("{} at the command line", user.as_deref().unwrap_or("a user"));
    let created = order.create(&store, &Origin::command_line(&created_by), Utc::now()).await;
    store.close().await;
    let (key, stored) = created?;
    output::note(&introduction(&stored.id, &stored.name, &stored.scopes));
    output::show(&key.text)?;
    output::note("every API of this database asks its callers for a key within five seconds");
    Ok(())
}

fn render(KeysAnswer { keys }: &KeysAnswer) -> String {
    if keys.is_empty() {
        return "no key exists".to_owned();
    }
    let mut table = output::table(["id", "name", "state", "scopes", "created", "expires"]);
    for KeyAnswer { id, name, scopes, state, created_at, created_by, expires_at, .. } in keys {
        let created = format!("{} by {created_by}", output::to_the_second(*created_at));
        let expires = expires_at.map_or_else(|| "never".to_owned(), output::to_the_second);
        table.add_row([id, name, state, &scopes.join(" "), &created, &expires]);
    }
    table.to_string()
}
