//! Explanations and price entries as JSON text: the same bytes as the serialiser's, in half the time.
//!
//! Every computed price is written with its explanation, and a serialiser writes it token by token. Common
//! parts are written here in larger pieces; rare parts are left to the serialiser.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use xxhash_rust::xxh3::xxh3_64;

use crate::expression::variable::Value;
use crate::facts::money::{Currency, append_json_number};
use crate::facts::previous::Previous;
use crate::facts::price_entry::PriceEntry;
use crate::facts::product::Product;
use crate::facts::signal::Signals;
use crate::facts::{Facts, instant};
use crate::pricing::explanation::{CompetitorsSeen, Explanation, Outcome, RuleSeen, Step};

type Written = Result<(), serde_json::Error>;

impl Explanation<'_> {
    /// Appends the explanation as JSON, and returns its digest: explanations of the same price with the same
    /// digest have the same content. The digest leaves out values that change on their own: the instant of
    /// the pricing, the instant at which the seller stated the same cost again, and the previous price.
    pub fn append_json(&self, json: &mut Vec<u8>) -> Result<i64, serde_json::Error> {
        let mut digest = Digest::starting_at(json.len());
        let Self { policy_version, semantics, tz_version, priced_at, outcome, facts, held, steps } = self;
        json.extend_from_slice(b"{\"policy_version\":");
        append_whole(json, *policy_version);
        json.extend_from_slice(b",\"semantics\":");
        append_whole(json, i64::from(*semantics));
        if let Some(tz_version) = tz_version {
            json.extend_from_slice(b",\"tz_version\":");
            append_text(json, tz_version)?;
        }
        json.extend_from_slice(b",\"priced_at\":");
        digest.take(json, 0);
        append_instant(json, *priced_at);
        digest.leave_out(json);
        json.extend_from_slice(match outcome {
            Outcome::Priced => b",\"outcome\":\"priced\",\"facts\":",
            Outcome::Frozen => b",\"outcome\":\"frozen\",\"facts\":",
        });
        append_facts(json, facts, &mut digest)?;
        if let Some(held) = held {
            json.extend_from_slice(b",\"held\":");
            serde_json::to_writer(&mut *json, held)?;
        }
        json.extend_from_slice(b",\"steps\":[");
        for (number, step) in steps.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            append_step(json, step)?;
        }
        json.extend_from_slice(b"]}");
        digest.take(json, 0);
        Ok(digest.value())
    }
}

/// A hash of texts: the polynomial of the XXH3 hashes of their parts, modulo 2⁶⁴. It is stored, so the
/// function must not change.
struct Digest {
    hash: u64,
    taken: usize,
}

impl Digest {
    /// Any odd number; this one is 2⁶⁴ divided by the golden ratio.
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

    fn starting_at(taken: usize) -> Self {
        Self { hash: 0, taken }
    }

    /// Hashes what was appended, except for the last `but` bytes.
    fn take(&mut self, json: &[u8], but: usize) {
        let end = json.len().saturating_sub(but);
        let of_part = xxh3_64(json.get(self.taken..end).unwrap_or_default());
        self.hash = self.hash.wrapping_mul(Self::FACTOR).wrapping_add(of_part);
        self.leave_out(json);
    }

    fn leave_out(&mut self, json: &[u8]) {
        self.taken = json.len();
    }

    fn value(&self) -> i64 {
        self.hash.cast_signed()
    }
}

impl PriceEntry {
    /// Appends the entry as JSON.
    pub fn append_json(&self, json: &mut Vec<u8>) -> Written {
        // Destructured, so that a new field is not forgotten here.
        let Self {
            product_id,
            category,
            currency,
            base_price,
            list_price,
            lowest,
            highest,
            policy_version,
            revision,
            valid_until,
        } = self;
        json.extend_from_slice(b"{\"product_id\":");
        append_text(json, product_id.as_str())?;
        append_optional_text(json, b",\"category\":", category.as_deref())?;
        append_currency(json, *currency);
        json.extend_from_slice(b",\"base_price\":");
        append_digits(json, Some(*base_price));
        json.extend_from_slice(b",\"list_price\":");
        append_digits(json, Some(*list_price));
        json.extend_from_slice(b",\"lowest\":");
        append_digits(json, *lowest);
        json.extend_from_slice(b",\"highest\":");
        append_digits(json, *highest);
        json.extend_from_slice(b",\"policy_version\":");
        append_whole(json, *policy_version);
        json.extend_from_slice(b",\"revision\":");
        append_whole(json, *revision);
        json.extend_from_slice(b",\"valid_until\":");
        match *valid_until {
            Some(valid_until) => append_instant(json, valid_until),
            None => json.extend_from_slice(b"null"),
        }
        json.push(b'}');
        Ok(())
    }
}

