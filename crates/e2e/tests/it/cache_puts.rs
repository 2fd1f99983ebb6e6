//! The caches on a real Redis: an older revision never replaces a newer one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use futures::StreamExt;
use pricing_core::cache::{Cached, PriceCache, PutMode, ReadError, Tier};
use pricing_core::config::MetricsSwitch;
use pricing_core::keys::{DEFAULT_PREFIX, Keys, MessageKeys, PRICE_CHANGES_KEPT_BYTES};
use pricing_core::notifications::{Announcement, ChangedPrice, ListPriceChange, Notifications};
use pricing_core::redis::RedisConnection;
use pricing_core::telemetry::registry::Registry;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::ProductId;
use pricing_e2e::RedisServer;
use rust_decimal::Decimal;

const PATIENCE: Duration = Duration::from_secs(60);

fn cache(redis: &RedisServer) -> Result<PriceCache> {
    let connection = RedisConnection::open(&redis.url())?;
    Ok(PriceCache::new(
        100,
        Duration::from_secs(60),
        &connection,
        Keys::new(DEFAULT_PREFIX, "test"),
        &Registry::new("test", MetricsSwitch::On),
        tokio::runtime::Handle::current(),
    ))
}

fn entry(revision: i64) -> Result<Cached> {
    Ok(Cached::Priced(Arc::new(PriceEntry {
        product_id: ProductId::parse("P-1")?,
        category: None,
        currency: Currency::from_code("USD")?,
        base_price: Decimal::ONE,
        list_price: Decimal::from(revision),
        lowest: None,
        highest: None,
        policy_version: 1,
        revision,
        valid_until: None,
    })))
}

/// The result of a process with an empty memory.
async fn found_in_redis(redis: &RedisServer) -> Result<Result<(i64, Tier), ReadError>> {
    let fill = async |_| Err(ReadError::Internal("not in redis".to_owned()));
    let fill = move |id| Box::pin(fill(id));
    let found = cache(redis)?.get_or_fill(ProductId::parse("P-1")?, Utc::now(), |_| true, fill).await;
    Ok(found.map(|found| (found.entry.revision, found.tier)))
}

#[tokio::test]
async fn an_older_revision_never_replaces_a_newer_one_in_redis() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let (one, other) = (cache(&redis)?, cache(&redis)?);
    for (process, revision, expected) in
        [(&one, 9, 9), (&other, 3, 9), (&other, 10, 10), (&one, 9, 10), (&one, 100, 100)]
    {
        process.put_all(&[(id.clone(), entry(revision)?)], PutMode::Insert, None).await?;
        assert_eq!(found_in_redis(&redis).await?, Ok((expected, Tier::L2)));
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_fill_cannot_bring_back_a_product_that_is_gone() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let (slow, other) = (cache(&redis)?, cache(&redis)?);
    let gone = other.clone();
    // The fill has read revision 5; before it is put, the product is removed with revision 6.
    let fill = move |id: ProductId| async move {
        let read = entry(5).map_err(|error| ReadError::Internal(error.to_string()));
        let removed =
            gone.put_all(&[(id.clone(), Cached::Gone { revision: 6 })], PutMode::Insert, None).await;
        removed.map_err(|error| ReadError::Internal(error.to_string()))?;
        read
    };
    let found =
        slow.get_or_fill(id.clone(), Utc::now(), |_| true, fill).await.context("the fill's own answer")?;
    assert_eq!(found.entry.revision, 5, "the request that raced gets what it read");
    assert_eq!(found_in_redis(&redis).await?, Err(ReadError::UnknownProduct));
    Ok(())
}

#[tokio::test]
async fn many_puts_at_once_leave_the_newest_of_each() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let caches = [cache(&redis)?, cache(&redis)?, cache(&redis)?];
    let puts = (0..300_i64).map(|number| {
        let (process, id) = (caches[usize::try_from(number % 3).unwrap_or(0)].clone(), id.clone());
        // In an order that is neither ascending nor descending.
        let revision = (number * 7) % 300 + 1;
        async move {
            Ok::<_, anyhow::Error>(
                process.put_all(&[(id.clone(), entry(revision)?)], PutMode::Insert, None).await?,
            )
        }
    });
    futures::future::try_join_all(puts).await?;
    assert_eq!(found_in_redis(&redis).await?, Ok((300, Tier::L2)));
    Ok(())
}

