//! The policies and location factors that quotes use: an immutable snapshot in every process, replaced as a
//! whole.
//!
//! A quote uses the policy that its price entry was computed by, so a process keeps the current version and
//! the previous one: while a run moves the products to a new version, both are in use. Location factors take
//! effect at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use rust_decimal::Decimal;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::{NewPolicy, Store, StoreError, StoredPolicy};
use pricing_domain::diagnostic::{Diagnostic, Location, Severity};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::DEFAULT_POLICY;
use pricing_domain::policy::PricingPolicy;

/// How often a process polls for a new policy or location factor.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The policy versions that a process keeps: the current one and the previous one.
const VERSIONS_KEPT: u32 = 2;

/// How many of the latest versions a starting process searches for one that it can use.
const VERSIONS_SEARCHED: u32 = 100;

/// Policies and location factors as of one instant. There is always a current policy.
#[derive(Debug, Clone)]
pub struct PolicySnapshot {
    current: Arc<PricingPolicy>,
    previous: Option<Arc<PricingPolicy>>,
    /// The reason that the newest policy is unusable, if it has been since this process started.
    unusable: Option<String>,
    location_factors: HashMap<String, Decimal>,
    /// The digests of the texts of those that are kept.
    known: Vec<KnownPolicy>,
    /// The catalogue that they were read from: the number of those before it.
    catalogue: u64,
    /// The sequence number of the read, in the order in which this process began them.
    begun: u64,
}

/// A policy version with a digest of its text: versions are immutable, so another text means another
/// database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPolicy {
    /// The version.
    pub version: i64,
    /// The XXH3 digest of its text.
    pub digest: u64,
}

impl KnownPolicy {
    /// The digest of a published policy.
    pub fn of(stored: &StoredPolicy) -> Self {
        Self { version: stored.version, digest: xxh3_64(stored.source.as_bytes()) }
    }
}

impl PolicySnapshot {
    /// The policy that new prices are computed by.
    pub fn current(&self) -> &Arc<PricingPolicy> {
        &self.current
    }

    /// The policy of this version, if it is still in use.
    pub fn policy(&self, version: i64) -> Option<&Arc<PricingPolicy>> {
        std::iter::once(&self.current).chain(&self.previous).find(|policy| policy.version == version)
    }

    /// The catalogue that the policies were read from: the number of those that this process used before.
    pub fn catalogue(&self) -> u64 {
        self.catalogue
    }

    /// The current policy, with the digest of its text.
    pub fn newest(&self) -> KnownPolicy {
        let version = self.current.version;
        let known = self.known.iter().find(|known| known.version == version);
        known.copied().unwrap_or(KnownPolicy { version, digest: 0 })
    }

    /// Whether a later read has another text of a version.
    fn is_contradicted_by(&self, read: &Self) -> bool {
        let is_another =
            |known: &KnownPolicy, read: &KnownPolicy| known.version == read.version && known != read;
        self.known.iter().any(|known| read.known.iter().any(|read| is_another(known, read)))
    }

    /// The factors set for locations.
    pub fn location_factors(&self) -> &HashMap<String, Decimal> {
        &self.location_factors
    }

    /// The factor set for a location.
    pub fn location_factor(&self, location: &str) -> Option<Decimal> {
        self.location_factors.get(location).copied()
    }
}

/// The reason that the policies could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicySnapshotError {
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A published policy does not pass this version's checks.
    #[error("policy version {version} cannot be used: {problem}")]
    Invalid {
        /// The version.
        version: i64,
        /// The first problem.
        problem: String,
    },
    /// No policy was ever published.
    #[error("no policy is published")]
    Missing,
}

/// The current snapshot of a process; cheap to clone.
#[derive(Clone)]
pub struct Policies {
    store: Store,
    zones: TimeZones,
    snapshot: Arc<ArcSwap<PolicySnapshot>>,
    reads: Arc<AtomicU64>,
    /// One more than the catalogue in which a known version had another text; 0: none.
    contradicted: Arc<AtomicU64>,
}