fn append_facts(json: &mut Vec<u8>, facts: &Facts<'_>, digest: &mut Digest) -> Written {
    let Facts { product, signals, previous } = facts;
    json.extend_from_slice(b"{\"product\":");
    append_product(json, product)?;
    json.extend_from_slice(b",\"signals\":");
    let restated = append_signals(json, signals)?;
    digest.take(json, restated);
    json.extend_from_slice(b",\"previous\":");
    match previous {
        Some(previous) => append_previous(json, previous)?,
        None => json.extend_from_slice(b"null"),
    }
    digest.leave_out(json);
    json.push(b'}');
    Ok(())
}

/// Appends the signals; returns the length of the trailing `cost_stated_at`.
fn append_signals(json: &mut Vec<u8>, signals: &Signals) -> Result<usize, serde_json::Error> {
    let stated_at = signals.cost_stated_at.map(instant::written);
    let stated_at = stated_at.map(|at| format!(",\"cost_stated_at\":\"{at}\"")).unwrap_or_default();
    if signals.are_unknown() {
        json.extend_from_slice(
            b"{\"competitor_prices\":[],\"demand_index\":null,\"stock_level\":null,\"unit_cost\":null",
        );
        json.extend_from_slice(stated_at.as_bytes());
        json.push(b'}');
    } else {
        serde_json::to_writer(&mut *json, signals)?;
    }
    Ok(stated_at.len() + 1)
}

fn append_product(json: &mut Vec<u8>, product: &Product) -> Written {
    let Product {
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
    } = product;
    json.extend_from_slice(b"{\"product_id\":");
    append_text(json, product_id.as_str())?;
    json.extend_from_slice(b",\"name\":");
    append_text(json, name)?;
    append_optional_text(json, b",\"category\":", category.as_deref())?;
    append_optional_text(json, b",\"brand\":", brand.as_deref())?;
    append_currency(json, *currency);
    json.extend_from_slice(b",\"base_price\":");
    append_json_number(json, *base_price);
    for (key, amount) in [
        (&b",\"unit_cost\":"[..], unit_cost),
        (b",\"floor_price\":", floor_price),
        (b",\"ceiling_price\":", ceiling_price),
    ] {
        json.extend_from_slice(key);
        append_optional_number(json, *amount);
    }
    if let Some(lowest) = *minimum_advertised_price {
        json.extend_from_slice(b",\"minimum_advertised_price\":");
        append_json_number(json, lowest);
    }
    json.extend_from_slice(b",\"attributes\":");
    serde_json::to_writer(&mut *json, attributes)?;
    json.push(b'}');
    Ok(())
}

fn append_previous(json: &mut Vec<u8>, previous: &Previous<'_>) -> Written {
    let Previous { list_price, opening_price, opening_target, changed_at, streak, movement } = previous;
    json.extend_from_slice(b"{\"list_price\":");
    append_json_number(json, *list_price);
    json.extend_from_slice(b",\"opening_price\":");
    append_json_number(json, *opening_price);
    if let Some(opening_target) = opening_target {
        json.extend_from_slice(b",\"opening_target\":");
        append_json_number(json, *opening_target);
    }
    if let Some(changed_at) = changed_at {
        json.extend_from_slice(b",\"changed_at\":");
        append_instant(json, *changed_at);
    }
    if let Some(streak) = streak {
        json.extend_from_slice(b",\"streak\":");
        serde_json::to_writer(&mut *json, streak)?;
    }
    if let Some(movement) = movement {
        json.extend_from_slice(b",\"movement\":");
        serde_json::to_writer(&mut *json, movement)?;
    }
    json.push(b'}');
    Ok(())
}

