//! The log of the private server. It survives a start, and its size is bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LOG_FILE: &str = "redis.log";
/// The log before the current one.
const EARLIER_LOG_FILE: &str = "redis.log.1";
/// A start sets a longer log aside, in place of the one that it set aside before.
const MAX_LOG_BYTES: u64 = 4 * 1024 * 1024;
/// Lines of the log that an error quotes.
const QUOTED_LINES: usize = 3;
/// The most that is read for them.
const QUOTED_BYTES: u64 = 4 * 1024;

/// The log, and where this start begins in it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    start: u64,
}

impl LogFile {
    /// Keeps the log of earlier starts, or sets it aside if it is long.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOG_FILE);
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&path, directory.join(EARLIER_LOG_FILE))?;
        }
        let start = open_to_append(&path)?.metadata()?.len();
        Ok(Self { path, start })
    }

    /// The file, open for appending.
    pub(super) fn append(&self) -> io::Result<File> {
        open_to_append(&self.path)
    }

    /// The last lines that were written since this start, for an error message.
    pub(super) fn last_lines(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(QUOTED_BYTES))))?;
            let mut text = Vec::new();
            file.take(QUOTED_BYTES).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = read().unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(QUOTED_LINES).collect();
        lines.reverse();
        lines.join("; ")
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_survives_a_start_and_only_new_lines_are_quoted() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        LogFile::open(scratch.path())?.append()?.write_all(b"earlier\n")?;
        let log = LogFile::open(scratch.path())?;
        assert_eq!(log.last_lines(), "");
        log.append()?.write_all(b"1\n2\n3\n4\n")?;
        assert_eq!(log.last_lines(), "2; 3; 4");
        assert!(fs::read_to_string(scratch.path().join(LOG_FILE))?.starts_with("earlier\n"));
        Ok(())
    }

    #[test]
    fn a_long_log_is_set_aside_once() -> io::Result<()> {
        let scratch = tempfile::tempdir()?;
        for letter in [b"a", b"b"] {
            let long = letter.repeat(usize::try_from(MAX_LOG_BYTES).unwrap_or_default() + 1);
            fs::write(scratch.path().join(LOG_FILE), long)?;
            LogFile::open(scratch.path())?;
            assert_eq!(fs::metadata(scratch.path().join(LOG_FILE))?.len(), 0);
            assert!(fs::read(scratch.path().join(EARLIER_LOG_FILE))?.starts_with(letter));
        }
        assert_eq!(fs::read_dir(scratch.path())?.count(), 2);
        Ok(())
    }
}
