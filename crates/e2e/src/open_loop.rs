//! Requests at a fixed rate, regardless of whether responses arrive in time.
//!
//! A client that waits for each response before the next request puts less load on a slow server, and so
//! hides its latency (Tene: coordinated omission). Here each request is due at an instant; if its connection
//! still waited for a response then, its latency counts from when it was due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::wire_client::WireClient;

/// A load on one server.
pub struct OpenLoop {
    /// `127.0.0.1:8000`.
    pub address: String,
    /// The number of connections; each waits for a response before its next request.
    pub connections: u32,
    /// The total rate of requests.
    pub per_second: u32,
}

/// The latencies, in ascending order.
#[derive(Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl OpenLoop {
    /// Sends these requests, by number, until `stop` is cancelled. Every response must be 200.
    pub async fn run(
        &self,
        request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Result<Latencies> {
        let request = Arc::new(request);
        let pace = Duration::from_secs(1) / self.per_second;
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for first in 0..self.connections {
            let client = WireClient::connect(&self.address).await?;
            let (request, stop) = (Arc::clone(&request), stop.clone());
            let turns = (u64::from(first)..).step_by(self.connections as usize);
            let turns =
                turns.map(move |number| (number, began + pace * u32::try_from(number).unwrap_or(u32::MAX)));
            clients.spawn(ask(client, turns, move |number| request(number), stop));
        }
        let mut latencies = Vec::new();
        while let Some(asked) = clients.join_next().await {
            latencies.extend(asked??);
        }
        Ok(latencies.into())
    }
}

async fn ask(
    mut client: WireClient,
    turns: impl Iterator<Item = (u64, Instant)>,
    request: impl Fn(u64) -> Vec<u8>,
    stop: CancellationToken,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for (number, due) in turns {
        // Timers are up to a millisecond late, which is not counted if the connection was free in time.
        let from = if Instant::now() < due {
            if stop.run_until_cancelled(tokio::time::sleep_until(due.into())).await.is_none() {
                break;
            }
            Instant::now()
        } else {
            due
        };
        if stop.is_cancelled() {
            break;
        }
        client.ask(&request(number)).await?.ok()?;
        latencies.push(from.elapsed());
    }
    Ok(latencies)
}

impl From<Vec<Duration>> for Latencies {
    fn from(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }
}

impl Latencies {
    /// The number of responses.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency that this many of a thousand responses did not exceed.
    pub fn permille(&self, permille: usize) -> Duration {
        let place = (self.0.len() * permille / 1_000).min(self.0.len().saturating_sub(1));
        self.0.get(place).copied().unwrap_or_default()
    }
}
