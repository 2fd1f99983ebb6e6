//! What other processes tell of: prices that changed are replaced in this process' memory, and policies are
//! read again.
//!
//! Notifications may be lost while the connection to Redis is away. When it is back, memory is emptied; until
//! then entries are served no longer than `PRICING_L1_MAX_STALENESS` after they were last confirmed.

use chrono::Utc;
use pricing_core::cache::PriceCache;
use pricing_core::engine::Engine;
use pricing_core::keys::PRICE_CHANGES;
use pricing_core::notifications::Notifications;
use pricing_core::policy_snapshot::Policies;
use pricing_core::redis::{Subscription, SubscriptionEvent};
use pricing_core::telemetry::metrics::Metrics;
use pricing_core::telemetry::spans::{self, TraceParent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Listens for notifications until shutdown. `news` changes with each one, for those who follow price
/// changes.
pub(crate) async fn hear(
    mut subscription: Subscription,
    engine: Engine,
    news: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let Engine { cache, notifications, policies, metrics, .. } = engine;
    let price_changes = notifications.keys().price_changes_channel();
    // Reading the policies asks the database; notices of prices do not wait for it.
    let (policy_news, policy_heard) = watch::channel(());
    let reading = tokio::spawn(read_policies(policies, policy_heard, shutdown.clone()));
    while let Some(event) = shutdown.run_until_cancelled(subscription.next()).await {
        match event {
            SubscriptionEvent::Message { channel, payload } if channel == price_changes => {
                take_in(&cache, &notifications, &metrics, &payload);
                news.send_modify(|number| *number += 1);
            }
            SubscriptionEvent::Message { .. } => policy_news.send_replace(()),
            SubscriptionEvent::Subscribed | SubscriptionEvent::Missed => {
                cache.flush_l1();
                policy_news.send_replace(());
                news.send_modify(|number| *number += 1);
            }
            SubscriptionEvent::Disconnected => {
                tracing::warn!(
                    "notices of price changes are not heard; memory is emptied when they are again"
                );
            }
        }
    }
    let _ = reading.await;
}

fn take_in(cache: &PriceCache, notifications: &Notifications, metrics: &Metrics, payload: &[u8]) {
    let Some(notification) = notifications.read(payload) else { return };
    let trace = notification.traceparent.as_deref().and_then(TraceParent::parse);
    let span = spans::process(PRICE_CHANGES, notification.changes.len(), trace.iter());
    let _within = span.entered();
    cache.apply(
        notification
            .changes_with_entries()
            .map(|(changed, entry)| (&changed.product_id, changed.revision, entry)),
    );
    // Clocks of two machines: one that is ahead by more than the event's age says nothing.
    let age = notification.published_at.and_then(|published_at| (Utc::now() - published_at).to_std().ok());
    if let Some(age) = age {
        metrics.event_to_visible.record(age.as_secs_f64());
    }
}

async fn read_policies(policies: Policies, mut heard: watch::Receiver<()>, shutdown: CancellationToken) {
    while let Some(Ok(())) = shutdown.run_until_cancelled(heard.changed()).await {
        if let Err(error) = policies.refresh().await {
            tracing::warn!(%error, "policies cannot be read; the last known ones stay in use");
        }
    }
}
