//! `POST /api/v1/price`: the price of a product for one shopper now.
//!
//! This is the hot path. A cache hit costs one parse of the body, borrowing from it; one look-up in memory;
//! the quote; and one serialisation.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use pricing_core::cache::{Now, Tier, TieredPrice};
use pricing_core::policy_snapshot::PolicySnapshot;
use pricing_core::quote_lock::Terms;
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::money::{append_json_number, as_json_number};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::shopper::{MAX_QUANTITY, MAX_TRAIT_BYTES, Shopper};
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::quote::quote;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::extract::{BoundedBody, Field, parse_json};
use crate::load_shedding::Work;
use crate::state::AppState;

/// The longest body.
pub(crate) const MAX_BODY_BYTES: usize = crate::extract::MAX_BODY_BYTES;

/// The header that names the tier that held the price: `l1`, `l2` or `miss`.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The initial capacity of an answer, sufficient for most.
pub(crate) const ANSWER_BYTES: usize = 352;

/// A request for a price. Unknown fields are refused, so that none is ignored. White space around a location,
/// channel, segment or currency is ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceRequest<'a> {
    /// The product's identifier.
    #[serde(borrow)]
    #[schema(example = "P-100")]
    pub(crate) product_id: Cow<'a, str>,
    /// The shopper's location.
    #[serde(borrow)]
    #[schema(example = "NY", min_length = 1, max_length = 64)]
    user_location: Cow<'a, str>,
    /// Whether the shopper is a prime member; false if absent.
    #[serde(default)]
    is_prime_member: Option<bool>,
    /// The number of units; 1 if absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: Option<u32>,
    /// The sales channel.
    #[serde(borrow, default)]
    #[schema(min_length = 1, max_length = 64)]
    channel: Option<Cow<'a, str>>,
    /// The customer segment that the seller assigns to the shopper.
    #[serde(borrow, default)]
    #[schema(min_length = 1, max_length = 64)]
    segment: Option<Cow<'a, str>>,
    /// The expected currency, as an ISO 4217 code; a price in another one is refused.
    #[serde(borrow, default)]
    #[schema(example = "USD", min_length = 3, max_length = 3)]
    currency: Option<Cow<'a, str>>,
    /// Whether the price is to be locked: the answer then has a signed `lock`; false if absent.
    #[serde(default)]
    lock: Option<bool>,
}

/// A price for one shopper. Amounts are JSON numbers with their exact decimal digits.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PriceDetail<'a> {
    /// The product's identifier.
    #[schema(value_type = String, example = "P-100")]
    product_id: &'a ProductId,
    /// The shopper's price of one unit.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 49.39)]
    final_price: Decimal,
    /// The product's price before any rule.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 51.99)]
    base_price: Decimal,
    /// The price before offer rules, the same for all shoppers.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 51.99)]
    list_price: Decimal,
    /// The discount from the shopper's undiscounted price, as a fraction (0.05 is 5%):
    /// `max(0, 1 - final_price / undiscounted)`, rounded half to even to four decimal places. Rules with
    /// `discount: false` are part of the undiscounted price.
    #[serde(serialize_with = "as_json_number")]
    #[schema(value_type = f64, example = 0.05)]
    discount_rate: Decimal,
    /// `cache` if the list price was in memory or in Redis, else `database`.
    #[schema(example = "cache")]
    source: &'static str,
    /// The ISO 4217 code of the amounts.
    #[schema(example = "USD")]
    currency: &'static str,
    /// The version of the policy that computed the price.
    policy_version: i64,
    /// The price's revision; increases with every change of the list price.
    revision: i64,
    /// The instant from which time alone may change the price; null if there is none.
    valid_until: Option<DateTime<Utc>>,
    /// True if something personal of the shopper was looked at and could have changed the price; absent
    /// otherwise. `GET /api/v1/personalisation` says what is personal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    personalised: bool,
    /// The price as a signed token, if the request asks for it: see docs/quote-lock.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
}

