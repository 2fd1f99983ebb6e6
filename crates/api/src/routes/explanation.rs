//! `GET /api/v1/products/{product_id}/explanation`: the steps and facts that a price results from.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::cache::Now;
use pricing_core::store::StoredPrice;
use pricing_domain::facts::money::as_json_number;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::pricing::explanation::Step;
use pricing_domain::pricing::quote::quote;
use pricing_domain::pricing::used_facts::{RecordedExplanation, UsedFact};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::price::check_shopper;
use crate::error::ApiError;
use crate::extract::Named;
use crate::state::AppState;

/// How often price and explanation are read until both have the same revision.
const MAX_EXPLANATION_READS: usize = 5;

/// A shopper for whom the quote is explained too; without a location, only the list price is.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplanationQuery {
    /// Where the shopper is.
    #[param(example = "NY")]
    user_location: Option<String>,
    /// Whether the shopper is a prime member.
    is_prime_member: Option<bool>,
    /// How many units.
    quantity: Option<u32>,
    /// The sales channel.
    channel: Option<String>,
    /// The group of shoppers that the seller puts the shopper in.
    segment: Option<String>,
}

/// Why a product's price is what it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ExplanationAnswer<'a> {
    /// The product.
    #[schema(value_type = String, example = "P-100")]
    product_id: &'a ProductId,
    /// Its name.
    name: &'a str,
    /// What the amounts are in.
    currency: &'static str,
    /// The list price.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64)]
    list_price: Decimal,
    /// The policy that made it.
    policy_version: i64,
    /// That policy's name.
    policy_name: &'a str,
    /// Grows with every change of the list price.
    revision: i64,
    /// The instant from which time alone may change the price.
    valid_until: Option<DateTime<Utc>>,
    /// The facts that it was made with: which cost, competitors' prices, stock, sales and demand, said by
    /// whom and when.
    #[schema(value_type = Vec<UsedFactSchema>)]
    facts_used: Vec<UsedFact<'a>>,
    /// What was recorded when the list price was made: facts, steps and outcome. Steps are as in a quote's,
    /// and `guardrails_contradict` (`lowest`, `highest`). `semantics` counts the engines that made other
    /// prices or explanations of the same, and is 1 where it is missing.
    #[schema(value_type = Object)]
    explanation: &'a RawValue,
    /// The shopper's price, if a location was given.
    quote: Option<QuoteExplanation<'a>>,
}

/// A fact that a price was made with.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = UsedFact)]
pub(crate) struct UsedFactSchema {
    /// `unit_cost`, `competitor_price`, `stock_level`, `units_sold` or `demand_index`.
    #[schema(example = "unit_cost")]
    fact: String,
    /// Whose price it is, of a competitor's.
    #[schema(nullable = false)]
    competitor: Option<String>,
    /// What it says.
    value: f64,
    /// Who said so: `product` for the product's row, else the source of the event; null if that is not known.
    #[schema(required)]
    source: Option<String>,
    /// When it was true; null if that is not known. The seller's word on a cost is of the request that said
    /// it.
    #[schema(required)]
    since: Option<DateTime<Utc>>,
    /// From when on it is not known any more, if it ends.
    #[schema(nullable = false)]
    expires_at: Option<DateTime<Utc>>,
}

/// Why a shopper's price is what it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct QuoteExplanation<'a> {
    /// What one unit costs the shopper.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64)]
    final_price: Decimal,
    /// What part of what this shopper would pay without the rules that are discounts they take off.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64)]
    discount_rate: Decimal,
    /// What happened, from the list price on; each is an object whose `step` names its kind, with the price
    /// `after` it: `start`; `rule` (`rule`, `when`, `action`, `inputs`, `reference`, `applied`, `before`);
    /// `rule_failed` (`problem`); `tie` (`chosen`, `others`); `guardrail` (`guardrail`, `before`); `rounding`
    /// (`mode`, `before`); `increment_passed_over` (`increment`): no multiple of the increment fits, and the
    /// price keeps to the minor unit.
    #[schema(value_type = Vec<Object>)]
    steps: Vec<Step<'a>>,
}

/// Explains the price of a product.
#[utoipa::path(get, path = "/api/v1/products/{product_id}/explanation", tag = "prices",
    summary = "Why a price is what it is",
    params(("product_id" = String, Path, description = "The product"), ExplanationQuery),
    responses(
        (status = 200, description = "The steps, as recorded with the price", body = ExplanationAnswer<'static>),
        (status = 404, description = "No such product"),
        (status = 422, description = "A parameter is not allowed")))]
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
    let shopper = query.check()?;
    let now = Utc::now();
    // Reading the price first computes one for a product that has none yet.
    let read = state.engine.read(&product_id, Now::now()).await;
    read.map_err(|error| ApiError::of_read(error, &product_id))?;
    let (product, stored, recorded) = stored_explanation(&state, &product_id).await?;
    let internal = |error: serde_json::Error| ApiError::Internal { reason: error.to_string() };
    let facts: RecordedExplanation = serde_json::from_str(&recorded).map_err(internal)?;
    let entry = &stored.entry;
    let snapshot = state.engine.policies.snapshot();
    let policy = snapshot.policy(entry.policy_version).unwrap_or_else(|| snapshot.current());
    let shopper = shopper
        .map(|shopper| Shopper { location_factor: snapshot.location_factor(shopper.location), ..shopper });
    let mut steps = Vec::new();
    let quote = shopper.as_ref().map(|shopper| quote(entry, policy, shopper, now, Some(&mut steps)));
    let answer = ExplanationAnswer {
        product_id: &entry.product_id,
        name: &product.name,
        currency: entry.currency.code(),
        list_price: entry.list_price,
        policy_version: entry.policy_version,
        policy_name: &policy.name,
        revision: entry.revision,
        valid_until: entry.valid_until,
        facts_used: facts.used_facts(),
        explanation: serde_json::from_str(&recorded).map_err(internal)?,
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

impl ExplanationQuery {
    /// The shopper, if the query names one.
    fn check(&self) -> Result<Option<Shopper<'_>>, ApiError> {
        let Some(location) = &self.user_location else {
            return Ok(None);
        };
        let shopper = Shopper {
            location,
            prime: self.is_prime_member.unwrap_or(false),
            quantity: self.quantity.unwrap_or(1),
            channel: self.channel.as_deref(),
            segment: self.segment.as_deref(),
            location_factor: None,
        };
        let mut errors = Vec::new();
        let shopper = check_shopper(shopper, &mut errors);
        if errors.is_empty() { Ok(Some(shopper)) } else { Err(ApiError::Invalid { errors }) }
    }
}
