//! Keeps a connection's links at the cluster's masters.
//!
//! Every second, it asks one master after the other where slots are; if the answer differs from what is
//! known, or there is none, or a command suspects it, all nodes that are known are asked at once. So a link
//! follows a fail-over without traffic, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{sleep, timeout};

use super::view::{self, View};
use super::{Nodes, Shared};
use crate::redis::opening::OpenError;

/// How often a master is asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// The pause between looks, however many commands ask for one.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a keeper runs.
#[derive(Default)]
pub(super) struct Running(AtomicBool);

/// Starts a keeper unless one runs.
pub(super) fn ensure(shared: &Arc<Shared>) {
    if !shared.keeper.0.load(Ordering::Relaxed) && !shared.keeper.0.swap(true, Ordering::AcqRel) {
        tokio::spawn(keep(Ended(Arc::downgrade(shared))));
    }
}

/// Notes that the keeper has ended, however it did: the next command starts another.
struct Ended(Weak<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.keeper.0.store(false, Ordering::Release);
        }
    }
}

async fn keep(shared: Ended) {
    let mut is_wanted = true;
    for turn in 0.. {
        let Some(shared) = shared.0.upgrade() else { return };
        if is_wanted || !shared.is_confirmed(turn).await {
            shared.look().await;
        }
        sleep(PAUSE).await;
        is_wanted = shared.is_wanted().await;
    }
}

impl Shared {
    /// Waits until it is time to look. Returns whether a command asks for it.
    async fn is_wanted(self: Arc<Self>) -> bool {
        timeout(LOOK_INTERVAL, self.wanted.notified()).await.is_ok()
    }

    /// Whether a master says that slots are where they are known to be.
    async fn is_confirmed(&self, turn: usize) -> bool {
        let Some(nodes) = self.nodes.load_full() else { return false };
        let asked = turn.checked_rem(nodes.links.len()).and_then(|turn| nodes.links.iter().nth(turn));
        let Some((place, link)) = asked else { return false };
        let question = view::question();
        let answer = timeout(LOOK_LIMIT, link.send_all(&question, 0, question.len())).await;
        let Ok((Ok(answers), _)) = answer else { return false };
        view::read(&self.cluster, place, answers)
            .is_ok_and(|view| view.is_ok && view.has_same_masters(&nodes.view))
    }

    /// Asks all nodes, and believes the best of them as soon as it answers.
    async fn look(&self) {
        let mut answers = view::ask_all(&self.cluster, LOOK_LIMIT);
        let (mut best, mut failed): (Option<View>, Option<OpenError>) = (None, None);
        let known = self.nodes.load_full().map(|nodes| nodes.view.epoch);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(view) if best.as_ref().is_none_or(|best| view.is_better_than(best)) => {
                    if view.is_ok && known.is_none_or(|known| view.epoch >= known) {
                        self.believe(view.clone());
                        self.looked.send_replace(None);
                    }
                    best = Some(view);
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        match best {
            // The cluster was set up again, or has never worked.
            Some(view) if view.is_ok || known.is_none() => self.believe(view),
            _ => {}
        }
        self.looked.send_replace(failed.map(redis::RedisError::from));
    }

    fn believe(&self, view: View) {
        let former = self.nodes.load_full();
        let former_links = former.as_ref().map(|nodes| &nodes.links);
        if former.as_ref().is_some_and(|former| former.view == view) {
            return;
        }
        self.cluster.named.store(Arc::new(view.nodes()));
        let mut guests = std::mem::take(&mut *self.guests.lock().unwrap_or_else(PoisonError::into_inner));
        let links: BTreeMap<_, _> = view
            .masters()
            .into_iter()
            .map(|place| {
                let known = former_links.and_then(|links| links.get(&place)).cloned();
                let link = known.or_else(|| guests.remove(&place)).unwrap_or_else(|| self.link(&place));
                (place, link)
            })
            .collect();
        let masters =
            |nodes: &BTreeMap<_, _>| nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let left: Vec<_> =
            former_links.into_iter().flatten().filter(|(place, _)| !links.contains_key(*place)).collect();
        if !left.is_empty() {
            let (from, to) = (former_links.map(masters).unwrap_or_default(), masters(&links));
            tracing::warn!(from, to, "the redis cluster has other masters now");
        }
        self.nodes.store(Some(Arc::new(Nodes { view, links: links.clone() })));
        // What waits for an answer of a former master fails at once.
        left.into_iter().for_each(|(_, link)| link.close());
    }
}
