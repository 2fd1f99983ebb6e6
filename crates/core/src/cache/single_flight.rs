//! One search at a time for each key: those who come later wait for the result of the first.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;

/// Searches under way, by what is searched for. Bounded by the requests under way, as each waits for one.
pub(super) struct SingleFlight<K, V> {
    under_way: Arc<Mutex<HashMap<K, Flight<V>>>>,
    /// Searches run here, whoever waits for them.
    runtime: Handle,
}

/// `None` when the search did not come to an end: it panicked, or the runtime stops.
type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Nothing is searched for yet.
    pub(super) fn new(runtime: Handle) -> Self {
        Self { under_way: Arc::default(), runtime }
    }

    /// The result of the search that is under way for the key, or of a new one. A search runs on its own, so
    /// it ends for the others even if the request that began it goes away.
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
            // Not before: a runtime that has ended drops this at once, while the list is locked.
            let _landing = Landing { under_way: searches, key: landed };
            search.await
        });
        let flight = task.map(Result::ok).boxed().shared();
        under_way.insert(key, flight.clone());
        flight
    }
}

/// Takes the search off the list when it ends, in whatever way.
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
    async fn those_who_come_later_share_the_first_result() {
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
    async fn a_search_ends_for_the_others_when_its_first_request_goes_away() {
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
    async fn a_search_that_panics_gives_nothing_and_is_not_in_the_way() {
        let flights = SingleFlight::<&str, u8>::new(Handle::current());
        let failing = flights.run("a", || async { panic!("the search fails") });
        assert_eq!(failing.await, None);
        assert_eq!(flights.run("a", || async { 1 }).await, Some(1));
    }
}
