//! `POST /api/v1/prices`: many prices for one shopper, each with its own result.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use pricing_core::cache::{Now, ReadError, TieredPrice};
use pricing_core::policy_snapshot::PolicySnapshot;
use pricing_domain::diagnostic::Diagnostic;
use pricing_domain::facts::shopper::Shopper;
use pricing_wire::problem::Problem;
use serde::{Deserialize, Serialize};

use super::price::ANSWER_BYTES;
use super::price::{
    CHANNEL, CURRENCY, IS_PRIME_MEMBER, LOCK, PRODUCT_ID, PriceDetail, QUANTITY, SEGMENT, USER_LOCATION,
    check_can_lock, check_currency, check_product_id, check_quantity, check_shopper, detail,
};
use crate::error::ApiError;
use crate::extract::{BoundedBody, Field, MAX_BATCH_BODY_BYTES, Object, parse_json};
use crate::load_shedding::Work;
use crate::state::AppState;

/// The maximum number of items in one request.
const MAX_ITEMS: usize = 1_000;

/// Items that are processed between two yields: a tenth of a millisecond's work.
const ITEMS_PER_TURN: usize = 200;

/// Locks between two yields: a signature takes as long as the price of many items.
const LOCKS_PER_TURN: usize = 10;

/// Concurrent look-ups of one request in Redis and the database.
const MAX_CONCURRENT_LOOKUPS: usize = 32;

/// A request for many prices. Unknown fields are refused, those of items, too. White space around a location,
/// channel, segment or currency is ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PricesRequest<'a> {
    /// The shopper's location.
    #[serde(borrow)]
    #[schema(example = "NY", max_length = 64)]
    user_location: Cow<'a, str>,
    /// Whether the shopper is a prime member; false if absent.
    #[serde(default)]
    is_prime_member: Option<bool>,
    /// The sales channel.
    #[serde(borrow, default)]
    #[schema(max_length = 64)]
    channel: Option<Cow<'a, str>>,
    /// The customer segment that the seller assigns to the shopper.
    #[serde(borrow, default)]
    #[schema(max_length = 64)]
    segment: Option<Cow<'a, str>>,
    /// The expected currency, as an ISO 4217 code; an item whose price is in another one has an error.
    #[serde(borrow, default)]
    #[schema(example = "USD", min_length = 3, max_length = 3)]
    currency: Option<Cow<'a, str>>,
    /// Whether the prices are to be locked: each then has a signed `lock`; false if absent.
    #[serde(default)]
    lock: Option<bool>,
    /// The products to price, 1 to 1,000.
    #[serde(borrow)]
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<PricesItem<'static>>)]
    items: Vec<Object<PricesItem<'a>>>,
}

/// A product to price.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PricesItem<'a> {
    /// The product's identifier.
    #[serde(borrow)]
    #[schema(example = "P-100")]
    product_id: Cow<'a, str>,
    /// The number of units; 1 if absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: Option<u32>,
    /// The expected currency of this item; that of the request if absent.
    #[serde(borrow, default)]
    #[schema(example = "EUR", min_length = 3, max_length = 3)]
    currency: Option<Cow<'a, str>>,
    /// Whether the price of this item is to be locked; as the request says if absent.
    #[serde(default)]
    lock: Option<bool>,
}

/// The prices, in the order of the request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PricesAnswer<'a> {
    /// One result per item.
    prices: Vec<ItemAnswer<'a>>,
}

/// The result of one item: a price or an error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ItemAnswer<'a> {
    /// The product, as requested.
    product_id: &'a str,
    /// The price; absent if there is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceDetail<'a>>,
    /// The error; absent if there is a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

const PRICES_FIELDS: &[Field] = &[
    USER_LOCATION,
    IS_PRIME_MEMBER,
    CHANNEL,
    SEGMENT,
    CURRENCY,
    LOCK,
    Field {
        name: "items",
        required: true,
        allowed: "a list of 1 to 1000 objects with a product_id and perhaps a quantity, a currency and lock",
        fits: |items| items.as_array().is_some_and(|items| items.iter().all(serde_json::Value::is_object)),
        items: &[PRODUCT_ID, QUANTITY, CURRENCY, LOCK],
    },
];

/// Returns the prices of many products for one shopper now.
#[utoipa::path(post, path = "/api/v1/prices", tag = "prices", summary = "Quote many prices for a shopper",
    request_body = PricesRequest<'static>,
    responses(
        (status = 200, description = "A price or an error for each item, in the order of the request", body = PricesAnswer<'static>),
        (status = 400, description = "The body is not JSON"),
        (status = 409, description = "A lock is asked for, and no key for locks is set"),
        (status = 413, description = "The body is longer than 1 MiB"),
        (status = 422, description = "A field is missing, unknown or invalid"),
        (status = 503, description = "The service is overloaded")))]
