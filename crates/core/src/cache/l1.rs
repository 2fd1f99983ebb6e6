//! The cache in this process' memory: bounded, and no older than Redis' word allows.

use std::time::{Duration, Instant};

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::{Cached, PutMode};
use crate::domain::product::ProductId;

/// Prices in memory, the least useful evicted when it is full.
pub(super) struct L1 {
    entries: Cache<ProductId, Held>,
    /// Other processes change prices too; after this long an entry is looked up again.
    max_staleness: Duration,
}

#[derive(Clone)]
struct Held {
    cached: Cached,
    confirmed_at: Instant,
}

impl L1 {
    /// Room for this many products.
    pub(super) fn new(capacity: usize, max_staleness: Duration) -> Self {
        Self { entries: Cache::new(capacity), max_staleness }
    }

    pub(super) fn get(&self, product_id: &str) -> Option<Cached> {
        let held = self.entries.get(product_id)?;
        (held.confirmed_at.elapsed() < self.max_staleness).then_some(held.cached)
    }

    /// The revision that is held, however old the word of it.
    pub(super) fn revision(&self, product_id: &str) -> Option<i64> {
        self.entries.peek(product_id).map(|held| held.cached.revision())
    }

    /// Puts it unless something newer is there. The same revision confirms what is there.
    pub(super) fn put(&self, product_id: &ProductId, cached: Cached, mode: PutMode) {
        if mode == PutMode::Replace && self.entries.peek(product_id).is_none() {
            return;
        }
        let revision = cached.revision();
        let held = Held { cached, confirmed_at: Instant::now() };
        let mut offered = Some(held);
        let result = self.entries.entry(product_id, None, |_, known: &mut Held| {
            if known.cached.revision() <= revision
                && let Some(held) = offered.take()
            {
                *known = held;
            }
            EntryAction::Retain(())
        });
        if let (EntryResult::Vacant(guard), Some(held)) = (result, offered) {
            // The cache refuses only when somebody else has inserted meanwhile, and then that one stands.
            let _ = guard.insert(held);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(revision: i64) -> Cached {
        Cached::Gone { revision }
    }

    #[test]
    fn an_older_revision_never_replaces_a_newer_one() {
        let l1 = L1::new(10, Duration::from_secs(60));
        let id = ProductId::parse("P-1").unwrap();
        for (revision, expected) in [(5, 5), (3, 5), (5, 5), (6, 6), (1, 6)] {
            l1.put(&id, gone(revision), PutMode::Insert);
            assert_eq!(l1.get("P-1"), Some(gone(expected)));
        }
        assert_eq!(l1.get("P-2"), None);
    }

    #[test]
    fn an_entry_nobody_confirms_is_not_served() {
        let l1 = L1::new(10, Duration::ZERO);
        let id = ProductId::parse("P-1").unwrap();
        l1.put(&id, gone(1), PutMode::Insert);
        assert_eq!(l1.get("P-1"), None);
    }

    #[test]
    fn what_is_only_to_be_replaced_is_not_inserted() {
        let l1 = L1::new(10, Duration::from_secs(60));
        let id = ProductId::parse("P-1").unwrap();
        l1.put(&id, gone(1), PutMode::Replace);
        assert_eq!(l1.get("P-1"), None);
        l1.put(&id, gone(2), PutMode::Insert);
        l1.put(&id, gone(3), PutMode::Replace);
        assert_eq!(l1.get("P-1"), Some(gone(3)));
    }

    #[test]
    fn it_stays_within_its_bound() {
        let l1 = L1::new(100, Duration::from_secs(60));
        for number in 0..10_000 {
            l1.put(&ProductId::parse(&format!("P-{number}")).unwrap(), gone(1), PutMode::Insert);
        }
        assert!(l1.len() <= 110, "{}", l1.len());
    }

    #[test]
    fn concurrent_puts_leave_the_newest() {
        let l1 = L1::new(10, Duration::from_secs(60));
        let id = ProductId::parse("P-1").unwrap();
        std::thread::scope(|scope| {
            for offset in 0..8 {
                let (l1, id) = (&l1, &id);
                scope.spawn(move || {
                    (0..1_000).for_each(|step| l1.put(id, gone(step * 8 + offset), PutMode::Insert))
                });
            }
        });
        assert_eq!(l1.get("P-1"), Some(gone(7_999)));
    }
}
