//! `POST /api/v1/products/import`: imports products from a stream of rows.
//!
//! Rows are read as they arrive and stored in batches ([`super::import_batches`]). If the policy in use has a
//! circuit breaker, and the import no approval, all rows are judged first ([`super::import_judgement`]).

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use pricing_core::engine::Attribution;
use pricing_wire::import::{ImportAnswer, ImportQuery, RowErrors};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::import_batches::{Import, Purpose};
use super::import_judgement::take_judged;
pub(crate) use super::import_memory::REMEMBERED_ROWS;
use super::import_rows::Format;
use crate::access::Caller;
use crate::error::ApiError;
use crate::state::AppState;

/// The longest import.
const MAX_IMPORT_BYTES: usize = 4 * 1024 * 1024 * 1024;
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
        (status = 409, description = "The circuit breaker of the policy in use holds the import, and nothing was stored; `approve` or `approved_by` is required"),
        (status = 413, description = "The body is longer than 4 GiB, and rows already stored are kept; or it is longer than PRICING_IMPORT_SPOOL_LIMIT_BYTES, the policy in use has a circuit breaker, and nothing was stored"),
        (status = 415, description = "The media type is neither CSV nor NDJSON"),
        (status = 422, description = "A parameter is invalid"),
        (status = 503, description = "The database or Redis does not answer, and rows already stored are kept; or four imports are being judged. The import can be repeated")))]
pub(crate) async fn import(
    State(state): State<AppState>,
    caller: Caller,
    query: Result<Query<ImportQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| {
        ApiError::field("query", rejection.body_text(), "dry_run, approve, approved_by")
    })?;
    let approver = caller.approver(query.approve, query.approved_by)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let format = content_type.and_then(Format::of_content_type).ok_or_else(unknown_format)?;
    let answer = if query.dry_run {
        Import::new(state, Purpose::DryRun).take_all(format, chunks_of(body)).await?
    } else {
        state.require_redis().await?;
        let is_judged = !state.engine.policies.snapshot().current().circuit_breaker.is_off();
        let import_id = Uuid::now_v7().to_string();
        let by = match &approver {
            None => Attribution::import("import", caller.origin(), &import_id),
            Some(approver) => {
                let origin = caller.origin().stating(Some(approver));
                Attribution::import(&format!("import approved by {approver}"), origin, &import_id)
            }
        };
        if approver.is_none() && is_judged {
            take_judged(state, format, body, by).await?
        } else {
            Import::new(state, Purpose::Store(by)).take_all(format, chunks_of(body)).await?
        }
    };
    Ok(Json(answer).into_response())
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
    let import = Import::new(state, Purpose::Store(Attribution::engine("import")));
    let answer = import.take_all(Format::Csv, chunks_of(Body::from_stream(file))).await?;
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

/// The chunks of a body, within its limits of length and time.
pub(super) fn chunks_of(body: Body) -> impl Stream<Item = Result<Bytes, ApiError>> {
    futures::stream::try_unfold((body.into_data_stream(), 0), async |(mut chunks, bytes_before)| {
        let chunk = tokio::time::timeout(MAX_PAUSE, chunks.next()).await.map_err(|_| {
            ApiError::BodyTooSlow { reason: format!("nothing of it came for {} s", MAX_PAUSE.as_secs()) }
        })?;
        let Some(chunk) = chunk else { return Ok(None) };
        let chunk =
            chunk.map_err(|_| ApiError::MalformedBody { reason: "the body ended early".to_owned() })?;
        let bytes_read = bytes_before + chunk.len();
        if bytes_read > MAX_IMPORT_BYTES {
            return Err(ApiError::BodyTooLarge { max_bytes: MAX_IMPORT_BYTES });
        }
        Ok(Some((chunk, (chunks, bytes_read))))
    })
}
