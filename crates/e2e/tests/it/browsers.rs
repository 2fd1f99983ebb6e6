//! What pages in browsers can do: over HTTP, by what browsers send, on every route of the OpenAPI document;
//! and in a real browser ([`pages`]).

use anyhow::{Context, Result, ensure};
use pricing_e2e::HttpReply;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Api, Stores};

mod pages;

/// Operations that any page may cause; every other one of the document is guarded.
const OPEN: [(&str, &str); 6] = [
    ("POST", "/api/v1/price"),
    ("POST", "/api/v1/prices"),
    ("GET", "/api/v1/personalisation"),
    ("GET", "/api/v1/quote-lock-keys"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
];

/// A method of a path, out of the OpenAPI document.
struct Operation {
    method: Method,
    /// As the document has it, and as metrics do.
    pattern: String,
    /// With something in its places, and who asks where the route wants to know.
    path: String,
}

impl Operation {
    fn is_open(&self) -> bool {
        OPEN.contains(&(self.method.as_str(), &self.pattern))
    }
}

async fn operations(api: &Api) -> Result<Vec<Operation>> {
    let document = api.client.get("/openapi.json").await?.body;
    let mut operations = Vec::new();
    for (pattern, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("no methods")? {
            let mut path = pattern.clone();
            let mut query = Vec::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().context("no name")?;
                match (parameter["in"].as_str(), name) {
                    (Some("path"), "product_id") => path = path.replace("{product_id}", "P-1"),
                    (Some("path"), _) => path = path.replace(&format!("{{{name}}}"), "1"),
                    (Some("query"), "author" | "approved_by" | "by") => query.push(format!("{name}=page")),
                    _ => {}
                }
            }
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
            let method = method.to_uppercase().parse()?;
            operations.push(Operation { method, pattern: pattern.clone(), path });
        }
    }
    ensure!(operations.len() > 30, "only {} operations", operations.len());
    Ok(operations)
}

/// The status of an answer, and of a problem its type; the body of a good answer may have no end.
async fn ask(
    api: &Api,
    operation: &Operation,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, String)> {
    let mut request = api.client.request(operation.method.clone(), &operation.path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(body.to_owned());
    }
    let response = request.send().await?;
    let status = response.status();
    let problem: Value = if status.is_success() { Value::Null } else { response.json().await? };
    Ok((status.as_u16(), problem["type"].as_str().unwrap_or_default().to_owned()))
}

/// That nothing is there that a page could have written.
async fn nothing_was_written(api: &Api) -> Result<()> {
    let policies = api.client.get("/api/v1/policies").await?;
    assert_eq!(policies.body["policies"].as_array().map(Vec::len), Some(1), "{}", policies.text);
    assert_eq!(api.client.get("/api/v1/policies/drafts").await?.body["drafts"], json!([]));
    let product = api.client.get("/api/v1/products/P-1").await?;
    assert_eq!(product.body["base_price"], json!(9.0), "{}", product.text);
    assert_eq!(api.client.get("/api/v1/products/P-1/history").await?.body["changes"][1], Value::Null);
    assert_eq!(api.metric("pricing_events_published_total", "").await?, 0);
    Ok(())
}

/// An API with the product `P-1`.
async fn api_with_a_product(stores: &Stores) -> Result<Api> {
    let api = stores.api().await?;
    api.import("P-1,EUR,9\n").await?;
    Ok(api)
}

#[tokio::test]
async fn every_route_but_those_for_shoppers_refuses_pages_of_other_sites() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    let port = api.address.rsplit(':').next().context("no port")?;
    let other_port = format!("http://127.0.0.1:{}", port.parse::<u16>()? ^ 1);
    for operation in operations(&api).await? {
        let name = format!("{} {}", operation.method, operation.path);
        for header in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", &other_port),
            ("origin", "null"),
        ] {
            // The type is one that every route refuses, if it comes to that.
            for (more, body) in [(None, ""), (Some(("content-type", "text/plain")), "{}")] {
                let headers: Vec<_> = std::iter::once(header).chain(more).collect();
                let (status, problem) = ask(&api, &operation, &headers, body).await?;
                let is_refused = status == 403 && problem == "/problems/cross-site-request";
                assert_eq!(is_refused, !operation.is_open(), "{name} {headers:?}: {status} {problem}");
            }
        }
    }
    nothing_was_written(&api).await
}

