//! `GET /api/v1/personalisation`: what of a shopper is personal, and the text beside a personalised price.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use pricing_domain::facts::dimension::{DIMENSIONS, Dimension};
use serde::Serialize;

use super::price::{CHANNEL, IS_PRIME_MEMBER, QUANTITY, SEGMENT, USER_LOCATION};
use crate::state::AppState;

/// What of a shopper is personal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PersonalisationAnswer {
    /// The text to show beside a price with `personalised: true`.
    #[schema(value_type = String, example = "This price was personalised on the basis of automated decision-making.")]
    disclosure: Arc<str>,
    /// Everything that a price may depend on of a shopper.
    dimensions: Vec<DimensionAnswer>,
}

/// Something that is known of a shopper.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DimensionAnswer {
    /// Its name.
    #[schema(example = "location")]
    name: &'static str,
    /// The field of a price request that states it.
    #[schema(example = "user_location")]
    field: &'static str,
    /// Whether a price that depends on it is personalised.
    personal: bool,
}

/// Returns what of a shopper is personal, and the text for personalised prices.
#[utoipa::path(get, path = "/api/v1/personalisation", tag = "prices",
    summary = "Get what is personal, and the text for personalised prices",
    responses((status = 200, description = "The text and the dimensions", body = PersonalisationAnswer)))]
pub(crate) async fn personalisation(State(state): State<AppState>) -> Json<PersonalisationAnswer> {
    let dimensions = DIMENSIONS.map(|(dimension, name, personal)| DimensionAnswer {
        name,
        field: field_of(dimension),
        personal,
    });
    let disclosure = Arc::clone(&state.personalisation_disclosure);
    Json(PersonalisationAnswer { disclosure, dimensions: dimensions.into() })
}

fn field_of(dimension: Dimension) -> &'static str {
    let field = match dimension {
        Dimension::Location => &USER_LOCATION,
        Dimension::Prime => &IS_PRIME_MEMBER,
        Dimension::Quantity => &QUANTITY,
        Dimension::Channel => &CHANNEL,
        Dimension::Segment => &SEGMENT,
    };
    field.name
}
