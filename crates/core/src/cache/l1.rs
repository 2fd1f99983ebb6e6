//! The in-process cache (L1): bounded in size, and no entry older than the staleness limit.
//!
//! Notifications of other processes replace or evict entries. A look-up that read the older price before the
//! notification arrived must not insert it afterwards. So the look-up inserts first and then checks the
//! announced revisions, while a notification records the revision first and then replaces or evicts: one of
//! the two always sees the other. A flush and the epoch it starts work the same way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::{Cache, EntryAction, EntryResult};
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use super::{Cached, PutMode};
use crate::telemetry::registry::Counter;
use pricing_domain::facts::product::ProductId;

/// The number of announced revisions kept: as many as can arrive while a look-up is in flight.
const ANNOUNCED_KEPT: usize = 65_536;

/// Prices in memory; the least useful ones are evicted when it is full.
pub(super) struct L1 {
    entries: Cache<ProductId, L1Entry, UnitWeighter, DefaultHashBuilder, CountEvictions>,
    /// The latest revisions announced by other processes.
    announced: Cache<ProductId, i64>,
    /// Incremented by every flush.
    epoch: AtomicU64,
    /// Incremented when another catalogue begins.
    catalogues: AtomicU64,
    /// Other processes change prices too, so an entry older than this is looked up again.
    max_staleness: Duration,
}

/// Counts evictions for lack of space only.
#[derive(Clone)]
struct CountEvictions(Counter);

impl Lifecycle<ProductId, L1Entry> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: ProductId, _: L1Entry) {
        self.0.increment(1);
    }
}

#[derive(Clone)]
struct L1Entry {
    cached: Cached,
    confirmed_at: Instant,
}

impl L1 {
    /// Creates an empty cache for this many products.
    pub(super) fn new(capacity: usize, max_staleness: Duration, evictions: Counter) -> Self {
        let weight_capacity = u64::try_from(capacity).unwrap_or(u64::MAX);
        let lifecycle = CountEvictions(evictions);
        let entries =
            Cache::with(capacity, weight_capacity, UnitWeighter, DefaultHashBuilder::default(), lifecycle);
        let announced = Cache::new(ANNOUNCED_KEPT);
        let (epoch, catalogues) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { entries, announced, epoch, catalogues, max_staleness }
    }

    pub(super) fn get(&self, product_id: &str, at: Instant) -> Option<Cached> {
        let held = self.entries.get(product_id)?;
        (at.saturating_duration_since(held.confirmed_at) < self.max_staleness).then_some(held.cached)
    }

    /// As [`get`](Self::get), without counting as a use of the entry.
    pub(super) fn peek(&self, product_id: &str, at: Instant) -> Option<Cached> {
        let held = self.entries.peek(product_id)?;
        (at.saturating_duration_since(held.confirmed_at) < self.max_staleness).then_some(held.cached)
    }

    /// Returns the cached revision, even if the entry is stale.
    pub(super) fn revision(&self, product_id: &str) -> Option<i64> {
        self.entries.peek(product_id).map(|held| held.cached.revision())
    }

    /// Returns the newest cached or announced revision; 0 if there is none.
    pub(super) fn known(&self, product_id: &str) -> i64 {
        let announced = self.announced.get(product_id);
        self.revision(product_id).max(announced).unwrap_or(0)
    }

    /// Inserts the entry unless a newer one is cached. The same revision renews the cached entry. Only for
    /// entries that were just read: see [`put_found`](Self::put_found) and [`apply`](Self::apply).
    fn put(&self, product_id: &ProductId, cached: Cached, mode: PutMode) {
        if mode == PutMode::Replace && self.entries.peek(product_id).is_none() {
            return;
        }
        let revision = cached.revision();
        let held = L1Entry { cached, confirmed_at: Instant::now() };
        let mut offered = Some(held);
        let result = self.entries.entry(product_id, None, |_, known: &mut L1Entry| {
            if known.cached.revision() <= revision
                && let Some(held) = offered.take()
            {
                *known = held;
            }
            EntryAction::Retain(())
        });
        if let (EntryResult::Vacant(guard), Some(held)) = (result, offered) {
            // The insert is refused only if another thread has inserted meanwhile; that entry is kept.
            let _ = guard.insert(held);
        }
    }

    /// Returns the current epoch, which a look-up reads when it begins.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Inserts the result of a look-up that began in this epoch, unless a newer revision was announced since.
    pub(super) fn put_found(&self, product_id: &ProductId, cached: Cached, epoch: u64) {
        let revision = cached.revision();
        self.put(product_id, cached, PutMode::Insert);
        if self.epoch() != epoch {
            self.entries.remove(product_id);
        }
        if let Some(announced) = self.announced.get(product_id)
            && announced > revision
        {
            self.evict(product_id, announced);
        }
    }

