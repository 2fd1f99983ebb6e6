//! The kinds of jobs, and what differs between them besides the work.

use std::time::Duration;

/// Time limit of a job that is not bound by a lease.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Apply events and re-price the products that they are about.
    ApplyEvents,
    /// Coordinate the recalculations that were requested.
    Run,
    /// Re-price one range of a run.
    Range,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::ApplyEvents, Self::Run, Self::Range];

    /// As telemetry and the list of failed jobs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApplyEvents => "apply_events",
            Self::Run => "run",
            Self::Range => "range",
        }
    }

    /// The window that its outstanding jobs are counted in, as a part of a key.
    pub fn window(self) -> &'static str {
        match self {
            Self::ApplyEvents => "events",
            Self::Run => "runs",
            Self::Range => "ranges",
        }
    }

    /// How many of its jobs may be outstanding; 64 of all kinds.
    pub fn max_outstanding(self) -> usize {
        match self {
            Self::ApplyEvents => 48,
            Self::Run => 4,
            Self::Range => 12,
        }
    }

    /// How long a job may take. A run's coordinator has no limit: it stops when it loses its lease.
    pub fn timeout(self) -> Option<Duration> {
        match self {
            Self::ApplyEvents | Self::Range => Some(JOB_TIMEOUT),
            Self::Run => None,
        }
    }

    /// Whether its first attempt may start before Redis has counted it. For a run or a range the wait for the
    /// count is negligible.
    pub fn may_start_uncounted(self) -> bool {
        self == Self::ApplyEvents
    }
}
