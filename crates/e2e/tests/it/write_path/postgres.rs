//! PostgreSQL as people run it: behind a pooler, and with a replica that takes over.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pricing_e2e::{
    MovingAddress, PgBouncer, PoolMode, PostgresServer, ServiceProcess, eventually, free_port,
};
use reqwest::StatusCode;
use serde_json::json;

use super::{Engine, FOLLOWING, PATIENCE, price_becomes};
use crate::support::{Stores, shared_postgres};

const DATABASE: &str = "shop";

#[tokio::test]
async fn events_and_recalculations_work_through_a_session_pooler() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "fleet_behind_a_pooler");
    postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Session, "default_pool_size = 40").await?;
    let engine = Engine::start_on(Stores::start().await?, &pooler.url(database), FOLLOWING).await?;
    engine.import(50).await?;
    let data = json!({"product_id": "P-1", "competitor": "acme", "price": 41.95});
    engine.publish("1", "competitor_price", data).await?;
    price_becomes(&engine.api, "P-1", 41.95).await?;
    let task = engine.request_recalculation(json!({})).await?;
    let ended = engine.ended(&task).await?;
    assert_eq!(ended["state"], "done", "{ended}");
    // Of the server's 200 connections, three are for superusers.
    eventually("the connections are counted", PATIENCE, async || {
        let connections = engine.worker.metric("pricing_database_connections ", "").await?;
        let allowed = engine.worker.metric("pricing_database_connections_allowed", "").await?;
        ensure!(connections > 2 && allowed == 197, "{connections} of {allowed}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_behind_a_transaction_pooler_ends_with_advice() -> Result<()> {
    let (postgres, database) = (shared_postgres().await?, "service_behind_a_pooler");
    postgres.create_database(database).await?;
    let pooler = PgBouncer::start(postgres, PoolMode::Transaction, "").await?;
    let stores = Stores::start().await?;
    let (redis_url, database_url) = (stores.redis.url(), pooler.url(database));
    for (program, listen_variable) in
        [("pricing-api", "PRICING_API_LISTEN"), ("pricing-worker", "PRICING_WORKER_LISTEN")]
    {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let environment = [
            (listen_variable, listen.as_str()),
            ("PRICING_REDIS_URL", &redis_url),
            ("PRICING_DATABASE_URL", &database_url),
        ];
        let mut service = ServiceProcess::start(program, &environment, &[])?;
        let status = service.wait(PATIENCE).await?;
        let output = service.output()?;
        assert!(!status.success() && output.contains("pool_mode = session"), "{program}: {output}");
    }
    Ok(())
}

/// A server and its replica behind one address.
struct Pair {
    primary: PostgresServer,
    replica: PostgresServer,
    address: MovingAddress,
    engine: Engine,
}

impl Pair {
    async fn start() -> Result<Self> {
        let primary = PostgresServer::start().await?;
        primary.create_database(DATABASE).await?;
        let replica = primary.start_replica().await?;
        let address = MovingAddress::start(primary.address()).await?;
        let url = format!("postgres://postgres@{}/{DATABASE}", address.address());
        let engine = Engine::start_on(Stores::start().await?, &url, FOLLOWING).await?;
        engine.import(5).await?;
        Ok(Self { primary, replica, address, engine })
    }

    async fn put(&self, base_price: u32) -> Result<StatusCode> {
        let product = json!({"currency": "USD", "base_price": base_price, "floor_price": 1});
        Ok(self.engine.api.client.put("/api/v1/products/P-0", &product).await?.status)
    }

    async fn writes_go_on(&self, base_price: u32) -> Result<()> {
        eventually("a write is taken", PATIENCE, async || {
            let status = self.put(base_price).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await?;
        price_becomes(&self.engine.api, "P-0", f64::from(base_price)).await
    }

    /// An event reaches the prices by the worker, which needs no restart either.
    async fn events_go_on(&self, id: &str, price: u32) -> Result<()> {
        let data = json!({"product_id": "P-1", "competitor": "acme", "price": price});
        self.engine.publish(id, "competitor_price", data).await?;
        price_becomes(&self.engine.api, "P-1", f64::from(price)).await
    }

    /// Opens several connections of the API: reads of the database at the same time.
    async fn open_connections(&self) -> Result<()> {
        let reads = (0..40).map(|_| self.engine.api.client.get("/api/v1/products/P-0"));
        for reply in futures::future::try_join_all(reads).await? {
            ensure!(reply.status == 200, "{}", reply.text);
        }
        Ok(())
    }
}

async fn caught_up(replica: &PostgresServer, primary: &PostgresServer) -> Result<()> {
    let end = primary.execute(DATABASE, "SELECT pg_current_wal_lsn()").await?;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", end.trim());
    eventually("the replica has caught up", PATIENCE, async || {
        let replayed = replica.execute(DATABASE, &replayed).await?;
        ensure!(replayed.trim() == "t", "{replayed}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_replica_takes_over_from_a_server_that_died_and_another_from_it() -> Result<()> {
    let mut pair = Pair::start().await?;
    caught_up(&pair.replica, &pair.primary).await?;
    pair.primary.kill()?;
    pair.address.move_to(pair.replica.address());

    // Until it is promoted it reads only.
    eventually("reads go on at the replica", PATIENCE, async || {
        let reply = pair.engine.api.client.get("/api/v1/products/P-0").await?;
        ensure!(reply.status == 200, "{}", reply.text);
        Ok(())
    })
    .await?;
    for base_price in 10..15 {
        assert_eq!(pair.put(base_price).await?, 503);
        assert_eq!(pair.engine.api.client.get("/api/v1/products/P-0").await?.status, 200);
    }
    assert!(pair.engine.api.process.output()?.contains("read-only"));
    pair.replica.promote().await?;
    pair.writes_go_on(20).await?;
    pair.events_go_on("1", 42).await?;

    // Back to a server in the old one's place.
    let back = pair.replica.start_replica().await?;
    caught_up(&back, &pair.replica).await?;
    pair.replica.kill()?;
    back.promote().await?;
    pair.address.move_to(back.address());
    pair.writes_go_on(30).await?;
    pair.events_go_on("2", 43).await
}

/// The old server lives, and keeps the connections that it has.
#[tokio::test]
async fn connections_that_stay_at_a_server_that_became_read_only_are_replaced_at_once() -> Result<()> {
    let pair = Pair::start().await?;
    pair.open_connections().await?;
    pair.primary.execute("postgres", "ALTER SYSTEM SET default_transaction_read_only = on").await?;
    pair.primary.execute("postgres", "SELECT pg_reload_conf()").await?;
    eventually("writes are refused", PATIENCE, async || {
        let status = pair.put(10).await?;
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await?;
    let product = pair.engine.api.client.get("/api/v1/products/P-0").await?;
    assert_eq!(product.status, 200, "{}", product.text);

    pair.open_connections().await?;
    caught_up(&pair.replica, &pair.primary).await?;
    pair.replica.promote().await?;
    pair.address.move_to(pair.replica.address());
    // A refusal counts once a second: wait until one more does.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for attempt in 1.. {
        match pair.put(20).await? {
            StatusCode::OK => break,
            StatusCode::SERVICE_UNAVAILABLE if attempt <= 2 => {}
            status => bail!("write {attempt}: {status}"),
        }
    }
    pair.writes_go_on(21).await?;
    pair.events_go_on("1", 42).await
}
