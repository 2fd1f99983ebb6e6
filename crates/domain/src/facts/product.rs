//! Products, as written ([`ProductDraft`]) and as checked ([`Product`]).

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use crate::diagnostic::{Diagnostic, shorten};
use crate::facts::money::{
    Currency, MAX_COST_SCALE, as_json_number, as_optional_json_number, in_minor_units, parse_amount,
    without_exponent,
};

/// Any odd number; this one is 2⁶⁴ divided by the golden ratio.
const DIGEST_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// The longest product identifier, in bytes.
pub const MAX_PRODUCT_ID_BYTES: usize = 64;

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 200;

/// The longest category, brand, attribute name or attribute value, in characters.
pub const MAX_LABEL_CHARS: usize = 100;

/// The most attributes of a product.
pub const MAX_ATTRIBUTES: usize = 32;

const ID_RULE: &str = "1 to 64 letters, digits or any of - _ . : / # + @ ~ !";

/// A product's identifier: 1 to 64 bytes, safe in a URL, a log line and a Redis key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ProductId(Arc<str>);

/// The text is not a product identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a product identifier (allowed: {ID_RULE})")]
pub struct InvalidProductId(String);

impl ProductId {
    /// Parses and checks an identifier.
    pub fn parse(written: &str) -> Result<Self, InvalidProductId> {
        if Self::is_valid(written) {
            Ok(Self(written.into()))
        } else {
            Err(InvalidProductId(shorten(written)))
        }
    }

    /// Whether [`parse`](Self::parse) would accept the text; allocates nothing.
    pub fn is_valid(written: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/#+@~!".contains(&byte);
        let fits = (1..=MAX_PRODUCT_ID_BYTES).contains(&written.len()) && written.bytes().all(allowed);
        // Reserved for the import route.
        fits && written != "import"
    }

    /// The identifier's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier's text, shared.
    pub fn into_text(self) -> Arc<str> {
        self.0
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Allows look-ups by `&str` in a map keyed by `ProductId`, without a copy.
impl Borrow<str> for ProductId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ProductId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&written).map_err(serde::de::Error::custom)
    }
}

/// A product. Amounts are in the main unit of `currency`. Equality compares the rows and ignores when the
/// seller stated the cost.
#[derive(Debug, Clone, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The product's identifier.
    pub product_id: ProductId,
    /// The display name.
    pub name: String,
    /// The category it is sold in.
    pub category: Option<String>,
    /// The manufacturer.
    pub brand: Option<String>,
    /// The currency of its prices.
    pub currency: Currency,
    /// The price before any rule; above zero, in whole minor units.
    #[serde(serialize_with = "as_json_number", deserialize_with = "amount_from_json")]
    pub base_price: Decimal,
    /// The seller's cost of one unit; up to six decimal places.
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub unit_cost: Option<Decimal>,
    /// The lower limit of list prices and quotes.
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub floor_price: Option<Decimal>,
    /// The upper limit of list prices and quotes.
    #[serde(serialize_with = "as_optional_json_number", deserialize_with = "optional_amount_from_json")]
    pub ceiling_price: Option<Decimal>,
    /// The manufacturer's minimum advertised price (MAP); a lower limit of list prices and quotes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_optional_json_number",
        deserialize_with = "optional_amount_from_json"
    )]
    pub minimum_advertised_price: Option<Decimal>,
    /// Further attributes, by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// When the seller last stated its cost; kept when the row's cost is removed.
    #[serde(skip)]
    pub cost_stated_at: Option<DateTime<Utc>>,
}

impl PartialEq for Product {
    fn eq(&self, other: &Self) -> bool {
        self.row() == other.row()
    }
}

impl Hash for Product {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.row().hash(hasher);
    }
}

impl Product {
    /// Returns the content of its row.
    fn row(&self) -> impl Eq + Hash {
        // Destructured so that a new field cannot be forgotten here.
        let Self {
            product_id,
            name,
            category,
            brand,
            currency,
            base_price,
            unit_cost,
            floor_price,
            ceiling_price,
            minimum_advertised_price,
            attributes,
            cost_stated_at: _,
        } = self;
        let texts = (product_id, name, category, brand, attributes);
        (texts, currency, base_price, unit_cost, floor_price, ceiling_price, minimum_advertised_price)
    }