/// Returns the price of a product for one shopper now.
#[utoipa::path(post, path = "/api/v1/price", tag = "prices", summary = "Quote a price for a shopper",
    request_body = PriceRequest<'static>,
    responses(
        (status = 200, description = "The price; the header X-Cache is `l1`, `l2` or `miss`", body = PriceDetail<'static>),
        (status = 400, description = "The body is not JSON"),
        (status = 404, description = "No such product"),
        (status = 409, description = "A lock is asked for, and no key for locks is set"),
        (status = 413, description = "The body is longer than 64 KiB"),
        (status = 422, description = "A field is missing, unknown or invalid, or the price is in another currency"),
        (status = 503, description = "The database does not answer, or the service is overloaded")))]
pub(crate) async fn price(
    State(state): State<AppState>,
    BoundedBody(body): BoundedBody<MAX_BODY_BYTES>,
) -> Result<Response, ApiError> {
    answer(&state, &body).await
}

/// Answers the price request in this body.
pub(crate) async fn answer(state: &AppState, body: &[u8]) -> Result<Response, ApiError> {
    let request: PriceRequest<'_> = parse_json(body, PRICE_FIELDS)?;
    let asked = request.check()?;
    if request.lock == Some(true) {
        check_can_lock(state)?;
    }
    let now = Now::read(&state.engine.clock);
    let mut found = read(state, &request.product_id, now).await?;
    if !state.engine.policies.knows(found.entry.policy_version) {
        // Two policies were published since the look-up, and only the latest two are in memory.
        found = read(state, &request.product_id, now).await?;
    }
    let policies = state.engine.policies.snapshot();
    let shopper = Shopper { location_factor: policies.location_factor(asked.location), ..asked };
    let mut detail = detail(state, &policies, &found, &shopper, now.utc)?;
    check_currency(request.currency.as_deref(), &detail)?;
    if request.lock == Some(true) {
        detail.lock(state, shopper, now.utc)?;
    }
    let mut body = Vec::with_capacity(ANSWER_BYTES);
    detail.append_json(&mut body);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (X_CACHE, HeaderValue::from_static(tier_name(found.tier))),
    ];
    Ok((headers, body).into_response())
}

async fn read(state: &AppState, product_id: &str, now: Now) -> Result<TieredPrice, ApiError> {
    let found = match state.engine.read_l1(product_id, now) {
        Some(found) => found,
        None => {
            state.admit(Work::LookUp)?;
            // Boxed: few requests need it, and the future of every request would reserve space for it.
            Box::pin(state.engine.read_beyond_l1(product_id, now.utc)).await
        }
    };
    found.map_err(|error| ApiError::of_read(error, product_id))
}

/// Quotes the found price for this shopper, under these policies.
pub(crate) fn detail<'a>(
    state: &AppState,
    policies: &PolicySnapshot,
    found: &'a TieredPrice,
    shopper: &Shopper<'a>,
    now: DateTime<Utc>,
) -> Result<PriceDetail<'a>, ApiError> {
    let entry = &*found.entry;
    let policy: &PricingPolicy = policies
        .policy(entry.policy_version)
        // Two newer policies were published since the look-up; a retry finds a new price.
        .ok_or(ApiError::Unavailable { reason: "the policies are changing" })?;
    let quote = quote(entry, policy, shopper, now, None);
    if quote.failed_rules > 0 {
        state.metrics.failed_offer_rules.increment(u64::from(quote.failed_rules));
    }
    Ok(PriceDetail {
        product_id: &entry.product_id,
        final_price: quote.final_price,
        base_price: entry.base_price,
        list_price: entry.list_price,
        discount_rate: quote.discount_rate,
        source: if found.tier == Tier::Store { "database" } else { "cache" },
        currency: entry.currency.code(),
        policy_version: entry.policy_version,
        revision: entry.revision,
        valid_until: entry.valid_until,
        personalised: quote.is_personalised,
        lock: None,
    })
}

/// Refuses a request for a lock if no key is set. 409, as another setting makes the same request possible: a
/// status of 5xx would say that the service has failed.
pub(crate) fn check_can_lock(state: &AppState) -> Result<(), ApiError> {
    state.quote_lock.as_ref().map(drop).ok_or(ApiError::NoQuoteLockKey)
}

