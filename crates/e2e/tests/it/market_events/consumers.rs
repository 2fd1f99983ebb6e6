//! Consumers share the stream; nothing that was delivered to one of them is lost with it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use pricing_core::events::consume::{ConsumeError, Entry, EventConsumer};
use pricing_core::keys::LISTENER_GROUP;
use pricing_e2e::{ChaosProxy, eventually};
use serde_json::Value;

use super::{Messages, PATIENCE, consumer_at, numbered};

/// The identifiers that publishers gave to the entries' events.
fn event_ids(entries: &[Entry]) -> Result<Vec<String>> {
    let ids = entries.iter().map(|entry| {
        let event: Value = serde_json::from_slice(&entry.event)?;
        Ok(event["id"].as_str().context("no id")?.to_owned())
    });
    ids.collect()
}

fn entry_ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.id.clone()).collect()
}

/// Undelivered entries; acknowledges none.
async fn read(consumer: &EventConsumer, max: usize) -> Result<Vec<Entry>, ConsumeError> {
    consumer.reader().await?.next(&[], max).await
}

async fn consumer_names(messages: &Messages) -> Result<Vec<String>> {
    let info: redis::streams::StreamInfoConsumersReply =
        messages.command(&["XINFO", "CONSUMERS", &messages.keys.event_log(), LISTENER_GROUP]).await?;
    Ok(info.consumers.into_iter().map(|consumer| consumer.name).collect())
}

#[tokio::test]
async fn consumers_share_what_was_published_before_and_after_they_came() -> Result<()> {
    let messages = Messages::start().await?;
    messages.publish(numbered("a", 10)).await?;
    let (one, other) = (messages.consumer("one")?, messages.consumer("other")?);
    one.ensure_group().await?;
    // Creating the group again, by another consumer, restarts nothing.
    let first = read(&one, 6).await?;
    other.ensure_group().await?;
    let second = read(&other, 100).await?;
    assert_eq!([event_ids(&first)?, event_ids(&second)?].concat(), numbered("a", 10));
    assert_eq!(read(&other, 100).await?, []);
    messages.publish(numbered("b", 2)).await?;
    assert_eq!(one.lag().await?, 12);
    assert_eq!(event_ids(&read(&one, 100).await?)?, numbered("b", 2));
    one.acknowledge(&entry_ids(&first)).await?;
    one.acknowledge(&[]).await?;
    assert_eq!((one.lag().await?, messages.pending().await?), (6, 6));
    // The next read may acknowledge entries too.
    messages.publish(numbered("c", 3)).await?;
    let third = other.reader().await?.next(&entry_ids(&second), 100).await?;
    assert_eq!(event_ids(&third)?, numbered("c", 3));
    assert_eq!((one.lag().await?, messages.pending().await?), (5, 5));
    Ok(())
}

