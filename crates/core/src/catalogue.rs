//! The catalogue that a process works with: the identity of its database, and the newest price that is known
//! to have been in it.
//!
//! A database that is restored from a backup gives revisions and policy versions a second time. It therefore
//! gets a new identity, and every process replaces its [`Catalogue`]: keys in Redis, notifications and what
//! is in memory belong to one catalogue. Here: what the parts of a process share about it. Where next:
//! `engine::watch` finds out that the database is behind.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use pricing_domain::facts::product::ProductId;

/// How far a revision may be beyond the last one that the database was seen to have issued, and still be one
/// of its own. More than an installation issues in a day, so that the entries of a database that was restored
/// from a backup still contradict it (`engine::watch`) instead of being passed over.
const REVISIONS_AHEAD: i64 = 10_000_000_000;

/// A catalogue, from its first use by this process until another one replaces it.
#[derive(Debug)]
pub struct Catalogue {
    identity: String,
    generation: u64,
    newest_revision: AtomicI64,
    issued_revision: AtomicI64,
    newest: Mutex<Option<KnownPrice>>,
    suspected: Arc<Notify>,
}

/// A price, or a removal, that was in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPrice {
    /// The product.
    pub product_id: ProductId,
    /// The revision.
    pub revision: i64,
}

impl Catalogue {
    fn new(identity: &str, generation: u64, suspected: Arc<Notify>) -> Self {
        Self {
            identity: identity.to_owned(),
            generation,
            newest_revision: AtomicI64::new(0),
            issued_revision: AtomicI64::new(0),
            newest: Mutex::default(),
            suspected,
        }
    }

    /// The identity of the database, unique among all databases.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The number of catalogues that this process has used before this one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Notes a committed price; nearly always there is a newer one, and nothing to be done.
    pub fn note(&self, product_id: &ProductId, revision: i64) {
        if self.newest_revision.load(Ordering::Relaxed) >= revision {
            return;
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_ref().is_none_or(|known| known.revision < revision) {
            *newest = Some(KnownPrice { product_id: product_id.clone(), revision });
            self.newest_revision.store(revision, Ordering::Relaxed);
        }
    }

    /// The newest revision that was noted; 0 if there is none.
    pub fn newest_revision(&self) -> i64 {
        self.newest_revision.load(Ordering::Relaxed)
    }

    /// Notes the last revision that the database has issued.
    pub fn note_issued(&self, revision: i64) {
        self.issued_revision.fetch_max(revision, Ordering::Relaxed);
    }

    /// The largest revision that the database can have issued by now, whatever other processes do.
    pub fn largest_possible_revision(&self) -> i64 {
        self.issued_revision.load(Ordering::Relaxed).saturating_add(REVISIONS_AHEAD)
    }

    /// Whether this can be a revision of this catalogue. Another one was written by something else, and would
    /// win over every price for ever.
    pub fn can_have_issued(&self, revision: i64) -> bool {
        (0..=self.largest_possible_revision()).contains(&revision)
    }

    /// Has the database checked at once: what it says contradicts what is known.
    pub fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// The newest price that was noted.
    pub fn newest(&self) -> Option<KnownPrice> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The current catalogue of a process. The clones of a handle change together.
#[derive(Clone)]
pub struct CurrentCatalogue {
    current: Arc<watch::Sender<Arc<Catalogue>>>,
    suspected: Arc<Notify>,
}

impl CurrentCatalogue {
    /// A handle to the catalogue with this identity.
    pub fn new(identity: &str) -> Self {
        let suspected = Arc::new(Notify::new());
        let first = Arc::new(Catalogue::new(identity, 0, Arc::clone(&suspected)));
        Self { current: Arc::new(watch::Sender::new(first)), suspected }
    }

    /// The catalogue now; work that has begun with it ends with it.
    pub fn get(&self) -> Arc<Catalogue> {
        Arc::clone(&self.current.borrow())
    }

    /// Whether this is still the catalogue in use.
    pub fn is_current(&self, catalogue: &Catalogue) -> bool {
        self.current.borrow().generation == catalogue.generation
    }

    /// Replaces the catalogue, unless it has this identity already.
    pub fn replace(&self, identity: &str) {
        self.current.send_if_modified(|current| {
            let is_another = current.identity != identity;
            if is_another {
                let suspected = Arc::clone(&self.suspected);
                *current = Arc::new(Catalogue::new(identity, current.generation + 1, suspected));
            }
            is_another
        });
    }

    /// Waits until the database has to be checked at once.
    pub async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// Sees each replacement from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.current.subscribe()
    }
}

impl From<&str> for CurrentCatalogue {
    fn from(identity: &str) -> Self {
        Self::new(identity)
    }
}

impl fmt::Debug for CurrentCatalogue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CurrentCatalogue").field(&self.get().identity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_price_is_known_whatever_the_order() {
        let catalogue = CurrentCatalogue::new("a").get();
        assert_eq!(catalogue.newest(), None);
        for (name, revision) in [("P-1", 4), ("P-2", 9), ("P-3", 7)] {
            catalogue.note(&ProductId::parse(name).unwrap(), revision);
        }
        let newest = KnownPrice { product_id: ProductId::parse("P-2").unwrap(), revision: 9 };
        assert_eq!(catalogue.newest(), Some(newest));
    }

    #[test]
    fn a_revision_that_the_database_cannot_have_issued_is_known_for_one() {
        let catalogue = CurrentCatalogue::new("a").get();
        for (revision, expected) in
            [(0, true), (REVISIONS_AHEAD, true), (-1, false), (REVISIONS_AHEAD + 1, false), (i64::MAX, false)]
        {
            assert_eq!(catalogue.can_have_issued(revision), expected, "{revision}");
        }
        catalogue.note_issued(7);
        catalogue.note_issued(5);
        assert_eq!(catalogue.largest_possible_revision(), REVISIONS_AHEAD + 7);
        catalogue.note_issued(i64::MAX - 1);
        assert!(catalogue.can_have_issued(i64::MAX));
    }

    #[test]
    fn a_replaced_catalogue_is_noticed_and_leaves_nothing_behind() {
        let current = CurrentCatalogue::new("a");
        let (first, seen) = (current.get(), current.subscribe());
        current.replace("a");
        assert!(current.is_current(&first) && !seen.has_changed().unwrap());
        current.replace("b");
        first.note(&ProductId::parse("P-1").unwrap(), 9);
        assert!(!current.is_current(&first) && seen.has_changed().unwrap());
        assert_eq!((current.get().identity(), current.get().newest()), ("b", None));
        // The same identity again is another catalogue: what is in memory was of the one in between.
        current.replace("a");
        assert!(!current.is_current(&first));
    }
}
