//! One look-up at a time for each key: callers that arrive later share the result of the first.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;

/// Look-ups in flight, by key. Bounded by the requests in flight, as each waits for one.
pub(super) struct SingleFlight<K, V> {
    under_way: Arc<Mutex<HashMap<K, Flight<V>>>>,
    /// Look-ups run here, whichever runtime waits for them.
    runtime: Handle,
}

/// `None` if the look-up did not finish: it panicked, or the runtime is stopping.
type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts without any look-up in flight.
    pub(super) fn new(runtime: Handle) -> Self {
        Self { under_way: Arc::default(), runtime }
    }

    /// Joins the look-up in flight for the key, or starts one. A look-up is a task of its own, so it
    /// completes for the others even if the request that started it is dropped.
    pub(super) fn run<F>(&self, key: K, search: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let (searches, landed) = (Arc::clone(&self.under_way), key.clone());
        let search = search();
        let task = self.runtime.spawn(async move {
            // Created inside the task: a runtime that has stopped drops the task at once, while the map is
            // locked.
            let _landing = Landing { under_way: searches, key: landed };
            search.await
        });
        let flight = task.map(Result::ok).boxed().shared();
        under_way.insert(key, flight.clone());
        flight
    }
}

/// Removes the look-up from the map when it ends in any way.
struct Landing<K: Eq + Hash, V> {
    under_way: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn later_callers_share_the_first_result() {
        let flights = SingleFlight::<&str, usize>::new(Handle::current());
        let (searches, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let search = || {
            let (searches, gate) = (Arc::clone(&searches), Arc::clone(&gate));
            move || async move {
                let number = searches.fetch_add(1, Ordering::SeqCst);
                gate.wait().await;
                number
            }
        };
        let (first, second) = (flights.run("a", search()), flights.run("a", search()));
        gate.wait().await;
        assert_eq!((first.await, second.await), (Some(0), Some(0)));
        assert_eq!(searches.load(Ordering::SeqCst), 1);
        let third = flights.run("a", search());
        gate.wait().await;
        assert_eq!(third.await, Some(1));
    }

    #[tokio::test]
    async fn a_look_up_completes_when_its_first_request_is_dropped() {
        let flights = SingleFlight::<&str, u8>::new(Handle::current());
        let gate = Arc::new(Barrier::new(2));
        let inner = Arc::clone(&gate);
        let first = flights.run("a", || async move {
            inner.wait().await;
            7
        });
        let second = flights.run("a", || async { 0 });
        drop(first);
        gate.wait().await;
        assert_eq!(second.await, Some(7));
    }

    #[tokio::test]
    async fn a_look_up_that_panics_yields_nothing_and_blocks_no_later_one() {
        let flights = SingleFlight::<&str, u8>::new(Handle::current());
        let failing = flights.run("a", || async { panic!("the look-up fails") });
        assert_eq!(failing.await, None);
        assert_eq!(flights.run("a", || async { 1 }).await, Some(1));
    }
}