pub(crate) async fn prices(
    State(state): State<AppState>,
    BoundedBody(body): BoundedBody<MAX_BATCH_BODY_BYTES>,
) -> Result<Response, ApiError> {
    state.admit(Work::Batch)?;
    // simd-json parses long bodies faster and modifies its input, hence the copy. Its errors name no field,
    // so a body that it refuses is parsed again by serde_json.
    let mut scratch = body.to_vec();
    let request: PricesRequest<'_> = match simd_json::serde::from_slice(&mut scratch) {
        Ok(Object(request)) => request,
        Err(_) => parse_json(&body, PRICES_FIELDS)?,
    };
    let asked = request.check()?;
    if request.items.iter().any(|Object(item)| request.locks(item)) {
        check_can_lock(&state)?;
    }
    let now = Now::read(&state.engine.clock);
    let found = look_up(&state, &request.items, now).await;
    let policies = state.engine.policies.snapshot();
    let shopper = Shopper { location_factor: policies.location_factor(asked.location), ..asked };
    let mut json = Vec::with_capacity(ANSWER_BYTES * found.len());
    json.extend_from_slice(b"{\"prices\":[");
    let mut locks = 0_usize;
    for (number, (Object(item), found)) in request.items.iter().zip(&found).enumerate() {
        let separator: &[u8] = if number > 0 { b"," } else { b"" };
        json.extend_from_slice(separator);
        let expected = item.currency.as_deref().or(request.currency.as_deref());
        let mut price = price(&state, &policies, item, found, &shopper, now.utc)
            .and_then(|price| check_currency(expected, &price).map(|()| price));
        if let (true, Ok(price)) = (request.locks(item), &mut price) {
            let shopper = Shopper { quantity: item.quantity.unwrap_or(1), ..shopper };
            price.lock(&state, shopper, now.utc)?;
            locks += 1;
            if locks.is_multiple_of(LOCKS_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
        let answer = match price {
            Ok(price) => ItemAnswer { product_id: &item.product_id, price: Some(price), error: None },
            Err(error) => {
                ItemAnswer { product_id: &item.product_id, price: None, error: Some(error.problem()) }
            }
        };
        answer.append_json(&mut json)?;
        let_others_go_first(number + 1).await;
    }
    json.extend_from_slice(b"]}");
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}

impl ItemAnswer<'_> {
    /// Appends what serde would write.
    fn append_json(&self, json: &mut Vec<u8>) -> Result<(), ApiError> {
        let Some(price) = &self.price else {
            return serde_json::to_writer(json, self)
                .map_err(|error| ApiError::Internal { reason: error.to_string() });
        };
        // The identifier of a product needs no escaping.
        json.extend_from_slice(b"{\"product_id\":\"");
        json.extend_from_slice(self.product_id.as_bytes());
        json.extend_from_slice(b"\",\"price\":");
        price.append_json(json);
        json.push(b'}');
        Ok(())
    }
}

impl PricesRequest<'_> {
    /// Whether the price of this item is to be locked.
    fn locks(&self, item: &PricesItem<'_>) -> bool {
        item.lock.or(self.lock).unwrap_or(false)
    }

    fn check(&self) -> Result<Shopper<'_>, ApiError> {
        let mut errors = Vec::new();
        let shopper = Shopper {
            location: &self.user_location,
            prime: self.is_prime_member.unwrap_or(false),
            quantity: 1,
            channel: self.channel.as_deref(),
            segment: self.segment.as_deref(),
            location_factor: None,
        };
        let shopper = check_shopper(shopper, &mut errors);
        if !(1..=MAX_ITEMS).contains(&self.items.len()) {
            let problem = format!("has {} items", self.items.len());
            errors.push(Diagnostic::new("items", problem, format!("1 to {MAX_ITEMS} items")));
        }
        if errors.is_empty() { Ok(shopper) } else { Err(ApiError::Invalid { errors }) }
    }
}

/// Looks up the items' prices: those in memory at once, the others concurrently.
async fn look_up(
    state: &AppState,
    items: &[Object<PricesItem<'_>>],
    now: Now,
) -> Vec<Result<TieredPrice, ReadError>> {
    let mut found = Vec::with_capacity(items.len());
    for items in items.chunks(ITEMS_PER_TURN) {
        let product_ids = items.iter().map(|Object(item)| &*item.product_id);
        found.extend(state.engine.read_many_l1(product_ids, now));
        let_others_go_first(found.len()).await;
    }
    let missing = found.iter().zip(items).enumerate().filter(|(_, (found, _))| found.is_none());
    let missing: Vec<_> = missing
        .map(|(index, (_, Object(item)))| (index, item.product_id.to_string(), state.engine.clone()))
        .collect();
    let mut look_ups = futures::stream::iter(missing)
        .map(|(index, product_id, engine)| async move {
            (index, engine.read_beyond_l1(&product_id, now.utc).await)
        })
        .buffer_unordered(MAX_CONCURRENT_LOOKUPS);
    while let Some((index, result)) = look_ups.next().await {
        if let Some(slot) = found.get_mut(index) {
            *slot = Some(result);
        }
    }
    found.into_iter().map(|found| found.unwrap_or(Err(ReadError::UnknownProduct))).collect()
}

/// Yields after every [`ITEMS_PER_TURN`] items, so that other requests do not wait for a long batch.
async fn let_others_go_first(items_done: usize) {
    if items_done.is_multiple_of(ITEMS_PER_TURN) {
        tokio::task::yield_now().await;
    }
}

fn price<'a>(
    state: &AppState,
    policies: &PolicySnapshot,
    item: &PricesItem<'_>,
    found: &'a Result<TieredPrice, ReadError>,
    shopper: &Shopper<'a>,
    now: DateTime<Utc>,
) -> Result<PriceDetail<'a>, ApiError> {
    let shopper = Shopper { quantity: item.quantity.unwrap_or(1), ..*shopper };
    let mut errors = Vec::new();
    check_quantity(shopper.quantity, &mut errors);
    if found.is_err() {
        check_product_id(&item.product_id, "product_id", &mut errors);
    }
    if !errors.is_empty() {
        return Err(ApiError::Invalid { errors });
    }
    let found = found.as_ref().map_err(|error| ApiError::of_read(error.clone(), &item.product_id))?;
    detail(state, policies, found, &shopper, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_cannot_be_priced_is_written_as_serde_does() {
        let error = ApiError::ProductNotFound { product_id: "\"?\"".to_owned() }.problem();
        let answer = ItemAnswer { product_id: "\"?\"", price: None, error: Some(error) };
        let mut json = Vec::new();
        answer.append_json(&mut json).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&answer).unwrap());
    }
}