/// Refuses a price in another currency than the caller expects, if the caller names one.
pub(crate) fn check_currency(expected: Option<&str>, price: &PriceDetail<'_>) -> Result<(), ApiError> {
    match expected.map(str::trim) {
        Some(expected) if expected != price.currency => Err(ApiError::OtherCurrency {
            product_id: price.product_id.to_string(),
            currency: price.currency,
            expected: shorten(expected),
        }),
        _ => Ok(()),
    }
}

/// The fields of a price request, for error messages.
const PRICE_FIELDS: &[Field] =
    &[PRODUCT_ID, USER_LOCATION, IS_PRIME_MEMBER, QUANTITY, CHANNEL, SEGMENT, CURRENCY, LOCK];

pub(crate) const PRODUCT_ID: Field = Field {
    name: "product_id",
    required: true,
    allowed: "a product's identifier",
    fits: |value| value.is_string(),
    items: &[],
};
pub(crate) const USER_LOCATION: Field = Field {
    name: "user_location",
    required: true,
    allowed: "a text of 1 to 64 bytes, such as \"NY\"",
    fits: |value| value.is_string(),
    items: &[],
};
pub(crate) const IS_PRIME_MEMBER: Field = Field {
    name: "is_prime_member",
    required: false,
    allowed: "true or false",
    fits: |value| value.is_boolean(),
    items: &[],
};
pub(crate) const QUANTITY: Field = Field {
    name: "quantity",
    required: false,
    allowed: "a whole number from 1 to 1000000",
    fits: |value| value.as_u64().is_some_and(|quantity| u32::try_from(quantity).is_ok()),
    items: &[],
};
pub(crate) const CHANNEL: Field = Field {
    name: "channel",
    required: false,
    allowed: "a text of 1 to 64 bytes",
    fits: |value| value.is_string(),
    items: &[],
};
pub(crate) const SEGMENT: Field = Field {
    name: "segment",
    required: false,
    allowed: "a text of 1 to 64 bytes",
    fits: |value| value.is_string(),
    items: &[],
};
pub(crate) const CURRENCY: Field = Field {
    name: "currency",
    required: false,
    allowed: "the code of the currency that the price is expected in",
    fits: |value| value.is_string(),
    items: &[],
};
pub(crate) const LOCK: Field = Field {
    name: "lock",
    required: false,
    allowed: "true or false",
    fits: |value| value.is_boolean(),
    items: &[],
};

impl PriceDetail<'_> {
    /// Locks the price for this shopper.
    #[cold]
    pub(crate) fn lock(
        &mut self,
        state: &AppState,
        shopper: Shopper<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), ApiError> {
        let terms = Terms {
            product_id: self.product_id.as_str(),
            amount: self.final_price,
            currency: self.currency,
            shopper,
            revision: self.revision,
            valid_until: self.valid_until,
        };
        let signer = state.quote_lock.as_ref().ok_or(ApiError::NoQuoteLockKey)?;
        let lock = signer.lock(&terms, now);
        self.lock = Some(lock.map_err(|error| ApiError::Internal { reason: error.to_string() })?);
        Ok(())
    }

    /// Appends what serde would write, in a fraction of the time, as no value needs escaping.
    pub(crate) fn append_json(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"product_id\":\"");
        json.extend_from_slice(self.product_id.as_str().as_bytes());
        json.extend_from_slice(b"\",\"final_price\":");
        append_json_number(json, self.final_price);
        json.extend_from_slice(b",\"base_price\":");
        append_json_number(json, self.base_price);
        json.extend_from_slice(b",\"list_price\":");
        append_json_number(json, self.list_price);
        json.extend_from_slice(b",\"discount_rate\":");
        append_json_number(json, self.discount_rate);
        json.extend_from_slice(b",\"source\":\"");
        json.extend_from_slice(self.source.as_bytes());
        json.extend_from_slice(b"\",\"currency\":\"");
        json.extend_from_slice(self.currency.as_bytes());
        json.extend_from_slice(b"\",\"policy_version\":");
        json.extend_from_slice(itoa::Buffer::new().format(self.policy_version).as_bytes());
        json.extend_from_slice(b",\"revision\":");
        json.extend_from_slice(itoa::Buffer::new().format(self.revision).as_bytes());
        json.extend_from_slice(b",\"valid_until\":");
        match self.valid_until {
            Some(valid_until) => {
                let instant = valid_until.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                json.extend([b"\"", instant.as_bytes(), b"\""].concat());
            }
            None => json.extend_from_slice(b"null"),
        }
        if self.personalised {
            json.extend_from_slice(b",\"personalised\":true");
        }
        if let Some(lock) = &self.lock {
            // Base64url and full stops.
            json.extend([b",\"lock\":\"", lock.as_bytes(), b"\""].concat());
        }
        json.push(b'}');
    }
}