#[tokio::test]
async fn every_route_but_those_for_shoppers_and_probes_refuses_foreign_names() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    let foreign = [("host", "evil.example")];
    for operation in operations(&api).await? {
        let (status, problem) = ask(&api, &operation, &foreign, "").await?;
        let is_refused = status == 421 && problem == "/problems/misdirected-request";
        assert_eq!(is_refused, !operation.is_open(), "{}: {status} {problem}", operation.path);
    }
    for (path, status) in
        [("/", 421), ("/docs/", 421), ("/openapi.json", 421), ("/nowhere", 421), ("/metrics", 200)]
    {
        let reply = api.client.send(api.client.request(Method::GET, path).header("host", "evil.example"));
        assert_eq!(reply.await?.status, status, "{path}");
    }
    nothing_was_written(&api).await?;
    // Who sets the address is no browser, and may leave it out.
    for (head, status) in [
        ("GET /api/v1/policies HTTP/1.0\r\n", 421),
        ("GET /healthz HTTP/1.0\r\n", 200),
        ("GET http://evil.example/api/v1/policies HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", 421),
        ("GET /api/v1/policies HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n", 400),
    ] {
        let answer = raw(&api, head).await?;
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()), "{head}: {answer}");
    }
    let named = Api::start_with(
        &stores.redis.url(),
        &stores.database_url(),
        &[("PRICING_HOSTS", "pricing.example, api:8000")],
    )
    .await?;
    for (host, status) in
        [("pricing.example", 200), ("api:8000", 200), ("api:8001", 421), ("evil.example", 421)]
    {
        let request = named.client.request(Method::GET, "/api/v1/policies").header("host", host);
        assert_eq!(named.client.send(request).await?.status, status, "{host}");
    }
    Ok(())
}

async fn raw(api: &Api, head: &str) -> Result<String> {
    let mut stream = TcpStream::connect(&api.address).await?;
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn every_route_that_writes_refuses_bodies_of_types_that_it_does_not_read() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    for operation in operations(&api).await?.into_iter().filter(|operation| operation.method != Method::GET) {
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data; boundary=x"),
        ] {
            let headers: Vec<_> =
                content_type.map(|content_type| ("content-type", content_type)).into_iter().collect();
            let (status, problem) = ask(&api, &operation, &headers, "{}").await?;
            let is_refused = status == 415 && problem == "/problems/unsupported-media-type";
            let name = format!("{} {}", operation.method, operation.path);
            assert_eq!(is_refused, !operation.is_open(), "{name} {content_type:?}: {status} {problem}");
        }
    }
    nothing_was_written(&api).await
}

#[tokio::test]
async fn programs_and_pages_of_the_service_itself_are_not_hindered() -> Result<()> {
    let stores = Stores::start().await?;
    let api = api_with_a_product(&stores).await?;
    let own = format!("http://{}", api.address);
    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin"), ("origin", &own)],
        &[("sec-fetch-site", "none")],
        &[("origin", &own)],
    ] {
        for operation in operations(&api).await? {
            // Neither is any of the refusals above; what else is wrong with a request stays wrong.
            if operation.method == Method::GET {
                let (status, problem) = ask(&api, &operation, headers, "").await?;
                assert!(![403, 415, 421].contains(&status), "{}: {status} {problem}", operation.path);
            }
        }
        let mut request = api.client.request(Method::POST, "/api/v1/policies?author=zoe");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let published =
            api.client.send(request.header("content-type", "application/yaml").body("name: own\n"));
        assert_eq!(published.await?.status, 201, "{headers:?}");
    }
    // A policy in JSON is one, and who follows a link to the documentation sees it.
    let request = api.client.request(Method::POST, "/api/v1/policies/check").json(&json!({"name": "json"}));
    assert_eq!(api.client.send(request).await?.body["is_valid"], true);
    for path in ["/docs/", "/", "/openapi.json"] {
        let link = api.client.request(Method::GET, path);
        let link = link.header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "navigate");
        assert_protected(&api.client.send(link).await?, path);
    }
    assert_protected(&api.client.get("/api/v1/policies").await?, "/api/v1/policies");
    Ok(())
}

/// That an answer says what a browser may do with it.
fn assert_protected(reply: &HttpReply, path: &str) {
    assert_eq!(reply.status, 200, "{path}");
    let policy = reply.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
    assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
}

#[tokio::test]
async fn pages_of_listed_origins_may_ask_for_prices_and_for_nothing_else() -> Result<()> {
    let stores = Stores::start().await?;
    let shop = "https://shop.example";
    let origins = [("PRICING_CORS_ORIGINS", "https://shop.example,http://127.0.0.1:9000")];
    let listing = Api::start_with(&stores.redis.url(), &stores.database_url(), &origins).await?;
    listing.import("P-1,EUR,9\n").await?;
    let silent = stores.api().await?;
    let price = json!({"product_id": "P-1", "user_location": "NY"});
    let prices = json!({"user_location": "NY", "items": [{"product_id": "P-1"}]});
    for (path, body) in [("/api/v1/price", &price), ("/api/v1/prices", &prices)] {
        for (api, origin, allowed) in
            [(&listing, shop, Some(shop)), (&listing, "https://evil.example", None), (&silent, shop, None)]
        {
            let asking = api.client.request(Method::POST, path).header("origin", origin);
            let reply = api.client.send(asking.json(body)).await?;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{path} {origin}");
            let preflight = api.client.request(Method::OPTIONS, path).header("origin", origin);
            let preflight = preflight.header("access-control-request-method", "POST");
            let reply = api.client.send(preflight).await?;
            assert_eq!(reply.status, if allowed.is_some() { 204 } else { 405 }, "{path} {origin}");
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{path} {origin}");
        }
    }
    for operation in operations(&listing).await?.into_iter().filter(|operation| !operation.is_open()) {
        let preflight = listing.client.request(Method::OPTIONS, &operation.path).header("origin", shop);
        let reply = listing.client.send(preflight.header("access-control-request-method", "POST")).await?;
        assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (403, None));
    }
    Ok(())
}