    /// Applies a notification, from this process or another, that the product now has this revision. Returns
    /// whether an older one was cached. If the notification carries the new entry, that replaces the older
    /// one, which is evicted otherwise. A product that is not cached is not inserted; a cached one stays
    /// cached as long as it changes often. A late or repeated notification changes nothing and does not renew
    /// the entry. The notification was found to be about the catalogue in use after `catalogues` had been
    /// read.
    pub(super) fn apply(
        &self,
        product_id: &ProductId,
        revision: i64,
        catalogues: u64,
        new_entry: impl FnOnce() -> Option<Cached>,
    ) -> bool {
        self.note(product_id, revision);
        let is_outdated = self.revision(product_id.as_str()).is_some_and(|here| here < revision);
        if is_outdated {
            match new_entry() {
                Some(cached) => self.put(product_id, cached, PutMode::Replace),
                None => self.evict(product_id, revision),
            }
        }
        if self.catalogues() != catalogues {
            self.announced.remove(product_id);
            self.entries.remove(product_id);
        }
        is_outdated
    }

    fn note(&self, product_id: &ProductId, revision: i64) {
        let known = self.announced.get(product_id);
        if known.is_none_or(|known| known < revision) {
            self.announced.insert(product_id.clone(), revision);
        }
    }

    /// Removes every entry.
    pub(super) fn flush(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.entries.clear();
    }

    /// The number of catalogues that were replaced.
    pub(super) fn catalogues(&self) -> u64 {
        self.catalogues.load(Ordering::SeqCst)
    }

    /// Removes every entry, and what was announced: revisions of another catalogue follow.
    pub(super) fn start_over(&self) {
        self.catalogues.fetch_add(1, Ordering::SeqCst);
        self.flush();
        self.announced.clear();
    }

    fn evict(&self, product_id: &ProductId, revision: i64) {
        self.entries.remove_if(product_id, |held| held.cached.revision() < revision);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use pricing_domain::facts::price_entry::PriceEntry;

    fn gone(revision: i64) -> Cached {
        Cached::Gone { revision }
    }

    fn priced(revision: i64) -> Cached {
        let amount = rust_decimal::Decimal::ONE;
        Cached::Priced(Arc::new(PriceEntry {
            product_id: ProductId::parse("P-1").unwrap(),
            category: None,
            currency: pricing_domain::facts::money::Currency::from_code("USD").unwrap(),
            base_price: amount,
            list_price: amount,
            lowest: None,
            highest: None,
            policy_version: 1,
            revision,
            valid_until: None,
        }))
    }

    /// Returns the entry served now.
    fn get(l1: &L1, product_id: &str) -> Option<Cached> {
        l1.get(product_id, Instant::now())
    }

    #[test]
    fn an_older_revision_never_replaces_a_newer_one() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        for (revision, expected) in [(5, 5), (3, 5), (5, 5), (6, 6), (1, 6)] {
            l1.put(&id, gone(revision), PutMode::Insert);
            assert_eq!(get(&l1, "P-1"), Some(gone(expected)));
        }
        assert_eq!(get(&l1, "P-2"), None);
    }

    #[test]
    fn only_evictions_for_lack_of_space_are_counted() {
        let counted = Arc::new(AtomicU64::new(0));
        let l1 = L1::new(100, Duration::from_secs(60), Counter::from_arc(Arc::clone(&counted)));
        let ids: Vec<ProductId> =
            (0..100).map(|number| ProductId::parse(&format!("P-{number}")).unwrap()).collect();
        for id in ids.iter().take(50) {
            l1.put(id, gone(1), PutMode::Insert);
            l1.put(id, gone(2), PutMode::Insert);
            l1.apply(id, 3, l1.catalogues(), || None);
            l1.put(id, gone(3), PutMode::Insert);
        }
        assert_eq!((l1.len(), counted.load(Ordering::SeqCst)), (50, 0));
        for round in 0..100 {
            let id = ProductId::parse(&format!("P-{round}-more")).unwrap();
            l1.put(&id, gone(1), PutMode::Insert);
        }
        let held = u64::try_from(l1.len()).unwrap();
        assert!(held <= 100);
        assert_eq!(counted.load(Ordering::SeqCst), 150 - held);
    }

    #[test]
    fn an_entry_that_is_not_renewed_goes_stale() {
        let l1 = L1::new(10, Duration::ZERO, Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        l1.put(&id, gone(1), PutMode::Insert);
        assert_eq!(get(&l1, "P-1"), None);
    }

    #[test]
    fn replace_mode_inserts_nothing() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        l1.put(&id, gone(1), PutMode::Replace);
        assert_eq!(get(&l1, "P-1"), None);
        l1.put(&id, gone(2), PutMode::Insert);
        l1.put(&id, gone(3), PutMode::Replace);
        assert_eq!(get(&l1, "P-1"), Some(gone(3)));
    }

