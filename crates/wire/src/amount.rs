//! Amounts as JSON numbers with exactly their decimal digits: for `#[serde(with = …)]` on a field.

pub(crate) use pricing_domain::facts::money::as_json_number as serialize;
pub(crate) use pricing_domain::facts::product::amount_from_json as deserialize;

/// The same for an amount that may be absent (`null`).
pub(crate) mod optional {
    pub(crate) use pricing_domain::facts::money::as_optional_json_number as serialize;
    pub(crate) use pricing_domain::facts::product::optional_amount_from_json as deserialize;
}
