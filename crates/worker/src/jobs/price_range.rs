//! The job that re-prices one range of a run.

use std::sync::Arc;
use std::time::Duration;

use pricing_core::engine::RangeDone;
use pricing_core::jobs::{JobError, PRICED_BEFORE, Range};
use pricing_core::store::StoreError;
use pricing_domain::facts::recalculation::RunState;
use tokio::time::timeout;

use super::Recalculator;

/// How long a range waits for its turn before it is requeued: most of a job's time limit is left for the
/// work.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

impl Recalculator {
    pub(super) async fn price_range(&self, range: Range) -> Result<(), JobError> {
        let run_number = range.run_number;
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.range_turns).acquire_owned());
        let Some(Ok(Ok(turn))) = self.shutdown.run_until_cancelled(turn).await else {
            return Err(JobError::Stopping);
        };
        match self.engine.recalculate_range(range, self.owner.clone(), turn).await {
            Ok(RangeDone::Superseded) => {
                tracing::info!(run_number, "skipped a range: a newer run has begun");
                Ok(())
            }
            Ok(RangeDone::Done { products, .. }) => {
                self.metrics.runs.products.increment(products);
                Ok(())
            }
            Ok(RangeDone::Repeated) => Ok(()),
            Err(error) => Err(self.job_error_of(error).await),
        }
    }

    /// Fails the run of a range that became a dead letter.
    pub(super) async fn fail_run(&self, range: &Range, reason: &str) -> Result<(), JobError> {
        let reason = format!("a part of it failed: {reason}");
        let store = &self.engine.store;
        let failed = async {
            let run_number = match range.run_number {
                // The run may have been restarted since: its current number counts.
                PRICED_BEFORE => store.run(&range.task_id).await?.and_then(|run| run.run_number),
                run_number => Some(run_number),
            };
            if let Some(number) = run_number {
                store
                    .finish_run(
                        &range.task_id,
                        number,
                        RunState::Failed,
                        Some(&reason),
                        self.engine.clock.now(),
                    )
                    .await?;
            }
            Ok(())
        };
        failed.await.map_err(|error: StoreError| JobError::Retry { reason: error.to_string() })
    }
}
