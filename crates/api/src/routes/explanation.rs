//! `GET /api/v1/products/{product_id}/explanation`: the facts and steps from which a price was computed.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use pricing_core::cache::Now;
use pricing_core::store::StoredPrice;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::pricing::quote::quote;
use pricing_domain::pricing::used_facts::RecordedExplanation;
use pricing_wire::explanation::{ExplanationAnswer, ExplanationQuery, QuoteExplanation};
use pricing_wire::held_price::RecordedHold;
use serde_json::value::{RawValue, to_raw_value};

use super::price::check_shopper;
use crate::error::ApiError;
use crate::extract::Named;
use crate::state::AppState;

/// How often price and explanation are read until both have the same revision.
const MAX_EXPLANATION_READS: usize = 5;

/// Explains the price of a product.
#[utoipa::path(get, path = "/api/v1/products/{product_id}/explanation", tag = "prices",
    summary = "Explain a price",
    params(("product_id" = String, Path, description = "The product's identifier"), ExplanationQuery),
    responses(
        (status = 200, description = "The explanation recorded with the price", body = ExplanationAnswer),
        (status = 404, description = "No such product"),
        (status = 422, description = "A parameter is unknown or invalid")))]
pub(crate) async fn explanation(
    State(state): State<AppState>,
    Named(product_id): Named<String>,
    query: Result<Query<ExplanationQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| {
        ApiError::field(
            "query",
            rejection.body_text(),
            "user_location, is_prime_member, quantity, channel, segment",
        )
    })?;
    let shopper = check(&query)?;
    let now = state.engine.clock.now();
    // Reading the price first computes one for a product that has none yet.
    let read = state.engine.read(&product_id, Now::read(&state.engine.clock)).await;
    read.map_err(|error| ApiError::of_read(error, &product_id))?;
    let (product, stored, recorded) = stored_explanation(&state, &product_id).await?;
    let internal = |error: serde_json::Error| ApiError::Internal { reason: error.to_string() };
    let facts: RecordedExplanation = serde_json::from_str(&recorded).map_err(internal)?;
    let RecordedHold { held } = serde_json::from_str(&recorded).map_err(internal)?;
    let entry = &stored.entry;
    let snapshot = state.engine.policies.snapshot();
    let policy = snapshot.policy(entry.policy_version).unwrap_or_else(|| snapshot.current());
    let shopper = shopper
        .map(|shopper| Shopper { location_factor: snapshot.location_factor(shopper.location), ..shopper });
    let mut steps = Vec::new();
    let quote = shopper.as_ref().map(|shopper| quote(entry, policy, shopper, now, Some(&mut steps)));
    let steps = steps.iter().map(to_raw_value).collect::<Result<_, _>>().map_err(internal)?;
    let answer = ExplanationAnswer {
        product_id: entry.product_id.to_string(),
        name: product.name,
        currency: entry.currency.code().to_owned(),
        list_price: entry.list_price,
        policy_version: entry.policy_version,
        policy_name: policy.name.clone(),
        revision: entry.revision,
        valid_until: entry.valid_until,
        facts_used: facts.used_facts().into_iter().map(Into::into).collect(),
        held,
        explanation: RawValue::from_string(recorded).map_err(internal)?,
        quote: quote.map(|quote| QuoteExplanation {
            final_price: quote.final_price,
            discount_rate: quote.discount_rate,
            steps,
        }),
    };
    let body = serde_json::to_vec(&answer).map_err(internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// The product, its stored price and the explanation recorded with it.
async fn stored_explanation(
    state: &AppState,
    product_id: &str,
) -> Result<(Product, StoredPrice, String), ApiError> {
    let unknown = || ApiError::ProductNotFound { product_id: product_id.to_owned() };
    let id = ProductId::parse(product_id).map_err(|_| unknown())?;
    let store = &state.engine.store;
    for _ in 0..MAX_EXPLANATION_READS {
        let Some(stored) = store.stored_price(&id).await? else {
            // A product in an unknown currency has no readable price; reading it returns that error.
            store.product(&id).await?;
            return Err(unknown());
        };
        let (product, recorded) = tokio::try_join!(store.product(&id), store.explanation(&id))?;
        let after = store.stored_price(&id).await?.ok_or_else(unknown)?;
        if after.entry.revision == stored.entry.revision {
            let (product, recorded) = product.zip(recorded).ok_or_else(unknown)?;
            return Ok((product, stored, recorded));
        }
    }
    Err(ApiError::Unavailable { reason: "the price is changing too fast to be explained" })
}

/// The shopper, if the query names one.
fn check(query: &ExplanationQuery) -> Result<Option<Shopper<'_>>, ApiError> {
    // The other parameters are checked without a location, too.
    let location = query.user_location.as_deref();
    let shopper = Shopper {
        location: location.unwrap_or("-"),
        prime: query.is_prime_member.unwrap_or(false),
        quantity: query.quantity.unwrap_or(1),
        channel: query.channel.as_deref(),
        segment: query.segment.as_deref(),
        location_factor: None,
    };
    let mut errors = Vec::new();
    let shopper = check_shopper(shopper, &mut errors);
    if errors.is_empty() { Ok(location.map(|_| shopper)) } else { Err(ApiError::Invalid { errors }) }
}
