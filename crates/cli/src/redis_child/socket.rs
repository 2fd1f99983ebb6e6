//! The Unix socket of the private server: in its data directory or, where that cannot hold one, in a private
//! temporary directory.
//!
//! The path of a socket has at most 107 bytes on Linux, and not every file system has sockets (directories
//! that are shared with a virtual machine often do not).

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::leftover::{SOCKET, SOCKET_FILE};
use crate::{output, private_files};

/// A path for a socket that only this user can reach.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    /// The file that records the path for the next start.
    record: PathBuf,
    /// Removed on drop.
    temporary: Option<TempDir>,
}

impl Socket {
    /// Chooses a path, and records it in this directory. No server may be left over in it.
    pub(super) fn choose(directory: &Path) -> Result<Self> {
        let usual = directory.join(SOCKET);
        let (path, temporary) = match try_socket(&usual) {
            Ok(()) => (usual, None),
            Err(reason) => {
                let mut builder = tempfile::Builder::new();
                builder.prefix("pricing-").permissions(Permissions::from_mode(0o700));
                let temporary = builder.tempdir().context("cannot create a directory for Redis's socket")?;
                let path = temporary.path().join(SOCKET);
                try_socket(&path).with_context(|| format!("cannot create {}", path.display()))?;
                output::note(&format!(
                    "Redis's socket is {}, as {} cannot hold one ({reason})",
                    path.display(),
                    directory.display()
                ));
                (path, Some(temporary))
            }
        };
        let record = directory.join(SOCKET_FILE);
        private_files::create_file(&record)
            .and_then(|mut file| file.write_all(path.as_os_str().as_bytes()))
            .with_context(|| format!("cannot write {}", record.display()))?;
        Ok(Self { path, record, temporary })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the socket and its record, after its server has ended.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
        drop(self.temporary);
        let _ = fs::remove_file(&self.record);
    }
}

/// Creates a socket at this path and removes it again, with whatever an earlier server left there.
fn try_socket(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_short_path_holds_its_socket() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let socket = Socket::choose(scratch.path())?;
        assert_eq!(socket.path(), scratch.path().join(SOCKET));
        assert!(!socket.path().exists());
        socket.remove();
        assert_eq!(fs::read_dir(scratch.path())?.count(), 0);
        Ok(())
    }

    #[test]
    fn the_socket_of_a_long_path_is_in_a_private_temporary_directory() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let long = scratch.path().join("d".repeat(120));
        fs::create_dir(&long)?;
        let socket = Socket::choose(&long)?;
        let path = socket.path().to_owned();
        assert!(path.as_os_str().len() <= 107 && !path.starts_with(&long), "{}", path.display());
        let parent = path.parent().context("a directory")?;
        assert_eq!(fs::metadata(parent)?.permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(long.join(SOCKET_FILE))?, path.to_string_lossy());
        socket.remove();
        assert!(!parent.exists() && !long.join(SOCKET_FILE).exists());
        Ok(())
    }
}
