//! What the store measures.

use crate::telemetry::inventory::names::DATABASE_DURATION;
use crate::telemetry::registry::{CallDuration, Registry};

/// How long the database takes.
#[derive(Debug, Clone)]
pub(super) struct DatabaseDuration {
    /// Until there is a connection for a statement.
    pub(super) connection: CallDuration,
    /// Until a statement is answered.
    pub(super) statement: CallDuration,
}

impl DatabaseDuration {
    pub(super) fn new(registry: &Registry) -> Self {
        let duration = |operation| registry.call_duration(DATABASE_DURATION, "operation", operation);
        Self { connection: duration("connection"), statement: duration("statement") }
    }

    /// For a database that is not measured.
    pub(super) fn unmeasured() -> Self {
        Self { connection: CallDuration::unmeasured(), statement: CallDuration::unmeasured() }
    }
}