    /// Returns a hash of the row's content, to recognise a change. It is stored, so the function must not
    /// change: the polynomial of the XXH3 hashes of the texts and of the digits of the amounts, modulo 2⁶⁴.
    pub fn digest(&self) -> u64 {
        let Self {
            product_id,
            name,
            category,
            brand,
            currency,
            base_price,
            unit_cost,
            floor_price,
            ceiling_price,
            minimum_advertised_price,
            attributes,
            cost_stated_at: _,
        } = self;
        let text = |text: Option<&str>| text.map_or(0, |text| xxh3_64(text.as_bytes()));
        let amount = |amount: Option<Decimal>| {
            let parts = amount.map(|amount| amount.unpack());
            parts.map_or(0, |parts| {
                let digits = (u64::from(parts.mid) << 32) | u64::from(parts.lo);
                let others = (u64::from(parts.hi) << 32) | (u64::from(parts.scale) + 1);
                digits ^ others.wrapping_mul(DIGEST_FACTOR)
            })
        };
        let texts = [Some(product_id.as_str()), Some(name), category.as_deref(), brand.as_deref()];
        let bounds = [*unit_cost, *floor_price, *ceiling_price, *minimum_advertised_price];
        let attributes =
            attributes.iter().flat_map(|(key, value)| [Some(key.as_str()), Some(value.as_str())]);
        let texts = texts.into_iter().chain([Some(currency.code())]).chain(attributes).map(text);
        let amounts = [Some(*base_price)].into_iter().chain(bounds).map(amount);
        amounts.chain(texts).fold(0, |hash: u64, part| hash.wrapping_mul(DIGEST_FACTOR).wrapping_add(part))
    }

    /// Sets the instant of the request as the one at which the seller stated the cost, if the row has a cost.
    #[must_use]
    pub fn stated_at(self, instant: DateTime<Utc>) -> Self {
        Self { cost_stated_at: self.unit_cost.map(|_| instant.trunc_subsecs(6)), ..self }
    }
}

/// A product as its seller wrote it: every field is text or absent, and unchecked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProductDraft {
    /// See [`Product::product_id`].
    pub product_id: Option<String>,
    /// See [`Product::name`].
    pub name: Option<String>,
    /// See [`Product::category`].
    pub category: Option<String>,
    /// See [`Product::brand`].
    pub brand: Option<String>,
    /// See [`Product::currency`].
    pub currency: Option<String>,
    /// See [`Product::base_price`].
    pub base_price: Option<WrittenNumber>,
    /// See [`Product::unit_cost`].
    pub unit_cost: Option<WrittenNumber>,
    /// See [`Product::floor_price`].
    pub floor_price: Option<WrittenNumber>,
    /// See [`Product::ceiling_price`].
    pub ceiling_price: Option<WrittenNumber>,
    /// See [`Product::minimum_advertised_price`].
    pub minimum_advertised_price: Option<WrittenNumber>,
    /// See [`Product::attributes`].
    pub attributes: BTreeMap<String, String>,
}

/// A number's digits exactly as written, in a JSON number or a string; a JSON number with an exponent is
/// expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenNumber(pub String);

impl<'de> Deserialize<'de> for WrittenNumber {
    /// Works with serde_json only, which provides the digits before they become binary floating point.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let plain =
            if text.starts_with('"') { serde_json::from_str(text).ok() } else { without_exponent(text) };
        Ok(Self(plain.unwrap_or_else(|| text.to_owned())))
    }
}

