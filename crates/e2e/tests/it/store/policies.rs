//! Policies are published as 1, 2, 3 and so on, by any number of concurrent publishers.

use anyhow::{Context, Result};
use pricing_core::audit::{Action, Origin};
use pricing_core::store::{NewPolicy, Store, StoredPolicy, run_of_policy};
use pricing_domain::facts::recalculation::RecalculationScope;
use tokio::task::JoinSet;

use super::{now, on_both_stores};

on_both_stores!(
    a_policy_comes_back_with_every_field,
    versions_have_no_gap_however_many_publish,
    of_many_who_publish_after_the_same_version_one_does,
    the_first_policy_is_published_once,
    the_first_policy_never_follows_another,
    policies_are_read_newest_first,
    a_policy_and_its_recalculation_are_stored_together,
);

fn policy(name: &str) -> NewPolicy {
    NewPolicy {
        name: name.to_owned(),
        source: format!("name: {name} # ü 🫖\nmarket: []\n"),
        author: "Zoë".to_owned(),
        note: String::new(),
    }
}

async fn a_policy_comes_back_with_every_field(store: &Store) -> Result<()> {
    let written = policy("winter");
    let version = store.publish_policy(&written, None, now()).await?.context("not published")?;
    let expected = StoredPolicy {
        version,
        name: written.name,
        source: written.source,
        author: written.author,
        note: written.note,
        published_at: now(),
    };
    assert_eq!(version, 1);
    assert_eq!(store.policy(1).await?.as_ref(), Some(&expected));
    assert_eq!(store.latest_policies(10).await?, [expected]);
    assert_eq!(store.policy(2).await?, None);
    Ok(())
}

async fn versions_have_no_gap_however_many_publish(store: &Store) -> Result<()> {
    let mut publishing = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        publishing
            .spawn(async move { store.publish_policy(&policy(&number.to_string()), None, now()).await });
    }
    let mut versions = publishing.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).map(Some).collect::<Vec<_>>());
    Ok(())
}

async fn of_many_who_publish_after_the_same_version_one_does(store: &Store) -> Result<()> {
    store.publish_policy(&policy("first"), Some(0), now()).await?.context("not published")?;
    let mut publishing = JoinSet::new();
    for number in 0..10 {
        let store = store.clone();
        publishing
            .spawn(async move { store.publish_policy(&policy(&number.to_string()), Some(1), now()).await });
    }
    let versions = publishing.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(versions.iter().flatten().collect::<Vec<_>>(), [&2]);
    assert_eq!(store.latest_policies(10).await?.len(), 2);
    assert_eq!(store.publish_policy(&policy("late"), Some(7), now()).await?, None);
    Ok(())
}

async fn the_first_policy_is_published_once(store: &Store) -> Result<()> {
    let mut publishing = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        publishing.spawn(async move { store.publish_first_policy(&policy("default"), now()).await });
    }
    publishing.join_all().await.into_iter().collect::<Result<(), _>>()?;
    let published = store.latest_policies(10).await?;
    assert!(published.iter().map(|policy| policy.version).eq([1]), "{published:?}");
    Ok(())
}

async fn the_first_policy_never_follows_another(store: &Store) -> Result<()> {
    store.publish_policy(&policy("ours"), None, now()).await?;
    store.publish_first_policy(&policy("default"), now()).await?;
    let published = store.latest_policies(10).await?;
    assert!(published.iter().map(|policy| policy.name.as_str()).eq(["ours"]), "{published:?}");
    Ok(())
}

async fn policies_are_read_newest_first(store: &Store) -> Result<()> {
    for name in ["one", "two", "three"] {
        store.publish_policy(&policy(name), None, now()).await?;
    }
    let latest = store.latest_policies(2).await?;
    assert!(latest.iter().map(|policy| policy.name.as_str()).eq(["three", "two"]), "{latest:?}");
    Ok(())
}

async fn a_policy_and_its_recalculation_are_stored_together(store: &Store) -> Result<()> {
    let publish = async |only_after| {
        let policy = policy("one");
        store
            .publish_policy_and_request_run(
                &policy,
                only_after,
                "zoe",
                (&Origin::engine(), Action::PolicyPublish),
                now(),
            )
            .await
    };
    let first = publish(None).await?.context("not published")?;
    let run = store.run(&run_of_policy(first)).await?.context("no run")?;
    assert_eq!((run.scope, run.approved_by.as_deref()), (RecalculationScope::All, Some("zoe")));
    assert_eq!(publish(Some(first - 1)).await?, None);
    assert_eq!(store.count_requested_runs().await?, 1, "nothing published, nothing to do");
    let versions = store.policy_versions(10).await?;
    assert!(versions.iter().all(|policy| policy.source.is_empty()) && !versions.is_empty());
    Ok(())
}
