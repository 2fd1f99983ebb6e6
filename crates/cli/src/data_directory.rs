//! The directory in which `pricing up` keeps its data: the database, Redis's file, a lock.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Locked while an engine uses the directory; the system unlocks it when that process ends, however it ends.
const LOCK_FILE: &str = "lock";
const CATALOGUE_FILE: &str = "catalogue.db";
/// Exists from the first start until the sample catalogue is loaded.
const SAMPLE_PENDING_FILE: &str = "sample-pending";

/// A data directory that this process has locked.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if necessary, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let cannot_use = || format!("cannot use {} as data directory", path.display());
        fs::create_dir_all(path).with_context(cannot_use)?;
        let path = path.canonicalize().with_context(cannot_use)?;
        if path.to_string_lossy().contains('?') {
            bail!("cannot use {}: a database URL cannot contain a question mark", path.display());
        }
        let lock = File::create(path.join(LOCK_FILE)).with_context(cannot_use)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another `pricing up` uses {}: stop it, or choose another directory with --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot_use),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of Redis's file.
    pub(crate) fn redis(&self) -> PathBuf {
        self.path.join("redis")
    }

    /// The URL of the database in this directory.
    pub(crate) fn database_url(&self) -> String {
        format!("sqlite://{}", self.path.join(CATALOGUE_FILE).display())
    }

    /// Records that the sample is to be loaded if there is no database yet. Returns whether it is to be
    /// loaded. Call it before the database is opened.
    pub(crate) fn expect_sample(&self) -> io::Result<bool> {
        if !self.path.join(CATALOGUE_FILE).exists() {
            File::create(self.path.join(SAMPLE_PENDING_FILE))?;
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
}