impl ProductDraft {
    /// Returns the product, or all problems of the draft. Text from any source is trimmed, and empty text
    /// counts as absent.
    pub fn check(self) -> Result<Product, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let product_id = check_product_id(self.product_id.as_deref(), &mut problems);
        let name = check_text("name", self.name, MAX_NAME_CHARS, &mut problems);
        let category = check_text("category", self.category, MAX_LABEL_CHARS, &mut problems);
        let brand = check_text("brand", self.brand, MAX_LABEL_CHARS, &mut problems);
        let currency = check_currency(self.currency.as_deref(), &mut problems);
        let attributes = check_attributes(self.attributes, &mut problems);
        // Without a currency the number of decimal places cannot be checked; the largest exponent is assumed.
        let places = currency.map_or(4, Currency::exponent);
        let base_price = check_amount("base_price", self.base_price, places, &mut problems);
        let unit_cost = check_cost(self.unit_cost, &mut problems);
        let floor_price = check_amount("floor_price", self.floor_price, places, &mut problems);
        let ceiling_price = check_amount("ceiling_price", self.ceiling_price, places, &mut problems);
        let advertised = self.minimum_advertised_price;
        let advertised = check_amount("minimum_advertised_price", advertised, places, &mut problems);
        if base_price.is_none() && !problems.iter().any(|problem| problem.field == "base_price") {
            problems.push(Diagnostic::new("base_price", "is missing", "a number above 0"));
        }
        check_order(floor_price, ceiling_price, &mut problems);
        match (product_id, currency, base_price) {
            (Some(product_id), Some(currency), Some(base_price)) if problems.is_empty() => Ok(Product {
                name: name.unwrap_or_else(|| product_id.to_string()),
                product_id,
                category,
                brand,
                currency,
                base_price: in_minor_units(base_price, currency),
                unit_cost: unit_cost.map(|cost| cost.normalize()),
                floor_price: floor_price.map(|floor| in_minor_units(floor, currency)),
                ceiling_price: ceiling_price.map(|ceiling| in_minor_units(ceiling, currency)),
                minimum_advertised_price: advertised.map(|lowest| in_minor_units(lowest, currency)),
                attributes,
                cost_stated_at: None,
            }),
            _ => Err(problems),
        }
    }
}

fn check_product_id(written: Option<&str>, problems: &mut Vec<Diagnostic>) -> Option<ProductId> {
    let written = written.unwrap_or_default().trim();
    if written.is_empty() {
        problems.push(Diagnostic::new("product_id", "is missing", ID_RULE));
        return None;
    }
    let parsed = ProductId::parse(written);
    if parsed.is_err() {
        problems.push(Diagnostic::new(
            "product_id",
            format!("\"{}\" is not allowed", shorten(written)),
            ID_RULE,
        ));
    }
    parsed.ok()
}

fn check_currency(written: Option<&str>, problems: &mut Vec<Diagnostic>) -> Option<Currency> {
    const ALLOWED: &str = "an ISO 4217 code such as USD, EUR, JPY";
    match written.map(str::trim).filter(|written| !written.is_empty()).map(Currency::from_code) {
        Some(Ok(currency)) => Some(currency),
        Some(Err(unknown)) => {
            problems.push(Diagnostic::new("currency", unknown.to_string(), ALLOWED));
            None
        }
        None => {
            problems.push(Diagnostic::new("currency", "is missing", ALLOWED));
            None
        }
    }
}

fn check_text(
    field: &str,
    written: Option<String>,
    max_chars: usize,
    problems: &mut Vec<Diagnostic>,
) -> Option<String> {
    let written = trimmed(written?);
    if written.is_empty() {
        return None;
    }
    problems.extend(refuse_text(field, &written, max_chars));
    Some(written)
}

/// Trims white space: a category with a trailing space is meant to be the same category.
pub fn trimmed(written: String) -> String {
    let kept = written.trim();
    if kept.len() == written.len() { written } else { kept.to_owned() }
}

/// Returns the problem of a text, if it has one.
fn refuse_text(field: &str, written: &str, max_chars: usize) -> Option<Diagnostic> {
    let is_refused = written.chars().nth(max_chars).is_some() || written.contains(char::is_control);
    is_refused.then(|| {
        let allowed = format!("at most {max_chars} characters, none of them a control character");
        Diagnostic::new(field, format!("\"{}\" is not allowed", shorten(written)), allowed)
    })
}

/// Trims a category and refuses one that no product can have.
pub fn check_category(field: &str, written: String) -> Result<String, Diagnostic> {
    let category = trimmed(written);
    if category.is_empty() {
        return Err(Diagnostic::new(field, "is empty", "the category of a product"));
    }
    refuse_text(field, &category, MAX_LABEL_CHARS).map_or(Ok(category), Err)
}

