//! Imports under a circuit breaker: the effect of all rows together is judged before the first is stored.
//!
//! The rows are simulated as they arrive, while their bytes are kept in a spool; then they are stored from
//! the spool, or refused. So memory is bounded as for other imports, and the sender is limited to the speed
//! of the simulation.
//!
//! Prices and policies may change while rows are judged and stored:
//!
//! - A policy that is published before the first row is stored has not judged the rows, so they are judged
//!   again. One that is published later prices the rest of them, and they are not judged again: its own
//!   publication was. An import that began before a circuit breaker came into use is completed.
//! - The catalogue is read batch by batch, each as of its own time, as for a policy that is published. What
//!   others change afterwards is not judged again: the rows still replace whole products, so at most the
//!   figures differ from those that were judged. Of two imports, each is judged for itself.

use axum::body::{Body, Bytes};
use futures::Stream;
use pricing_core::engine::Attribution;
use pricing_wire::import::ImportAnswer;

use super::import::chunks_of;
use super::import_batches::{Import, Purpose};
use super::import_rows::Format;
use crate::error::ApiError;
use crate::state::AppState;

/// How often the rows are judged, at most, if a policy is published each time.
const MAX_JUDGEMENTS: usize = 5;

/// Stores every row of the body, unless the circuit breaker of the policy in use holds them.
pub(super) async fn take_judged(
    state: AppState,
    format: Format,
    body: Body,
    by: Attribution,
) -> Result<ImportAnswer, ApiError> {
    let mut spool = state.import_spools.create().await?;
    let mut judged = judge(&state, format, spool.copying(chunks_of(body))).await?;
    let mut judgements = 1;
    while !judged.is_by_policy_in_use(&state) {
        if judgements == MAX_JUDGEMENTS {
            let reason = "policies were published while the import was judged, and nothing was stored";
            return Err(ApiError::Unavailable { reason });
        }
        judged = judge(&state, format, spool.chunks().await?).await?;
        judgements += 1;
    }
    if !judged.reasons.is_empty() {
        return Err(ApiError::ImportHeldByCircuitBreaker { reasons: judged.reasons });
    }
    // The sender has waited for the judgement, and Redis may have failed meanwhile.
    state.require_redis().await?;
    let import = Import::new(state, Purpose::Store(by));
    import.take_all(format, spool.chunks().await?).await
}

/// The result of simulating all rows.
struct Judged {
    /// The version of the policy that judged the first batch; none if no row was accepted.
    policy_version: Option<i64>,
    /// The reasons to hold the rows, in words.
    reasons: Vec<String>,
}

impl Judged {
    /// Whether this policy has judged every batch and is still in use: versions only grow.
    fn is_by_policy_in_use(&self, state: &AppState) -> bool {
        let in_use = state.engine.policies.snapshot().current().version;
        self.policy_version.is_none_or(|version| version == in_use)
    }
}

async fn judge(
    state: &AppState,
    format: Format,
    chunks: impl Stream<Item = Result<Bytes, ApiError>>,
) -> Result<Judged, ApiError> {
    let mut import = Import::new(state.clone(), Purpose::Judge);
    import.take_stream(format, chunks).await?;
    let policy_version = import.policy().map(|policy| policy.version);
    Ok(Judged { policy_version, reasons: import.reasons_to_hold().await? })
}