    #[test]
    fn an_announced_revision_evicts_older_entries_and_rejects_late_look_ups() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        let epoch = l1.epoch();
        l1.put_found(&id, gone(5), epoch);
        assert!(!l1.apply(&id, 5, l1.catalogues(), || None));
        assert_eq!(get(&l1, "P-1"), Some(gone(5)));
        assert!(l1.apply(&id, 7, l1.catalogues(), || None));
        assert_eq!(get(&l1, "P-1"), None);
        // A look-up that read revision 6 before the notification arrived.
        l1.put_found(&id, gone(6), epoch);
        assert_eq!(get(&l1, "P-1"), None);
        l1.put_found(&id, gone(7), epoch);
        assert_eq!(get(&l1, "P-1"), Some(gone(7)));
        assert!(!l1.apply(&id, 6, l1.catalogues(), || None));
        assert_eq!(get(&l1, "P-1"), Some(gone(7)));
    }

    #[test]
    fn an_announced_entry_replaces_older_ones_and_rejects_late_look_ups() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        let epoch = l1.epoch();
        assert!(!l1.apply(&id, 3, l1.catalogues(), || panic!("the entry must not be decoded")));
        assert_eq!(get(&l1, "P-1"), None, "a product that was never read is not inserted");
        l1.put_found(&id, gone(5), epoch);
        for (announced, is_news, expected) in [(4, false, 5), (5, false, 5), (7, true, 7), (6, false, 7)] {
            assert_eq!(
                l1.apply(&id, announced, l1.catalogues(), || Some(priced(announced))),
                is_news,
                "{announced}"
            );
            assert_eq!(get(&l1, "P-1").map(|held| held.revision()), Some(expected));
        }
        // A look-up that read revision 6 before the notification arrived, and another after the price was
        // evicted.
        l1.put_found(&id, gone(6), epoch);
        assert_eq!(get(&l1, "P-1").map(|held| held.revision()), Some(7));
        l1.flush();
        l1.put_found(&id, gone(6), l1.epoch());
        assert_eq!(get(&l1, "P-1"), None);
    }

    #[test]
    fn a_late_or_repeated_notification_changes_and_renews_nothing() {
        let staleness = Duration::from_secs(60);
        let l1 = L1::new(10, staleness, Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        l1.put_found(&id, priced(5), l1.epoch());
        let confirmed = Instant::now();
        while Instant::now() == confirmed {}
        assert!(!l1.apply(&id, 5, l1.catalogues(), || Some(priced(5))));
        assert_eq!(l1.get("P-1", confirmed + staleness), None);
        // A later revision was already announced by another process.
        l1.apply(&id, 7, l1.catalogues(), || None);
        assert!(!l1.apply(&id, 6, l1.catalogues(), || Some(priced(6))));
        assert_eq!(get(&l1, "P-1"), None);
    }

    #[test]
    fn a_look_up_from_before_a_flush_is_not_kept() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        let before = l1.epoch();
        l1.put_found(&id, gone(1), before);
        l1.flush();
        assert_eq!(get(&l1, "P-1"), None);
        l1.put_found(&id, gone(1), before);
        assert_eq!(get(&l1, "P-1"), None);
        l1.put_found(&id, gone(1), l1.epoch());
        assert_eq!(get(&l1, "P-1"), Some(gone(1)));
    }

    #[test]
    fn nothing_of_a_replaced_catalogue_stays() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        let before = l1.catalogues();
        l1.apply(&id, 90, before, || None);
        l1.start_over();
        l1.put_found(&id, gone(5), l1.epoch());
        assert_eq!(get(&l1, "P-1"), Some(gone(5)), "what was announced does not count any more");
        // A notification that was found to be of the catalogue in use just before that was replaced.
        l1.apply(&id, 91, before, || Some(priced(91)));
        assert_eq!((get(&l1, "P-1"), l1.known("P-1")), (None, 0));
    }

    #[test]
    fn concurrent_notifications_and_look_ups_leave_nothing_older_than_announced() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        for revision in 1..2_000 {
            std::thread::scope(|scope| {
                scope.spawn(|| l1.put_found(&id, gone(revision - 1), l1.epoch()));
                scope.spawn(|| {
                    l1.apply(&id, revision, l1.catalogues(), || (revision % 2 == 0).then(|| priced(revision)))
                });
            });
            let kept = get(&l1, "P-1").map(|kept| kept.revision());
            assert!(kept.is_none_or(|kept| kept >= revision), "{kept:?} after {revision} was announced");
        }
    }

    #[test]
    fn it_stays_within_its_bound() {
        let l1 = L1::new(100, Duration::from_secs(60), Counter::noop());
        for number in 0..10_000 {
            l1.put(&ProductId::parse(&format!("P-{number}")).unwrap(), gone(1), PutMode::Insert);
        }
        assert!(l1.len() <= 110, "{}", l1.len());
    }

    #[test]
    fn concurrent_puts_leave_the_newest() {
        let l1 = L1::new(10, Duration::from_secs(60), Counter::noop());
        let id = ProductId::parse("P-1").unwrap();
        std::thread::scope(|scope| {
            for offset in 0..8 {
                let (l1, id) = (&l1, &id);
                scope.spawn(move || {
                    (0..1_000).for_each(|step| l1.put(id, gone(step * 8 + offset), PutMode::Insert))
                });
            }
        });
        assert_eq!(get(&l1, "P-1"), Some(gone(7_999)));
    }
}
