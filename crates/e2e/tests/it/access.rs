//! Access keys with real processes: created, used, revoked everywhere, and who is recorded; what is refused
//! beyond loopback, and a listener for administration. Which scope opens which route is tested in the API.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_e2e::{
    HttpClient, HttpReply, PostgresServer, RedisServer, ServiceProcess, eventually, free_port,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Api, Stores};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `pricing` with these variables: its exit code and its whole output.
async fn pricing(environment: &[(&str, &str)], arguments: &[&str]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start("pricing", environment, arguments)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

/// The key in what `pricing keys create` or `rotate` has printed.
fn key_in(output: &str) -> Result<String> {
    let key = output.lines().find(|line| line.starts_with("pricing_"));
    key.map(str::to_owned).with_context(|| format!("no key in {output}"))
}

/// Creates the first key, in the database.
async fn first_key(stores: &Stores, scopes: &str) -> Result<String> {
    let database = [("PRICING_DATABASE_URL", &*stores.database_url())];
    let arguments = ["keys", "create", "--direct", "--name", "zoe", "--scopes", scopes];
    let (code, said) = pricing(&database, &arguments).await?;
    ensure!(code == 0, "{said}");
    key_in(&said)
}

fn with(key: &str, request: RequestBuilder) -> RequestBuilder {
    request.header("authorization", format!("Bearer {key}"))
}

async fn price(client: &HttpClient, key: Option<&str>) -> Result<HttpReply> {
    let body = json!({"product_id": "P-1", "user_location": "NY"});
    let request = client.request(Method::POST, "/api/v1/price").json(&body);
    client.send(key.map_or(request.try_clone(), |key| Some(with(key, request))).context("a body")?).await
}

/// Waits until a request for a price gets this status.
async fn answers(client: &HttpClient, key: Option<&str>, status: u16) -> Result<HttpReply> {
    eventually(&format!("it answers {status}"), PATIENCE, async || {
        let reply = price(client, key).await?;
        ensure!(reply.status == status, "{} {}", reply.status, reply.text);
        Ok(reply)
    })
    .await
}

#[tokio::test]
async fn the_first_key_closes_every_process_and_a_revoked_one_opens_none() -> Result<()> {
    let stores = Stores::start().await?;
    let (one, other) = (stores.api().await?, stores.api().await?);
    one.import("P-1,USD,10\n").await?;
    assert_eq!(price(&other.client, None).await?.status, 200, "no key exists");
    let key = first_key(&stores, "all").await?;
    for client in [&one.client, &other.client] {
        let refused = answers(client, None, 401).await?;
        assert_eq!(refused.body["type"], "/problems/not-identified");
        assert_eq!(refused.headers["www-authenticate"], r#"Bearer realm="pricing""#);
        assert_eq!(price(client, Some(&key)).await?.status, 200);
    }
    let environment = [("PRICING_URL", format!("http://{}", one.address)), ("PRICING_KEY", key.clone())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let create = ["keys", "create", "--name", "shop", "--scopes", "prices:read", "--expires-in", "1h"];
    let (code, said) = pricing(&environment, &create).await?;
    assert_eq!(code, 0, "{said}");
    let shop = key_in(&said)?;
    answers(&other.client, Some(&shop), 200).await?;
    let import = one.client.request(Method::POST, "/api/v1/products/import");
    let import = with(&shop, import.header("content-type", "text/csv").body("product_id\n"));
    let refused = one.client.send(import).await?;
    assert_eq!((refused.status.as_u16(), &refused.body["type"]), (403, &json!("/problems/scope-missing")));
    assert!(refused.text.contains("catalogue:write"), "{}", refused.text);
    let (code, listed) = pricing(&environment, &["keys", "list"]).await?;
    assert!(code == 0 && listed.contains("shop") && listed.contains("zoe"), "{listed}");
    assert!(!listed.contains(&shop) && !listed.contains(&key), "{listed}");

    let id = shop.split('_').nth(1).context("an identifier")?;
    let (code, rotated) = pricing(&environment, &["keys", "rotate", id, "--keep-old-for", "1h"]).await?;
    assert_eq!(code, 0, "{rotated}");
    let successor = key_in(&rotated)?;
    answers(&other.client, Some(&successor), 200).await?;
    assert_eq!(price(&other.client, Some(&shop)).await?.status, 200, "it is kept for an hour");
    let (code, said) = pricing(&environment, &["keys", "revoke", id]).await?;
    assert_eq!(code, 0, "{said}");
    assert_eq!(price(&one.client, Some(&shop)).await?.status, 401, "at once in the process that revoked it");
    answers(&other.client, Some(&shop), 401).await?;
    assert_eq!(price(&other.client, Some(&successor)).await?.status, 200);
    let (code, said) = pricing(&environment, &["keys", "revoke", id]).await?;
    assert!(code == 1 && said.contains("there is no key"), "{code} {said}");
    Ok(())
}

#[tokio::test]
async fn the_key_says_who_did_it() -> Result<()> {
    let stores = Stores::start().await?;
    let key = first_key(&stores, "policies:read,policies:write").await;
    // The database does not exist before a process has opened it.
    assert!(key.is_err());
    let api = stores.api().await?;
    let key = first_key(&stores, "policies:read,policies:write").await?;
    answers(&api.client, None, 401).await?;
    let policy = api.client.send(with(&key, api.client.request(Method::GET, "/api/v1/policies/1"))).await?;
    let source = policy.body["source"].as_str().context("a document")?.to_owned();
    let publish = async |query: &str| {
        let request = api.client.request(Method::POST, &format!("/api/v1/policies{query}"));
        let request = request.header("content-type", "application/yaml").body(source.clone());
        api.client.send(with(&key, request)).await
    };
    let stated = publish("?author=kim").await?;
    assert_eq!(stated.status, 422, "{}", stated.text);
    assert!(stated.text.contains("the key says who calls"), "{}", stated.text);
    let approved = publish("?approve=true").await?;
    assert_eq!(approved.status, 403, "{}", approved.text);
    let published = publish("").await?;
    assert_eq!(published.status, 201, "{}", published.text);
    let versions = api.client.send(with(&key, api.client.request(Method::GET, "/api/v1/policies"))).await?;
    assert_eq!(versions.body["policies"][0]["author"], "zoe");
    Ok(())
}

#[tokio::test]
async fn a_follower_is_disconnected_when_its_key_is_revoked() -> Result<()> {
    let stores = Stores::start().await?;
    let api = stores.api().await?;
    let key = first_key(&stores, "catalogue:read,keys:admin").await?;
    answers(&api.client, None, 401).await?;
    let follow = with(&key, api.client.request(Method::GET, "/api/v1/price-changes"));
    let client = api.client.clone();
    let following = tokio::spawn(async move { client.send(follow).await });
    eventually("it follows", PATIENCE, async || {
        let followers = with(&key, api.client.request(Method::GET, "/readyz"));
        ensure!(api.client.send(followers).await?.status == 200 && !following.is_finished());
        Ok(())
    })
    .await?;
    let id = key.split('_').nth(1).context("an identifier")?;
    let revoke = api.client.request(Method::DELETE, &format!("/api/v1/keys/{id}"));
    assert_eq!(api.client.send(with(&key, revoke)).await?.status, 204);
    let followed = tokio::time::timeout(PATIENCE, following).await.context("it follows on")???;
    assert_eq!(followed.status, 200);
    Ok(())
}

/// The variables of an API on these stores that listens here.
fn variables<'a>(
    stores: &'a (String, String),
    listen: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let (redis_url, database_url) = stores;
    let mut variables = vec![
        ("PRICING_API_LISTEN", listen),
        ("PRICING_REDIS_URL", redis_url.as_str()),
        ("PRICING_DATABASE_URL", database_url.as_str()),
    ];
    variables.extend(more);
    variables
}

/// How an API ends that refuses to start.
async fn refused(variables: &[(&str, &str)]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start("pricing-api", variables, &[])?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

/// The check of access control in `/readyz`.
async fn access_check(client: &HttpClient) -> Result<Value> {
    let said = client.get("/readyz").await?.body;
    let checks = said["checks"].as_array().context("no checks")?;
    checks.iter().find(|check| check["name"] == "access").cloned().context("no such check")
}

#[tokio::test]
async fn nothing_is_served_beyond_loopback_without_a_key_unless_that_is_asked_for() -> Result<()> {
    let stores = Stores::start().await?;
    let urls = (stores.redis.url(), stores.database_url());
    let port = free_port()?;
    // Every address of this host; the test reaches it over loopback.
    let (everywhere, loopback) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{}", free_port()?));
    let (code, said) = refused(&variables(&urls, &everywhere, &[])).await?;
    assert!(code == 64 && said.contains("no access key exists"), "{code} {said}");
    // All that is beyond loopback is open by setting.
    let prices_only = [("PRICING_ADMIN_LISTEN", &*loopback), ("PRICING_OPEN_SCOPES", "prices:read")];
    for more in [vec![("PRICING_AUTH", "off")], vec![("PRICING_AUTH", "on")], prices_only.to_vec()] {
        let mut api = ServiceProcess::start("pricing-api", &variables(&urls, &everywhere, &more), &[])?;
        let url = format!("http://127.0.0.1:{port}");
        api.wait_until_ready(&url).await.with_context(|| format!("{more:?}"))?;
        let check = access_check(&HttpClient::new(&url)?).await?;
        let status = if more.len() == 1 { "warning" } else { "ok" };
        assert_eq!(check["status"], status, "{more:?}: {check}");
        api.kill()?;
    }
    let open = [("PRICING_OPEN_SCOPES", "catalogue:write")];
    let (code, said) = refused(&variables(&urls, &everywhere, &open)).await?;
    assert!(code == 64 && said.contains("PRICING_OPEN_SCOPES"), "{code} {said}");
    first_key(&stores, "all").await?;
    let mut api = ServiceProcess::start("pricing-api", &variables(&urls, &everywhere, &[]), &[])?;
    api.wait_until_ready(&format!("http://127.0.0.1:{port}")).await
}

#[tokio::test]
async fn administration_has_a_listener_of_its_own() -> Result<()> {
    let stores = Stores::start().await?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let more = [("PRICING_ADMIN_LISTEN", admin.as_str())];
    let api = Api::start_with(&stores.redis.url(), &stores.database_url(), &more).await?;
    let admin = HttpClient::new(format!("http://{admin}"))?;
    let body = json!({"currency": "USD", "base_price": 10});
    assert_eq!(api.client.put("/api/v1/products/P-1", &body).await?.status, 404);
    let put = admin.put("/api/v1/products/P-1", &body).await?;
    assert!(put.status.is_success(), "{}", put.text);
    for client in [&api.client, &admin] {
        assert_eq!(price(client, None).await?.status, 200);
        assert_eq!(client.get("/readyz").await?.status, 200);
    }
    for path in ["/metrics", "/docs/", "/openapi.json", "/api/v1/products/P-1", "/api/v1/keys"] {
        assert_eq!(api.client.get(path).await?.status, 404, "{path}");
        assert_eq!(admin.get(path).await?.status, 200, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_are_checked_while_the_database_is_away() -> Result<()> {
    let redis = RedisServer::start().await?;
    let mut postgres = PostgresServer::start().await?;
    let database_url = postgres.create_database("prices").await?;
    let api = Api::start(&redis.url(), &database_url).await?;
    api.import("P-1,USD,10\n").await?;
    let create = ["keys", "create", "--direct", "--name", "zoe", "--scopes", "all"];
    let (code, said) = pricing(&[("PRICING_DATABASE_URL", &database_url)], &create).await?;
    assert_eq!(code, 0, "{said}");
    let key = key_in(&said)?;
    answers(&api.client, None, 401).await?;
    answers(&api.client, Some(&key), 200).await?;
    postgres.kill()?;
    eventually("it says that no key can be revoked", PATIENCE, async || {
        let check = access_check(&api.client).await?;
        ensure!(check["status"] == "warning", "{check}");
        Ok(())
    })
    .await?;
    assert_eq!(price(&api.client, Some(&key)).await?.status, 200, "from memory");
    assert_eq!(price(&api.client, None).await?.status, 401);
    Ok(())
}
