//! `POST /api/v1/price`: what a product costs this shopper now.
//!
//! The hot path. A hit costs: one parse of the body, borrowing from it; one look-up in memory; the quote; one
//! serialisation.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use pricing_core::cache::{Found, Tier};
use pricing_core::domain::diagnostic::{Diagnostic, shorten};
use pricing_core::domain::money::as_json_number;
use pricing_core::domain::policy::PricingPolicy;
use pricing_core::domain::product::ProductId;
use pricing_core::domain::quote::{Shopper, quote};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Problem};
use crate::extract::{BoundedBody, Field, MAX_BODY_BYTES, parse_json};
use crate::overload::Work;
use crate::state::AppState;

/// Says where a price was found: `l1`, `l2` or `miss`.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Room for most answers.
pub(crate) const ANSWER_BYTES: usize = 320;
/// The longest location, channel or segment, in bytes.
const MAX_LABEL_BYTES: usize = 64;
/// The largest quantity.
const MAX_QUANTITY: u32 = 1_000_000;

/// A request for a price. Fields that are not named here are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct PriceRequest<'a> {
    /// The product.
    #[serde(borrow)]
    #[schema(example = "P-100")]
    pub(crate) product_id: Cow<'a, str>,
    /// Where the shopper is.
    #[serde(borrow)]
    #[schema(example = "NY", max_length = 64)]
    user_location: Cow<'a, str>,
    /// Whether the shopper is a prime member; false if absent.
    #[serde(default)]
    is_prime_member: Option<bool>,
    /// How many units; 1 if absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: Option<u32>,
    /// The sales channel.
    #[serde(borrow, default)]
    #[schema(max_length = 64)]
    channel: Option<Cow<'a, str>>,
    /// The group of shoppers that the seller puts the shopper in.
    #[serde(borrow, default)]
    #[schema(max_length = 64)]
    segment: Option<Cow<'a, str>>,
}

/// A price for one shopper. Amounts are JSON numbers with their exact decimal digits.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PriceDetail<'a> {
    /// The product.
    #[schema(value_type = String, example = "P-100")]
    product_id: &'a ProductId,
    /// What one unit costs this shopper.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 49.39)]
    final_price: Decimal,
    /// The product's price before any rule.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 51.99)]
    base_price: Decimal,
    /// What part of the price the shopper's discounts took off: 0.05 is five percent.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 0.05)]
    discount_rate: Decimal,
    /// `cache` if the list price was in memory or in Redis, else `database`.
    #[schema(example = "cache")]
    source: &'static str,
    /// What the amounts are in.
    #[schema(example = "USD")]
    currency: &'static str,
    /// The policy that made the price.
    policy_version: i64,
    /// Grows with every change of the list price.
    revision: i64,
    /// The instant from which time alone may change the price; null if it will not.
    valid_until: Option<DateTime<Utc>>,
}

/// What a product costs this shopper now.
#[utoipa::path(post, path = "/api/v1/price", tag = "prices", summary = "What a product costs this shopper now",
    request_body = PriceRequest<'static>,
    responses(
        (status = 200, description = "The price; the header X-Cache says l1, l2 or miss", body = PriceDetail<'static>),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such product", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is missing or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer, or too much is asked", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn price(
    State(state): State<AppState>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    let request: PriceRequest<'_> = parse_json(&body, PRICE_FIELDS)?;
    let asked = request.check()?;
    let now = Utc::now();
    let mut found = read(&state, &request.product_id, now).await?;
    if !state.repricer.policies.knows(found.entry.policy_version) {
        // Two policies were published between the look-up and now.
        found = read(&state, &request.product_id, now).await?;
    }
    let detail = detail(&state, &found, &asked, now)?;
    let mut body = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut body, &detail)
        .map_err(|error| ApiError::Internal { reason: error.to_string() })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (X_CACHE, HeaderValue::from_static(tier_name(found.tier))),
    ];
    Ok((headers, body).into_response())
}

async fn read(state: &AppState, product_id: &str, now: DateTime<Utc>) -> Result<Found, ApiError> {
    let found = match state.repricer.read_l1(product_id, now) {
        Some(found) => found,
        None => {
            state.admit(Work::LookUp)?;
            state.repricer.read_beyond_l1(product_id, now).await
        }
    };
    found.map_err(|error| ApiError::of_read(error, product_id))
}