fn check_attributes(
    written: BTreeMap<String, String>,
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, String> {
    if written.len() > MAX_ATTRIBUTES {
        let problem = format!("has {} entries", written.len());
        problems.push(Diagnostic::new("attributes", problem, format!("at most {MAX_ATTRIBUTES} entries")));
        return BTreeMap::new();
    }
    let mut checked = BTreeMap::new();
    for (name, value) in written {
        let field = format!("attributes.{}", shorten(&name));
        let name = check_text(&field, Some(name), MAX_LABEL_CHARS, problems);
        let value = check_text(&field, Some(value), MAX_LABEL_CHARS, problems);
        if let Some((name, value)) = name.zip(value)
            && checked.insert(name, value).is_some()
        {
            problems.push(Diagnostic::bare(field, "is there twice, but for white space"));
        }
    }
    checked
}

fn check_amount(
    field: &str,
    written: Option<WrittenNumber>,
    max_scale: u32,
    problems: &mut Vec<Diagnostic>,
) -> Option<Decimal> {
    let WrittenNumber(written) = written?;
    let written = written.trim();
    if written.is_empty() {
        return None;
    }
    let allowed = || match max_scale {
        0 => "a whole number above 0, at most 999999999999".to_owned(),
        _ => format!("a number above 0 with at most {max_scale} decimal places, at most 999999999999"),
    };
    match parse_amount(written, max_scale) {
        Ok(amount) if amount > Decimal::ZERO => Some(amount),
        Ok(_) => {
            problems.push(Diagnostic::new(
                field,
                format!("\"{}\" is not above 0", shorten(written)),
                allowed(),
            ));
            None
        }
        Err(error) => {
            problems.push(Diagnostic::new(field, error.to_string(), allowed()));
            None
        }
    }
}

/// Checks a cost. A cost of 0 counts as unknown: systems write 0 where nothing was entered.
fn check_cost(written: Option<WrittenNumber>, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let is_zero = |written: &str| parse_amount(written, MAX_COST_SCALE).is_ok_and(|cost| cost.is_zero());
    check_amount(
        "unit_cost",
        written.filter(|WrittenNumber(written)| !is_zero(written)),
        MAX_COST_SCALE,
        problems,
    )
}

fn check_order(floor: Option<Decimal>, ceiling: Option<Decimal>, problems: &mut Vec<Diagnostic>) {
    if let (Some(floor), Some(ceiling)) = (floor, ceiling)
        && floor > ceiling
    {
        let problem = format!("{floor} is above the ceiling_price {ceiling}");
        problems.push(Diagnostic::new("floor_price", problem, "at most the ceiling_price"));
    }
}

/// Deserialises an amount that [`as_json_number`] wrote.
pub fn amount_from_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let WrittenNumber(digits) = WrittenNumber::deserialize(deserializer)?;
    Decimal::from_str_exact(&digits).map_err(serde::de::Error::custom)
}

