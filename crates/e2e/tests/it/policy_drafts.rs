//! Policy drafts: stored, changed by several people, removed; and the schema that editors get for them.

use anyhow::{Context, Result};
use pricing_e2e::{HttpClient, HttpReply};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Stores, shared_postgres};

const PATH: &str = "/api/v1/policies/drafts/summer";

async fn put(
    client: &HttpClient,
    path: &str,
    source: &str,
    header: Option<(&str, &str)>,
) -> Result<HttpReply> {
    let mut request =
        client.request(Method::PUT, path).header("content-type", "application/yaml").body(source.to_owned());
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    client.send(request).await
}

fn etag(reply: &HttpReply) -> Result<String> {
    Ok(reply.headers.get("etag").context("no ETag")?.to_str()?.to_owned())
}

#[tokio::test]
async fn drafts_are_kept_whatever_is_in_them_and_no_change_is_lost_on_sqlite() -> Result<()> {
    let stores = Stores::start().await?;
    write_drafts(&stores.api().await?.client).await
}

#[tokio::test]
async fn drafts_are_kept_whatever_is_in_them_and_no_change_is_lost_on_postgres() -> Result<()> {
    let stores = Stores::start().await?;
    let database = shared_postgres().await?.create_database("policy_drafts").await?;
    write_drafts(&Api::start(&stores.redis.url(), &database).await?.client).await
}

async fn write_drafts(client: &HttpClient) -> Result<()> {
    assert_eq!(client.get(PATH).await?.status, 404);
    let unfinished = "name: [";
    let created =
        put(client, &format!("{PATH}?author=zoe"), unfinished, Some(("if-none-match", "*"))).await?;
    assert_eq!(created.status, 204, "{}", created.text);
    let read = client.get(PATH).await?;
    assert_eq!(etag(&read)?, etag(&created)?);
    assert_eq!((&read.body["author"], &read.body["source"]), (&json!("zoe"), &json!(unfinished)));
    let (mine, yours) = (etag(&read)?, etag(&client.get(PATH).await?)?);
    let changed = put(client, PATH, "name: mine", Some(("if-match", &mine))).await?;
    assert_eq!(changed.status, 204);
    for header in [("if-match", yours.as_str()), ("if-none-match", "*"), ("if-match", "\"1\"")] {
        let late = put(client, PATH, "name: yours", Some(header)).await?;
        assert_eq!((late.status.as_u16(), &late.body["type"]), (412, &json!("/problems/draft-changed")));
    }
    assert_eq!(client.get(PATH).await?.body["source"], "name: mine");
    assert_eq!(put(client, PATH, "name: whatever", None).await?.status, 204);

    for etag in ["\"7\"", "\"0\"", "*"] {
        let other = put(client, "/api/v1/policies/drafts/winter", "", Some(("if-match", etag))).await?;
        assert_eq!(other.status, 412, "what is not there cannot be changed: {etag}");
    }
    let both = client.request(Method::PUT, PATH).header("if-match", "*").header("if-none-match", "*");
    assert_eq!(client.send(both.body("")).await?.status, 422);
    assert_eq!(put(client, "/api/v1/policies/drafts/w%C3%AFnter", "", None).await?.status, 204);
    let names: Vec<Value> = client.get("/api/v1/policies/drafts").await?.body["drafts"]
        .as_array()
        .context("no list")?
        .iter()
        .map(|draft| draft["name"].clone())
        .collect();
    assert_eq!(names, ["wïnter", "summer"]);
    for (path, source, status) in [
        ("/api/v1/policies/drafts/nul", "a\0b".as_bytes(), 422),
        ("/api/v1/policies/drafts/no-text", &[0xff], 422),
        ("/api/v1/policies/drafts/without-author?author=%00", b"", 422),
        ("/api/v1/policies/drafts/nul%00", b"", 422),
        (&format!("/api/v1/policies/drafts/{}", "x".repeat(65)), b"", 422),
    ] {
        let request = client
            .request(Method::PUT, path)
            .header("content-type", "application/yaml")
            .body(source.to_vec());
        let reply = client.send(request).await?;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
    }

    let remove = async |header: Option<&str>| {
        let mut request = client.request(Method::DELETE, PATH);
        if let Some(etag) = header {
            request = request.header("if-match", etag);
        }
        client.send(request).await
    };
    assert_eq!(remove(Some(&mine)).await?.status, 412);
    let now = etag(&client.get(PATH).await?)?;
    assert_eq!(remove(Some(&now)).await?.status, 204);
    assert_eq!(remove(None).await?.status, 404);
    // A new one of the same name is another draft.
    assert_eq!(put(client, PATH, "name: again", None).await?.status, 204);
    assert_eq!(put(client, PATH, "name: late", Some(("if-match", &now))).await?.status, 412);
    Ok(())
}

#[tokio::test]
async fn editors_get_the_schema_of_a_policy() -> Result<()> {
    let stores = Stores::start().await?;
    let reply = stores.api().await?.client.get("/api/v1/policies/schema").await?;
    let schema: Value = serde_json::from_str(&reply.text)?;
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    for field in ["name", "market", "offer", "guardrails", "rounding", "circuit_breaker"] {
        assert!(schema["properties"][field].is_object(), "{field}: {schema}");
    }
    Ok(())
}
