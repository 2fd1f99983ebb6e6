//! Tests that both paths of a price request give the same answer. They need no server: Redis is unavailable,
//! and prices come from the database.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use pricing_core::engine::{Attribution, Engine};
use pricing_domain::facts::product::ProductDraft;
use pricing_domain::facts::product_tag::OnlyIf;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;
use crate::browser::BrowserGuard;
use crate::hot_path::HotPath;
use crate::listeners::Served;
use crate::load_shedding::SchedulingDelay;
use crate::router::{price_route, router};
use crate::routes::import_spool::Spools;
use crate::routes::price_changes::Followers;
use crate::routes::simulation::Simulations;
use crate::state::StateInner;

const PRICE: &str = r#"{"product_id": "P-1", "user_location": "NY"}"#;
const TRACED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_TRACED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The state of a service with an empty database and without Redis.
pub(crate) async fn state(directory: &TempDir) -> AppState {
    let database = format!("sqlite://{}", directory.path().join("prices.db").display());
    let environment = |variable: &str| match variable {
        "PRICING_DATABASE_URL" => Some(database.clone()),
        // No server listens on this port.
        "PRICING_REDIS_URL" => Some("redis://127.0.0.1:1".to_owned()),
        _ => None,
    };
    let config = crate::config::ApiConfig::read(&environment).unwrap();
    let engine = Engine::open(&config.shared, "test", 100).await.unwrap();
    let (redis, keys) = (&engine.redis, &engine.keys);
    AppState::from(StateInner {
        health: pricing_core::health::Health {
            service: "test",
            redis: redis.clone(),
            keys: keys.clone(),
            store: None,
            policies: None,
            clock: engine.clock.clone(),
            access: None,
            tz_versions: None,
            processes: pricing_core::processes::Processes::new("test", redis, keys),
            liveness: pricing_core::health::Liveness::default(),
        },
        dead_events: pricing_core::events::dead::DeadEvents::new(redis, keys),
        events: pricing_core::events::publish::EventLog::new(redis, keys),
        queue: pricing_core::jobs::queue::JobQueue::new(redis, keys),
        followers: Followers::new(1, watch::channel(0).1, CancellationToken::new()),
        simulations: Simulations::new(),
        import_turns: Arc::new(Semaphore::new(1)),
        import_memory: Arc::new(Semaphore::new(1)),
        import_spools: Spools::new(std::env::temp_dir(), 1),
        scheduling_delay: SchedulingDelay::of(1),
        traced_price_ratio: 0.0,
        admitted: Arc::default(),
        access: crate::access::Access {
            control: pricing_core::access::AccessControl {
                mode: pricing_core::access::AccessMode::Auto,
                keys: pricing_core::access::KeyRing::load(engine.store.clone(), engine.clock.now())
                    .await
                    .unwrap(),
            },
            open: pricing_core::access::scope::Scopes::default(),
            clock: engine.clock.clone(),
        },
        browser: BrowserGuard::default(),
        quote_lock: None,
        personalisation_disclosure: "".into(),
        metrics: Arc::new(crate::metrics::ApiMetrics::new(&engine.registry)),
        engine,
    })
}

/// The body of a request, its headers, and the status of its answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

/// The observable effects of a request.
#[derive(Debug, PartialEq)]
struct Observed {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    /// The counts of requests, without their durations.
    metrics: Vec<String>,
    /// The name and the recorded fields of the span; empty if there was none.
    span: Vec<String>,
}

async fn observe(state: &AppState, answering: impl Future<Output = Response>) -> Observed {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Recorder(Arc::clone(&recorded)));
    let _within = tracing::subscriber::set_default(subscriber);
    let response = answering.await;
    let (status, mut headers) = (response.status(), response.headers().clone());
    // The router adds it; on the other path, hyper would.
    headers.remove(header::CONTENT_LENGTH);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let text = state.engine.registry.render();
    let counts = text.lines().filter(|line| line.starts_with("http_request_duration_seconds_count"));
    let metrics = counts.map(str::to_owned).collect();
    let span = recorded.lock().unwrap().clone();
    Observed { status, headers, body, metrics, span }
}

