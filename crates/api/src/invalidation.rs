//! Handles notifications between processes: replaces or evicts L1 entries of changed prices, and reloads
//! policies.
//!
//! Notifications may be lost while the connection to Redis is down. When it is restored, L1 is flushed; until
//! then no entry is served longer than `PRICING_L1_MAX_STALENESS` after it was last confirmed.

use std::sync::Arc;

use chrono::Utc;
use pricing_core::cache::PriceCache;
use pricing_core::catalogue::Catalogue;
use pricing_core::engine::Engine;
use pricing_core::keys::PRICE_CHANGES;
use pricing_core::notifications::Notifications;
use pricing_core::policy_snapshot::Policies;
use pricing_core::redis::{Subscription, SubscriptionEvent};
use pricing_core::telemetry::repeated_warning::RepeatedWarning;
use pricing_core::telemetry::spans::{self, TraceParent};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::ApiMetrics;

/// Handles notifications until shutdown. `wake` changes with each one about prices and after each
/// interruption, for the clients that follow price changes.
pub(crate) async fn listen(
    mut subscription: Subscription,
    engine: Engine,
    metrics: Arc<ApiMetrics>,
    wake: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let Engine { cache, notifications, policies, .. } = engine;
    let price_changes = notifications.keys().price_changes_channel();
    // Policies are reloaded in a task of their own: notifications of prices do not wait for the database.
    let (policy_wake, policy_woken) = watch::channel(());
    let reading = tokio::spawn(read_policies(policies, policy_woken, shutdown.clone()));
    let silence =
        RepeatedWarning::new("notifications of price changes do not arrive; L1 is flushed when they do");
    while let Some(event) = shutdown.run_until_cancelled(subscription.next()).await {
        match event {
            SubscriptionEvent::Message { channel, payload } if channel == price_changes => {
                silence.succeeded();
                apply(&cache, &notifications, &metrics, &payload);
                wake.send_modify(|number| *number += 1);
            }
            SubscriptionEvent::Message { .. } => policy_wake.send_replace(()),
            SubscriptionEvent::Subscribed | SubscriptionEvent::Missed => {
                cache.flush_l1();
                policy_wake.send_replace(());
                wake.send_modify(|number| *number += 1);
            }
            SubscriptionEvent::Disconnected => {
                silence.failed(&"the connection to redis broke");
            }
        }
    }
    let _ = reading.await;
}

/// Wakes the clients that follow price changes when another catalogue begins, until shutdown.
pub(crate) async fn wake_for_other_catalogues(
    mut replaced: watch::Receiver<Arc<Catalogue>>,
    wake: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    while let Some(Ok(())) = shutdown.run_until_cancelled(replaced.changed()).await {
        wake.send_modify(|number| *number += 1);
    }
}

fn apply(cache: &PriceCache, notifications: &Notifications, metrics: &ApiMetrics, payload: &[u8]) {
    let catalogues = cache.catalogues();
    let Some(notification) = notifications.read(payload) else { return };
    let trace = notification.traceparent.as_deref().and_then(TraceParent::parse);
    let span = spans::process(PRICE_CHANGES, notification.changes.len(), trace.iter());
    let _within = span.entered();
    cache.apply(
        catalogues,
        notification
            .changes_with_entries()
            .map(|(changed, entry)| (&changed.product_id, changed.revision, entry)),
    );
    // The two instants are from the clocks of two machines: a negative age is not recorded.
    let age = notification.published_at.and_then(|published_at| (Utc::now() - published_at).to_std().ok());
    if let Some(age) = age {
        metrics.event_to_visible.record(age.as_secs_f64());
    }
}

async fn read_policies(policies: Policies, mut woken: watch::Receiver<()>, shutdown: CancellationToken) {
    let silence = RepeatedWarning::new("could not read the policies; the last known ones stay in use");
    while let Some(Ok(())) = shutdown.run_until_cancelled(woken.changed()).await {
        match policies.refresh().await {
            Ok(_) => silence.succeeded(),
            Err(error) => silence.failed(&error),
        }
    }
}
