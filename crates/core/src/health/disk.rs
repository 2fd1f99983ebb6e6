//! The space that is left on a disk.

use std::path::Path;

/// The bytes that this user may still write to the file system of this directory; `None` where it cannot be
/// known.
#[cfg(unix)]
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The same: not known on this system.
#[cfg(not(unix))]
pub(super) fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_a_directory_that_is_not_there_is_unknown() {
        assert_eq!(free_bytes(Path::new("/no such directory")), None);
        assert!(!cfg!(unix) || free_bytes(&std::env::temp_dir()).is_some_and(|bytes| bytes > 0));
    }
}
