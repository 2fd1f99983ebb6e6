//! The path of events from the stream to the queue: read, check, enqueue, acknowledge, in this order.
//!
//! Entries that were read and not acknowledged are redelivered, to this listener or another one; applying
//! events is idempotent, so those that are in two jobs take effect once. While the queue's window is full,
//! nothing is read: the backlog waits in the stream. While workers are busy, batches are gathered until they
//! are full: many events in one job cost little more than one, whereas many jobs of one event each would
//! delay every event.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use pricing_core::backoff::Backoff;
use pricing_core::clock::Clock;
use pricing_core::events::consume::{ConsumeError, Entry, EntryReader, EventConsumer};
use pricing_core::events::dead::DeadEvents;
use pricing_core::jobs::queue::{EnqueueError, Enqueued, JobQueue};
use pricing_core::jobs::{Job, JobKind, NewJob};
use pricing_core::keys::{EVENT_LOG, JOBS};
use pricing_core::redis::RedisError;
use pricing_core::telemetry::spans;
use pricing_domain::facts::market_event::{EventDraft, MarketEvent};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::metrics::ListenerMetrics;

/// Entries in one job: one transaction of a worker, provided they name one product each.
const BATCH: usize = 500;
/// The number of outstanding event jobs that keeps a database busy: one waits for Redis while another is in
/// the database.
const BUSY: u64 = 3;
/// How often the outstanding jobs are counted while a batch is gathered.
const GATHER_PAUSE: Duration = Duration::from_millis(2);
/// The longest time that entries wait for further ones: jobs may be outstanding for long while other workers
/// are idle.
const LONGEST_GATHERING: Duration = Duration::from_millis(50);
/// How often entries that another listener left unacknowledged are reclaimed.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(2);
/// Entries that are unacknowledged for this long are reclaimed.
const RECLAIM_AFTER: Duration = Duration::from_secs(5);
/// How often the stream is trimmed and measured.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often the idle time of entries that wait for room in the queue is reset.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds of the back-off while the queue's window is full.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Bounds of the back-off while Redis does not answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Enqueues jobs for events.
pub(crate) struct Dispatcher {
    pub(crate) consumer: EventConsumer,
    pub(crate) dead: DeadEvents,
    pub(crate) queue: JobQueue,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) shutdown: CancellationToken,
}

/// The state of a listener, which outlives a broken connection.
#[derive(Default)]
struct Progress {
    /// Entries that were read and not enqueued.
    in_hand: Vec<Entry>,
    /// Entries that were enqueued and not acknowledged; the next read acknowledges them.
    done: Vec<String>,
    /// Event jobs that workers had not finished, as of the last count.
    outstanding: u64,
}

/// Why events could not be enqueued.
#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error(transparent)]
    Bury(#[from] RedisError),
    /// The process is stopping; entries in hand are delivered to another listener.
    #[error("the listener is stopping")]
    Stopping,
}

impl Dispatcher {
    /// Enqueues events until shutdown. While Redis is unavailable, it retries with a back-off.
    pub(crate) async fn run(self) {
        tokio::join!(self.hand_over_all(), self.keep_up());
        if let Err(error) = self.consumer.leave().await {
            tracing::debug!(%error, "could not leave the consumer group; it keeps this consumer for a while");
        }
    }

    async fn hand_over_all(&self) {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut progress = Progress::default();
        while !self.shutdown.is_cancelled() {
            let Err(error) = self.dispatch(&mut progress, &mut backoff).await else { break };
            if matches!(error, DispatchError::Stopping) {
                break;
            }
            if backoff.is_fresh() {
                tracing::warn!(%error, "could not enqueue events; retrying");
            }
            let _ = self.shutdown.run_until_cancelled(sleep(backoff.pause())).await;
        }
        if let Err(error) = self.consumer.acknowledge(&progress.done).await {
            tracing::debug!(%error, "could not acknowledge the last entries; they will be delivered again");
        }
    }

