//! A process dies between the database's commit and Redis: the others serve what it has stored, and no price
//! stays wrong.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use pricing_core::engine::{Attribution, Engine};
use pricing_core::notifications::Position;
use pricing_core::store::{Store, StoreSettings};
use pricing_domain::facts::product::{Product, ProductDraft, ProductId};
use pricing_domain::facts::product_tag::OnlyIf;
use pricing_e2e::{ChaosProxy, PostgresServer, RedisServer, eventually};
use serde_json::json;

use crate::fleet::{Fleet, Member, Service};
use crate::support::{new_policy, open_engine_at, shared_postgres, sqlite_url};

const PATIENCE: Duration = Duration::from_secs(60);
/// Within five seconds, on a host with other work to do.
const HEALING: Duration = Duration::from_secs(20);
const PRODUCTS: usize = 12;
/// The list price is the base price, or the cheapest competitor's.
const POLICY: &str = "
name: following
market:
  - { name: match, when: competitor.min != null, match: { reference: competitor.min } }
offer: []
";

/// Two APIs that hold every price in memory, where only a notification replaces it.
struct Shop {
    redis: RedisServer,
    database_url: String,
    fleet: Fleet,
    apis: Vec<Member>,
    store: Store,
}

impl Shop {
    async fn open(database_url: String) -> Result<Self> {
        let redis = RedisServer::start().await?;
        let store = Store::open(&database_url, StoreSettings::default()).await?;
        store.publish_policy(&new_policy(POLICY), None, Utc::now()).await?;
        let fleet = Fleet::new(&redis.url(), &database_url).with("PRICING_L1_MAX_STALENESS", "1h");
        let apis = vec![fleet.start(Service::Api).await?, fleet.start(Service::Api).await?];
        let mut rows = "product_id,currency,base_price,floor_price\n".to_owned();
        (0..PRODUCTS).for_each(|number| rows.push_str(&format!("P-{number},USD,100,1\n")));
        let request = apis[0].client.request(reqwest::Method::POST, "/api/v1/products/import");
        let reply = apis[0].client.send(request.header("content-type", "text/csv").body(rows)).await?;
        ensure!(reply.status == 200, "{}", reply.text);
        let shop = Self { redis, database_url, fleet, apis, store };
        for api in &shop.apis {
            eventually("the API has subscribed, and emptied its memory", PATIENCE, async || {
                ensure!(api.metric("pricing_l1_flushes_total", "").await? > 0);
                Ok(())
            })
            .await?;
        }
        shop.serves_what_is_stored(PATIENCE).await?;
        Ok(shop)
    }

    /// A service whose way to Redis can be cut.
    async fn start_behind(&self, proxy: &ChaosProxy, service: Service) -> Result<Member> {
        let fleet = Fleet::new(&format!("redis://{}", proxy.address()), &self.database_url);
        fleet.with("PRICING_L1_MAX_STALENESS", "1h").start(service).await
    }

