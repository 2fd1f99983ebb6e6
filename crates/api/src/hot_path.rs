//! The dispatch of requests in an HTTP worker.
//!
//! Price requests, which are nearly all, are answered in place: without looking up a route or waking another
//! thread. They pass through the same pipeline as every route ([`crate::pipeline`]). All other requests go to
//! the router on the runtime of the service, where they may take longer.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Method, Request};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::accept::Peer;
use crate::error::ApiError;
use crate::extract::read_body;
use crate::pipeline::{self, Route};
use crate::router::price_route;
use crate::routes::price;
use crate::state::AppState;

/// The request handler of one HTTP worker.
pub(crate) struct HotPath {
    /// Owned by the worker, so that no other worker contends for its reference count.
    state: AppState,
    price: Route,
    routes: TowerToHyperService<Router>,
    runtime: Handle,
}

impl HotPath {
    /// Answers prices from this state, and everything else through the routes, on this runtime.
    pub(crate) fn new(state: AppState, routes: Router, runtime: Handle) -> Arc<Self> {
        let price = price_route(&state);
        Arc::new(Self { state, price, routes: TowerToHyperService::new(routes), runtime })
    }

    /// Answers a request of this peer.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response {
        if request.method() == Method::POST && request.uri().path() == self.price.name {
            self.price(request).await
        } else {
            // Boxed, so that the future of a price request reserves no space for it.
            Box::pin(self.hand_over(request, peer)).await
        }
    }

    /// Answers a price request.
    pub(crate) fn price<B>(&self, request: Request<B>) -> impl Future<Output = Response>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let state = &self.state;
        pipeline::around(state, &self.price, request, |request| {
            // The head is dropped here, so that the future reserves no space for it.
            let body = request.into_body();
            async {
                match read_body(body, price::MAX_BODY_BYTES).await {
                    Ok(body) => price::answer(state, &body).await.into_response(),
                    Err(error) => error.into_response(),
                }
            }
        })
    }

    /// Answers through the routes. The handler is aborted if the caller disconnects, as it would be here.
    async fn hand_over(&self, mut request: Request<Incoming>, peer: Peer) -> Response {
        request.extensions_mut().insert(peer);
        let answering = self.runtime.spawn(self.routes.call(request));
        match AbortOnDropHandle::new(answering).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(error) => {
                ApiError::Internal { reason: format!("a handler ended early: {error}") }.into_response()
            }
        }
    }
}
