//! Files that only this user can read: directories of mode 0700, files of mode 0600.
//!
//! Costs, floors and policies are in them, and a Redis whose socket others can reach accepts any price.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What the mode of a directory or a file may not have: any right of the group and of others.
const RIGHTS_OF_OTHERS: u32 = 0o077;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Creates a directory and its parents if necessary, and removes the rights of others to it.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is a file", path.display())));
    }
    tighten(path, DIRECTORY_MODE)
}

/// Creates a file, or empties it.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    tighten_file(path)?;
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Removes the rights of others to a file, if there is one.
pub(crate) fn tighten_file(path: &Path) -> io::Result<()> {
    match tighten(path, FILE_MODE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes the rights of others to what an earlier version wrote into a directory, at most three levels deep.
pub(crate) fn tighten_below(directory: &Path) -> io::Result<()> {
    tighten_levels(directory, 3)
}

fn tighten_levels(directory: &Path, levels: u32) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            tighten_file(&entry.path())?;
        } else if kind.is_dir() && levels > 1 {
            tighten(&entry.path(), DIRECTORY_MODE)?;
            tighten_levels(&entry.path(), levels - 1)?;
        }
    }
    Ok(())
}

fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    if is_private(fs::metadata(path)?.permissions().mode()) {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // Some file systems ignore modes.
    if is_private(fs::metadata(path)?.permissions().mode()) {
        return Ok(());
    }
    let problem = format!("the file system of {} has no permissions", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Whether neither the group nor others have any right.
fn is_private(mode: u32) -> bool {
    mode & RIGHTS_OF_OTHERS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    }

    #[test]
    fn new_directories_and_files_are_private() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        let directory = scratch.path().join("a").join("b");
        create_directory(&directory)?;
        assert_eq!(mode(&directory)?, 0o700);
        create_file(&directory.join("file"))?;
        assert_eq!(mode(&directory.join("file"))?, 0o600);
        assert!(create_directory(&directory.join("file")).is_err());
        assert_eq!(mode(&directory.join("file"))?, 0o600);
        Ok(())
    }

    #[test]
    fn what_an_earlier_version_wrote_is_tightened() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        let folder = scratch.path().join("appendonlydir");
        fs::create_dir(&folder)?;
        let files = [scratch.path().join("redis.log"), folder.join("file.aof")];
        for file in &files {
            fs::write(file, "")?;
            fs::set_permissions(file, Permissions::from_mode(0o644))?;
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        tighten_below(scratch.path())?;
        assert_eq!((mode(&folder)?, mode(&files[0])?, mode(&files[1])?), (0o700, 0o600, 0o600));
        Ok(())
    }

    #[test]
    fn a_right_of_the_group_or_of_others_is_not_private() {
        assert!(is_private(0o40_700) && is_private(0o100_600));
        assert!(!is_private(0o40_750) && !is_private(0o40_701));
    }
}