fn append_step(json: &mut Vec<u8>, step: &Step<'_>) -> Written {
    match step {
        Step::Start { after } => {
            json.extend_from_slice(b"{\"step\":\"start\",\"after\":");
            append_json_number(json, *after);
        }
        Step::Rule { rule, applied, before, after } => {
            json.extend_from_slice(b"{\"step\":\"rule\",");
            append_rule(json, rule)?;
            json.extend_from_slice(if *applied { b",\"applied\":true" } else { b",\"applied\":false" });
            append_move(json, *before, *after);
        }
        Step::Guardrail { guardrail, before, after } => {
            json.extend_from_slice(b"{\"step\":\"guardrail\",\"guardrail\":");
            serde_json::to_writer(&mut *json, guardrail)?;
            append_move(json, *before, *after);
        }
        Step::Rounding { mode, before, after } => {
            json.extend_from_slice(b"{\"step\":\"rounding\",\"mode\":");
            serde_json::to_writer(&mut *json, mode)?;
            append_move(json, *before, *after);
        }
        few_have => return serde_json::to_writer(json, few_have),
    }
    json.push(b'}');
    Ok(())
}

fn append_move(json: &mut Vec<u8>, before: Decimal, after: Decimal) {
    json.extend_from_slice(b",\"before\":");
    append_json_number(json, before);
    json.extend_from_slice(b",\"after\":");
    append_json_number(json, after);
}

fn append_rule(json: &mut Vec<u8>, rule: &RuleSeen<'_>) -> Written {
    let RuleSeen { name, when, action, inputs, competitors } = rule;
    json.extend_from_slice(b"\"rule\":");
    append_text(json, name)?;
    if let Some(when) = when {
        json.extend_from_slice(b",\"when\":");
        append_text(json, when)?;
    }
    json.extend_from_slice(b",\"action\":");
    append_text(json, action)?;
    json.extend_from_slice(b",\"inputs\":{");
    for (number, (variable, value)) in inputs.0.iter().enumerate() {
        json.extend_from_slice(if number > 0 { b",\"" } else { b"\"" });
        json.extend_from_slice(variable.name().as_bytes());
        json.extend_from_slice(b"\":");
        match value {
            Value::Null => json.extend_from_slice(b"null"),
            Value::Bool(value) => json.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::Number(value) => append_json_number(json, *value),
            Value::Text(value) => append_text(json, value)?,
        }
    }
    json.push(b'}');
    let Some(CompetitorsSeen { reference, names }) = competitors.as_deref() else { return Ok(()) };
    if let Some(reference) = reference {
        json.extend_from_slice(b",\"reference\":");
        append_json_number(json, *reference);
    }
    json.extend_from_slice(b",\"competitors\":");
    serde_json::to_writer(json, names)
}

fn append_currency(json: &mut Vec<u8>, currency: Currency) {
    json.extend_from_slice(b",\"currency\":\"");
    json.extend_from_slice(currency.code().as_bytes());
    json.push(b'"');
}

fn append_optional_number(json: &mut Vec<u8>, amount: Option<Decimal>) {
    match amount {
        Some(amount) => append_json_number(json, amount),
        None => json.extend_from_slice(b"null"),
    }
}

/// Appends an amount in quotes, as `Decimal` serialises by default.
fn append_digits(json: &mut Vec<u8>, amount: Option<Decimal>) {
    let Some(amount) = amount else { return json.extend_from_slice(b"null") };
    json.push(b'"');
    append_json_number(json, amount);
    json.push(b'"');
}

fn append_whole(json: &mut Vec<u8>, number: i64) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn append_optional_text(json: &mut Vec<u8>, key: &[u8], text: Option<&str>) -> Written {
    json.extend_from_slice(key);
    match text {
        Some(text) => append_text(json, text),
        None => {
            json.extend_from_slice(b"null");
            Ok(())
        }
    }
}

