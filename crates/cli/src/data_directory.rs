//! The directory in which `pricing up` keeps its data: the database, Redis's file, a lock.
//!
//! Beside the database lies a *mark* with its identity. A directory with a mark, or with Redis's data, had a
//! catalogue once: if that has vanished, a start is refused, as it would sell the products of the sample.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{private_files, redis_child};

/// Locked while an engine uses the directory; the system unlocks it when that process ends, however it ends.
const LOCK_FILE: &str = "lock";
/// The database.
pub(crate) const CATALOGUE_FILE: &str = "catalogue.db";
/// What SQLite appends to the name of the database for its write-ahead log and the index of that.
pub(crate) const LOG_SUFFIXES: [&str; 2] = ["-wal", "-shm"];
/// The mark.
const MARK_FILE: &str = "catalogue.json";
/// Exists from the first start until the sample catalogue is loaded.
const SAMPLE_PENDING_FILE: &str = "sample-pending";

/// What is known of the catalogue outside its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The identity of the database.
    pub(crate) identity: String,
    /// Whether a private Redis has kept data for it.
    #[serde(default)]
    pub(crate) has_redis_data: bool,
}

/// A data directory that this process has locked.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if necessary, removes the rights of other users to it, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let cannot_use = || format!("cannot use {} as data directory", path.display());
        let cannot_protect = || {
            format!(
                "cannot use {} as data directory, which holds costs and policies and must be readable by its owner \
                 only: choose one that belongs to you, on a file system with permissions, with --data-dir",
                path.display()
            )
        };
        private_files::create_directory(path).with_context(cannot_protect)?;
        let path = path.canonicalize().with_context(cannot_use)?;
        if path.to_string_lossy().contains('?') {
            bail!("cannot use {}: a database URL cannot contain a question mark", path.display());
        }
        let lock = private_files::create_file(&path.join(LOCK_FILE)).with_context(cannot_protect)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another `pricing up` uses {}: stop it, or choose another directory with --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot_use),
        }
        let data = Self { path, _lock: lock };
        data.tighten().with_context(cannot_protect)?;
        Ok(data)
    }

    /// Removes the rights of others to what an earlier version wrote.
    fn tighten(&self) -> io::Result<()> {
        let catalogue = self.catalogue();
        private_files::tighten_file(&catalogue)?;
        for suffix in LOG_SUFFIXES {
            private_files::tighten_file(&beside(&catalogue, suffix))?;
        }
        if self.redis().is_dir() {
            private_files::create_directory(&self.redis())?;
            private_files::tighten_below(&self.redis())?;
        }
        Ok(())
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of Redis's file.
    pub(crate) fn redis(&self) -> PathBuf {
        self.path.join("redis")
    }

    /// The file of the database.
    pub(crate) fn catalogue(&self) -> PathBuf {
        self.path.join(CATALOGUE_FILE)
    }

    /// The URL of the database in this directory.
    pub(crate) fn database_url(&self) -> String {
        format!("sqlite://{}", self.catalogue().display())
    }

    /// Refuses a directory whose catalogue has vanished, and creates an empty file in a new one, which only
    /// this user can read.
    pub(crate) fn prepare_catalogue(&self) -> Result<()> {
        let catalogue = self.catalogue();
        let bytes = match fs::metadata(&catalogue) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", catalogue.display()));
            }
        };
        if bytes > 0 {
            return Ok(());
        }
        if self.had_catalogue() {
            bail!(
                "{} is {}, but {} has had a catalogue: check that the right disk is mounted, or restore a backup \
                 with `pricing restore FILE --data-dir {}`; to begin with a new catalogue, choose another \
                 directory with --data-dir",
                catalogue.display(),
                if catalogue.exists() { "empty" } else { "missing" },
                self.path.display(),
                self.path.display(),
            );
        }
        private_files::create_file(&catalogue)
            .with_context(|| format!("cannot create {}", catalogue.display()))?;
        Ok(())
    }

    /// Whether there was a catalogue once: it has left a mark, or an earlier version has left Redis's data.
    fn had_catalogue(&self) -> bool {
        self.path.join(MARK_FILE).exists() || redis_child::has_data(&self.redis())
    }

    /// Reads the mark; `None` if there is none, or it is not readable.
    pub(crate) fn mark(&self) -> Option<Mark> {
        serde_json::from_slice(&fs::read(self.path.join(MARK_FILE)).ok()?).ok()
    }

    /// Replaces the mark.
    pub(crate) fn set_mark(&self, mark: &Mark) -> Result<()> {
        let path = self.path.join(MARK_FILE);
        let unfinished = beside(&path, ".new");
        let write = || -> io::Result<()> {
            let mut file = private_files::create_file(&unfinished)?;
            file.write_all(&serde_json::to_vec(mark)?)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Records that the sample is to be loaded if there is no database yet. Returns whether it is to be
    /// loaded. Call it before [`prepare_catalogue`](Self::prepare_catalogue).
    pub(crate) fn expect_sample(&self) -> io::Result<bool> {
        if !self.catalogue().exists() && !self.had_catalogue() {
            private_files::create_file(&self.path.join(SAMPLE_PENDING_FILE))?;
        }
        Ok(self.path.join(SAMPLE_PENDING_FILE).exists())
    }

    /// Records that the sample is not, or no longer, to be loaded.
    pub(crate) fn forget_sample(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(SAMPLE_PENDING_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A path whose name has this suffix more.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_engine_on_the_same_directory_is_refused() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let path = scratch.path().join("a").join("b");
        let first = DataDirectory::open(&path)?;
        let refusal = DataDirectory::open(&path).err().map(|error| error.to_string());
        assert!(refusal.is_some_and(|refusal| refusal.contains("another `pricing up` uses")));
        drop(first);
        DataDirectory::open(&path)?;
        Ok(())
    }

    #[test]
    fn the_sample_is_loaded_once_and_only_into_a_new_database() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let data = DataDirectory::open(scratch.path())?;
        assert!(data.expect_sample()?);
        fs::write(data.path().join(CATALOGUE_FILE), "")?;
        assert!(data.expect_sample()?, "the first start was interrupted");
        data.forget_sample()?;
        assert!(!data.expect_sample()?);
        data.forget_sample()?;
        Ok(())
    }

    #[test]
    fn a_path_cannot_be_mistaken_for_parameters() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        assert!(DataDirectory::open(&scratch.path().join("50?synchronous=full")).is_err());
        let data = DataDirectory::open(&scratch.path().join("50%"))?;
        assert!(data.database_url().ends_with("/50%/catalogue.db"), "{}", data.database_url());
        Ok(())
    }

    #[test]
    fn a_catalogue_that_has_vanished_is_not_replaced_by_a_new_one() -> Result<()> {
        let refusal = |data: &DataDirectory| data.prepare_catalogue().err().map(|error| error.to_string());
        for trace in [MARK_FILE, "redis/appendonlydir"] {
            let scratch = tempfile::tempdir()?;
            let data = DataDirectory::open(scratch.path())?;
            data.prepare_catalogue()?;
            data.prepare_catalogue().context("a first start was interrupted")?;
            fs::create_dir_all(data.path().join(trace))?;
            assert!(refusal(&data).is_some_and(|refusal| refusal.contains("catalogue.db is empty")));
            fs::remove_file(data.catalogue())?;
            assert!(!data.expect_sample()?);
            let refusal = refusal(&data);
            assert!(
                refusal.is_some_and(|refusal| refusal.contains("is missing") && refusal.contains("restore"))
            );
            fs::write(data.catalogue(), "some bytes")?;
            data.prepare_catalogue()?;
        }
        Ok(())
    }

    #[test]
    fn a_mark_is_read_back() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let data = DataDirectory::open(scratch.path())?;
        assert_eq!(data.mark(), None);
        let mark = Mark { identity: "a1".to_owned(), has_redis_data: true };
        data.set_mark(&mark)?;
        assert_eq!(data.mark(), Some(mark));
        Ok(())
    }
}