    /// Runs until an error; entries that were being enqueued are still in hand.
    async fn dispatch(&self, progress: &mut Progress, backoff: &mut Backoff) -> Result<(), DispatchError> {
        self.consumer.ensure_group().await?;
        // After an error, entries in hand are enqueued before a connection for reads is opened.
        self.hand_over(progress).await?;
        let mut reader = self.consumer.reader().await?;
        let mut reclaimed_at: Option<Instant> = None;
        loop {
            self.hand_over(progress).await?;
            if self.shutdown.is_cancelled() {
                return Err(DispatchError::Stopping);
            }
            if reclaimed_at.is_none_or(|reclaimed_at| reclaimed_at.elapsed() >= RECLAIM_INTERVAL) {
                // Done entries must be acknowledged first, or they would eventually be reclaimed too.
                self.consumer.acknowledge(&progress.done).await?;
                progress.done.clear();
                progress.in_hand = self.consumer.reclaim(RECLAIM_AFTER, BATCH).await?;
                if progress.in_hand.len() < BATCH {
                    reclaimed_at = Some(Instant::now());
                }
                continue;
            }
            // Not cancelled at shutdown: an entry on its way to this listener would be pending until another
            // one reclaims it.
            progress.in_hand = match reader.next(&progress.done, BATCH).await {
                Err(error) if error.is_missing_group() => {
                    tracing::warn!("redis has lost the listeners' consumer group; creating it again");
                    self.consumer.ensure_group().await?;
                    continue;
                }
                entries => entries?,
            };
            progress.done.clear();
            self.gather(progress, &mut reader).await?;
            backoff.reset();
        }
    }

