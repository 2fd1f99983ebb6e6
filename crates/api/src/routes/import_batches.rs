//! Imports rows in batches: checks them, leaves out repeated ones, and stores or simulates the products.
//!
//! Batches are stored each in one transaction, with as many concurrent transactions as the database can use.
//! Meanwhile only one further batch is read, so backpressure limits the sender to the speed of the database,
//! and memory stays bounded. A refused row is reported with its line and does not affect other rows. Of two
//! rows for one product the first counts: a later one with the same values is counted, one with other values
//! is refused. An import is idempotent.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt};
use indexmap::IndexMap;
use pricing_core::engine::{
    Attribution, Bound, Engine, EngineError, LostBounds, PreparedProducts, PutSummary, SimulatedProducts,
    StoredPrices, WRITE_BATCH,
};
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::panel::PanelShopper;
use pricing_domain::pricing::simulation::Simulation;
use pricing_wire::import::{ImportAnswer, ImportMoves, ImportWarning, LostBoundsAnswer, RowErrors};
use pricing_wire::problem::FieldError;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use super::import_memory::{Seen, SeenRows};
use super::import_rows::{Format, Row, RowReader};
use crate::error::ApiError;
use crate::state::AppState;

/// Listed refused rows; the others are counted.
const MAX_LISTED_ERRORS: usize = 1_000;
/// Listed products that lost a bound; the others are counted.
const MAX_LISTED_LOSSES: usize = 100;
/// Products of a batch, which is one transaction. A transaction writes a page for every category that it
/// touches, which dominates small ones; but while a long one lasts, other writers wait for SQLite.
const IMPORT_BATCH: usize = 2 * WRITE_BATCH;
/// The most batches being sent to Redis, besides those that were stored last. A Redis that syncs every write
/// to disk is slow at times; the database need not wait for it.
const MAX_SERVING: usize = 4;

/// What is done with the rows.
pub(super) enum Purpose {
    /// They are stored, for this reason.
    Store(Attribution),
    /// They are compared and simulated, for the caller.
    DryRun,
    /// They are compared and simulated, to be judged before they are stored.
    Judge,
}

/// A batch that is being stored.
struct Storing {
    /// The batch's products.
    product_ids: HashSet<ProductId>,
    task: JoinHandle<Result<(PutSummary, Serving), EngineError>>,
}

/// The task that sends a batch's prices to Redis, in turn: followers receive changes in the order of rows.
type Serving = JoinHandle<Result<(), EngineError>>;

/// An import under way: while one batch is read, earlier ones are stored, and the prices of still earlier
/// ones are sent to Redis.
pub(super) struct Import {
    state: AppState,
    purpose: Purpose,
    seen: SeenRows,
    /// The batch being read.
    batch: IndexMap<ProductId, Product>,
    /// The batches being stored, oldest first. No product is in two of them: of rows that are not remembered,
    /// the last one prevails.
    storing: VecDeque<Storing>,
    /// The stored batches whose prices are being sent to Redis, oldest first.
    serving: VecDeque<Serving>,
    /// Resolves when the last of them was served or has failed.
    turn_to_serve: oneshot::Receiver<()>,
    /// Dropped on a failure, or with the import when its sender disconnects: then no further batch is begun,
    /// and the sender may write again.
    is_wanted: Option<Arc<()>>,
    /// The instant as of which the rows state the products' costs.
    requested_at: DateTime<Utc>,
    /// The policy that simulated the first batch.
    policy: Option<Arc<PricingPolicy>>,
    /// The moves of the products that were there before.
    moves: Simulation,
    /// The shoppers whose final prices are judged; none if the rows are stored without.
    panel: Arc<[PanelShopper]>,
    answer: ImportAnswer,
}

