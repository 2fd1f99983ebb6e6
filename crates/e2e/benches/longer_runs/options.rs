//! The options of a run. Each has a default that depends on the run; a busy host may need less load.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `--seconds`, `--reads`, `--events` and `--replicas`, where given.
#[derive(Debug, Default)]
pub(crate) struct Options {
    seconds: Option<u64>,
    reads: Option<u32>,
    events: Option<u64>,
    replicas: Option<usize>,
}

impl Options {
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { bail!("{pair:?} has no value") };
            let number = || value.parse().with_context(|| format!("{name} {value}"));
            match *name {
                "--seconds" => options.seconds = Some(number()?),
                "--events" => options.events = Some(number()?),
                "--reads" => options.reads = Some(u32::try_from(number()?)?),
                "--replicas" => options.replicas = Some(usize::try_from(number()?)?),
                _ => bail!("there is no option {name}"),
            }
        }
        Ok(options)
    }

    /// How long a run, or a phase of it, takes.
    pub(crate) fn length(&self, seconds: u64) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(seconds))
    }

    /// Reads in a second, at each API.
    pub(crate) fn reads(&self, per_second: u32) -> u32 {
        self.reads.unwrap_or(per_second)
    }

    /// Events in a second.
    pub(crate) fn events(&self, per_second: u64) -> u64 {
        self.events.unwrap_or(per_second)
    }

    /// Replicas of Redis.
    pub(crate) fn replicas(&self, usually: usize) -> usize {
        self.replicas.unwrap_or(usually)
    }
}
