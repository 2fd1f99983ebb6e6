//! The kinds of jobs, and their limits.

use std::time::Duration;

/// Time limit of a job that is not bound by a lease.
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Apply events and re-price the products concerned.
    ApplyEvents,
    /// Coordinate the recalculations that were requested.
    Run,
    /// Re-price one range of a run.
    Range,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::ApplyEvents, Self::Run, Self::Range];

    /// The name in telemetry and in the list of failed jobs.
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

    /// The number of jobs of this kind that may be outstanding; 64 in total.
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

    /// Whether its first attempt may start before Redis has counted it. For a run or a range this wait is
    /// negligible.
    pub fn may_start_uncounted(self) -> bool {
        self == Self::ApplyEvents
    }
}
