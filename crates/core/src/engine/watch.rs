//! Finds out that the database is behind what processes and caches know of it, because it was restored from a
//! backup, and makes this process work with it as with another database.
//!
//! Every five seconds, and at once if a write contradicts what is known, a process compares the database with
//! the newest price that it has seen, with the policy that it uses, and with the mark in Redis, which all
//! processes raise: price and policy must be in the database as they were. If they are not, the first process
//! to see it gives the database a new identity. A process that sees another identity than its own, for this
//! reason or because an operator changed it, replaces its keys in Redis, empties its memory and reads the
//! policies again.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError};
use crate::catalogue::{Catalogue, KnownPrice};
use crate::policy_snapshot::KnownPolicy;
use crate::redis::RedisError;
use crate::store::{Progress, StoreError};
use pricing_domain::facts::product::ProductId;

/// How often the database is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the mark is raised, if there is something new.
const MARK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a start waits for the mark.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// The identities that one check looks at: the former one, that of the backup and a new one.
const IDENTITIES: usize = 3;
/// The digits of numbers in the mark.
const DIGITS: usize = 20;

/// How far a catalogue has come, for all that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mark {
    newest: Option<KnownPrice>,
    policy: Option<KnownPolicy>,
}

impl Engine {
    /// Checks the database once, before it is used; a Redis that does not answer is left to the next check.
    pub(super) async fn check_catalogue_at_start(&self) -> Result<(), StoreError> {
        match timeout(START_TIMEOUT, self.check_catalogue()).await {
            Ok(Err(EngineError::Store(error))) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Checks the database, and raises the mark, until shutdown.
    pub(super) async fn watch_catalogue(self, shutdown: CancellationToken) {
        let (mut raised, mut checked_at, mut is_failing) = (Mark::default(), Instant::now(), false);
        let mut is_suspected = false;
        while !shutdown.is_cancelled() {
            if is_suspected || checked_at.elapsed() >= CHECK_INTERVAL || self.has_former_policies() {
                let checked = self.check_catalogue().await;
                if let (Err(error), false) = (&checked, is_failing) {
                    tracing::warn!(%error, "could not check whether the database is behind; retrying");
                }
                is_failing = checked.is_err();
                checked_at = Instant::now();
            } else {
                self.raise_mark_if_new(&mut raised).await;
            }
            is_suspected = tokio::select! {
                () = tokio::time::sleep(MARK_INTERVAL) => false,
                () = self.store.catalogue.suspected() => true,
                () = shutdown.cancelled() => false,
            };
        }
        // A process that starts on a restored database while no other runs has only the mark.
        self.raise_mark_if_new(&mut raised).await;
    }

    /// Whether the policies of a former catalogue are still in use, because they could not be read again.
    fn has_former_policies(&self) -> bool {
        self.policies.snapshot().catalogue() != self.store.catalogue.get().generation()
    }

    async fn raise_mark_if_new(&self, raised: &mut Mark) {
        let catalogue = self.store.catalogue.get();
        let mark = self.known(&catalogue);
        if mark != *raised && self.raise_mark(&catalogue, &mark).await.is_ok() {
            *raised = mark;
        }
    }

    /// Compares the database with what is known of it.
    async fn check_catalogue(&self) -> Result<(), EngineError> {
        for _ in 0..IDENTITIES {
            let catalogue = self.store.catalogue.get();
            // Read before the database: what was known then must be in it.
            let known = self.known(&catalogue);
            let mark = self.raise_mark(&catalogue, &known).await;
            let mark = mark.unwrap_or_else(|error| {
                tracing::debug!(%error, "could not raise the mark of the catalogue");
                known
            });
            let progress = self.store.progress(mark.newest.as_ref()).await?;
            let identity = if progress.identity != catalogue.identity() {
                tracing::warn!(identity = progress.identity, "the database has another identity");
                progress.identity
            } else if let Some(what) = self.contradiction(&catalogue, &mark, &progress).await? {
                let identity = self.store.replace_identity(catalogue.identity()).await?;
                tracing::error!(
                    former = catalogue.identity(),
                    identity,
                    what,
                    "the database is behind what is known of it, as if restored from a backup: caches start empty under a new identity"
                );
                identity
            } else {
                catalogue.note_issued(progress.last_revision);
                if self.has_former_policies() {
                    self.policies.refresh().await?;
                }
                return Ok(());
            };
            self.start_over(&identity).await?;
        }
        Ok(())
    }

    /// Says what the database cannot have if it is the one that is known, if there is such a thing.
    async fn contradiction(
        &self,
        catalogue: &Catalogue,
        mark: &Mark,
        progress: &Progress,
    ) -> Result<Option<String>, StoreError> {
        if let Some(known) = mark.newest.as_ref().filter(|known| progress.is_before(known)) {
            let KnownPrice { product_id, revision } = known;
            let (last, newest) = (progress.last_revision, progress.product_revision);
            return Ok(Some(format!(
                "{product_id} had revision {revision}, and the database knows {newest} of it, of {last} in all"
            )));
        }
        if self.policies.contradicted() == Some(catalogue.generation()) {
            return Ok(Some("a policy version has another text than before".to_owned()));
        }
        let Some(KnownPolicy { version, digest }) = mark.policy else { return Ok(None) };
        let stored = self.store.policy(version).await?.map(|policy| KnownPolicy::of(&policy).digest);
        Ok((stored != Some(digest)).then(|| format!("policy version {version} is gone, or has another text")))
    }

    /// Works with the database as with one that is not known yet.
    async fn start_over(&self, identity: &str) -> Result<(), EngineError> {
        // In this order: a look-up that began before the second step leaves nothing in memory.
        self.store.catalogue.replace(identity);
        self.cache.start_over();
        self.metrics.catalogues_replaced.increment(1);
        self.policies.refresh().await?;
        Ok(())
    }

    /// What this process knows of a catalogue.
    fn known(&self, catalogue: &Catalogue) -> Mark {
        let policies = self.policies.snapshot();
        let policy = (policies.catalogue() == catalogue.generation()).then(|| policies.newest());
        Mark { newest: catalogue.newest(), policy }
    }

    /// Raises the mark of a catalogue to what is known, and returns it.
    async fn raise_mark(&self, catalogue: &Arc<Catalogue>, known: &Mark) -> Result<Mark, RedisError> {
        let script = Script::new(include_str!("catalogue_mark.lua"));
        let number = |number: i64| format!("{number:0DIGITS$}");
        let mut raise = script.key(self.cache.keys().of(catalogue).mark());
        raise
            .arg(known.newest.as_ref().map(|newest| number(newest.revision)).unwrap_or_default())
            .arg(known.newest.as_ref().map(|newest| newest.product_id.as_str()).unwrap_or_default())
            .arg(known.policy.map(|policy| number(policy.version)).unwrap_or_default())
            .arg(known.policy.map(|policy| policy.digest.to_string()).unwrap_or_default());
        let (revision, product_id, version, digest): (
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
        ) = raise.invoke_async(&mut self.redis.writes()).await?;
        let newest = || {
            let product_id = ProductId::parse(&product_id?).ok()?;
            Some(KnownPrice { product_id, revision: revision?.parse().ok()? })
        };
        let policy = || Some(KnownPolicy { version: version?.parse().ok()?, digest: digest?.parse().ok()? });
        Ok(Mark { newest: newest(), policy: policy() })
    }
}