impl Import {
    pub(super) fn new(state: AppState, purpose: Purpose) -> Self {
        let dry_run = matches!(purpose, Purpose::DryRun);
        let answer = ImportAnswer { dry_run, ..ImportAnswer::default() };
        let panel: Arc<[PanelShopper]> = match purpose {
            Purpose::DryRun | Purpose::Judge => state.engine.panel_in_use(),
            Purpose::Store(_) => Arc::new([]),
        };
        Self {
            purpose,
            requested_at: state.engine.clock.now(),
            seen: SeenRows::new(Arc::clone(&state.import_memory)),
            state,
            batch: IndexMap::with_capacity(IMPORT_BATCH),
            storing: VecDeque::new(),
            serving: VecDeque::new(),
            turn_to_serve: oneshot::channel().1,
            is_wanted: Some(Arc::new(())),
            policy: None,
            moves: Simulation::default().with_panel(&panel),
            panel,
            answer,
        }
    }

    /// The policy that simulated the first batch; none if no batch was simulated.
    pub(super) fn policy(&self) -> Option<&PricingPolicy> {
        self.policy.as_deref()
    }

    /// The reasons to hold the rows that were simulated, by the circuit breaker of that policy.
    pub(super) async fn reasons_to_hold(&self) -> Result<Vec<String>, ApiError> {
        let Some(policy) = self.policy() else { return Ok(Vec::new()) };
        Ok(self.state.engine.reasons_to_hold(&self.moves, &policy.circuit_breaker, &self.panel).await?)
    }

    /// Takes every row of the chunks, and answers with the outcome.
    pub(super) async fn take_all(
        mut self,
        format: Format,
        chunks: impl Stream<Item = Result<Bytes, ApiError>>,
    ) -> Result<ImportAnswer, ApiError> {
        self.take_stream(format, chunks).await?;
        if self.answer.dry_run {
            self.answer.held = self.reasons_to_hold().await?;
        }
        Ok(ImportAnswer { moves: ImportMoves::of(&self.moves), ..self.answer })
    }

    /// Takes every row. When it returns, even with an error, no batch is under way: what a client writes
    /// after an answer is not overwritten by earlier rows.
    pub(super) async fn take_stream(
        &mut self,
        format: Format,
        chunks: impl Stream<Item = Result<Bytes, ApiError>>,
    ) -> Result<(), ApiError> {
        let taken = self.take_rows(format, chunks).await;
        if taken.is_err() {
            self.is_wanted = None;
        }
        let stored = self.stored(0).await;
        let served = self.served(0).await;
        taken.and(stored).and(served).map_err(|error| error.of_import(self.rows_stored()))
    }

    /// The rows whose products are in the catalogue as they say.
    fn rows_stored(&self) -> u64 {
        match self.purpose {
            Purpose::Store(_) => self.answer.created + self.answer.updated + self.answer.unchanged,
            Purpose::DryRun | Purpose::Judge => 0,
        }
    }

    async fn take_rows(
        &mut self,
        format: Format,
        chunks: impl Stream<Item = Result<Bytes, ApiError>>,
    ) -> Result<(), ApiError> {
        let mut reader = RowReader::new(format);
        let mut chunks = pin!(chunks);
        while let Some(chunk) = chunks.try_next().await? {
            let mut rest = &chunk[..];
            while let Some(row) = reader.next_row(&mut rest)? {
                self.take(row).await?;
            }
        }
        while let Some(row) = reader.last_row()? {
            self.take(row).await?;
        }
        self.answer.attributes = reader.attribute_columns();
        self.write_batch().await
    }

    async fn take(&mut self, row: Row) -> Result<(), ApiError> {
        self.answer.rows += 1;
        let Row { line, draft } = row;
        let product_id = draft.as_ref().ok().and_then(|draft| draft.product_id.as_deref().map(shorten));
        match draft.and_then(|draft| draft.check()) {
            Ok(product) => self.take_product(line, product).await,
            Err(errors) => {
                self.refuse(RowErrors { line, product_id, errors: FieldError::each_of(errors) });
                Ok(())
            }
        }
    }

