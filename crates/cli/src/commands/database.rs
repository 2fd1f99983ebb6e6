//! The database that `pricing backup`, `restore` and `keys create --direct` are about.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::data_directory::{CATALOGUE_FILE, beside};

/// The first bytes of a SQLite file: <https://www.sqlite.org/fileformat.html>, 1.3.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
/// The first bytes of a custom-format dump of `pg_dump` (`pg_backup_archiver.c`).
const POSTGRES_MAGIC: &[u8] = b"PGDMP";

/// Which database.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArguments {
    /// The data directory of `pricing up`
    #[arg(long, value_name = "DIRECTORY", default_value = ".data")]
    data_dir: PathBuf,
    /// This database instead of the one in the data directory
    #[arg(long, value_name = "URL", env = "PRICING_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

/// Where a catalogue is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In a data directory.
    DataDirectory(PathBuf),
    /// In a SQLite file elsewhere.
    Sqlite(PathBuf),
    /// In the PostgreSQL database with this URL.
    Postgres(String),
}

impl DatabaseArguments {
    pub(super) fn location(self) -> Result<Location> {
        let Some(url) = self.database_url.filter(|url| !url.is_empty()) else {
            return Ok(Location::DataDirectory(self.data_dir));
        };
        match url.split_once("://") {
            Some(("sqlite", path)) => {
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                Ok(Location::Sqlite(PathBuf::from(path)))
            }
            Some(("postgres" | "postgresql", _)) => Ok(Location::Postgres(url)),
            _ => bail!("the database URL must begin with sqlite://, postgres:// or postgresql://"),
        }
    }
}

impl Location {
    /// The SQLite file, if it is one.
    pub(super) fn sqlite_file(&self) -> Option<PathBuf> {
        match self {
            Self::DataDirectory(directory) => Some(directory.join(CATALOGUE_FILE)),
            Self::Sqlite(file) => Some(file.clone()),
            Self::Postgres(_) => None,
        }
    }
}

/// What made a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Sqlite,
    Postgres,
}

impl Format {
    /// Recognises a backup by its first bytes.
    pub(super) fn of(file: &Path) -> Result<Self> {
        let mut head = Vec::new();
        File::open(file)
            .and_then(|file| file.take(16).read_to_end(&mut head))
            .with_context(|| format!("cannot read {}", file.display()))?;
        if head.starts_with(SQLITE_MAGIC) {
            return Ok(Self::Sqlite);
        }
        if head.starts_with(POSTGRES_MAGIC) {
            return Ok(Self::Postgres);
        }
        bail!("{} is no backup: `pricing backup` has not written it", file.display())
    }
}

/// The path at which a file is written before it is complete.
pub(super) fn unfinished(file: &Path) -> PathBuf {
    beside(file, ".unfinished")
}

/// Waits until a file is on disk, and gives it its name.
pub(super) fn finish(unfinished: &Path, file: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_a_server() -> Result<()> {
        for (url, location) in [
            (None, Location::DataDirectory("data".into())),
            (Some(""), Location::DataDirectory("data".into())),
            (Some("sqlite:///a/b.db?synchronous=full"), Location::Sqlite("/a/b.db".into())),
            (Some("postgres://host/prices"), Location::Postgres("postgres://host/prices".to_owned())),
        ] {
            let arguments =
                DatabaseArguments { data_dir: "data".into(), database_url: url.map(str::to_owned) };
            assert_eq!(arguments.location()?, location);
        }
        let unknown =
            DatabaseArguments { data_dir: "data".into(), database_url: Some("mysql://h/d".to_owned()) };
        assert!(unknown.location().is_err());
        Ok(())
    }

    #[test]
    fn a_backup_is_recognised_by_its_first_bytes() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let file = scratch.path().join("file");
        fs::write(&file, b"SQLite format 3\0 and so on")?;
        assert_eq!(Format::of(&file)?, Format::Sqlite);
        fs::write(&file, b"PGDMP\x01\x0e")?;
        assert_eq!(Format::of(&file)?, Format::Postgres);
        for other in [b"".as_slice(), b"-- a dump as SQL"] {
            fs::write(&file, other)?;
            assert!(Format::of(&file).is_err());
        }
        Ok(())
    }
}