#[tokio::test]
async fn pending_entries_of_a_consumer_are_reclaimed_a_batch_at_a_time() -> Result<()> {
    let messages = Messages::start().await?;
    messages.publish(numbered("a", 10)).await?;
    let (dead, other) = (messages.consumer("dead")?, messages.consumer("other")?);
    dead.ensure_group().await?;
    let got = read(&dead, 10).await?;
    dead.acknowledge(&entry_ids(&got[..3])).await?;
    assert_eq!(other.reclaim(Duration::from_secs(3_600), 100).await?, [], "they are not left behind yet");
    let mut taken_over = Vec::new();
    for length in [4, 3, 0] {
        let batch = other.reclaim(Duration::ZERO, 4).await?;
        assert_eq!(batch.len(), length);
        other.acknowledge(&entry_ids(&batch)).await?;
        taken_over.extend(batch);
    }
    assert_eq!(taken_over, got[3..]);
    assert_eq!(messages.pending().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_consumer_leaves_only_if_nothing_of_it_is_pending() -> Result<()> {
    let messages = Messages::start().await?;
    messages.publish(numbered("a", 2)).await?;
    let (one, other) = (messages.consumer("one")?, messages.consumer("other")?);
    one.ensure_group().await?;
    let entries = read(&one, 1).await?;
    let others = read(&other, 1).await?;
    other.acknowledge(&entry_ids(&others)).await?;
    one.leave().await?;
    other.leave().await?;
    assert_eq!((consumer_names(&messages).await?, messages.pending().await?), (vec!["one".to_owned()], 1));
    // The other consumers were active just now, so none is deleted.
    one.forget_idle_consumers().await?;
    assert_eq!(consumer_names(&messages).await?.len(), 1);
    one.acknowledge(&entry_ids(&entries)).await?;
    one.leave().await?;
    assert_eq!(consumer_names(&messages).await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn entries_delivered_while_a_consumer_leaves_are_not_lost() -> Result<()> {
    const ROUNDS: usize = 300;
    let messages = Messages::start().await?;
    let ids = messages.publish(numbered("a", ROUNDS)).await?;
    let (reading, leaving) = (messages.consumer("one")?, messages.consumer("one")?);
    reading.ensure_group().await?;
    for id in ids {
        let (got, left) = tokio::join!(read(&reading, 1), leaving.leave());
        left?;
        assert_eq!(entry_ids(&got?), [id]);
        let taken_over = messages.consumer("other")?.reclaim(Duration::ZERO, 10).await?;
        assert_eq!(taken_over.len(), 1, "what was delivered is not pending");
        leaving.acknowledge(&entry_ids(&taken_over)).await?;
    }
    Ok(())
}

/// The stream is trimmed in pieces of about a hundred entries, so there have to be many.
#[tokio::test]
async fn the_stream_is_trimmed_behind_what_is_still_to_be_done() -> Result<()> {
    const ENTRIES: usize = 1_000;
    let messages = Messages::start().await?;
    let ids = messages.publish(numbered("a", ENTRIES)).await?;
    let (one, other) = (messages.consumer("one")?, messages.consumer("other")?);
    one.ensure_group().await?;
    let much_later = Utc::now() + TimeDelta::hours(2);
    one.trim(much_later).await?;
    assert_eq!(messages.length().await?, ENTRIES, "nothing was delivered");

    // Entry 350 is pending at one consumer, and another one has acknowledged all that it got after that.
    let first = read(&one, 350).await?;
    one.acknowledge(&ids[..349]).await?;
    let second = read(&other, 350).await?;
    other.acknowledge(&entry_ids(&second)).await?;
    one.trim(Utc::now()).await?;
    assert_eq!(messages.length().await?, ENTRIES, "recently processed entries stay for inspection");
    one.trim(much_later).await?;
    assert!((651..ENTRIES).contains(&messages.length().await?));
    assert_eq!(other.reclaim(Duration::ZERO, 100).await?, first[349..]);

    // Nothing is pending, and 300 were never delivered.
    other.acknowledge(&ids[349..350]).await?;
    one.trim(much_later).await?;
    assert!((300..700).contains(&messages.length().await?));
    assert_eq!(entry_ids(&read(&other, ENTRIES).await?), ids[700..]);
    other.acknowledge(&ids[700..]).await?;
    one.trim(much_later).await?;
    assert!((1..300).contains(&messages.length().await?));
    assert_eq!(one.lag().await?, 0);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The server ends the connections.
    Kill,
    /// The network breaks them and refuses new ones.
    Cut,
    /// Nothing gets through any more, and no error is reported.
    Stall,
}

#[tokio::test]
async fn a_consumer_goes_on_after_its_connection_broke_and_nothing_is_lost() -> Result<()> {
    let messages = Messages::start().await?;
    let mut proxy = ChaosProxy::start(messages.redis.address()).await?;
    let consumer = consumer_at(&format!("redis://{}", proxy.address()), "one")?;
    consumer.ensure_group().await?;
    let mut published = BTreeSet::new();
    let mut got = BTreeSet::new();
    for (round, trouble) in
        [Trouble::Kill, Trouble::Cut, Trouble::Stall, Trouble::Kill, Trouble::Stall].into_iter().enumerate()
    {
        let name = format!("{round}-{trouble:?}");
        let failed = async {
            // A read is blocked when the failure begins.
            let reading = read(&consumer, 100);
            let begin = begin(trouble, &messages, &mut proxy);
            let (read, begun) = tokio::join!(reading, begin);
            begun?;
            anyhow::Ok(read.is_err())
        };
        assert!(failed.await?, "{name}: a read without a connection succeeded");
        published.extend(numbered(&name, 5));
        messages.publish(numbered(&name, 5)).await?;
        proxy.restore().await?;
        eventually("all are read", PATIENCE, async || {
            got.extend(event_ids(&read(&consumer, 100).await?)?);
            // Entries in flight when the connection broke are pending, and no read returns them.
            got.extend(event_ids(&consumer.reclaim(Duration::ZERO, 100).await?)?);
            ensure!(got == published, "{name}: missing {:?}", published.difference(&got));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Injects the failure as soon as a consumer blocks.
async fn begin(trouble: Trouble, messages: &Messages, proxy: &mut ChaosProxy) -> Result<()> {
    eventually("the consumer waits", PATIENCE, async || {
        let clients: String = messages.command(&["CLIENT", "LIST"]).await?;
        // The flag of a client in a blocking command.
        ensure!(clients.contains(" flags=b "), "{clients}");
        Ok(())
    })
    .await?;
    match trouble {
        Trouble::Kill => {
            messages.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        }
        Trouble::Cut => proxy.cut().await,
        Trouble::Stall => proxy.stall(),
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_group_is_distinguished_from_other_errors_and_created_again() -> Result<()> {
    let mut messages = Messages::start().await?;
    let consumer = messages.consumer("one")?;
    let is_missing = async |consumer: &EventConsumer| match read(consumer, 10).await {
        Err(error) => error.is_missing_group(),
        Ok(entries) => panic!("{entries:?}"),
    };
    assert!(is_missing(&consumer).await);
    consumer.ensure_group().await?;
    assert_eq!(read(&consumer, 10).await?, []);
    messages.command::<()>(&["FLUSHALL"]).await?;
    assert!(is_missing(&consumer).await);
    messages.publish(numbered("a", 2)).await?;
    assert!(is_missing(&consumer).await);
    consumer.ensure_group().await?;
    assert_eq!(event_ids(&read(&consumer, 10).await?)?, numbered("a", 2));
    messages.redis.kill()?;
    assert!(!is_missing(&consumer).await);
    Ok(())
}