    async fn take_product(&mut self, line: u64, product: Product) -> Result<(), ApiError> {
        let first = match self.seen.look(&product, line) {
            Seen::Different { first_line } => Some(format!("line {first_line}")),
            Seen::Repeated => {
                self.answer.repeated += 1;
                return Ok(());
            }
            Seen::First => None,
            Seen::Unknown => {
                self.answer.not_compared += 1;
                match self.batch.get(&product.product_id) {
                    Some(first) if *first == product => {
                        self.answer.repeated += 1;
                        return Ok(());
                    }
                    first => first.map(|_| "an earlier line".to_owned()),
                }
            }
        };
        if let Some(first) = first {
            let problem = format!("is in {first} already, with other values; that row counts");
            let errors = vec![Diagnostic::new("product_id", problem, "one row for each product").into()];
            self.refuse(RowErrors { line, product_id: Some(product.product_id.to_string()), errors });
            return Ok(());
        }
        self.warn_of(line, &product);
        self.batch.insert(product.product_id.clone(), product);
        if self.batch.len() >= IMPORT_BATCH { self.write_batch().await } else { Ok(()) }
    }

    fn warn_of(&mut self, line: u64, product: &Product) {
        let of_currency = product.currency.warning();
        let of_id = is_rounded_number(product.product_id.as_str()).then(|| ROUNDED_ID.to_owned());
        for warning in of_currency.into_iter().chain(of_id) {
            match self.answer.warnings.iter_mut().find(|known| known.warning == warning) {
                Some(known) => known.rows += 1,
                None => self.answer.warnings.push(ImportWarning { warning, line, rows: 1 }),
            }
        }
    }

    fn refuse(&mut self, row: RowErrors) {
        self.answer.failed += 1;
        if !matches!(self.purpose, Purpose::Judge) {
            self.state.metrics.rows_refused.increment(1);
        }
        if self.answer.errors.len() < MAX_LISTED_ERRORS {
            self.answer.errors.push(row);
        } else {
            self.answer.errors_left_out += 1;
        }
    }

