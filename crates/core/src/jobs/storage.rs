//! Configuration of the queue library, and which of its features are switched off.
//!
//! apalis provides the worker: fetching, concurrent handlers, acknowledgement, heartbeats, takeover from dead
//! workers, graceful shutdown. Its Redis storage has pitfalls, and each setting here avoids one.

use std::time::Duration;

use apalis_core::backend::codec::Codec;
use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::poll_strategy::{PollWith, StreamStrategy};
use apalis_core::backend::ext::with_codec::WithCodec;
use apalis_core::worker::context::WorkerContext;
use apalis_redis::{Config, RedisStorage};
use futures::stream::BoxStream;

use crate::keys::MessageKeys;
use crate::redis::MeasuredConnection;

/// A worker without a heartbeat for three of these intervals is considered dead, and others take over its
/// jobs.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
const MISSED_HEARTBEATS: usize = 3;

/// A job as stored in the queue. Any bytes are accepted: an unreadable job fails in the handler, which
/// dead-letters it. In the library it would end one worker after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// A codec that passes the bytes through.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyBytes;

impl Codec<Payload> for AnyBytes {
    type Error = std::convert::Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, payload: &Payload) -> Result<Vec<u8>, Self::Error> {
        Ok(payload.0.clone())
    }

    fn decode(&self, bytes: &Vec<u8>) -> Result<Payload, Self::Error> {
        Ok(Payload(bytes.clone()))
    }
}

/// The storage that a worker fetches its jobs from.
pub type JobStorage = PollWith<
    WithCodec<RedisStorage<Payload, MeasuredConnection>, AnyBytes>,
    StreamStrategy<BoxStream<'static, ()>>,
>;

/// The queue, polled whenever `wake` yields.
pub fn storage(
    connection: MeasuredConnection,
    keys: &MessageKeys,
    wake: BoxStream<'static, ()>,
) -> JobStorage {
    RedisStorage::new(connection).with_config(config(keys)).with_codec(AnyBytes).poll_with_stream(wake)
}

/// The names and settings of the queue.
pub(super) fn config(keys: &MessageKeys) -> Config {
    Config::default()
        .queue(keys.queue())
        // Further prefetched jobs would wait in this process, unacknowledged, while other workers idle.
        .batch_size(1)
        .heartbeat_interval(HEARTBEAT_INTERVAL)
        .missed_heartbeats(MISSED_HEARTBEATS)
        // A lock for each task costs a scan of the whole queue, and the fetch is atomic without it.
        .lock_tasks(false)
}

/// The queue library uses another key than this program's scripts expect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the queue library keeps {what} at {found}, and this program's scripts expect {expected}: it was built with another version of apalis-redis than it was written for"
)]
pub struct LayoutError {
    what: &'static str,
    found: String,
    expected: String,
}

/// Checks that the queue library's keys are those that this program's scripts read and write. Other processes
/// share the queue, so a worker with another layout must not start.
pub fn check_layout(keys: &MessageKeys) -> Result<(), LayoutError> {
    check_names(&config(keys), &keys.queue())
}

fn check_names(names: &Config, queue: &str) -> Result<(), LayoutError> {
    let worker = WorkerContext::new("name");
    let layout = [
        ("payloads", names.job_data_hash(), "data"),
        ("metadata of tasks", names.job_meta_hash(), "meta"),
        ("waiting tasks", names.active_jobs_list(), "active"),
        ("done tasks", names.done_jobs_set(), "done"),
        ("dead tasks", names.dead_jobs_set(), "dead"),
        ("workers", names.workers_set(), "workers"),
        ("fetched tasks", names.inflight_set_for(&worker), "inflight:name"),
        ("metadata of workers", names.worker_metadata_key(&worker), "workers:metadata:name"),
    ];
    for (what, found, expected) in layout {
        let expected = format!("{queue}:{expected}");
        if found != expected {
            return Err(LayoutError { what, found, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layout_is_refused() {
        let keys = MessageKeys::new("test:");
        assert_eq!(check_layout(&keys), Ok(()));
        let error = check_names(&config(&keys), "another").unwrap_err();
        assert_eq!((error.what, error.expected.as_str()), ("payloads", "another:data"));
    }
}
