//! `pricing restore`: puts a backup in the place of the catalogue, and keeps the replaced one aside.
//!
//! Nothing is replaced before the backup has been read completely. The restored catalogue has a new identity,
//! so that no price in Redis from before the restore is served.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use pricing_core::store::backup::{PostgresDatabase, check_sqlite, release_sqlite};
use pricing_core::store::{Store, StoreError, StoreSettings};

use super::database::{DatabaseArguments, Format, Location, finish, unfinished};
use super::postgres_programs::{PgRestore, check_archive};
use crate::data_directory::{DataDirectory, LOG_SUFFIXES, Mark, beside};
use crate::{output, private_files, redis_child};

const HELP: &str = "\
Stop `pricing up`, or the API, the workers and the listeners, before, and start them afterwards.

What happened since the backup is lost: products, policies and prices are those of the backup. What
waits in Redis stays, and is applied to the restored catalogue. See Back up and restore in
docs/operations.md.";

/// The backup and the database.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The file that `pricing backup` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the tables of a PostgreSQL database that is not empty; they are renamed, not deleted
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Restores the backup.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { file, replace, database } = arguments;
    let now = Utc::now();
    let said = match (database.location()?, Format::of(&file)?) {
        (Location::DataDirectory(directory), Format::Sqlite) => {
            // Locked, so that no `pricing up` starts meanwhile.
            let data = DataDirectory::open(&directory)?;
            let restored = restore_sqlite(&file, &data.catalogue(), now).await?;
            let has_redis_data = redis_child::has_data(&data.redis());
            data.set_mark(&Mark { identity: restored.identity, has_redis_data })?;
            data.forget_sample()?;
            restored.said
        }
        (Location::Sqlite(catalogue), Format::Sqlite) => restore_sqlite(&file, &catalogue, now).await?.said,
        (Location::Postgres(url), Format::Postgres) => restore_postgres(&file, &url, replace, now).await?,
        (Location::Postgres(_), Format::Sqlite) => {
            bail!("{} is a backup of SQLite, and the database is PostgreSQL", file.display())
        }
        (_, Format::Postgres) => bail!(
            "{} is a backup of PostgreSQL: name the database with --database-url or PRICING_DATABASE_URL",
            file.display()
        ),
    };
    output::show(&said)?;
    Ok(ExitCode::SUCCESS)
}

/// A SQLite catalogue that was restored.
struct Restored {
    identity: String,
    /// What to print.
    said: String,
}

async fn restore_sqlite(file: &Path, catalogue: &Path, now: DateTime<Utc>) -> Result<Restored> {
    check_sqlite(file).await.with_context(|| format!("cannot restore {}", file.display()))?;
    let copy = unfinished(catalogue);
    let prepared = prepare_copy(file, &copy).await;
    let identity = match prepared {
        Ok(identity) => identity,
        Err(error) => {
            remove_with_logs(&copy);
            return Err(error.context(format!("cannot restore {}", file.display())));
        }
    };
    let replaced = set_aside(catalogue, now).await.inspect_err(|_| remove_with_logs(&copy))?;
    finish(&copy, catalogue).with_context(|| format!("cannot write {}", catalogue.display()))?;
    let mut said = format!("restored {} to {}", file.display(), catalogue.display());
    if let Some(replaced) = replaced {
        said.push_str(&format!("\nthe replaced catalogue is {}", replaced.display()));
    }
    Ok(Restored { identity, said })
}

/// Copies the backup, migrates the copy and gives it a new identity, which it returns.
async fn prepare_copy(file: &Path, copy: &Path) -> Result<String> {
    remove_with_logs(copy);
    let mut target = private_files::create_file(copy)?;
    io::copy(&mut fs::File::open(file)?, &mut target)?;
    drop(target);
    let url = format!("sqlite://{}", copy.display());
    let identity = renew_identity(&url).await?;
    release_sqlite(copy).await?;
    Ok(identity)
}

/// Opens a restored catalogue, which migrates it and refuses one of a newer version, and renews its identity.
async fn renew_identity(url: &str) -> Result<String, StoreError> {
    let settings = StoreSettings { max_connections: 1, ..StoreSettings::default() };
    let store = Store::open(url, settings).await?;
    let renewed = async { store.replace_identity(&store.identity().await?).await }.await;
    store.close().await;
    renewed
}

/// Renames the catalogue that is there, with its write-ahead log if it still has one. Returns its new name.
async fn set_aside(catalogue: &Path, now: DateTime<Utc>) -> Result<Option<PathBuf>> {
    let length = fs::metadata(catalogue).map_or(0, |file| file.len());
    if length > 0
        && let Err(error @ StoreError::Unavailable { .. }) = release_sqlite(catalogue).await
    {
        bail!("another process uses {}: stop it first ({error})", catalogue.display());
    }
    let replaced = beside(catalogue, &format!(".replaced-{}", now.format("%Y%m%dT%H%M%SZ")));
    let cannot = || format!("cannot rename {}", catalogue.display());
    let renamed = rename_if_present(catalogue, &replaced).with_context(cannot)?;
    // A log that stays would be read into the restored file.
    for suffix in LOG_SUFFIXES {
        rename_if_present(&beside(catalogue, suffix), &beside(&replaced, suffix)).with_context(cannot)?;
    }
    Ok(renamed.then_some(replaced))
}

fn rename_if_present(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_with_logs(file: &Path) {
    let logs = LOG_SUFFIXES.map(|suffix| beside(file, suffix));
    for path in logs.iter().map(PathBuf::as_path).chain([file]) {
        let _ = fs::remove_file(path);
    }
}

async fn restore_postgres(file: &Path, url: &str, replace: bool, now: DateTime<Utc>) -> Result<String> {
    let mut database = PostgresDatabase::connect(url).await?;
    let program = PgRestore::find(database.major_version().await?).await?;
    check_archive(file).await?;
    let clients = database.other_clients().await?;
    if clients > 0 {
        bail!(
            "{clients} other connections use the database: stop the API, the workers and whatever else uses it"
        );
    }
    let replaces = database.has_tables().await?;
    if replaces && !replace {
        bail!("the database is not empty: name an empty one, or replace its tables with --replace");
    }
    let aside = format!("replaced_{}", now.format("%Y%m%dt%H%M%Sz"));
    if replaces {
        let renamed = database.set_aside(&aside).await;
        renamed.context("cannot rename the schema public, which must belong to this user: restore into an empty database instead")?;
    }
    let restored = async {
        program.restore(file, url).await?;
        Ok::<_, anyhow::Error>(renew_identity(url).await?)
    };
    if let Err(error) = restored.await {
        if !replaces {
            return Err(error.context("the database is not restored, and may hold a part of the backup"));
        }
        let back = database.take_back(&aside).await;
        return Err(match back {
            Ok(()) => error.context("nothing was changed"),
            Err(problem) => error.context(anyhow!("the former tables are in the schema {aside} ({problem})")),
        });
    }
    let mut said = format!("restored {}", file.display());
    if replaces {
        said.push_str(&format!(
            "\nthe replaced tables are in the schema {aside}; to delete them: DROP SCHEMA {aside} CASCADE"
        ));
    }
    Ok(said)
}
