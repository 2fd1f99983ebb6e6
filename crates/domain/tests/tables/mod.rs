//! The files of golden tables.

use std::fs;
use std::path::{Path, PathBuf};

/// The tables of a folder of tests, ordered by name.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = fs::read_dir(directory).expect("there are tables");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}
