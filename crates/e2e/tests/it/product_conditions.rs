//! `ETag`, `If-Match` and `If-None-Match` on products: no change is lost, on either database.

use anyhow::{Context, Result};
use pricing_e2e::{HttpClient, HttpReply};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Stores, shared_postgres};

const PATH: &str = "/api/v1/products/L-1";

async fn change(
    client: &HttpClient,
    method: Method,
    condition: (&str, &str),
    product: Option<&Value>,
) -> Result<HttpReply> {
    let request = client.request(method, PATH).header(condition.0, condition.1);
    client
        .send(match product {
            Some(product) => request.json(product),
            None => request,
        })
        .await
}

fn etag(reply: &HttpReply) -> Result<String> {
    Ok(reply.header("etag").with_context(|| format!("no ETag: {} {}", reply.status, reply.text))?.to_owned())
}

#[tokio::test]
async fn no_change_of_a_product_is_lost_on_sqlite() -> Result<()> {
    let stores = Stores::start().await?;
    let (one, other) = (stores.api().await?, stores.api().await?);
    no_change_is_lost(&one.client, &other.client).await
}

#[tokio::test]
async fn no_change_of_a_product_is_lost_on_postgres() -> Result<()> {
    let stores = Stores::start().await?;
    let database = shared_postgres().await?.create_database("product_conditions").await?;
    let one = Api::start(&stores.redis.url(), &database).await?;
    let other = Api::start(&stores.redis.url(), &database).await?;
    no_change_is_lost(&one.client, &other.client).await
}

async fn no_change_is_lost(one: &HttpClient, other: &HttpClient) -> Result<()> {
    conditions_are_kept(one).await?;
    for round in 0..10 {
        two_writers_change_it(one, other, round).await?;
        two_writers_create_it(one, other).await?;
    }
    Ok(())
}

async fn conditions_are_kept(client: &HttpClient) -> Result<()> {
    let product = json!({"currency": "USD", "base_price": 100, "unit_cost": "60.10"});
    let absent = change(client, Method::PUT, ("if-match", "*"), Some(&product)).await?;
    assert_eq!((absent.status.as_u16(), &absent.body["type"]), (412, &json!("/problems/product-changed")));
    let created = change(client, Method::PUT, ("if-none-match", "*"), Some(&product)).await?;
    assert_eq!(created.status, 201, "{}", created.text);
    let read = client.get(PATH).await?;
    assert_eq!(etag(&read)?, etag(&created)?, "a save answers with the tag of what it saved");
    assert_eq!(change(client, Method::PUT, ("if-none-match", "*"), Some(&product)).await?.status, 412);
    let known = client.request(Method::GET, PATH).header("if-none-match", etag(&read)?);
    assert_eq!(client.send(known).await?.status, 304);

    let dearer = json!({"currency": "USD", "base_price": 120, "unit_cost": 90});
    let old = etag(&read)?;
    let changed = change(client, Method::PUT, ("if-match", &format!("\"1\", {old}")), Some(&dearer)).await?;
    assert_eq!((changed.status.as_u16(), &changed.body["result"]), (200, &json!("updated")));
    for condition in ["\"1\"", old.as_str(), &format!("W/{}", etag(&changed)?)] {
        for method in [Method::PUT, Method::DELETE] {
            let body = (method == Method::PUT).then_some(&product);
            let late = change(client, method, ("if-match", condition), body).await?;
            assert_eq!(late.status, 412, "{condition}: {}", late.text);
        }
    }
    assert_eq!(client.get(PATH).await?.body["unit_cost"], json!(90), "nothing was changed");
    let again = change(client, Method::PUT, ("if-match", &old), Some(&dearer)).await?;
    assert_eq!(
        (again.status.as_u16(), &again.body["result"]),
        (200, &json!("unchanged")),
        "the same is repeated"
    );
    let unquoted = change(client, Method::PUT, ("if-match", "abc"), Some(&product)).await?;
    assert_eq!(unquoted.status, 422, "{}", unquoted.text);

    let gone = change(client, Method::DELETE, ("if-match", &etag(&again)?), None).await?;
    assert_eq!(gone.status, 204);
    assert_eq!(change(client, Method::DELETE, ("if-match", &old), None).await?.status, 404);
    Ok(())
}

/// Both have read the same state, and both write: one of them gets a conflict.
async fn two_writers_change_it(one: &HttpClient, other: &HttpClient, round: u32) -> Result<()> {
    let start = json!({"currency": "USD", "base_price": 100 + round});
    let read = etag(&one.put(PATH, &start).await?)?;
    let (cheaper, dearer) = (
        json!({"currency": "USD", "base_price": 50 + round}),
        json!({"currency": "USD", "base_price": 200 + round}),
    );
    let (first, second) = tokio::try_join!(
        change(one, Method::PUT, ("if-match", &read), Some(&cheaper)),
        change(other, Method::PUT, ("if-match", &read), Some(&dearer)),
    )?;
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", first.text, second.text);
    let won = if first.status == 200 { &cheaper } else { &dearer };
    assert_eq!(one.get(PATH).await?.body["base_price"].as_f64(), won["base_price"].as_f64());
    Ok(())
}

async fn two_writers_create_it(one: &HttpClient, other: &HttpClient) -> Result<()> {
    one.delete(PATH).await?;
    let (mine, yours) =
        (json!({"currency": "USD", "base_price": 1}), json!({"currency": "USD", "base_price": 2}));
    let (first, second) = tokio::try_join!(
        change(one, Method::PUT, ("if-none-match", "*"), Some(&mine)),
        change(other, Method::PUT, ("if-none-match", "*"), Some(&yours)),
    )?;
    let mut statuses = [first.status.as_u16(), second.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412], "{} {}", first.text, second.text);
    Ok(())
}