impl Policies {
    /// Reads the policies, after publishing the default one in a new store. `zones` is the time zone
    /// database.
    pub async fn load(store: Store, zones: TimeZones) -> Result<Self, PolicySnapshotError> {
        let first = NewPolicy {
            name: "default".to_owned(),
            source: DEFAULT_POLICY.to_owned(),
            author: "pricing engine".to_owned(),
            note: "the policy every installation starts with".to_owned(),
        };
        store.publish_first_policy(&first, chrono::Utc::now()).await?;
        let snapshot = Arc::new(ArcSwap::from_pointee(read_all(&store, &zones).await?));
        Ok(Self { store, zones, snapshot, reads: Arc::default(), contradicted: Arc::default() })
    }

    /// The snapshot in use; hold it for one request, not longer.
    pub fn snapshot(&self) -> Guard<Arc<PolicySnapshot>> {
        self.snapshot.load()
    }

    /// The time zones that policies are compiled with.
    pub fn time_zones(&self) -> &TimeZones {
        &self.zones
    }

    /// Whether quotes can use this policy version.
    pub fn knows(&self, version: i64) -> bool {
        self.snapshot.load().policy(version).is_some()
    }

    /// Returns why this version of the engine cannot use the newest policy, if that has been so since this
    /// process started: prices that other processes compute by it are left to them. An unusable policy that
    /// appears later does not count, as prices of the known ones can still be served.
    pub fn unusable(&self) -> Option<String> {
        self.snapshot.load().unusable.clone()
    }

    /// Returns the part of the current policy that would be refused if it were published today, if any; the
    /// policy keeps its meaning.
    pub fn outdated(&self) -> Option<String> {
        outdated(self.snapshot.load().current())
    }

    /// Reads the policies and factors now.
    pub async fn refresh(&self) -> Result<(), PolicySnapshotError> {
        let begun = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let catalogue = self.store.catalogue.get();
        let snapshot = self.snapshot.load_full();
        // Versions of another catalogue are others.
        let known = Some(&*snapshot).filter(|known| known.catalogue == catalogue.generation());
        let read = match known {
            Some(known) => read(&self.store, &self.zones, Some(known), VERSIONS_KEPT).await?,
            None => read_all(&self.store, &self.zones).await?,
        };
        if known.is_some_and(|known| known.is_contradicted_by(&read)) {
            tracing::error!("a published policy has another text than before; it is compiled again");
            self.contradicted.store(catalogue.generation() + 1, Ordering::Relaxed);
            catalogue.suspect();
        }
        let unusable = snapshot.unusable.as_ref().and(read.unusable);
        let read = Arc::new(PolicySnapshot { begun, catalogue: catalogue.generation(), unusable, ..read });
        // Of concurrent reads, one that began earlier may finish last; it must not replace a newer one.
        self.snapshot.rcu(|held| {
            let order =
                |snapshot: &PolicySnapshot| (snapshot.catalogue, snapshot.current.version, snapshot.begun);
            Arc::clone(if order(held) < order(&read) { &read } else { held })
        });
        Ok(())
    }

    /// The catalogue in which a known policy version had another text, as the number of those before it.
    pub fn contradicted(&self) -> Option<u64> {
        self.contradicted.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Polls every five seconds until shutdown. While the database is unavailable, the last snapshot stays in
    /// use.
    pub async fn poll(self, shutdown: CancellationToken) {
        let mut failing = false;
        while shutdown.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            let refreshed = self.refresh().await;
            if let (Err(error), false) = (&refreshed, failing) {
                tracing::warn!(%error, "could not read policies; the last snapshot stays in use");
            }
            failing = refreshed.is_err();
        }
    }
}

