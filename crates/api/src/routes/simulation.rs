//! `POST /api/v1/policies/simulate`: the effect of a policy on the whole catalogue, without changing a price.
//!
//! The answer is a stream with one JSON document per line: progress, the products if requested, and finally
//! the report. A simulation runs as a recalculation does, up to the point where that would write; so
//! publishing has the same effect, on the same facts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pricing_core::engine::Simulator;
use pricing_core::store::StoreError;
use pricing_domain::diagnostic::Diagnostic;
use pricing_domain::facts::recalculation::RecalculationScope;
use pricing_domain::policy::MAX_POLICY_BYTES;
use pricing_domain::pricing::explanation::Outcome;
use pricing_domain::pricing::simulation::SimulatedPrice;
use pricing_wire::simulation::{Line, Listed, Progress, SimulateQuery, SimulationReport};
use serde_json::value::to_raw_value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::policy::{compile, refused};
use crate::error::ApiError;
use crate::extract::BoundedBody;
use crate::state::AppState;

/// Concurrent simulations in one process; each keeps a core busy.
const MAX_SIMULATIONS: usize = 2;

/// How long a reader may pause before its simulation is cancelled, which releases the permit.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Pages that are buffered ahead of the reader.
const PAGES_AHEAD: usize = 2;

/// The simulations of a process.
#[derive(Clone)]
pub(crate) struct Simulations(Arc<Semaphore>);

impl Simulations {
    /// All permits are free at first.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SIMULATIONS)))
    }

    /// A permit for another simulation, if one is free; dropping it releases it.
    pub(crate) fn take_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = Arc::clone(&self.0).try_acquire_owned();
        permit.map_err(|_| ApiError::Unavailable { reason: "two simulations are running" })
    }
}

/// Simulates a policy.
#[utoipa::path(post, path = "/api/v1/policies/simulate", tag = "policies", summary = "Simulate a policy",
    params(SimulateQuery),
    request_body(content = String, content_type = "application/yaml", description = "The policy, YAML or JSON"),
    responses(
        (status = 200, description = "One JSON object per line: `{\"progress\": …}`, `{\"product\": …}` if requested, and last `{\"report\": …}`: the numbers of products whose price would rise and fall, the distribution of moves, the effect and the failures of each market rule, guardrail hits, the prices that limits on moves hold back (`held_prices`) and the moves at once that exceed `max_step`, margins, the biggest moves, the moves of the final prices of each shopper of the panel (`panel`), effects on products that are probably not intended (`catalogue_warnings`), the reasons why a circuit breaker would hold the policy (`held`), and parts of it that are allowed but probably not intended (`warnings`); or `{\"error\": …}`", body = String, content_type = "application/x-ndjson"),
        (status = 413, description = "The policy is longer than 256 KiB"),
        (status = 422, description = "The policy or a parameter is invalid"),
        (status = 503, description = "The database does not answer, or two simulations are running")))]
pub(crate) async fn simulate(
    State(state): State<AppState>,
    query: Result<Query<SimulateQuery>, QueryRejection>,
    BoundedBody(body): BoundedBody<MAX_POLICY_BYTES>,
) -> Result<Response, ApiError> {
    let Query(query) = query
        .map_err(|rejection| ApiError::field("products", rejection.body_text(), "none, moved or all"))?;
    let policy = compile(&body, state.time_zones()).map_err(refused)?;
    let warnings = policy.warnings.clone();
    let permit = state.simulations.take_place()?;
    let simulator =
        state.engine.simulator(Arc::new(policy), RecalculationScope::All, state.engine.clock.now());
    let simulator = if simulator.is_judged() { simulator.with_later_instants() } else { simulator };
    let total = simulator.count().await?;
    let (lines, read) = mpsc::channel(PAGES_AHEAD);
    let simulated = Simulated { simulator, total, listed: query.products, warnings, lines };
    tokio::spawn(async move {
        simulated.run().await;
        drop(permit);
    });
    let lines = futures::stream::unfold(read, |mut read| async move {
        read.recv().await.map(|lines| (Ok::<_, Infallible>(lines), read))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// A simulation under way.
struct Simulated {
    simulator: Simulator,
    total: u64,
    listed: Listed,
    warnings: Vec<Diagnostic>,
    lines: mpsc::Sender<Vec<u8>>,
}

impl Simulated {
    /// Runs to the end, or until the reader disconnects or pauses for too long.
    async fn run(mut self) {
        loop {
            let mut lines = Vec::new();
            let is_over = match self.next_lines(&mut lines).await {
                Ok(is_over) => is_over,
                Err(error) => {
                    let error = Some(ApiError::from(error).problem());
                    write_line(&mut lines, &Line { error, ..Line::default() });
                    true
                }
            };
            if self.lines.send_timeout(lines, MAX_PAUSE).await.is_err() || is_over {
                return;
            }
        }
    }

    /// Appends the lines of the next page; returns whether they are the last.
    async fn next_lines(&mut self, lines: &mut Vec<u8>) -> Result<bool, StoreError> {
        let page = self.simulator.next_page().await?;
        for price in page.iter().filter(|price| includes(self.listed, price)) {
            write_line(lines, &Line { product: Some(price.into()), ..Line::default() });
        }
        let simulation = self.simulator.simulation();
        if !page.is_empty() {
            let progress =
                Some(Progress { products: simulation.list_prices().products(), total: self.total });
            write_line(lines, &Line { progress, ..Line::default() });
            return Ok(false);
        }
        let held = self.simulator.reasons_to_hold().await?;
        let warnings = std::mem::take(&mut self.warnings);
        let report = SimulationReport::new(simulation.report(), held, warnings);
        write_line(lines, &Line { report: to_raw_value(&report).ok(), ..Line::default() });
        Ok(true)
    }
}

fn includes(listed: Listed, price: &SimulatedPrice) -> bool {
    match listed {
        Listed::None => false,
        Listed::All => true,
        Listed::Moved => {
            price.list_price != Some(price.simulated_list_price) || price.outcome == Outcome::Frozen
        }
    }
}

fn write_line(lines: &mut Vec<u8>, line: &Line) {
    // Serialising numbers and texts cannot fail.
    if serde_json::to_writer(&mut *lines, line).is_ok() {
        lines.push(b'\n');
    }
}
