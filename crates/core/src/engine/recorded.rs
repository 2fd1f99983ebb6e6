//! What the record of changes says of products: the whole product for a single one, and the fields that
//! changed for a batch of an import, which may have thousands.

use std::fmt::Write;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::audit::{Action, Origin};
use crate::store::AuditEntry;
use pricing_domain::facts::product::{Product, ProductId};

/// Why products are put, by whom, and how it is recorded.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The cause of the changes of prices.
    pub cause: Arc<str>,
    /// Who puts them.
    pub origin: Origin,
    /// The import whose batch they are; `None` for a single product.
    pub import: Option<Arc<str>>,
}

impl Attribution {
    /// Products that the engine itself puts.
    pub fn engine(cause: &str) -> Self {
        Self { cause: cause.into(), origin: Origin::engine(), import: Some(cause.into()) }
    }

    /// A product that a caller puts.
    pub fn single(cause: &str, origin: Origin) -> Self {
        Self { cause: cause.into(), origin, import: None }
    }

    /// A batch of a caller's import.
    pub fn import(cause: &str, origin: Origin, import_id: &str) -> Self {
        Self { cause: cause.into(), origin, import: Some(import_id.into()) }
    }

    /// The entry for products that differ from the stored ones, which are ordered by identifier; `None` if
    /// there is none.
    pub(super) fn entry<'a>(
        &self,
        stored: &[Product],
        changed: impl Iterator<Item = &'a Product>,
    ) -> Option<AuditEntry> {
        let known = |next: &Product| {
            let place = stored.binary_search_by(|known| known.product_id.cmp(&next.product_id)).ok()?;
            stored.get(place)
        };
        let mut changed = changed.map(|next| (known(next), next));
        match &self.import {
            None => changed.next().map(|(known, next)| AuditEntry {
                action: Action::ProductPut,
                subject: next.product_id.to_string(),
                before: known.and_then(whole),
                after: whole(next),
            }),
            Some(import) => {
                let after = fields_of(changed, &self.cause)?;
                Some(AuditEntry {
                    action: Action::ProductsImport,
                    subject: import.to_string(),
                    before: None,
                    after: Some(after),
                })
            }
        }
    }
}

/// The entry for a product that is removed.
pub(super) fn removal(known: Option<&Product>, product_id: &ProductId) -> AuditEntry {
    AuditEntry {
        action: Action::ProductDelete,
        subject: product_id.to_string(),
        before: known.and_then(whole),
        after: None,
    }
}

/// A product as JSON. Serialising one cannot fail.
fn whole(product: &Product) -> Option<String> {
    serde_json::to_string(product).ok()
}

/// `{"cause": …, "products": {ID: {FIELD: [BEFORE, AFTER], …}, …}}`; `None` without a product.
fn fields_of<'s, 'a>(
    changed: impl Iterator<Item = (Option<&'s Product>, &'a Product)>,
    cause: &str,
) -> Option<String> {
    let mut json = String::with_capacity(32 * 1024);
    let _ = write!(json, r#"{{"cause":{},"products":{{"#, text(&cause));
    let start = json.len();
    for (known, next) in changed {
        if json.len() > start {
            json.push(',');
        }
        let _ = write!(json, "{}:{{", text(&next.product_id.as_str()));
        add_fields(&mut json, known, next);
        json.push('}');
    }
    let has_any = json.len() > start;
    json.push_str("}}");
    has_any.then_some(json)
}

fn add_fields(json: &mut String, known: Option<&Product>, next: &Product) {
    let mut fields = Fields { json, is_first: true };
    fields.add("name", known.map(|known| &known.name), &next.name);
    fields.add("category", known.and_then(|known| known.category.as_ref()), &next.category);
    fields.add("brand", known.and_then(|known| known.brand.as_ref()), &next.brand);
    fields.add("currency", known.map(|known| known.currency.code()).as_ref(), &next.currency.code());
    fields.add_amount("base_price", known.map(|known| known.base_price), Some(next.base_price));
    fields.add_amount("unit_cost", known.and_then(|known| known.unit_cost), next.unit_cost);
    fields.add_amount("floor_price", known.and_then(|known| known.floor_price), next.floor_price);
    fields.add_amount("ceiling_price", known.and_then(|known| known.ceiling_price), next.ceiling_price);
    fields.add_amount(
        "minimum_advertised_price",
        known.and_then(|known| known.minimum_advertised_price),
        next.minimum_advertised_price,
    );
    if known.map_or(!next.attributes.is_empty(), |known| known.attributes != next.attributes) {
        fields.add("attributes", known.map(|known| &known.attributes), &next.attributes);
    }
}

/// The fields of one product that are written so far.
struct Fields<'a> {
    json: &'a mut String,
    is_first: bool,
}