    /// Adds entries until the batch is full or workers have little to do, for a bounded time.
    async fn gather(
        &self,
        progress: &mut Progress,
        reader: &mut EntryReader<'_>,
    ) -> Result<(), DispatchError> {
        let began = Instant::now();
        while progress.outstanding >= BUSY
            && began.elapsed() < LONGEST_GATHERING
            && (1..BATCH).contains(&progress.in_hand.len())
            && !self.shutdown.is_cancelled()
        {
            let room = BATCH - progress.in_hand.len();
            // These use separate connections, so they run concurrently. Entries that were read are in hand
            // even if the count fails.
            let (more, outstanding) =
                tokio::join!(reader.more(room), self.queue.outstanding(JobKind::ApplyEvents));
            progress.in_hand.extend(more?);
            progress.outstanding = outstanding?;
            if progress.outstanding >= BUSY {
                sleep(GATHER_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Processes one batch to the end. Its job is enqueued first, as that step can be repeated: the queue
    /// recognises the job.
    async fn hand_over(&self, progress: &mut Progress) -> Result<(), DispatchError> {
        let in_hand = &progress.in_hand;
        if in_hand.is_empty() {
            return Ok(());
        }
        let span =
            spans::process(EVENT_LOG, in_hand.len(), in_hand.iter().filter_map(|entry| entry.trace.as_ref()));
        let handed_over = self.hand_over_within(progress).instrument(span.clone()).await;
        if let Err(error) = &handed_over {
            spans::record_error(&span, error);
        }
        handed_over
    }

    async fn hand_over_within(&self, progress: &mut Progress) -> Result<(), DispatchError> {
        let (in_hand, now) = (&progress.in_hand, self.clock.now());
        let mut events = Vec::with_capacity(in_hand.len());
        let mut dead = Vec::new();
        for entry in in_hand.iter() {
            match read_event(&entry.event, now) {
                Ok(event) => events.push(event),
                Err(reason) => dead.push((entry, reason)),
            }
        }
        let ids: Vec<String> = in_hand.iter().map(|entry| entry.id.clone()).collect();
        if !events.is_empty() {
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            let published_at = in_hand.first().and_then(Entry::published_at);
            let job = NewJob { task_id: task_id(&ids), job: Job::ApplyEvents { events, published_at } };
            let enqueued = self.enqueue(&job, &ids).instrument(spans::send(JOBS, 1)).await?;
            if let Enqueued::Added { outstanding } = enqueued {
                progress.outstanding = outstanding;
                self.metrics.events_dispatched.increment(count);
                self.metrics.jobs_enqueued.increment(1);
            }
        }
        for (entry, reason) in dead {
            tracing::warn!(
                stream_id = entry.id,
                reason,
                "rejected an entry of the stream that is no market event"
            );
            self.dead.keep(&entry.event, Some(&entry.id), &reason).await?;
            self.metrics.events_dead_lettered.increment(1);
        }
        progress.done.extend(ids);
        progress.in_hand.clear();
        Ok(())
    }

    /// Enqueues the job, waiting for room in the window.
    async fn enqueue(&self, job: &NewJob, ids: &[String]) -> Result<Enqueued, DispatchError> {
        let mut backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT);
        let mut held_at = Instant::now();
        loop {
            let enqueued = self.queue.enqueue(job).await?;
            if enqueued != Enqueued::Full {
                return Ok(enqueued);
            }
            if held_at.elapsed() >= HOLD_INTERVAL {
                self.consumer.hold(ids).await?;
                held_at = Instant::now();
            }
            let waited = self.shutdown.run_until_cancelled(sleep(backoff.pause())).await;
            waited.ok_or(DispatchError::Stopping)?;
        }
    }

    /// Trims and measures the stream concurrently with dispatching, which may wait for workers for hours:
    /// that is when the backlog grows and must be visible.
    async fn keep_up(&self) {
        while self.shutdown.run_until_cancelled(sleep(UPKEEP_INTERVAL)).await.is_some() {
            if let Err(error) = self.keep_up_once().await {
                // An unavailable Redis is logged where events are enqueued.
                tracing::debug!(%error, "could not trim the stream");
            }
        }
    }

    async fn keep_up_once(&self) -> Result<(), ConsumeError> {
        self.consumer.trim(self.clock.now()).await?;
        self.consumer.forget_idle_consumers().await?;
        let lag = self.consumer.lag().await?;
        self.metrics.event_log_lag.set(u32::try_from(lag).unwrap_or(u32::MAX));
        Ok(())
    }
}

/// Decodes the event of an entry; the error says why it is invalid.
pub(crate) fn read_event(entry: &[u8], now: DateTime<Utc>) -> Result<MarketEvent, String> {
    let draft = EventDraft::read(entry).map_err(|error| format!("it is not a CloudEvent: {error}"))?;
    // A published event has a time. One without it, which a foreign program added to the stream, gets the
    // current time.
    draft.check(now).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}

/// The identifier of a batch's job, the same for the same entries: if they are redelivered together, the
/// queue recognises the job. (Otherwise two jobs apply them, which is idempotent.)
fn task_id(ids: &[String]) -> String {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return String::new() };
    let mut hasher = DefaultHasher::new();
    ids.hash(&mut hasher);
    format!("events:{first}:{last}:{}:{:016x}", ids.len(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_depends_on_all_entries() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let named = task_id(&ids(&["1-0", "1-1", "2-0"]));
        assert!(named.starts_with("events:1-0:2-0:3:"), "{named}");
        assert_eq!(named, task_id(&ids(&["1-0", "1-1", "2-0"])));
        assert_ne!(named, task_id(&ids(&["1-0", "1-2", "2-0"])));
    }

    #[test]
    fn a_rejected_entry_has_a_reason() {
        for (entry, reason) in [
            (b"".as_slice(), "it is not a CloudEvent"),
            (b"\xff", "it is not a CloudEvent"),
            (b"[]", "a list is not an event"),
            (br#"{"specversion":"1.0"}"#, "id: is missing"),
        ] {
            let message = read_event(entry, Utc::now()).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }
}
