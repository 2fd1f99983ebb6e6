//! From the stream to the queue: read, check, hand over, acknowledge, in this order.
//!
//! What was read and not acknowledged is delivered again, to this listener or another one; a job that is made twice
//! out of the same events is done once in effect. When the queue's window is used up, nothing is read: the backlog
//! waits in the stream.

use std::time::Duration;

use chrono::Utc;
use pricing_core::domain::market_event::{EventDraft, MarketEvent};
use pricing_core::events::consume::{ConsumeError, Entry, EventConsumer};
use pricing_core::jobs::queue::{EnqueueError, Enqueued, JobQueue};
use pricing_core::jobs::{Job, NewJob};
use pricing_core::telemetry::metrics::Metrics;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Entries in one job: one transaction of a worker, as long as they name one product each.
const BATCH: usize = 500;
/// How often entries are looked for that another listener has left behind.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(2);
/// After how long without an acknowledgement an entry counts as left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(5);
/// How often the stream is cleaned up and measured.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Pauses while the queue's window is used up.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Pauses while Redis does not answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Hands events over to workers.
pub(crate) struct Dispatcher {
    pub(crate) consumer: EventConsumer,
    pub(crate) queue: JobQueue,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// Why events could not be handed over.
#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// The process stops; what was read is delivered to another listener.
    #[error("the listener is stopping")]
    Stopping,
}

impl Dispatcher {
    /// Hands events over until told to stop. Redis being away is waited for.
    pub(crate) async fn run(self) {
        tokio::join!(self.hand_over_all(), self.keep_up());
        if let Err(error) = self.consumer.leave().await {
            tracing::debug!(%error, "the group keeps this consumer for a while");
        }
    }

    async fn hand_over_all(&self) {
        let mut pause = SHORTEST_PAUSE;
        while !self.shutdown.is_cancelled() {
            let Err(error) = self.dispatch(&mut pause).await else { break };
            if matches!(error, DispatchError::Stopping) {
                break;
            }
            if pause == SHORTEST_PAUSE {
                tracing::warn!(%error, "events cannot be handed over; trying again");
            }
            let _ = self.shutdown.run_until_cancelled(sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn dispatch(&self, pause: &mut Duration) -> Result<(), DispatchError> {
        self.consumer.ensure_group().await?;
        let mut reclaimed_at: Option<Instant> = None;
        loop {
            if reclaimed_at.is_none_or(|reclaimed_at| reclaimed_at.elapsed() >= RECLAIM_INTERVAL) {
                // A first command on a fresh connection: whatever broke before is mended.
                while self.hand_over(self.consumer.reclaim(LEFT_BEHIND, BATCH).await?).await? == BATCH {}
                reclaimed_at = Some(Instant::now());
            }
            if self.shutdown.is_cancelled() {
                return Err(DispatchError::Stopping);
            }
            // Not interrupted: what is on its way to this listener would have to be missed by another one first.
            let entries = match self.consumer.read(BATCH).await {
                Err(error) if error.is_missing_group() => {
                    tracing::warn!("redis has lost the group of the listeners; it begins anew");
                    self.consumer.ensure_group().await?;
                    continue;
                }
                entries => entries?,
            };
            *pause = SHORTEST_PAUSE;
            self.hand_over(entries).await?;
        }
    }

    /// One batch, to the end; how many entries it had.
    async fn hand_over(&self, entries: Vec<Entry>) -> Result<usize, DispatchError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(0) };
        let task_id = format!("events:{}:{}:{}", first.id, last.id, entries.len());
        let mut events = Vec::with_capacity(entries.len());
        for entry in &entries {
            match read_event(&entry.event) {
                Ok(event) => events.push(event),
                Err(reason) => {
                    tracing::warn!(stream_id = entry.id, reason, "an entry of the stream is no market event");
                    self.consumer.bury(&entry.event, Some(&entry.id), &reason).await?;
                    self.metrics.events_buried.increment(1);
                }
            }
        }
        if !events.is_empty() {
            self.metrics.events_dispatched.increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
            self.enqueue(&NewJob { task_id, job: Job::ApplyEvents { events } }).await?;
        }
        let ids: Vec<String> = entries.into_iter().map(|entry| entry.id).collect();
        self.consumer.acknowledge(&ids).await?;
        Ok(ids.len())
    }

    async fn enqueue(&self, job: &NewJob) -> Result<(), DispatchError> {
        let mut wait = SHORTEST_WAIT;
        while self.queue.enqueue(job).await? == Enqueued::Full {
            let waited = self.shutdown.run_until_cancelled(sleep(wait)).await;
            waited.ok_or(DispatchError::Stopping)?;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Ok(())
    }

    /// Cleans up and measures beside the handing over, which may wait for workers for hours: that is when the backlog
    /// grows and somebody has to see it.
    async fn keep_up(&self) {
        while self.shutdown.run_until_cancelled(sleep(UPKEEP_INTERVAL)).await.is_some() {
            if let Err(error) = self.keep_up_once().await {
                // Redis being away is said where events are handed over.
                tracing::debug!(%error, "the stream is not cleaned up for now");
            }
        }
    }

    async fn keep_up_once(&self) -> Result<(), ConsumeError> {
        self.consumer.trim(Utc::now()).await?;
        self.consumer.forget_idle_consumers().await?;
        let lag = self.consumer.lag().await?;
        self.metrics.event_log_lag.set(u32::try_from(lag).unwrap_or(u32::MAX));
        Ok(())
    }
}

/// The event in an entry, or why there is none.
pub(crate) fn read_event(entry: &[u8]) -> Result<MarketEvent, String> {
    // serde_json and not simd-json, which hands numbers over as binary floating point.
    let draft: EventDraft =
        serde_json::from_slice(entry).map_err(|error| format!("it is not a CloudEvent: {error}"))?;
    // What was taken in has a time; for what a foreign program has put there, now is as good as any.
    draft.check(Utc::now()).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}
