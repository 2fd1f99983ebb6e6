//! The space that is left on the disk of a database that is a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::telemetry::inventory::names::DATABASE_FREE_BYTES;
use crate::telemetry::registry::Registry;

/// The interval of measurements.
const INTERVAL: Duration = Duration::from_secs(5);

/// Measures the space every five seconds until shutdown. A task of its own: a file system of another host may
/// not answer for a long time.
pub(super) async fn measure_periodically(
    directory: PathBuf,
    registry: Registry,
    shutdown: CancellationToken,
) {
    let measure = async {
        loop {
            let directory = directory.clone();
            let free_bytes = tokio::task::spawn_blocking(move || free_bytes(&directory)).await;
            if let Some(free_bytes) = free_bytes.ok().flatten() {
                // Exact up to nine petabytes.
                registry.gauge(DATABASE_FREE_BYTES).set(free_bytes as f64);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(measure).await;
}

/// The bytes that this user may still write to the file system of this directory; `None` where it cannot be
/// known.
#[cfg(unix)]
fn free_bytes(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The same: not known on this system.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
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