/// The wire form of the found price for this shopper.
pub(crate) fn detail<'a>(
    state: &AppState,
    found: &'a Found,
    shopper: &Shopper<'a>,
    now: DateTime<Utc>,
) -> Result<PriceDetail<'a>, ApiError> {
    let entry = &*found.entry;
    let snapshot = state.repricer.policies.snapshot();
    let policy: &PricingPolicy = snapshot
        .policy(entry.policy_version)
        // Two newer ones were published since the look-up; asking again finds a new price.
        .ok_or(ApiError::Unavailable { reason: "the policies are changing" })?;
    let shopper = Shopper { location_factor: snapshot.location_factor(shopper.location), ..*shopper };
    let quote = quote(entry, policy, &shopper, now, None);
    if quote.failed_rules > 0 {
        state.metrics.failed_offer_rules.increment(u64::from(quote.failed_rules));
    }
    Ok(PriceDetail {
        product_id: &entry.product_id,
        final_price: quote.final_price,
        base_price: entry.base_price,
        discount_rate: quote.discount_rate,
        source: if found.tier == Tier::Catalogue { "database" } else { "cache" },
        currency: entry.currency.code(),
        policy_version: entry.policy_version,
        revision: entry.revision,
        valid_until: entry.valid_until,
    })
}

/// The fields of a price request, for error messages.
const PRICE_FIELDS: &[Field] = &[PRODUCT_ID, USER_LOCATION, IS_PRIME_MEMBER, QUANTITY, CHANNEL, SEGMENT];

pub(crate) const PRODUCT_ID: Field = Field {
    name: "product_id",
    required: true,
    allowed: "a product's identifier",
    fits: |value| value.is_string(),
};
pub(crate) const USER_LOCATION: Field = Field {
    name: "user_location",
    required: true,
    allowed: "a text of 1 to 64 bytes, such as \"NY\"",
    fits: |value| value.is_string(),
};
pub(crate) const IS_PRIME_MEMBER: Field = Field {
    name: "is_prime_member",
    required: false,
    allowed: "true or false",
    fits: |value| value.is_boolean(),
};
pub(crate) const QUANTITY: Field = Field {
    name: "quantity",
    required: false,
    allowed: "a whole number from 1 to 1000000",
    fits: |value| value.as_u64().is_some_and(|quantity| u32::try_from(quantity).is_ok()),
};
pub(crate) const CHANNEL: Field = Field {
    name: "channel",
    required: false,
    allowed: "a text of 1 to 64 bytes",
    fits: |value| value.is_string(),
};
pub(crate) const SEGMENT: Field = Field {
    name: "segment",
    required: false,
    allowed: "a text of 1 to 64 bytes",
    fits: |value| value.is_string(),
};

impl PriceRequest<'_> {
    /// The shopper who asks, or everything that is wrong with the request.
    fn check(&self) -> Result<Shopper<'_>, ApiError> {
        let mut errors = Vec::new();
        check_product_id(&self.product_id, PRODUCT_ID.name, &mut errors);
        let shopper = Shopper {
            location: &self.user_location,
            prime: self.is_prime_member.unwrap_or(false),
            quantity: self.quantity.unwrap_or(1),
            channel: self.channel.as_deref(),
            segment: self.segment.as_deref(),
            location_factor: None,
        };
        check_shopper(&shopper, &mut errors);
        if errors.is_empty() { Ok(shopper) } else { Err(ApiError::Invalid { errors }) }
    }
}

pub(crate) fn check_product_id(product_id: &str, field: &str, errors: &mut Vec<Diagnostic>) {
    if !ProductId::is_valid(product_id) {
        errors.extend(
            ProductId::parse(product_id).err().map(|error| Diagnostic::bare(field, error.to_string())),
        );
    }
}

/// Adds what is wrong with what a shopper said of themselves.
pub(crate) fn check_shopper(shopper: &Shopper<'_>, errors: &mut Vec<Diagnostic>) {
    let mut check = |field: &Field, fits: bool, shown: &dyn Fn() -> String| {
        if !fits {
            errors.push(Diagnostic::new(field.name, format!("{} is not allowed", shown()), field.allowed));
        }
    };
    let label_fits = |text: &str| (1..=MAX_LABEL_BYTES).contains(&text.len());
    check(&USER_LOCATION, label_fits(shopper.location), &|| format!("\"{}\"", shorten(shopper.location)));
    check(&QUANTITY, (1..=MAX_QUANTITY).contains(&shopper.quantity), &|| shopper.quantity.to_string());
    let channel = shopper.channel.unwrap_or("-");
    check(&CHANNEL, label_fits(channel), &|| format!("\"{}\"", shorten(channel)));
    let segment = shopper.segment.unwrap_or("-");
    check(&SEGMENT, label_fits(segment), &|| format!("\"{}\"", shorten(segment)));
}

pub(crate) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::L1 => "l1",
        Tier::L2 => "l2",
        Tier::Catalogue => "miss",
    }
}