fn append_instant(json: &mut Vec<u8>, at: DateTime<Utc>) {
    json.push(b'"');
    json.extend_from_slice(instant::written(at).as_bytes());
    json.push(b'"');
}

fn append_text(json: &mut Vec<u8>, text: &str) -> Written {
    // Branch-free, so that the loop is vectorised.
    let needs_escapes = |found: bool, byte: u8| found | (byte < b' ') | (byte == b'"') | (byte == b'\\');
    if text.bytes().fold(false, needs_escapes) {
        return serde_json::to_writer(json, text);
    }
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::facts::previous::Streak;
    use crate::facts::product::{ProductDraft, ProductId, WrittenNumber};
    use crate::facts::time_zone::TimeZones;
    use crate::policy::pricing_policy::PricingPolicy;
    use crate::pricing::price::price;

    /// Texts with characters that JSON escapes and characters that it does not, including control characters.
    fn any_text() -> impl Strategy<Value = String> {
        "[a-z0-9 \"\\\\/\u{0}-\u{1f}\u{7f}é漢🫖]{0,40}"
    }

    fn any_amount() -> impl Strategy<Value = Option<Decimal>> {
        proptest::option::of(
            (0_i64..1_000_000_000_000, 0_u32..6).prop_map(|(digits, scale)| Decimal::new(digits, scale)),
        )
    }

    fn any_instant() -> impl Strategy<Value = Option<DateTime<Utc>>> {
        proptest::option::of(
            (0_i64..4_000_000_000_000_000)
                .prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap()),
        )
    }

    proptest! {
        #[test]
        fn an_entry_is_what_serialising_gives(
            category in proptest::option::of(any_text()),
            (base_price, list_price, lowest, highest) in (any_amount(), any_amount(), any_amount(), any_amount()),
            (policy_version, revision) in (any::<i64>(), any::<i64>()),
            valid_until in any_instant(),
        ) {
            let entry = PriceEntry {
                product_id: ProductId::parse("P-1").unwrap(),
                category: category.map(Into::into),
                currency: Currency::from_code("BHD").unwrap(),
                base_price: base_price.unwrap_or_default(),
                list_price: list_price.unwrap_or_default(),
                lowest, highest, policy_version, revision, valid_until,
            };
            let mut written = Vec::new();
            entry.append_json(&mut written).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&entry).unwrap());
        }

        #[test]
        fn an_explanation_is_what_serialising_gives(
            (name, category, brand, attribute) in (any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()), any_text()),
            (unit_cost, floor_price, minimum_advertised_price) in (any_amount(), any_amount(), any_amount()),
            changed_at in any_instant(),
            moves in proptest::option::of(any::<i32>()),
        ) {
            let number = |text: &str| Some(WrittenNumber(text.to_owned()));
            let draft = ProductDraft {
                product_id: Some("P-1".to_owned()),
                currency: Some("USD".to_owned()),
                base_price: number("10.00"),
                ..ProductDraft::default()
            };
            let attributes = [(attribute.clone(), name.clone()), (String::new(), attribute)].into();
            // As stored by any version: unchecked.
            let product = Product { name, category, brand, unit_cost, floor_price, minimum_advertised_price, attributes, ..draft.check().unwrap() };
            let streak = moves.map(|moves| Streak { moves, since: DateTime::UNIX_EPOCH });
            let previous = changed_at.map(|_| Previous { opening_price: Decimal::ONE, changed_at, streak, ..Previous::of(Decimal::TEN) });
            let policy = PricingPolicy::from_yaml(
                "name: any\noffer: [{ name: dear, adjust: -1%, schedule: { zone: UTC } }]\nmarket: [{ name: dear, when: 'product.brand == \"b\" or product.category != null and stock.level == null', adjust: +50% }]\nguardrails: { max_step: 15%, min_margin: 10% }",
                7, &TimeZones::bundled()).unwrap();
            let facts = Facts { product: &product, signals: &Signals::default(), previous };
            let priced = price(&facts, &policy, DateTime::UNIX_EPOCH);
            let mut written = Vec::new();
            priced.explanation.append_json(&mut written).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&priced.explanation).unwrap());
        }
    }
}
