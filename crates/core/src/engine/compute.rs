//! Computes a product's next price and compares it with the stored one.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

use crate::store::{PriceWrite, StoredFacts, StoredPrice};
use pricing_domain::facts::Facts;
use pricing_domain::facts::previous::Previous;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::explanation::Outcome;
use pricing_domain::pricing::price::{ListPrice, price};

/// The initial buffer size; most explanations fit.
const USUAL_EXPLANATION_BYTES: usize = 1_536;

/// A product's new price, compared with the stored one.
pub(super) struct Computed<'a> {
    pub(super) list_price: ListPrice<'a>,
    /// The new entry, with the stored revision until a new one is assigned.
    pub(super) entry: PriceEntry,
    previous: Option<Previous>,
    /// The day (UTC) of the opening price.
    opened_on: NaiveDate,
    /// The digest of the stored explanation, if it has one.
    explained: Option<i64>,
    /// The previous list price, for the history; absent if it was in another currency.
    pub(super) old_list_price: Option<Decimal>,
    pub(super) changed: bool,
}

/// Prices a product by this policy.
pub(super) fn compute<'a>(
    stored: &'a StoredFacts,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
) -> Computed<'a> {
    let same_terms = |price: &&StoredPrice| {
        (price.entry.currency, price.entry.base_price) == (stored.product.currency, stored.product.base_price)
    };
    // A new base price is the seller's decision, not a market move, so limits on moves do not apply.
    let carried_on = stored.price.as_ref().filter(same_terms);
    let previous = carried_on.map(|price| previous(price, now));
    let day_opened =
        carried_on.map(|price| price.opened_on).filter(|opened_on| is_under_way(*opened_on, now));
    let opened_on = day_opened.unwrap_or_else(|| now.date_naive());
    let facts = Facts { product: &stored.product, signals: &stored.signals, previous };
    let list_price = price(&facts, policy, now);
    let product = &stored.product;
    let entry = list_price.entry(stored.price.as_ref().map_or(0, |price| price.entry.revision));
    let changed = stored.price.as_ref().is_none_or(|price| price.entry != entry);
    let old_list_price = stored
        .price
        .as_ref()
        .filter(|price| price.entry.currency == product.currency)
        .map(|price| price.entry.list_price);
    let explained = stored.price.as_ref().and_then(|price| price.explanation_digest);
    Computed { list_price, entry, previous, opened_on, explained, old_list_price, changed }
}

impl Computed<'_> {
    /// Whether a rule failed, so that the price is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.list_price.explanation.outcome == Outcome::Frozen
    }

    /// Whether neither the price nor the content of the explanation differs from the stored ones.
    pub(super) fn says_the_same(&self, write: &PriceWrite) -> bool {
        !self.changed && self.explained == Some(write.explanation_digest)
    }

    fn changed_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.previous {
            Some(previous) if previous.list_price == self.entry.list_price => previous.changed_at,
            _ => Some(now),
        }
    }

    /// Returns the rows to be written.
    pub(super) fn write(&self, cause: String, now: DateTime<Utc>) -> Result<PriceWrite, serde_json::Error> {
        let mut explanation = Vec::with_capacity(USUAL_EXPLANATION_BYTES);
        let explanation_digest = self.list_price.explanation.append_json(&mut explanation)?;
        Ok(PriceWrite {
            entry: self.entry.clone(),
            opening_price: self.previous.map_or(self.entry.list_price, |previous| previous.opening_price),
            opened_on: self.opened_on,
            changed_at: self.changed_at(now),
            streak: self.list_price.streak,
            explanation: String::from_utf8(explanation).map_err(serde::ser::Error::custom)?,
            explanation_digest,
            previous_list_price: self.old_list_price,
            cause,
            priced_at: now,
        })
    }
}

/// Returns the current price; on a new day it becomes the opening price.
fn previous(stored: &StoredPrice, now: DateTime<Utc>) -> Previous {
    let list_price = stored.entry.list_price;
    let opening_price = if is_under_way(stored.opened_on, now) { stored.opening_price } else { list_price };
    Previous { list_price, opening_price, changed_at: stored.changed_at, streak: stored.streak }
}

/// Whether the day is not over. It may be tomorrow, so that a clock that is slightly behind does not reopen
/// the previous day; a day further ahead was opened by a wrong clock.
fn is_under_way(day: NaiveDate, now: DateTime<Utc>) -> bool {
    let today = now.date_naive();
    day == today || today.succ_opt() == Some(day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pricing_domain::facts::money::Currency;
    use pricing_domain::facts::product::{ProductDraft, WrittenNumber};
    use pricing_domain::facts::signal::Signals;
    use pricing_domain::facts::time_zone::TimeZones;
    use pricing_domain::policy::DEFAULT_POLICY;

    fn instant(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The stored facts of a product that opened 2 January at 100 and has cost 115 since.
    fn stored() -> StoredFacts {
        let draft = ProductDraft {
            product_id: Some("P-1".to_owned()),
            currency: Some("USD".to_owned()),
            base_price: Some(WrittenNumber("100".to_owned())),
            ..ProductDraft::default()
        };
        let product = draft.check().unwrap();
        let entry = PriceEntry {
            product_id: product.product_id.clone(),
            category: None,
            currency: Currency::from_code("USD").unwrap(),
            base_price: product.base_price,
            list_price: Decimal::from(115),
            lowest: None,
            highest: None,
            policy_version: 1,
            revision: 7,
            valid_until: None,
        };
        let price = StoredPrice {
            entry,
            opening_price: Decimal::from(100),
            opened_on: NaiveDate::from_ymd_opt(2026, 1, 2).unwrap(),
            changed_at: None,
            streak: None,
            explanation_digest: None,
        };
        StoredFacts { product, signals: Signals::default(), has_replaced_cost: false, price: Some(price) }
    }

    #[test]
    fn a_day_is_opened_once_however_the_clocks_of_the_workers_differ() {
        let (stored, policy) =
            (stored(), PricingPolicy::from_yaml(DEFAULT_POLICY, 1, &TimeZones::bundled()).unwrap());
        for (now, opening_price, opened_on) in [
            ("2026-01-02T00:00:00.2Z", 100, "2026-01-02"),
            ("2026-01-01T23:59:59.5Z", 100, "2026-01-02"),
            ("2026-01-03T00:00:00Z", 115, "2026-01-03"),
            ("2025-12-31T23:59:59Z", 115, "2025-12-31"),
        ] {
            let computed = compute(&stored, &policy, instant(now));
            let written = computed.write("test".to_owned(), instant(now)).unwrap();
            assert_eq!(written.opening_price, Decimal::from(opening_price), "{now}");
            assert_eq!(written.opened_on.to_string(), opened_on, "{now}");
        }
    }
}
