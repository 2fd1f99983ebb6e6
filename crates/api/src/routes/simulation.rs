//! `POST /api/v1/policies/simulate`: what a policy would do to the whole catalogue, without touching a price.
//!
//! The answer streams, one JSON document a line: how far it is, the products if they are asked for, at last the report.
//! It takes the way that a recalculation takes, up to the point where that would write; so publishing then does the
//! same, on the same facts.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use futures::Stream;
use pricing_core::catalogue::CatalogueError;
use pricing_core::domain::circuit_breaker::CircuitBreaker;
use pricing_core::domain::explanation::Outcome;
use pricing_core::domain::policy::MAX_POLICY_BYTES;
use pricing_core::domain::recalculation::Scope;
use pricing_core::domain::simulation::{SimulatedPrice, Simulation, SimulationReport};
use pricing_core::reprice::Simulator;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::policy::compile;
use crate::error::{ApiError, Problem};
use crate::extract::BoundedBody;
use crate::state::AppState;

/// Simulations that run at a time in one process; each keeps a core busy.
const MAX_SIMULATIONS: usize = 2;

/// The simulations of a process.
#[derive(Clone)]
pub(crate) struct Simulations(Arc<Semaphore>);

impl Simulations {
    /// None runs yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SIMULATIONS)))
    }
}

/// What to answer besides the report.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SimulateQuery {
    /// `none`, `all`, or `moved`: those that would have another price, or none because a rule fails.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    products: Listed,
}

/// Which products are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Listed {
    #[default]
    None,
    Moved,
    All,
}

/// A line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Progress { products: u64, total: u64 },
    Product(&'a SimulatedPrice),
    Report(Report),
    Error(Problem),
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    report: SimulationReport,
    /// Why publishing it would need approval: what its own and the published policy's circuit breakers say.
    held: Vec<String>,
}

/// Simulates a policy.
#[utoipa::path(post, path = "/api/v1/policies/simulate", tag = "policies", summary = "Simulate a policy",
    params(SimulateQuery),
    request_body(content = String, content_type = "application/yaml", description = "The policy, YAML or JSON"),
    responses(
        (status = 200, description = "One JSON object a line: `{\"progress\": …}`, `{\"product\": …}` if asked for, and last `{\"report\": …}`: how many products would go up and down, the distribution of moves, guardrail hits, failed rules, margins, the biggest moves, and whether a circuit breaker would hold it; or `{\"error\": …}`", body = String, content_type = "application/x-ndjson"),
        (status = 422, description = "Something is wrong with the policy", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer, or two simulations are running", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn simulate(
    State(state): State<AppState>,
    query: Result<Query<SimulateQuery>, QueryRejection>,
    BoundedBody(body): BoundedBody<MAX_POLICY_BYTES>,
) -> Result<Response, ApiError> {
    let Query(query) = query
        .map_err(|rejection| ApiError::field("products", rejection.body_text(), "none, moved or all"))?;
    let policy = compile(&body).map_err(|errors| ApiError::Invalid { errors })?;
    let permit = Arc::clone(&state.simulations.0).try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::Unavailable { reason: "two simulations are running" })?;
    let breakers = vec![policy.circuit_breaker, state.repricer.policies.snapshot().current().circuit_breaker];
    let simulator = state.repricer.simulator(Arc::new(policy), Scope::All, Utc::now());
    let total = simulator.count().await?;
    let simulated = Simulated {
        simulator,
        simulation: Simulation::default(),
        breakers,
        total,
        listed: query.products,
        _permit: permit,
    };
    let body = Body::from_stream(simulated.lines());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// A simulation under way.
struct Simulated {
    simulator: Simulator,
    simulation: Simulation,
    breakers: Vec<CircuitBreaker>,
    total: u64,
    listed: Listed,
    /// Given back when the answer is sent, or nobody reads it any more.
    _permit: OwnedSemaphorePermit,
}

impl Simulated {
    /// The lines of each page.
    fn lines(self) -> impl Stream<Item = Result<Vec<u8>, Infallible>> {
        futures::stream::unfold(Some(self), |simulated| async move {
            let mut simulated = simulated?;
            let mut lines = Vec::new();
            let is_over = match simulated.next_lines(&mut lines).await {
                Ok(is_over) => is_over,
                Err(error) => {
                    write_line(&mut lines, &Line::Error(ApiError::from(error).problem()));
                    true
                }
            };
            Some((Ok(lines), (!is_over).then_some(simulated)))
        })
    }

    /// Whether these are the last.
    async fn next_lines(&mut self, lines: &mut Vec<u8>) -> Result<bool, CatalogueError> {
        let page = self.simulator.next_page().await?;
        for price in &page {
            self.simulation.add(price);
            if self.listed.includes(price) {
                write_line(lines, &Line::Product(price));
            }
        }
        if !page.is_empty() {
            write_line(lines, &Line::Progress { products: self.simulation.moves(), total: self.total });
            return Ok(false);
        }
        let held = self.breakers.iter().flat_map(|breaker| breaker.judge(&self.simulation));
        let mut held: Vec<String> = held.map(|held| held.to_string()).collect();
        held.dedup();
        write_line(lines, &Line::Report(Report { report: self.simulation.report(), held }));
        Ok(true)
    }
}

impl Listed {
    fn includes(self, price: &SimulatedPrice) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Moved => {
                price.list_price != Some(price.simulated_list_price) || price.outcome == Outcome::Frozen
            }
        }
    }
}

fn write_line(lines: &mut Vec<u8>, line: &Line<'_>) {
    // What is written here are numbers and texts; none of them can fail.
    if serde_json::to_writer(&mut *lines, line).is_ok() {
        lines.push(b'\n');
    }
}
