//! The servers start, keep what they acknowledged when they are killed, and come back where they were.

use std::time::Duration;

use anyhow::Result;
use pricing_e2e::{PostgresServer, RedisServer, eventually};
use redis::AsyncCommands;
use tokio::time::timeout;

use crate::support::shared_postgres;

#[tokio::test]
async fn redis_keeps_acknowledged_writes_when_it_is_killed() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    let url = redis.url();
    let () = redis.connection().await?.set("price:P-100", "49.39").await?;

    redis.kill()?;
    assert!(redis.connection().await.is_err(), "a killed server accepts no connection");
    redis.restart().await?;

    assert_eq!(redis.url(), url);
    let kept: String = redis.connection().await?.get("price:P-100").await?;
    assert_eq!(kept, "49.39");
    Ok(())
}

#[tokio::test]
async fn a_paused_redis_answers_nothing_until_it_is_resumed() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    let mut connection = redis.connection().await?;

    redis.pause()?;
    let unanswered = timeout(Duration::from_millis(200), connection.set::<_, _, ()>("key", 1)).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    redis.resume()?;

    eventually("redis answers again", Duration::from_secs(60), async || {
        Ok(redis.connection().await?.exists::<_, bool>("key").await?)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn redis_servers_are_strangers_to_each_other() -> Result<()> {
    let (one, other) = tokio::try_join!(RedisServer::start(), RedisServer::start())?;
    assert_ne!(one.port(), other.port());
    let () = one.connection().await?.set("key", 1).await?;
    assert!(!other.connection().await?.exists::<_, bool>("key").await?);
    Ok(())
}

#[tokio::test]
async fn a_signal_to_a_server_that_ended_is_an_error_with_its_output() -> Result<()> {
    let mut redis = RedisServer::start().await?;
    redis.kill()?;
    let message = format!("{:#}", redis.pause().unwrap_err());
    assert!(message.contains("has ended already"), "{message}");
    assert!(message.contains("Ready to accept connections"), "{message}");
    Ok(())
}

#[tokio::test]
async fn databases_of_one_postgres_are_separate() -> Result<()> {
    let postgres = shared_postgres().await?;
    let url = postgres.create_database("separate_one").await?;
    postgres.create_database("separate_two").await?;
    assert_eq!(url, format!("postgres://postgres@127.0.0.1:{}/separate_one", postgres.port()));

    postgres.execute("separate_one", "CREATE TABLE products (id text)").await?;
    postgres.execute("separate_one", "INSERT INTO products VALUES ('P-100'), ('P-101')").await?;
    assert_eq!(postgres.execute("separate_one", "SELECT id FROM products").await?, "P-100\nP-101\n");

    let message = format!("{:#}", postgres.execute("separate_two", "TABLE products").await.unwrap_err());
    assert!(message.contains("does not exist"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_database_name_that_needs_quoting_is_refused() -> Result<()> {
    let postgres = shared_postgres().await?;
    assert!(postgres.create_database("x; DROP DATABASE postgres").await.is_err());
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_committed_rows_when_it_is_killed() -> Result<()> {
    let mut postgres = PostgresServer::start().await?;
    postgres.execute("postgres", "CREATE TABLE kept AS SELECT 42 AS answer").await?;

    postgres.kill()?;
    assert!(postgres.execute("postgres", "TABLE kept").await.is_err());
    postgres.restart().await?;

    assert_eq!(postgres.execute("postgres", "TABLE kept").await?, "42\n");
    Ok(())
}