struct Recorder(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut Vec<String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push(format!("{field} = {value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut recorded = self.0.lock().unwrap();
        recorded.push(attributes.metadata().name().to_owned());
        attributes.record(&mut Fields(&mut recorded));
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
}

#[tokio::test]
async fn both_paths_answer_a_price_the_same() {
    let directory = tempfile::tempdir().unwrap();
    // One state for each path, on the same database: each counts its own requests.
    let (hot, routed) = (state(&directory).await, state(&directory).await);
    let product: ProductDraft =
        serde_json::from_str(r#"{"product_id": "P-1", "currency": "EUR", "base_price": 9}"#).unwrap();
    // The product is stored although Redis is unavailable.
    let put =
        hot.engine.put_product(product.check().unwrap(), OnlyIf::Always, Attribution::engine("test")).await;
    assert!(matches!(put, Err(pricing_core::engine::EngineError::Redis(_))), "{put:?}");
    let hot_path = HotPath::new(hot.clone(), router(&hot, Served::Everything), Handle::current());
    let routes = TowerToHyperService::new(router(&routed, Served::Everything));
    let too_long = " ".repeat(70_000);
    let cases: [Case<'_>; 15] = [
        (PRICE, &[("content-type", "application/json")], 200),
        (PRICE, &[("content-type", "application/x-www-form-urlencoded")], 200),
        (PRICE, &[], 200),
        (PRICE, &[("traceparent", TRACED)], 200),
        (PRICE, &[("traceparent", NOT_TRACED)], 200),
        (PRICE, &[("host", "evil.example"), ("sec-fetch-site", "cross-site")], 200),
        (PRICE, &[("origin", "https://shop.example")], 200),
        ("", &[("traceparent", TRACED)], 400),
        ("{", &[], 400),
        (r#"{"product_id": "P-1"}"#, &[], 422),
        (r#"{"product_id": "P-2", "user_location": "NY"}"#, &[("traceparent", TRACED)], 404),
        (&too_long, &[], 413),
        (PRICE, &[("host", "a b")], 400),
        (PRICE, &[("content-encoding", "gzip")], 415),
        (PRICE, &[("content-type", "application/json; charset=latin1")], 415),
    ];
    for (number, (body, headers, status)) in cases.into_iter().enumerate() {
        let request = || {
            let mut request = Request::builder().method(Method::POST).uri("/api/v1/price");
            if !headers.iter().any(|(name, _)| *name == "host") {
                request = request.header("host", "localhost");
            }
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(axum::body::Body::from(body.to_owned())).unwrap()
        };
        let through_router = async {
            let Ok(response) = routes.call(request()).await;
            response
        };
        let by_router = observe(&routed, through_router).await;
        let by_hot_path = observe(&hot, hot_path.price(request())).await;
        assert_eq!(by_router, by_hot_path, "case {number}");
        assert_eq!(by_router.status, status, "case {number}: {}", by_router.body);
        let is_traced = headers.contains(&("traceparent", TRACED));
        assert_eq!(!by_router.span.is_empty(), is_traced, "case {number}: {:?}", by_router.span);
        assert!(!by_router.metrics.is_empty(), "case {number}");
    }
}

fn empty_request() -> Request<axum::body::Body> {
    Request::builder().header("host", "localhost").body(axum::body::Body::empty()).unwrap()
}

#[tokio::test]
async fn panics_and_timeouts_are_answered_and_measured() {
    let directory = tempfile::tempdir().unwrap();
    let state = state(&directory).await;
    let route = Route { time_limit: Some(Duration::from_millis(1)), ..price_route(&state) };
    let panics = around(&state, &route, empty_request(), async |_| panic!("on purpose"));
    let panicked = observe(&state, panics).await;
    assert_eq!((panicked.status, panicked.body.contains("on purpose")), (500.try_into().unwrap(), false));
    let slow =
        observe(&state, around(&state, &route, empty_request(), async |_| std::future::pending().await))
            .await;
    assert_eq!((slow.status, slow.body.contains("/problems/timeout")), (503.try_into().unwrap(), true));
    for status in ["500", "503"] {
        let count = format!(r#"{{route="/api/v1/price",status="{status}"}} 1"#);
        assert!(slow.metrics.iter().any(|series| series.ends_with(&count)), "{:?}", slow.metrics);
    }
}