/// Deserialises an amount that [`as_optional_json_number`] wrote.
pub fn optional_amount_from_json<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Decimal>, D::Error> {
    let written = Option::<WrittenNumber>::deserialize(deserializer)?;
    written
        .map(|WrittenNumber(digits)| Decimal::from_str_exact(&digits).map_err(serde::de::Error::custom))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Product, Vec<String>> {
        let draft: ProductDraft = serde_json::from_str(json).map_err(|error| vec![error.to_string()])?;
        draft.check().map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_product_is_read_with_exact_digits() {
        let product = check(
            r#"{"product_id":"P-1","name":"Kettle","currency":"USD","base_price":51.99,"unit_cost":"30.123456"}"#,
        )
        .unwrap();
        assert_eq!(product.base_price.to_string(), "51.99");
        assert_eq!(product.unit_cost.map(|cost| cost.to_string()).as_deref(), Some("30.123456"));
        let json = serde_json::to_string(&product).unwrap();
        assert!(json.contains(r#""base_price":51.99"#), "{json}");
        assert_eq!(serde_json::from_str::<Product>(&json).unwrap(), product);
    }

    #[test]
    fn a_category_is_what_a_product_can_have() {
        let longest = "ü".repeat(MAX_LABEL_CHARS);
        let too_long = format!("{longest}x");
        for (written, is_allowed) in [
            ("toys", true),
            (" toys ", true),
            (&longest, true),
            (&too_long, false),
            ("a\0b", false),
            ("a\nb", false),
            ("", false),
            (" ", false),
        ] {
            let named = check_category("category", written.to_owned());
            assert_eq!(named.is_ok(), is_allowed, "{written:?}");
            let draft = serde_json::json!({"product_id": "P-1", "currency": "USD", "base_price": 1, "category": written});
            let put = check(&draft.to_string()).ok().and_then(|product| product.category);
            assert_eq!(put, named.ok(), "{written:?}");
        }
    }

    #[test]
    fn white_space_around_a_text_is_no_part_of_it() {
        let spaced = r#"{"product_id":" P-1 ","name":"\tKettle ","category":"toys ","brand":" Acme","currency":" USD ",
            "base_price":" 5 ","unit_cost":" ","attributes":{" colour ":" red ","empty":" "}}"#;
        let plain = r#"{"product_id":"P-1","name":"Kettle","category":"toys","brand":"Acme","currency":"USD",
            "base_price":5,"attributes":{"colour":"red"}}"#;
        assert_eq!(check(spaced).unwrap(), check(plain).unwrap());
        let twice =
            check(r#"{"product_id":"P-1","currency":"USD","base_price":5,"attributes":{"a":"1","a ":"2"}}"#);
        assert!(twice.unwrap_err()[0].contains("is there twice"));
    }

    #[test]
    fn a_json_number_with_an_exponent_is_an_amount() {
        let product =
            check(r#"{"product_id":"P-1","currency":"USD","base_price":1E+2,"unit_cost":2.5e-3}"#).unwrap();
        assert_eq!(product.base_price.to_string(), "100.00");
        assert_eq!(product.unit_cost.map(|cost| cost.to_string()).as_deref(), Some("0.0025"));
        assert!(check(r#"{"product_id":"P-1","currency":"USD","base_price":"1E+2"}"#).is_err(), "in a text");
        assert!(check(r#"{"product_id":"P-1","currency":"USD","base_price":1E+400}"#).is_err());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let problems = check(
            r#"{"product_id":"a b","name":"x","currency":"ABC","base_price":-1,"unit_cost":"1e3","floor_price":1.234567,"attributes":{"a":"\u0007"}}"#,
        )
        .unwrap_err();
        let fields: Vec<&str> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
        assert_eq!(
            fields,
            ["product_id", "currency", "attributes.a", "base_price", "unit_cost", "floor_price"],
            "{problems:?}"
        );
    }

    #[test]
    fn a_cost_of_nothing_is_one_that_is_not_known() {
        let cost = |written: &str| {
            let draft =
                format!(r#"{{"product_id":"P-1","currency":"USD","base_price":5,"unit_cost":{written}}}"#);
            check(&draft).unwrap().unit_cost
        };
        for written in ["0", "0.00", "\"0\"", "null", "\"\""] {
            assert_eq!(cost(written), None, "{written}");
        }
        assert_eq!(cost("0.000001").map(|cost| cost.to_string()), Some("0.000001".to_owned()));
    }

    #[test]
    fn single_fields_are_refused_with_what_is_allowed() {
        let base = |field: &str, value: &str| {
            let mut draft = serde_json::json!({"product_id": "P-1", "currency": "USD", "base_price": "10"});
            draft[field] = serde_json::from_str(value).unwrap();
            check(&draft.to_string()).map(|_| ()).map_err(|problems| problems.join("; "))
        };
        assert_eq!(base("name", "\"ok\""), Ok(()));
        for (field, value) in [
            ("base_price", "0"),
            ("base_price", "19.999"),
            ("base_price", "\"NaN\""),
            ("base_price", "null"),
            ("base_price", "\"\""),
            ("base_price", "[1]"),
            ("base_price", "1000000000000"),
            ("unit_cost", "-1"),
            ("floor_price", "0"),
            ("unit_cost", "0.1234567"),
            ("currency", "\"XAU\""),
            ("currency", "null"),
            ("product_id", "\"{x}\""),
            ("product_id", "\"\""),
            ("name", &format!("\"{}\"", "x".repeat(201))),
        ] {
            let problem = base(field, value).expect_err(value);
            assert!(problem.starts_with(field) && problem.contains("allowed"), "{field} {value}: {problem}");
        }
        let problem = check(
            r#"{"product_id":"P-1","currency":"USD","base_price":5,"floor_price":9,"ceiling_price":8}"#,
        );
        assert!(problem.unwrap_err()[0].contains("above the ceiling_price"));
        assert!(
            check(r#"{"product_id":"P-1","currency":"JPY","base_price":5.5}"#).unwrap_err()[0]
                .contains("whole number")
        );
        assert!(check(r#"{"product_id":"P-1","prize":5}"#).unwrap_err()[0].contains("unknown field"));
    }
}