#[tokio::test]
async fn data_that_redis_lost_between_two_puts_is_put_again() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let process = cache(&redis)?;
    process.put_all(&[(id.clone(), entry(1)?)], PutMode::Insert, None).await?;
    let mut connection = redis.connection().await?;
    // A restart or a fail-over loses scripts too.
    redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut connection).await?;
    redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await?;
    let product = [(id.clone(), entry(2)?)];
    process.put_all(&product, PutMode::Insert, announcement(&redis, &product)?.as_ref()).await?;
    assert_eq!(found_in_redis(&redis).await?, Ok((2, Tier::L2)));
    assert_eq!(notifications_in(&redis).await?, 1);
    Ok(())
}

#[tokio::test]
async fn replace_mode_inserts_nothing() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let process = cache(&redis)?;
    let not_there = Err(ReadError::Internal("not in redis".to_owned()));
    for (revision, mode, expected) in [
        (1, PutMode::Replace, not_there),
        (2, PutMode::Insert, Ok((2, Tier::L2))),
        (3, PutMode::Replace, Ok((3, Tier::L2))),
        (2, PutMode::Replace, Ok((3, Tier::L2))),
    ] {
        process.put_all(&[(id.clone(), entry(revision)?)], mode, None).await?;
        assert_eq!(found_in_redis(&redis).await?, expected, "{revision} {mode:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_notification_follows_its_prices() -> Result<()> {
    let redis = RedisServer::start().await?;
    let process = cache(&redis)?;
    let mut subscriber = redis::Client::open(redis.url())?.get_async_pubsub().await?;
    subscriber.subscribe(MessageKeys::new(DEFAULT_PREFIX).price_changes_channel()).await?;
    let mut messages = subscriber.on_message();
    let mut connection = redis.connection().await?;
    // Loads the script in Redis.
    let product = [(ProductId::parse("P-0")?, entry(1)?)];
    process.put_all(&product, PutMode::Insert, announcement(&redis, &product)?.as_ref()).await?;
    messages.next().await.context("no notice")?;
    // More than fit in one call.
    let ids = (0..2_500).map(|number| ProductId::parse(&format!("P-{number}")));
    let products = ids.map(|id| Ok((id?, entry(2)?))).collect::<Result<Vec<_>>>()?;
    let announcement = announcement(&redis, &products)?;
    let hear = async {
        let notification = tokio::time::timeout(PATIENCE, messages.next()).await?;
        notification.context("no notice")?;
        Ok::<usize, anyhow::Error>(redis::cmd("DBSIZE").query_async(&mut connection).await?)
    };
    let put = async { Ok(process.put_all(&products, PutMode::Insert, announcement.as_ref()).await?) };
    let ((), keys) = tokio::try_join!(put, hear)?;
    assert_eq!(keys, products.len() + 2, "the prices, the stream of changes and the count of its bytes");
    assert_eq!(notifications_in(&redis).await?, 1 + 25);
    // The first one twice, as Redis did not know the script; the last of the three batches carries the
    // notifications.
    let calls: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
    let calls = calls.lines().find(|line| line.starts_with("cmdstat_evalsha:")).context("no calls")?;
    assert!(calls.starts_with("cmdstat_evalsha:calls=5,"), "{calls}");
    Ok(())
}

/// The encoded notifications of these prices.
fn announcement(redis: &RedisServer, products: &[(ProductId, Cached)]) -> Result<Option<Announcement>> {
    let connection = RedisConnection::open(&redis.url())?;
    let notifications = Notifications::new(&connection, MessageKeys::new(DEFAULT_PREFIX), "test");
    let changes: Vec<ChangedPrice> = products
        .iter()
        .map(|(product_id, cached)| ChangedPrice {
            product_id: product_id.clone(),
            revision: cached.revision(),
            change: None,
            entry: None,
        })
        .collect();
    Ok(notifications.announcement(&notifications.catalogue(), &changes, None))
}

/// How many notifications the stream of changes holds.
async fn notifications_in(redis: &RedisServer) -> Result<usize> {
    let log = MessageKeys::new(DEFAULT_PREFIX).price_changes_log();
    Ok(redis::cmd("XLEN").arg(log).query_async(&mut redis.connection().await?).await?)
}

/// An import moves a million prices in notifications of a hundred: by number alone, 5,000 of them would take
/// five times as much memory.
#[tokio::test]
async fn the_stream_of_changes_is_bounded_in_bytes() -> Result<()> {
    let redis = RedisServer::start().await?;
    let connection = RedisConnection::open(&redis.url())?;
    let keys = MessageKeys::new(DEFAULT_PREFIX);
    let notifications = Notifications::new(&connection, keys.clone(), "test");
    let id = ProductId::parse("P-1")?;
    let change = ListPriceChange {
        old_list_price: Some(Decimal::ONE),
        new_list_price: Some(Decimal::TWO),
        currency: "USD".into(),
        policy_version: 1,
        cause: "c".repeat(1_000),
        changed_at: Utc::now(),
    };
    let changed = ChangedPrice { product_id: id, revision: 1, change: Some(change), entry: None };
    let announcement = notifications.announcement(&notifications.catalogue(), &vec![changed; 2_000], None);
    let cache = cache(&redis)?;
    // Two megabytes and more each time.
    for _ in 0..40 {
        cache.put_all(&[], PutMode::Insert, announcement.as_ref()).await?;
    }
    let mut usage = redis::cmd("MEMORY");
    usage.arg("USAGE").arg(keys.price_changes_log()).arg("SAMPLES").arg(0);
    let bytes: usize = usage.query_async(&mut redis.connection().await?).await?;
    // Redis rounds the size of each entry up.
    let most = PRICE_CHANGES_KEPT_BYTES / 4 * 5;
    ensure!((PRICE_CHANGES_KEPT_BYTES / 2..most).contains(&bytes), "{bytes} bytes");
    Ok(())
}

#[tokio::test]
async fn a_foreign_value_is_replaced() -> Result<()> {
    let redis = RedisServer::start().await?;
    let key = Keys::new(DEFAULT_PREFIX, "test").current().price("P-1");
    let mut connection = redis.connection().await?;
    for foreign in ["null", "7", "{\"revision\": 12345678901}", "99999999999999999999"] {
        redis::cmd("SET").arg(&key).arg(foreign).query_async::<()>(&mut connection).await?;
        cache(&redis)?.put_all(&[(ProductId::parse("P-1")?, entry(3)?)], PutMode::Insert, None).await?;
        assert_eq!(found_in_redis(&redis).await?, Ok((3, Tier::L2)), "{foreign}");
    }
    redis::cmd("DEL").arg(&key).query_async::<()>(&mut connection).await?;
    redis::cmd("LPUSH").arg(&key).arg("a list").query_async::<()>(&mut connection).await?;
    cache(&redis)?.put_all(&[(ProductId::parse("P-1")?, entry(4)?)], PutMode::Insert, None).await?;
    assert_eq!(found_in_redis(&redis).await?, Ok((4, Tier::L2)));
    Ok(())
}

#[tokio::test]
async fn a_price_older_than_an_announced_revision_is_not_served_from_redis() -> Result<()> {
    let redis = RedisServer::start().await?;
    let id = ProductId::parse("P-1")?;
    let here = cache(&redis)?;
    cache(&redis)?.put_all(&[(id.clone(), entry(3)?)], PutMode::Insert, None).await?;
    // Announced and not put yet; this process has no entry of it.
    here.apply(here.catalogues(), [(&id, 5, || None)]);
    let filled = entry(5)?;
    let found = here.get_or_fill(id, Utc::now(), |_| true, move |_| async move { Ok(filled) }).await?;
    assert_eq!((found.entry.revision, found.tier), (5, Tier::Store));
    assert_eq!(found_in_redis(&redis).await?, Ok((5, Tier::L2)));
    Ok(())
}
