//! The first look at a request, in the HTTP worker that has read it.
//!
//! The price of a product, which nearly every request asks for, is answered right there: no route is looked
//! up and no other thread is woken. Around it is what is around every route ([`crate::pipeline`]). Everything
//! else goes through the routes on the runtime of the service, where it may take its time.

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

use crate::error::ApiError;
use crate::extract::read_body;
use crate::pipeline::{self, Route};
use crate::router::price_route;
use crate::routes::price;
use crate::state::AppState;

/// What one HTTP worker answers with.
pub(crate) struct HotPath {
    /// The worker's own: a clone counts references where no other worker does.
    state: AppState,
    price: Route,
    routes: TowerToHyperService<Router>,
    runtime: Handle,
}

impl HotPath {
    /// Prices out of this state; everything else by the routes, on this runtime.
    pub(crate) fn new(state: AppState, routes: Router, runtime: Handle) -> Arc<Self> {
        let price = price_route(&state);
        Arc::new(Self { state, price, routes: TowerToHyperService::new(routes), runtime })
    }

    /// The answer to a request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response {
        if request.method() == Method::POST && request.uri().path() == self.price.name {
            self.price(request).await
        } else {
            // On the heap, so that there is no room for it in what answers prices.
            Box::pin(self.hand_over(request)).await
        }
    }

    /// The price that a request asks for.
    pub(crate) fn price<B>(&self, request: Request<B>) -> impl Future<Output = Response>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let state = &self.state;
        pipeline::around(state, &self.price, request, |request| {
            // Without its head, for which there would be room in what is moved about.
            let body = request.into_body();
            async {
                match read_body(body, price::MAX_BODY_BYTES).await {
                    Ok(body) => price::answer(state, &body).await.into_response(),
                    Err(error) => error.into_response(),
                }
            }
        })
    }

    /// The handler ends early if the caller disconnects, as it would here.
    async fn hand_over(&self, request: Request<Incoming>) -> Response {
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
