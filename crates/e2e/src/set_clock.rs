//! A wall clock that a test sets, for processes started with it: days pass at once, and whatever happens
//! while it stands happens at exactly one time. Or one that runs and is wrong. Timeouts and pauses use the
//! monotonic clock, which continues.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};

use crate::programs::find_program;
use crate::scratch_directory::ScratchDirectory;

const LIBRARY_SOURCE: &str = include_str!("set_clock.c");

/// The clock of some processes.
#[derive(Debug)]
pub struct SetClock {
    instant_file: File,
    directory: ScratchDirectory,
}

impl SetClock {
    /// A clock that stands at `now`.
    pub fn at(now: DateTime<Utc>) -> Result<Self> {
        let clock = Self::compiled()?;
        clock.set(now)?;
        Ok(clock)
    }

    /// A clock that runs, and is wrong by this much: ahead, or behind if it is negative.
    pub fn wrong_by(difference: TimeDelta) -> Result<Self> {
        let clock = Self::compiled()?;
        clock.set_wrong_by(difference)?;
        Ok(clock)
    }

    fn compiled() -> Result<Self> {
        let directory = ScratchDirectory::new("clock")?;
        let source = directory.path().join("set_clock.c");
        fs::write(&source, LIBRARY_SOURCE)?;
        let mut compile = Command::new(find_program("cc", "gcc")?);
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let compiled = compile.arg(directory.path().join("set_clock.so")).arg(&source).output()?;
        ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let instant_file = File::create(directory.path().join("instant_ns"))?;
        Ok(Self { instant_file, directory })
    }

    /// Sets it, for every process that uses it.
    pub fn set(&self, now: DateTime<Utc>) -> Result<()> {
        let now_ns = now.timestamp_nanos_opt().context("the clock knows the years 1970 to 2262")?;
        self.write(now_ns, 0)
    }

    /// Makes it run, wrong by this much.
    pub fn set_wrong_by(&self, difference: TimeDelta) -> Result<()> {
        self.write(difference.num_nanoseconds().context("the clock knows 292 years")?, 1)
    }

    fn write(&self, nanoseconds: i64, is_difference: i64) -> Result<()> {
        let setting = [nanoseconds.to_ne_bytes(), is_difference.to_ne_bytes()].concat();
        Ok(self.instant_file.write_all_at(&setting, 0)?)
    }

    /// The variables of a process that uses it.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        [
            ("LD_PRELOAD", path("set_clock.so").to_string_lossy().into_owned()),
            ("SET_CLOCK_FILE", path("instant_ns").to_string_lossy().into_owned()),
        ]
    }
}
