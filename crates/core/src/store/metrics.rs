//! Metrics of the store.

use crate::telemetry::inventory::names::DATABASE_DURATION;
use crate::telemetry::registry::{CallDuration, Registry};

/// The durations of database calls.
#[derive(Debug, Clone)]
pub(super) struct DatabaseDuration {
    /// The wait for a connection.
    pub(super) connection: CallDuration,
    /// The duration of a statement.
    pub(super) statement: CallDuration,
}

impl DatabaseDuration {
    pub(super) fn new(registry: &Registry) -> Self {
        let duration = |operation| registry.call_duration(DATABASE_DURATION, "operation", operation);
        Self { connection: duration("connection"), statement: duration("statement") }
    }

    /// Creates the metrics of a database that is not measured.
    pub(super) fn unmeasured() -> Self {
        Self { connection: CallDuration::unmeasured(), statement: CallDuration::unmeasured() }
    }
}
