//! `POST /api/v1/products/import`: imports products from a stream of rows.
//!
//! Rows are read as they arrive and written in batches, each in one transaction, with as many concurrent
//! transactions as the database can use. Meanwhile only one further batch is read, so backpressure limits the
//! sender to the speed of the database, and memory stays bounded. A refused row is reported with its line and
//! does not affect other rows. Of two rows for one product the first counts: a later one with the same values
//! is counted, one with other values is refused. An import is idempotent.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use indexmap::IndexMap;
use pricing_core::engine::{
    Bound, Engine, EngineError, LostBounds, PreparedProducts, PutSummary, StoredPrices, WRITE_BATCH,
};
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_wire::import::{ImportAnswer, ImportQuery, ImportWarning, LostBoundsAnswer, RowErrors};
use pricing_wire::problem::FieldError;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::io::ReaderStream;
use tracing::Instrument;

pub(crate) use super::import_memory::REMEMBERED_ROWS;
use super::import_memory::{Seen, SeenRows};
use super::import_rows::{Format, Row, RowReader};
use crate::error::ApiError;
use crate::state::AppState;

/// The longest import.
const MAX_IMPORT_BYTES: usize = 4 * 1024 * 1024 * 1024;
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
/// How long a sender may pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Imports products from CSV with a header line, or from NDJSON with one product object per line.
#[utoipa::path(post, path = "/api/v1/products/import", tag = "catalogue", summary = "Import products",
    params(ImportQuery),
    request_body(content((String = "text/csv"), (String = "application/x-ndjson")),
        description = "text/csv: a header line with product_id, currency, base_price and optionally name, category, brand, unit_cost, floor_price, ceiling_price, minimum_advertised_price; other columns become attributes; attribute.NAME makes any column one. application/x-ndjson: one product object per line."),
    responses(
        (status = 200, description = "The outcome; refused rows are listed with their lines", body = ImportAnswer),
        (status = 400, description = "The CSV header is unusable, or the body ended early"),
        (status = 413, description = "The body is longer than 4 GiB; rows already stored are kept"),
        (status = 415, description = "The media type is neither CSV nor NDJSON"),
        (status = 422, description = "`dry_run` is neither `true` nor `false`"),
        (status = 503, description = "The database or Redis does not answer; rows already stored are kept, and the import can be repeated")))]
pub(crate) async fn import(
    State(state): State<AppState>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Query(query) =
        query.map_err(|rejection| ApiError::field("dry_run", rejection.body_text(), "true or false"))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = content_type.and_then(Format::of_content_type).ok_or_else(unknown_format)?;
    if !query.dry_run {
        state.require_redis().await?;
    }
    take_all(Import::new(state, query.dry_run), format, body).await.map(|answer| Json(answer).into_response())
}

fn unknown_format() -> ApiError {
    ApiError::UnsupportedMediaType { allowed: "text/csv or application/x-ndjson".to_owned() }
}

/// Imports a CSV file if the catalogue is empty. If that fails, the service starts nevertheless.
pub(crate) async fn seed(state: AppState, path: &str) {
    match seed_from(state, path).await {
        Ok(0) => tracing::info!(path, "the catalogue has products already and is not seeded"),
        Ok(products) => tracing::info!(path, products, "the catalogue was seeded"),
        Err(error) => tracing::error!(path, %error, "the catalogue is not seeded"),
    }
}

async fn seed_from(state: AppState, path: &str) -> Result<u64, SeedError> {
    let products = state.engine.store.count_products().await;
    if products.map_err(ApiError::from)? > 0 {
        return Ok(0);
    }
    let file = ReaderStream::new(tokio::fs::File::open(path).await?);
    let answer = take_all(Import::new(state, false), Format::Csv, Body::from_stream(file)).await?;
    if let Some(RowErrors { line, .. }) = answer.errors.first() {
        tracing::warn!(
            path,
            failed = answer.failed,
            first_line = line,
            "some rows of the seed file were refused"
        );
    }
    Ok(answer.created)
}

/// The reason that a catalogue was not seeded.
#[derive(Debug, thiserror::Error)]
enum SeedError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// The rows cannot be imported.
    #[error("{0:?}")]
    Import(ApiError),
}

impl From<ApiError> for SeedError {
    fn from(error: ApiError) -> Self {
        Self::Import(error)
    }
}

/// Imports every row of the body. When it returns, even with an error, no batch is under way: what a client
/// writes after an answer is not overwritten by earlier rows.
async fn take_all(mut import: Import, format: Format, body: Body) -> Result<ImportAnswer, ApiError> {
    let taken = take_rows(&mut import, format, body).await;
    if taken.is_err() {
        import.is_wanted = None;
    }
    let stored = import.stored(0).await;
    let served = import.served(0).await;
    taken.and(stored).and(served)?;
    Ok(import.answer)
}

async fn take_rows(import: &mut Import, format: Format, body: Body) -> Result<(), ApiError> {
    let mut reader = RowReader::new(format);
    let mut chunks = body.into_data_stream();
    let mut bytes_read = 0;
    loop {
        let chunk = tokio::time::timeout(MAX_PAUSE, chunks.next()).await.map_err(|_| {
            ApiError::BodyTooSlow { reason: format!("nothing of it came for {} s", MAX_PAUSE.as_secs()) }
        })?;
        let Some(chunk) = chunk else { break };
        let chunk =
            chunk.map_err(|_| ApiError::MalformedBody { reason: "the body ended early".to_owned() })?;
        bytes_read += chunk.len();
        if bytes_read > MAX_IMPORT_BYTES {
            return Err(ApiError::BodyTooLarge { max_bytes: MAX_IMPORT_BYTES });
        }
        let mut rest = &chunk[..];
        while let Some(row) = reader.next_row(&mut rest)? {
            import.take(row).await?;
        }
    }
    while let Some(row) = reader.last_row()? {
        import.take(row).await?;
    }
    import.answer.attributes = reader.attribute_columns();
    import.write_batch().await
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
struct Import {
    state: AppState,
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
    answer: ImportAnswer,
}

impl Import {
    fn new(state: AppState, dry_run: bool) -> Self {
        let answer = ImportAnswer { dry_run, ..ImportAnswer::default() };
        Self {
            seen: SeenRows::new(Arc::clone(&state.import_memory)),
            state,
            batch: IndexMap::with_capacity(IMPORT_BATCH),
            storing: VecDeque::new(),
            serving: VecDeque::new(),
            turn_to_serve: oneshot::channel().1,
            is_wanted: Some(Arc::new(())),
            requested_at: Utc::now(),
            answer,
        }
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
        self.state.metrics.rows_refused.increment(1);
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
        let engine = self.state.engine.clone();
        if self.answer.dry_run {
            let summary = engine.compare_products(&products).await.map_err(ApiError::of_comparison)?;
            self.count(summary);
            return Ok(());
        }
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
            let (summary, prices) = engine.store_products(products, "import").await?;
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
        self.state.metrics.rows_imported.increment(summary.created + summary.updated + summary.unchanged);
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