/// Reads policies and factors of a catalogue of which none is known.
async fn read_all(store: &Store, zones: &TimeZones) -> Result<PolicySnapshot, PolicySnapshotError> {
    match read(store, zones, None, VERSIONS_KEPT).await {
        Err(PolicySnapshotError::Invalid { .. }) => read(store, zones, None, VERSIONS_SEARCHED).await,
        other => other,
    }
}

/// Reads policies and factors. A known version is compiled again only if its text is another one.
async fn read(
    store: &Store,
    zones: &TimeZones,
    known: Option<&PolicySnapshot>,
    versions: u32,
) -> Result<PolicySnapshot, PolicySnapshotError> {
    let (stored, location_factors) =
        tokio::try_join!(store.latest_policies(versions), store.location_factors())?;
    let mut usable = Vec::new();
    let mut problem = PolicySnapshotError::Missing;
    let mut unusable = None;
    for stored in &stored {
        let policy = known.filter(|known| known.known.contains(&KnownPolicy::of(stored)));
        match policy.and_then(|known| known.policy(stored.version)) {
            Some(policy) => usable.push(Arc::clone(policy)),
            None => match compile(stored, zones) {
                Ok(policy) => usable.push(policy),
                // Published by a newer version of the engine. The newest usable policy stays in use.
                Err(error) => {
                    tracing::error!(%error, "skipping a published policy that this version cannot use");
                    if usable.is_empty() {
                        unusable.get_or_insert_with(|| error.to_string());
                    }
                    problem = error;
                }
            },
        }
    }
    let mut usable = usable.into_iter();
    let current = usable.next().or_else(|| known.map(|known| Arc::clone(&known.current))).ok_or(problem)?;
    let previous = usable.next().or_else(|| {
        // Still in use until all products are re-priced by the current one.
        let mut known =
            known.into_iter().flat_map(|known| std::iter::once(&known.current).chain(&known.previous));
        known.find(|known| known.version < current.version).cloned()
    });
    let read = stored.iter().map(KnownPolicy::of);
    let kept = known.into_iter().flat_map(|known| known.known.iter().copied());
    let kept = kept.filter(|kept| stored.iter().all(|stored| stored.version != kept.version));
    let mut digests: Vec<KnownPolicy> = read.chain(kept).collect();
    digests.retain(|known| {
        std::iter::once(&current).chain(&previous).any(|policy| policy.version == known.version)
    });
    Ok(PolicySnapshot {
        current,
        previous,
        unusable,
        location_factors,
        known: digests,
        catalogue: 0,
        begun: 0,
    })
}

fn compile(stored: &StoredPolicy, zones: &TimeZones) -> Result<Arc<PricingPolicy>, PolicySnapshotError> {
    let compiled = PricingPolicy::from_stored_yaml(&stored.source, stored.version, zones);
    let policy = compiled.map_err(|problems| PolicySnapshotError::Invalid {
        version: stored.version,
        problem: first_fault(&problems).map(described).unwrap_or_default(),
    })?;
    if let Some(outdated) = outdated(&policy) {
        tracing::warn!(
            version = stored.version,
            problem = outdated,
            "a published policy keeps its meaning, but would be refused today"
        );
    }
    Ok(Arc::new(policy))
}

/// Returns the first error that makes a stored policy unusable; parts that are merely refused today do not.
fn first_fault(problems: &[Diagnostic]) -> Option<&Diagnostic> {
    problems.iter().find(|problem| problem.severity == Severity::Error).or_else(|| problems.first())
}

/// Describes the first problem for which a stored policy would be refused today, and the number of others.
fn outdated(policy: &PricingPolicy) -> Option<String> {
    let mut refusals = policy.refusals();
    let first = described(refusals.next()?);
    let more = match refusals.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("version {} would be refused today: {first}{more}", policy.version))
}

fn described(problem: &Diagnostic) -> String {
    match problem.place {
        Some(Location { line, column }) => format!("{line}:{column}: {problem}"),
        None => problem.to_string(),
    }
}
