//! The followers of one process, and their limits: in all, and for each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::repetitions::Repetitions;
use crate::error::ApiError;
use crate::metrics::ApiMetrics;

/// The maximum number of concurrent followers; each reads the stream separately.
const MAX_FOLLOWERS: usize = 256;

/// The state that the followers of one process share.
#[derive(Clone)]
pub(crate) struct Followers {
    counts: Arc<Mutex<Counts>>,
    max_per_peer: usize,
    pub(super) repetitions: Arc<Repetitions>,
    pub(super) wake: watch::Receiver<u64>,
    pub(super) shutdown: CancellationToken,
}

#[derive(Default)]
struct Counts {
    all: usize,
    of_peer: HashMap<IpAddr, usize>,
}

impl Followers {
    /// Starts without followers. `wake` changes when there may be something to read.
    pub(crate) fn new(max_per_peer: usize, wake: watch::Receiver<u64>, shutdown: CancellationToken) -> Self {
        Self { counts: Arc::default(), max_per_peer, repetitions: Arc::default(), wake, shutdown }
    }

    /// A permit for one more follower at this address, unless there are too many.
    pub(super) fn admit(&self, peer: IpAddr, metrics: &Arc<ApiMetrics>) -> Result<FollowerPermit, ApiError> {
        let peer = network_of(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= MAX_FOLLOWERS {
            return Err(ApiError::Unavailable { reason: "too many clients follow price changes" });
        }
        let of_peer = counts.of_peer.get(&peer).copied().unwrap_or_default();
        if of_peer >= self.max_per_peer {
            return Err(ApiError::TooManyFollowers { max_per_peer: self.max_per_peer });
        }
        counts.all += 1;
        counts.of_peer.insert(peer, of_peer + 1);
        metrics.price_change_streams.increment(1.0);
        Ok(FollowerPermit { counts: Arc::clone(&self.counts), peer, metrics: Arc::clone(metrics) })
    }
}

/// A permit to follow, for one client.
pub(super) struct FollowerPermit {
    counts: Arc<Mutex<Counts>>,
    peer: IpAddr,
    metrics: Arc<ApiMetrics>,
}

impl Drop for FollowerPermit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(of_peer) = counts.of_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                counts.of_peer.remove(&self.peer);
            }
        }
        self.metrics.price_change_streams.decrement(1.0);
    }
}

/// What counts as one peer: an IPv4 address, or the /64 network of an IPv6 address, as a host usually has all
/// addresses of one.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            const NETWORK: u128 = !(u64::MAX as u128);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use pricing_core::config::MetricsSwitch;
    use pricing_core::telemetry::registry::Registry;

    use super::*;

    #[test]
    fn a_peer_that_takes_all_its_places_leaves_the_others_theirs() {
        let metrics = Arc::new(ApiMetrics::new(&Registry::new("test", MetricsSwitch::Off)));
        let followers = Followers::new(100, watch::channel(0).1, CancellationToken::new());
        let admit = |peer: &str| followers.admit(peer.parse().unwrap(), &metrics);
        let mut permits: Vec<_> = (0..100).map(|_| admit("10.0.0.1").ok().unwrap()).collect();
        assert_eq!(admit("10.0.0.1").err(), Some(ApiError::TooManyFollowers { max_per_peer: 100 }));
        assert!(matches!(admit("::ffff:10.0.0.1"), Err(ApiError::TooManyFollowers { .. })));
        permits.extend((0..100).map(|_| admit("2001:db8::1").ok().unwrap()));
        assert!(matches!(admit("2001:db8::2"), Err(ApiError::TooManyFollowers { .. })));
        permits.extend((0..56).map(|_| admit("2001:db8:0:1::1").ok().unwrap()));
        assert!(matches!(admit("10.0.0.2"), Err(ApiError::Unavailable { .. })));
        permits.clear();
        assert!(admit("10.0.0.1").is_ok());
        assert!(followers.counts.lock().unwrap().of_peer.is_empty());
    }
}
