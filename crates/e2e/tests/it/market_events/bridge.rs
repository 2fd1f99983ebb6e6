//! The bridge: what foreign programs publish on the channel, with two listeners that receive it.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use pricing_e2e::eventually;
use serde_json::json;

use super::{Messages, PATIENCE, event};
use crate::fleet::{Member, Service};

/// The lease that makes one listener the bridge.
const LEASE: &str = "bridge";

/// Two listeners that receive the channel's messages; the one that is the bridge comes first.
async fn two_listeners(messages: &Messages) -> Result<(Member, Member)> {
    let fleet = messages.listeners();
    let (one, other) = (fleet.start(Service::Listener).await?, fleet.start(Service::Listener).await?);
    let channel = messages.keys.event_channel();
    eventually("both subscribe to the channel", PATIENCE, async || {
        let (_, hearing): (String, usize) = messages.command(&["PUBSUB", "NUMSUB", &channel]).await?;
        ensure!(hearing == 2, "{hearing} subscribers");
        Ok(())
    })
    .await?;
    let holder = eventually("one holds the lease", PATIENCE, async || {
        let holder: Option<String> = messages.command(&["GET", &messages.keys.lease(LEASE)]).await?;
        holder.context("the lease is free")
    })
    .await?;
    let is_holder = |member: &Member| holder.starts_with(&format!("listener-{}-", member.process.id()));
    ensure!(is_holder(&one) != is_holder(&other), "{holder} holds the lease");
    Ok(if is_holder(&one) { (one, other) } else { (other, one) })
}

async fn say(messages: &Messages, message: &str) -> Result<()> {
    messages.command::<()>(&["PUBLISH", &messages.keys.event_channel(), message]).await
}

#[tokio::test]
async fn foreign_messages_are_accepted_once_and_garbage_is_kept_once() -> Result<()> {
    let messages = Messages::start().await?;
    let (holder, other) = two_listeners(&messages).await?;
    let known = json!({"specversion": "1.0", "streamid": "1-0"});
    for message in [
        "Recalculate_Triggered_v1",
        &event("foreign").to_string(),
        "garbage",
        r#"{"specversion":"1.0"}"#,
        // In the stream already, as its attribute says.
        &known.to_string(),
        &event("last").to_string(),
    ] {
        say(&messages, message).await?;
    }
    // The bridge receives the engine's own events as well.
    messages.publish(["own".to_owned()]).await?;
    say(&messages, &event("very last").to_string()).await?;
    let entries = eventually("the last message is accepted", PATIENCE, async || {
        let entries = messages.entries().await?;
        ensure!(entries.iter().any(|(_, entry)| entry["id"] == "very last"), "{entries:?}");
        Ok(entries)
    })
    .await?;
    let mut times_taken_in: HashMap<&str, u32> = HashMap::new();
    for (_, entry) in &entries {
        let id = match entry["type"].as_str() {
            Some("pricing.recalculation_requested.v1") => "everything",
            _ => entry["id"].as_str().context("no id")?,
        };
        *times_taken_in.entry(id).or_default() += 1;
    }
    let expected = ["everything", "foreign", "last", "own", "very last"];
    assert_eq!(times_taken_in, expected.map(|id| (id, 1)).into(), "{entries:?}");
    let dead = messages.dead().await?;
    let texts: Vec<&str> = dead.iter().map(|message| message["event"].as_str()).collect();
    assert_eq!(texts, ["garbage", r#"{"specversion":"1.0"}"#], "{dead:?}");
    assert!(dead[0]["reason"].contains("not a CloudEvent"), "{dead:?}");
    assert!(dead[1]["reason"].contains("source"), "{dead:?}");
    assert!(dead.iter().all(|message| !message.contains_key("stream_id")), "{dead:?}");
    let counted = (
        holder.metric("pricing_events_buried_total", "").await?,
        other.metric("pricing_events_buried_total", "").await?,
    );
    assert_eq!(counted, (2, 0));
    Ok(())
}

#[tokio::test]
async fn when_the_listener_that_is_the_bridge_is_killed_the_other_one_takes_over() -> Result<()> {
    let messages = Messages::start().await?;
    let (mut holder, _other) = two_listeners(&messages).await?;
    say(&messages, &event("before").to_string()).await?;
    eventually("the holder accepts it", PATIENCE, async || {
        ensure!(messages.length().await? == 1, "nothing was accepted");
        Ok(())
    })
    .await?;
    holder.kill()?;
    let mut said = 0;
    eventually("the other one accepts messages", PATIENCE, async || {
        said += 1;
        say(&messages, &event(&format!("after-{said}")).to_string()).await?;
        ensure!(messages.length().await? > 1, "{said} published, none accepted");
        Ok(())
    })
    .await?;
    say(&messages, &event("last").to_string()).await?;
    let entries = eventually("all messages are accepted again", PATIENCE, async || {
        let entries = messages.entries().await?;
        ensure!(entries.iter().any(|(_, entry)| entry["id"] == "last"), "{entries:?}");
        Ok(entries)
    })
    .await?;
    let mut ids: Vec<String> = entries.iter().map(|(_, entry)| entry["id"].to_string()).collect();
    let taken_in = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), taken_in, "a message was accepted twice: {entries:?}");
    Ok(())
}