impl Fields<'_> {
    /// Adds a field if the JSON of its two values differs.
    fn add(&mut self, name: &str, before: Option<&impl Serialize>, after: &impl Serialize) {
        self.add_written(name, &text(&before), &text(after));
    }

    /// Adds an amount if it differs, with its exact digits.
    fn add_amount(&mut self, name: &str, before: Option<Decimal>, after: Option<Decimal>) {
        if before != after {
            let written =
                |amount: Option<Decimal>| amount.map_or_else(|| "null".to_owned(), |it| it.to_string());
            self.add_written(name, &written(before), &written(after));
        }
    }

    fn add_written(&mut self, name: &str, before: &str, after: &str) {
        if before != after {
            let comma = if std::mem::take(&mut self.is_first) { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(self.json, r#"{comma}"{name}":[{before},{after}]"#);
        }
    }
}

/// A value as JSON. Serialising texts and maps of them cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn product(json: Value) -> Product {
        let draft: pricing_domain::facts::product::ProductDraft = serde_json::from_value(json).unwrap();
        draft.check().unwrap()
    }

    #[test]
    fn an_import_is_recorded_by_the_fields_that_differ() {
        let known = [
            product(json!({"product_id": "P-1", "name": "Tea", "currency": "USD", "base_price": 51.99})),
            product(json!({"product_id": "P-2", "currency": "USD", "base_price": 10, "unit_cost": 3})),
            product(json!({"product_id": "P-3", "currency": "USD", "base_price": 1})),
        ];
        let next = [
            product(json!({"product_id": "P-1", "name": "Tea", "currency": "USD", "base_price": 49.99})),
            product(json!({"product_id": "P-2", "currency": "USD", "base_price": 10,
                "attributes": {"size": "L"}})),
            product(json!({"product_id": "P-3", "currency": "USD", "base_price": 1})),
            product(json!({"product_id": "P-4", "currency": "EUR", "base_price": 5, "brand": "Acme"})),
        ];
        let import = Attribution { import: Some("import-1".into()), ..Attribution::engine("import") };
        let changed = [&next[0], &next[1], &next[3]];
        let entry = import.entry(&known, changed.into_iter()).unwrap();
        let after: Value = serde_json::from_str(entry.after.as_deref().unwrap()).unwrap();
        let expected = json!({"cause": "import", "products": {
            "P-1": {"base_price": [51.99, 49.99]},
            "P-2": {"unit_cost": [3, null], "attributes": [{}, {"size": "L"}]},
            "P-4": {"name": [null, "P-4"], "brand": [null, "Acme"], "currency": [null, "EUR"],
                "base_price": [null, 5.0]},
        }});
        assert_eq!((entry.action, &*entry.subject, after), (Action::ProductsImport, "import-1", expected));
        assert_eq!(import.entry(&known, std::iter::empty()), None);
    }

    #[test]
    fn a_product_is_recorded_whole() {
        let known = product(json!({"product_id": "P-1", "currency": "USD", "base_price": 51.99}));
        let next = product(json!({"product_id": "P-1", "currency": "USD", "base_price": 49.99}));
        let put = Attribution::single("product put", Origin::engine());
        let entry = put.entry(std::slice::from_ref(&known), std::iter::once(&next)).unwrap();
        assert_eq!((entry.action, &*entry.subject), (Action::ProductPut, "P-1"));
        assert!(entry.before.as_deref().unwrap().contains("51.99"), "{entry:?}");
        assert!(entry.after.as_deref().unwrap().contains("49.99"), "{entry:?}");
        assert_eq!(put.entry(&[], std::iter::once(&next)).unwrap().before, None);
        assert_eq!(removal(Some(&known), &known.product_id).after, None);
    }
}