    /// Waits until every API serves every price as it is stored.
    async fn serves_what_is_stored(&self, patience: Duration) -> Result<()> {
        eventually("every API serves what is stored", patience, async || {
            for number in 0..PRODUCTS {
                let id = ProductId::parse(&format!("P-{number}"))?;
                let stored = self.store.stored_price(&id).await?;
                let stored = stored.map(|stored| json!(stored.entry.list_price.normalize().to_string()));
                for api in &self.apis {
                    let reply = api.client.price(id.as_str(), "NY", false).await?;
                    let served = reply.body["final_price"].as_f64().map(|price| json!(price.to_string()));
                    ensure!(served == stored, "{id}: {} where {stored:?} is stored", reply.text);
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until the stored price of P-1 is this.
    async fn stores(&self, price: &str) -> Result<()> {
        eventually(&format!("{price} is stored"), PATIENCE, async || {
            let stored = self.store.stored_price(&ProductId::parse("P-1")?).await?.context("no price")?;
            let list_price = stored.entry.list_price.normalize().to_string();
            ensure!(list_price == price, "{list_price}");
            Ok(())
        })
        .await
    }
}

fn product(number: usize, base_price: u32) -> Result<Product> {
    let draft = format!(
        r#"{{"product_id":"P-{number}","currency":"USD","base_price":{base_price},"floor_price":1}}"#
    );
    let draft: ProductDraft = serde_json::from_str(&draft)?;
    draft.check().map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

/// The revisions that followers of price changes get, by what the stream holds.
async fn followed(engine: &Engine) -> Result<Vec<(String, i64)>> {
    let changes = engine.notifications.changes_after(Position::START, 1_000).await?.changes;
    Ok(changes.into_iter().map(|(_, change)| (change.product_id.to_string(), change.revision)).collect())
}

async fn others_serve_what_a_process_could_not(database_url: String) -> Result<()> {
    let shop = Shop::open(database_url).await?;
    let mut proxy = ChaosProxy::start(shop.redis.address()).await?;
    proxy.cut().await;
    // It ends after the commit, for all that others can see: its Redis does not answer, and it has no
    // background tasks.
    let dying =
        open_engine_at(&shop.database_url, &format!("redis://{}", proxy.address()), "pricing:v1:").await?;
    let changed = (0..PRODUCTS).map(|number| product(number, 60)).collect::<Result<Vec<_>>>()?;
    assert!(dying.put_products(changed, "test").await.is_err());
    assert!(dying.put_products(vec![product(1, 61)?], "test").await.is_err());
    let removed = ProductId::parse("P-9")?;
    assert!(
        dying.delete_product(removed.clone(), OnlyIf::Always, Attribution::engine("test")).await.is_err()
    );
    shop.serves_what_is_stored(HEALING).await?;
    assert_eq!(shop.apis[1].client.price("P-9", "NY", false).await?.status, 404);
    // Followers get each change: of P-1 that from 100 to 60 and that from 60 to 61.
    let reader = open_engine_at(&shop.database_url, &shop.redis.url(), "pricing:v1:").await?;
    eventually("followers get every change", HEALING, async || {
        let followed = followed(&reader).await?;
        for id in ["P-0", "P-1", "P-9"] {
            for change in shop.store.price_changes(&ProductId::parse(id)?, 10).await? {
                ensure!(followed.contains(&(id.to_owned(), change.revision)), "{change:?} in {followed:?}");
            }
        }
        Ok(())
    })
    .await?;
    eventually("the three transactions are counted", PATIENCE, async || {
        let late = "pricing_transactions_served_late_total";
        let counted = shop.apis[0].metric(late, "").await? + shop.apis[1].metric(late, "").await?;
        ensure!(counted == 3, "{counted}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn others_serve_what_a_process_could_not_on_sqlite() -> Result<()> {
    let files = tempfile::tempdir()?;
    others_serve_what_a_process_could_not(sqlite_url(&files.path().join("catalogue.db"))).await
}

#[tokio::test]
async fn others_serve_what_a_process_could_not_on_postgres() -> Result<()> {
    others_serve_what_a_process_could_not(shared_postgres().await?.create_database("unserved").await?).await
}

/// Kills a process when it has committed, and Redis has heard nothing of it: its transaction waits for a lock
/// that the test holds while its way to Redis is stopped.
async fn kill_after_commit(
    shop: &Shop,
    postgres: &PostgresServer,
    database: &str,
    (victim, proxy): (&mut Member, &mut ChaosProxy),
    cause: impl AsyncFn() -> Result<()>,
    price: &str,
) -> Result<()> {
    let mut lock = shop.store.begin().await?;
    lock.lock_products(&[ProductId::parse("P-1")?]).await?;
    let waits = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = ";
        eventually("the victim waits for the lock", PATIENCE, async || {
            let waiting = postgres.execute("postgres", &format!("{waiting}'{database}'")).await?;
            ensure!(waiting.trim() != "0");
            Ok(())
        })
        .await?;
        proxy.stall();
        drop(lock);
        shop.stores(price).await?;
        victim.kill()?;
        proxy.cut().await;
        anyhow::Ok(())
    };
    let (caused, killed) = tokio::join!(cause(), waits);
    killed?;
    // The client may have got no answer.
    drop(caused);
    Ok(())
}

#[tokio::test]
async fn an_api_that_is_killed_between_the_commit_and_redis_leaves_no_wrong_price() -> Result<()> {
    const DATABASE: &str = "api_killed_after_commit";
    let postgres = shared_postgres().await?;
    let shop = Shop::open(postgres.create_database(DATABASE).await?).await?;
    let mut proxy = ChaosProxy::start(shop.redis.address()).await?;
    let mut victim = shop.start_behind(&proxy, Service::Api).await?;
    let client = victim.client.clone();
    let put = async || {
        let product = json!({"currency": "USD", "base_price": 60, "floor_price": 1});
        client.put("/api/v1/products/P-1", &product).await.map(drop)
    };
    kill_after_commit(&shop, postgres, DATABASE, (&mut victim, &mut proxy), put, "60").await?;
    assert_eq!(shop.apis[0].client.price("P-1", "NY", false).await?.body["final_price"], json!(100.0));
    shop.serves_what_is_stored(HEALING).await
}

#[tokio::test]
async fn a_worker_that_is_killed_between_the_commit_and_redis_leaves_no_wrong_price() -> Result<()> {
    const DATABASE: &str = "worker_killed_after_commit";
    let postgres = shared_postgres().await?;
    let shop = Shop::open(postgres.create_database(DATABASE).await?).await?;
    let _listener = shop.fleet.start(Service::Listener).await?;

    let mut proxy = ChaosProxy::start(shop.redis.address()).await?;
    let mut victim = shop.start_behind(&proxy, Service::Worker).await?;
    let event = async || {
        let event = json!({
            "specversion": "1.0", "id": "1", "source": "/test", "type": "pricing.competitor_price.v1",
            "data": {"product_id": "P-1", "competitor": "acme", "price": 70},
        });
        shop.apis[0].client.post("/api/v1/publish-market-event", &event).await.map(drop)
    };
    kill_after_commit(&shop, postgres, DATABASE, (&mut victim, &mut proxy), event, "70").await?;
    shop.serves_what_is_stored(HEALING).await?;

    let halving = "name: halving\nmarket:\n  - { name: half, multiply_by: 0.5 }\noffer: []\n";
    shop.store.publish_policy(&new_policy(halving), None, Utc::now()).await?;
    let mut proxy = ChaosProxy::start(shop.redis.address()).await?;
    let mut victim = shop.start_behind(&proxy, Service::Worker).await?;
    let recalculation =
        async || shop.apis[0].client.post("/api/v1/recalculations", &json!({})).await.map(drop);
    kill_after_commit(&shop, postgres, DATABASE, (&mut victim, &mut proxy), recalculation, "50").await?;
    shop.serves_what_is_stored(HEALING).await
}

#[tokio::test]
async fn a_recalculation_replaces_older_entries_and_adds_none() -> Result<()> {
    let files = tempfile::tempdir()?;
    let shop = Shop::open(sqlite_url(&files.path().join("catalogue.db"))).await?;
    let mut connection = shop.redis.connection().await?;
    let key = async |id: &str| -> Result<String> {
        let mut connection = shop.redis.connection().await?;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("*:price:{id}")).query_async(&mut connection).await?;
        keys.into_iter().next().with_context(|| format!("{id} is not in redis"))
    };
    let key_of_1 = key("P-1").await?;
    let old: Vec<u8> = redis::cmd("GET").arg(&key_of_1).query_async(&mut connection).await?;
    let put = json!({"currency": "USD", "base_price": 60, "floor_price": 1});
    assert_eq!(shop.apis[0].client.put("/api/v1/products/P-1", &put).await?.status, 200);
    shop.serves_what_is_stored(PATIENCE).await?;
    // As a process of an older version would have left it: in Redis the old entry, and nothing recorded.
    redis::cmd("SET").arg(&key_of_1).arg(old).query_async::<()>(&mut connection).await?;
    redis::cmd("DEL").arg(key("P-2").await?).query_async::<()>(&mut connection).await?;
    let _listener = shop.fleet.start(Service::Listener).await?;
    let _worker = shop.fleet.start(Service::Worker).await?;
    let reply = shop.apis[0].client.post("/api/v1/recalculations", &json!({})).await?;
    let task_id = reply.body["task_id"].as_str().context("no task_id")?.to_owned();
    eventually("the recalculation is done", PATIENCE, async || {
        let run = shop.apis[0].client.get(&format!("/api/v1/recalculations/{task_id}")).await?.body;
        ensure!(run["state"] == "done", "{run}");
        Ok(())
    })
    .await?;
    assert!(key("P-2").await.is_err(), "what redis did not hold was added");
    let later = shop.fleet.start(Service::Api).await?;
    let reply = later.client.price("P-1", "NY", false).await?;
    assert_eq!((&reply.body["final_price"], reply.header("x-cache")), (&json!(60.0), Some("l2")));
    Ok(())
}
