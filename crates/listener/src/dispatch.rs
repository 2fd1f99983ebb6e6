//! From the stream to the queue: read, check, hand over, acknowledge, in this order.
//!
//! What was read and not acknowledged is delivered again, to this listener or another one; events that come
//! in two jobs are applied once in effect. When the queue's window is used up, nothing is read: the backlog
//! waits in the stream. While workers are busy, batches are gathered until they are full: many events in one
//! job cost little more than one, where many jobs of one event each would keep every event waiting.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::Utc;
use pricing_core::events::consume::{ConsumeError, Entry, EntryReader, EventConsumer};
use pricing_core::events::dead::DeadEvents;
use pricing_core::jobs::queue::{EnqueueError, Enqueued, JobQueue};
use pricing_core::jobs::{Job, JobKind, NewJob};
use pricing_core::keys::{EVENT_LOG, JOBS};
use pricing_core::redis::RedisError;
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::telemetry::spans;
use pricing_domain::facts::market_event::{EventDraft, MarketEvent};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Entries in one job: one transaction of a worker, as long as they name one product each.
const BATCH: usize = 500;
/// As many jobs of events outstanding as keep a database busy: one waits for Redis while another is in the
/// database.
const BUSY: u64 = 3;
/// How often workers are looked at while a batch is gathered.
const GATHER_PAUSE: Duration = Duration::from_millis(2);
/// The longest that entries wait for others: jobs may be outstanding for long while other workers have
/// nothing to do.
const LONGEST_GATHERING: Duration = Duration::from_millis(50);
/// How often entries are looked for that another listener has left behind.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(2);
/// After how long without an acknowledgement an entry counts as left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(5);
/// How often the stream is cleaned up and measured.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often entries that wait for room in the queue are marked as being worked on.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses while the queue's window is used up.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Pauses while Redis does not answer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Hands events over to workers.
pub(crate) struct Dispatcher {
    pub(crate) consumer: EventConsumer,
    pub(crate) dead: DeadEvents,
    pub(crate) queue: JobQueue,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// How far a listener is; it outlives a connection that breaks.
#[derive(Default)]
struct Progress {
    /// Read, and not handed over.
    in_hand: Vec<Entry>,
    /// Handed over, and not acknowledged: that goes with the next look for entries.
    done: Vec<String>,
    /// Jobs of events that workers had not done, when last heard of.
    outstanding: u64,
}

/// Why events could not be handed over.
#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    #[error(transparent)]
    Bury(#[from] RedisError),
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
        let mut progress = Progress::default();
        while !self.shutdown.is_cancelled() {
            let Err(error) = self.dispatch(&mut progress, &mut pause).await else { break };
            if matches!(error, DispatchError::Stopping) {
                break;
            }
            if pause == SHORTEST_PAUSE {
                tracing::warn!(%error, "events cannot be handed over; trying again");
            }
            let _ = self.shutdown.run_until_cancelled(sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if let Err(error) = self.consumer.acknowledge(&progress.done).await {
            tracing::debug!(%error, "what was handed over last is delivered once more");
        }
    }

    /// Until something fails; what was being handed over then is still in hand.
    async fn dispatch(&self, progress: &mut Progress, pause: &mut Duration) -> Result<(), DispatchError> {
        self.consumer.ensure_group().await?;
        // What is in hand after an error does not wait for a connection to read over.
        self.hand_over(progress).await?;
        let mut reader = self.consumer.reader().await?;
        let mut reclaimed_at: Option<Instant> = None;
        loop {
            self.hand_over(progress).await?;
            if self.shutdown.is_cancelled() {
                return Err(DispatchError::Stopping);
            }
            if reclaimed_at.is_none_or(|reclaimed_at| reclaimed_at.elapsed() >= RECLAIM_INTERVAL) {
                // What is done would be taken over too, by and by.
                self.consumer.acknowledge(&progress.done).await?;
                progress.done.clear();
                progress.in_hand = self.consumer.reclaim(LEFT_BEHIND, BATCH).await?;
                if progress.in_hand.len() < BATCH {
                    reclaimed_at = Some(Instant::now());
                }
                continue;
            }
            // Not interrupted: what is on its way to this listener would have to be missed by another one
            // first.
            progress.in_hand = match reader.next(&progress.done, BATCH).await {
                Err(error) if error.is_missing_group() => {
                    tracing::warn!("redis has lost the group of the listeners; it begins anew");
                    self.consumer.ensure_group().await?;
                    continue;
                }
                entries => entries?,
            };
            progress.done.clear();
            self.gather(progress, &mut reader).await?;
            *pause = SHORTEST_PAUSE;
        }
    }

    /// Adds entries until the batch is full or workers have little to do, but not for long.
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
            // Over a connection each, so at the same time. What was read is in hand, whatever becomes of the
            // other.
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

    /// One batch, to the end. Its job is enqueued first: that is what may be repeated, as it is known then.
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
        let in_hand = &progress.in_hand;
        let mut events = Vec::with_capacity(in_hand.len());
        let mut dead = Vec::new();
        for entry in in_hand.iter() {
            match read_event(&entry.event) {
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
            tracing::warn!(stream_id = entry.id, reason, "an entry of the stream is no market event");
            self.dead.keep(&entry.event, Some(&entry.id), &reason).await?;
            self.metrics.events_buried.increment(1);
        }
        progress.done.extend(ids);
        progress.in_hand.clear();
        Ok(())
    }

    /// Waits until there is room for the job.
    async fn enqueue(&self, job: &NewJob, ids: &[String]) -> Result<Enqueued, DispatchError> {
        let mut wait = SHORTEST_WAIT;
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
            let waited = self.shutdown.run_until_cancelled(sleep(wait)).await;
            waited.ok_or(DispatchError::Stopping)?;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Cleans up and measures beside the handing over, which may wait for workers for hours: that is when the
    /// backlog grows and somebody has to see it.
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
    let draft = EventDraft::read(entry).map_err(|error| format!("it is not a CloudEvent: {error}"))?;
    // What was taken in has a time; for what a foreign program has put there, now is as good as any.
    draft.check(Utc::now()).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("; ")
    })
}

/// The same for the same entries, so that a job for them is known when they are delivered again together.
/// (Otherwise they are applied by two jobs, once in effect.)
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
    fn a_job_is_named_after_all_its_entries() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let named = task_id(&ids(&["1-0", "1-1", "2-0"]));
        assert!(named.starts_with("events:1-0:2-0:3:"), "{named}");
        assert_eq!(named, task_id(&ids(&["1-0", "1-1", "2-0"])));
        assert_ne!(named, task_id(&ids(&["1-0", "1-2", "2-0"])));
    }

    #[test]
    fn what_is_no_event_says_why() {
        for (entry, reason) in [
            (b"".as_slice(), "it is not a CloudEvent"),
            (b"\xff", "it is not a CloudEvent"),
            (b"[]", "a list is not an event"),
            (br#"{"specversion":"1.0"}"#, "id: is missing"),
        ] {
            let said = read_event(entry).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
