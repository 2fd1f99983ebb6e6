//! `pricing backup`: copies the catalogue into a file, while everything runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use pricing_core::store::backup::{PostgresDatabase, copy_sqlite};

use super::database::{DatabaseArguments, Location, finish, unfinished};
use super::postgres_programs::{PgDump, check_archive};
use crate::{output, private_files};

const HELP: &str = "\
A SQLite database is copied, and the copy is checked. For PostgreSQL, pg_dump and pg_restore of the
server's major version or a later one must be on PATH.

The file holds products, facts, policies, prices and their history, not what waits in Redis. It is
readable by its owner only. See Back up and restore in docs/operations.md.";

/// The file and the database.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The file to write; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    database: DatabaseArguments,
}

/// Writes the backup.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { file, database } = arguments;
    let location = database.location()?;
    if file.exists() {
        bail!("{} exists already: name another file", file.display());
    }
    let unfinished = unfinished(&file);
    // Empty and readable by its owner only, before anything is written into it.
    private_files::create_file(&unfinished)
        .with_context(|| format!("cannot write {}", unfinished.display()))?;
    let written = write(&location, &unfinished).await;
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    finish(&unfinished, &file).with_context(|| format!("cannot write {}", file.display()))?;
    let bytes = fs::metadata(&file)?.len();
    output::show(&format!("wrote {}: {} MB, checked", file.display(), bytes.div_ceil(1_000_000)))?;
    Ok(ExitCode::SUCCESS)
}

async fn write(location: &Location, file: &Path) -> Result<()> {
    match location {
        Location::DataDirectory(_) | Location::Sqlite(_) => {
            let catalogue = location.sqlite_file().unwrap_or_default();
            if !catalogue.exists() {
                bail!("there is no catalogue at {}: name its directory with --data-dir", catalogue.display());
            }
            let copied = copy_sqlite(&catalogue, file).await;
            copied.with_context(|| format!("cannot back up {}", catalogue.display()))
        }
        Location::Postgres(url) => {
            let version = PostgresDatabase::connect(url).await?.major_version().await?;
            PgDump::find(version).await?.dump(url, file).await?;
            check_archive(file).await
        }
    }
}
