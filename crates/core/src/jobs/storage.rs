//! How the queue library is set up, and what of it is fenced off.
//!
//! apalis brings the worker: fetching, running handlers side by side, acknowledging, heartbeats, taking over
//! from workers that died, stopping gracefully. Its storage in Redis has sharp edges, and each setting here
//! is there for one of them.

use std::time::Duration;

use apalis_core::backend::codec::Codec;
use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::poll_strategy::{PollWith, StreamStrategy};
use apalis_core::backend::ext::with_codec::WithCodec;
use apalis_redis::{Config, RedisStorage};
use futures::stream::BoxStream;

use crate::keys::MessageKeys;
use crate::redis::MeasuredConnection;

/// A worker that was not heard of for three of these is taken for dead, and its jobs are given to others.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
const MISSED_HEARTBEATS: usize = 3;

/// A job as it lies in the queue. Any bytes are one: what cannot be read fails in the handler, where it ends
/// among the dead jobs, and not in the library, where it would end the worker, and the next worker, and so
/// on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// Takes the bytes as they are.
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

/// What a worker fetches its jobs from.
pub type JobStorage = PollWith<
    WithCodec<RedisStorage<Payload, MeasuredConnection>, AnyBytes>,
    StreamStrategy<BoxStream<'static, ()>>,
>;

/// The queue, looked into whenever `wake` yields.
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
        // More than one fetched at a time would wait in this process, unacknowledged, while other workers
        // idle.
        .batch_size(1)
        .heartbeat_interval(HEARTBEAT_INTERVAL)
        .missed_heartbeats(MISSED_HEARTBEATS)
        // A lock for each task costs a search through the whole queue, and adds nothing to the fetch, which
        // is atomic.
        .lock_tasks(false)
}