impl PriceRequest<'_> {
    /// The shopper, or all problems of the request.
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
        let shopper = check_shopper(shopper, &mut errors);
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

/// The shopper with trimmed texts; adds the problems of the shopper's fields to `errors`.
pub(crate) fn check_shopper<'a>(asked: Shopper<'a>, errors: &mut Vec<Diagnostic>) -> Shopper<'a> {
    let shopper = Shopper {
        location: trimmed(asked.location),
        channel: asked.channel.map(trimmed),
        segment: asked.segment.map(trimmed),
        ..asked
    };
    check_label(&USER_LOCATION, shopper.location, errors);
    check_quantity(shopper.quantity, errors);
    check_label(&CHANNEL, shopper.channel.unwrap_or("-"), errors);
    check_label(&SEGMENT, shopper.segment.unwrap_or("-"), errors);
    shopper
}

/// Returns the text without surrounding white space.
fn trimmed(label: &str) -> &str {
    match label.as_bytes() {
        // A fast path for almost all texts, without Unicode's table of white space.
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => label,
        _ => label.trim(),
    }
}

pub(crate) fn check_quantity(quantity: u32, errors: &mut Vec<Diagnostic>) {
    if !(1..=MAX_QUANTITY).contains(&quantity) {
        let problem = format!("{quantity} is not allowed");
        errors.push(Diagnostic::new(QUANTITY.name, problem, QUANTITY.allowed));
    }
}

fn check_label(field: &Field, label: &str, errors: &mut Vec<Diagnostic>) {
    if !(1..=MAX_TRAIT_BYTES).contains(&label.len()) {
        let problem = format!("\"{}\" is not allowed", shorten(label));
        errors.push(Diagnostic::new(field.name, problem, field.allowed));
    }
}

pub(crate) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::L1 => "l1",
        Tier::L2 => "l2",
        Tier::Store => "miss",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn appended_json_is_what_serde_writes(
            product_id in "[A-Za-z0-9_.:/#+@~!-]{1,64}",
            digits in proptest::array::uniform4((0_i64..i64::MAX, 0_u32..12)),
            numbers in proptest::array::uniform2(any::<i64>()),
            is_cached in any::<bool>(),
            personalised in any::<bool>(),
            lock in proptest::option::of("[A-Za-z0-9_-]{1,9}[.][A-Za-z0-9_-]{1,9}"),
            valid_until_us in proptest::option::of(0_i64..4_000_000_000_000_000),
        ) {
            let [final_price, base_price, list_price, discount_rate] =
                digits.map(|(digits, scale)| Decimal::new(digits, scale));
            let product_id = ProductId::parse(&product_id);
            prop_assume!(product_id.is_ok());
            let detail = PriceDetail {
                product_id: &product_id.unwrap(),
                final_price,
                base_price,
                list_price,
                discount_rate,
                source: if is_cached { "cache" } else { "database" },
                currency: "USD",
                policy_version: numbers[0],
                revision: numbers[1],
                valid_until: valid_until_us.and_then(DateTime::from_timestamp_micros),
                personalised,
                lock,
            };
            let mut json = Vec::new();
            detail.append_json(&mut json);
            prop_assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&detail).unwrap());
        }
    }
}