    async fn write_batch(&mut self) -> Result<(), ApiError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let products: Vec<Product> = self.batch.drain(..).map(|(_, product)| product).collect();
        match &self.purpose {
            Purpose::Store(by) => {
                let by = by.clone();
                self.store_batch(products, by).await
            }
            Purpose::DryRun | Purpose::Judge => self.simulate_batch(products).await,
        }
    }

    async fn simulate_batch(&mut self, products: Vec<Product>) -> Result<(), ApiError> {
        let turn = self.state.import_turns.acquire().await;
        let simulated =
            self.state.engine.simulate_products(products, self.requested_at, Arc::clone(&self.panel)).await;
        drop(turn);
        let SimulatedProducts { summary, policy } = simulated.map_err(ApiError::of_comparison)?;
        self.policy.get_or_insert(policy);
        self.count(summary);
        Ok(())
    }

    async fn store_batch(&mut self, products: Vec<Product>, by: Attribution) -> Result<(), ApiError> {
        let engine = self.state.engine.clone();
        // Prepared while earlier batches are stored, so that the database never waits for it.
        let products = PreparedProducts::of(products, self.requested_at)?;
        let product_ids: HashSet<ProductId> = products.ids().into_iter().collect();
        let has_another = |storing: &Storing| !storing.product_ids.is_disjoint(&product_ids);
        let most_before = match self.storing.iter().rposition(has_another) {
            Some(last) => self.storing.len() - 1 - last,
            None => self.state.engine.store.useful_writers() - 1,
        };
        self.stored(most_before).await?;
        self.served(MAX_SERVING).await?;
        let (served, next_turn) = oneshot::channel();
        let turn_to_serve = std::mem::replace(&mut self.turn_to_serve, next_turn);
        let turns = Arc::clone(&self.state.import_turns);
        let is_wanted = self.is_wanted.as_ref().map(Arc::downgrade).unwrap_or_default();
        let storing = async move {
            let turn = turns.acquire().await;
            if is_wanted.strong_count() == 0 {
                return Err(EngineError::Interrupted);
            }
            let (summary, prices) = engine.store_products(products, &by).await?;
            drop(turn);
            // Stored prices are published even if the caller has disconnected.
            let serving = serve(engine, prices, turn_to_serve, served);
            Ok((summary, tokio::spawn(serving.in_current_span())))
        };
        let task = tokio::spawn(storing.in_current_span());
        self.storing.push_back(Storing { product_ids, task });
        // Lets the task start now: it is in the queue of this thread, which would read the next batch first.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn count(&mut self, summary: PutSummary) {
        if !matches!(self.purpose, Purpose::Judge) {
            let rows = summary.created + summary.updated + summary.unchanged;
            self.state.metrics.rows_imported.increment(rows);
        }
        let moves = summary.moves.len() as u64;
        summary.moves.iter().for_each(|price| self.moves.add(price));
        self.moves.add_unmoved((summary.updated + summary.unchanged).saturating_sub(moves));
        self.answer.created += summary.created;
        self.answer.updated += summary.updated;
        self.answer.unchanged += summary.unchanged;
        summary.lost.into_iter().for_each(|lost| count_loss(&mut self.answer.lost, lost));
    }

    /// Waits until at most `max_remaining` batches are being stored.
    async fn stored(&mut self, max_remaining: usize) -> Result<(), ApiError> {
        let mut outcome = Ok(());
        while self.storing.len() > max_remaining
            && let Some(storing) = self.storing.pop_front()
        {
            let stored = storing.task.await.map_err(interrupted).and_then(|stored| Ok(stored?));
            let served = match stored {
                Ok((summary, serving)) => {
                    self.count(summary);
                    self.serving.push_back(serving);
                    self.served(MAX_SERVING).await
                }
                Err(error) => Err(error),
            };
            outcome = outcome.and(served);
        }
        outcome
    }

    /// Waits until at most `max_remaining` batches are being sent to Redis, and collects the outcomes of
    /// those that have ended.
    async fn served(&mut self, max_remaining: usize) -> Result<(), ApiError> {
        let mut outcome = Ok(());
        while (self.serving.len() > max_remaining
            || self.serving.front().is_some_and(JoinHandle::is_finished))
            && let Some(serving) = self.serving.pop_front()
        {
            let served = serving.await.map_err(interrupted);
            outcome = outcome.and(served.and_then(|served| Ok(served?)));
        }
        outcome
    }
}

fn count_loss(answer: &mut LostBoundsAnswer, lost: LostBounds) {
    for bound in lost.bounds {
        let count = match bound {
            Bound::UnitCost => &mut answer.unit_cost,
            Bound::FloorPrice => &mut answer.floor_price,
            Bound::CeilingPrice => &mut answer.ceiling_price,
            Bound::MinimumAdvertisedPrice => &mut answer.minimum_advertised_price,
        };
        *count += 1;
    }
    if answer.product_ids.len() < MAX_LISTED_LOSSES {
        answer.product_ids.push(lost.product_id.to_string());
    } else {
        answer.product_ids_left_out += 1;
    }
}

/// The warning about long numbers that a spreadsheet program has rounded: each is another identifier, and
/// those of two products may become the same.
const ROUNDED_ID: &str =
    "identifiers such as 1.23457E+12 look like numbers that a spreadsheet program has rounded";

fn is_rounded_number(product_id: &str) -> bool {
    let is_whole = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    product_id.split_once("E+").is_some_and(|(digits, exponent)| {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        whole.len() == 1 && is_whole(whole) && is_whole(fraction) && is_whole(exponent)
    })
}

/// Serves a batch after the one before it was served or failed.
async fn serve(
    engine: Engine,
    prices: StoredPrices,
    turn: oneshot::Receiver<()>,
    served: oneshot::Sender<()>,
) -> Result<(), EngineError> {
    let _ = turn.await;
    let outcome = engine.serve_stored(prices).await;
    let _ = served.send(());
    outcome
}

#[expect(clippy::needless_pass_by_value, reason = "as an argument of map_err")]
fn interrupted(error: JoinError) -> ApiError {
    ApiError::Internal { reason: error.to_string() }
}
