//! Background jobs: work done outside shoppers' requests.
//!
//! Here: jobs and their encoding ([`Job`], [`JobKind`]), their errors ([`JobError`]), and their queue
//! ([`queue`]). Never here: the work of a job (`pricing-worker`) and the decision to enqueue one
//! (`pricing-listener`, and workers for the ranges of a run).
//!
//! A job is delivered at least once and may run twice concurrently: its handler relies on the store to make
//! it idempotent. Where next: [`queue`] for the window, attempts and dead letters, [`storage`] for the set-up
//! of the queue library.

mod kind;
pub mod queue;
pub mod storage;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

pub use self::kind::JobKind;
use pricing_domain::facts::market_event::{EventDraft, MarketEvent};
use pricing_domain::facts::product::ProductId;

/// Products in a range of a run: one transaction.
pub const RANGE_LENGTH: u32 = 1_000;

/// The work of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Not internally tagged: deserialising that form converts numbers to binary floating point first.
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Apply facts and re-price the products concerned.
    ApplyEvents {
        /// The events as published.
        #[serde(serialize_with = "write_events", deserialize_with = "read_events")]
        events: Vec<MarketEvent>,
        /// When the first of them was published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        published_at: Option<DateTime<Utc>>,
    },
    /// Coordinate the recalculations that were requested, one after another.
    Run {
        /// The request that this job was enqueued for.
        task_id: String,
    },
    /// Re-price one range of a run.
    Range(Range),
}

/// The number of no run: the range was priced before its run was restarted, and the worker may have died
/// before it published the prices.
pub const PRICED_BEFORE: i64 = 0;

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The request that the run belongs to.
    pub task_id: String,
    /// The run's fencing token: once a newer run has begun, nothing is written for this one.
    /// [`PRICED_BEFORE`] for products whose prices are only published again.
    pub run_number: i64,
    /// The policy when the run began or was restarted; prices are computed by this one or a later one.
    pub policy_version: i64,
    /// Whether held prices go to their targets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// At most [`RANGE_LENGTH`] products, in order.
    pub product_ids: Vec<ProductId>,
}

impl Job {
    /// The job's kind.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::ApplyEvents { .. } => JobKind::ApplyEvents,
            Self::Run { .. } => JobKind::Run,
            Self::Range(_) => JobKind::Range,
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(payload: &[u8]) -> Result<Self, JobError> {
        serde_json::from_slice(payload)
            .map_err(|error| JobError::Abort { reason: format!("the job cannot be read: {error}") })
    }

    /// The job as it is stored in the queue.
    pub fn encode(&self) -> Result<Vec<u8>, JobError> {
        serde_json::to_vec(self)
            .map_err(|error| JobError::Abort { reason: format!("the job cannot be written: {error}") })
    }
}

/// A job to be enqueued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its identifier, the same each time this job is requested: a job that is known is not enqueued again.
    pub task_id: String,
    /// The work.
    pub job: Job,
}

/// The reason that a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It failed and may succeed later; it is retried after a back-off, a bounded number of times.
    #[error("{reason}")]
    Retry {
        /// The reason for the failure.
        reason: String,
    },
    /// A dependency is unavailable to this worker, which is not the job's fault: it is retried later or
    /// elsewhere. It does not count as an attempt.
    #[error("{reason}")]
    Unavailable {
        /// The dependency and the reason.
        reason: String,
    },
    /// It can never succeed; it becomes a dead letter without a retry.
    #[error("{reason}")]
    Abort {
        /// The reason.
        reason: String,
    },
    /// This process is stopping; another one does the job. It does not count as an attempt.
    #[error("the worker is stopping")]
    Stopping,
}

fn write_events<S: Serializer>(events: &[MarketEvent], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Result<Vec<Box<RawValue>>, _> =
        events.iter().map(|event| RawValue::from_string(event.to_json())).collect();
    texts.map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn read_events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MarketEvent>, D::Error> {
    let drafts: Vec<EventDraft> = Vec::deserialize(deserializer)?;
    // Every published event has a time, so this default is never used.
    let checked = drafts.into_iter().map(|draft| draft.check(chrono::DateTime::UNIX_EPOCH));
    checked.collect::<Result<_, _>>().map_err(|problems| {
        serde::de::Error::custom(problems.first().map(ToString::to_string).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_job_decodes_to_itself() {
        let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.competitor_price.v1",
            "time":"2026-01-31T12:00:00.123456Z","data":{"product_id":"P-1","competitor":"a","price":123456789012.123456}}"#;
        let draft: EventDraft = serde_json::from_str(event).unwrap();
        let events = vec![draft.check(chrono::DateTime::UNIX_EPOCH).unwrap()];
        let range = Range {
            task_id: "t".to_owned(),
            run_number: 7,
            policy_version: 3,
            release: false,
            product_ids: vec![ProductId::parse("P-1").unwrap()],
        };
        let published_at = Some(chrono::DateTime::UNIX_EPOCH);
        for job in [
            Job::ApplyEvents { events, published_at },
            Job::Run { task_id: "t".to_owned() },
            Job::Range(range),
        ] {
            assert_eq!(Job::decode(&job.encode().unwrap()), Ok(job));
        }
    }

    #[test]
    fn an_invalid_payload_is_an_error() {
        for payload in [b"".as_slice(), b"\xff", b"{}", b"null", br#"{"range":{}}"#] {
            assert!(matches!(Job::decode(payload), Err(JobError::Abort { .. })));
        }
    }
}
