//! Computes a product's next price and compares it with the stored one.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::{EarlierChange, EventHold, FROZEN, PriceWrite, StoredFacts, TIME};
use pricing_domain::facts::Facts;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::Product;
use pricing_domain::facts::signal::Signals;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::explanation::Outcome;
use pricing_domain::pricing::price::{ListPrice, MoveLimiting, price_with};
use pricing_domain::pricing::price_state::{DueChange, PriceState};
use pricing_domain::pricing::replay::RecordedExplanation;

/// The initial buffer size; most explanations fit.
const USUAL_EXPLANATION_BYTES: usize = 1_536;

/// The initial buffer size; most states fit.
const USUAL_MOVEMENT_BYTES: usize = 384;

/// The last pricing of a product, with the steps that have fallen due since.
pub(super) struct Before<'a> {
    /// Absent if the product has no price in its currency.
    state: Option<Cow<'a, PriceState>>,
    /// The policy version of the stored price; 0 without one.
    policy_version: i64,
    changes: Vec<DueChange>,
}

/// A product's new price, compared with the stored one.
pub(super) struct Computed<'a> {
    pub(super) list_price: ListPrice<'a>,
    /// The new entry, with the stored revision until a new one is assigned.
    pub(super) entry: PriceEntry,
    /// The day (UTC) of the opening price.
    opened_on: NaiveDate,
    changed_at: Option<DateTime<Utc>>,
    /// When the list price changed before.
    last_change: DateTime<Utc>,
    /// The digest of the stored explanation, if it has one.
    explained: Option<i64>,
    /// The list price before the pricing, for the history; absent if it was in another currency.
    pub(super) old_list_price: Option<Decimal>,
    /// The changes that fell due before.
    due: &'a [DueChange],
    /// The policy version that made them.
    due_version: i64,
    /// The move that stays held.
    pub(super) hold: Option<EventHold>,
    pub(super) changed: bool,
}

/// The largest difference of two processes' clocks by which a pricing goes back to that of the other.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);

impl<'a> Before<'a> {
    /// Returns the instant to price as of: now, or that of the last pricing, if the clock of its process is
    /// a little ahead; otherwise a window would seem to end before it began.
    pub(super) fn instant(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let movement = self.state.as_deref().and_then(|state| state.movement.as_ref());
        let last = movement.map(|movement| movement.priced_at);
        last.filter(|last| now < *last && *last - now < CLOCK_SKEW).unwrap_or(now)
    }

    /// Makes the steps that have fallen due until now, by the policy of the stored price if it is known.
    pub(super) fn of(
        stored: &'a StoredFacts,
        policy_of: impl Fn(i64) -> Option<Arc<PricingPolicy>>,
        now: DateTime<Utc>,
    ) -> Self {
        let price = stored.price.as_ref().filter(|price| price.entry.currency == stored.product.currency);
        let Some(price) = price else {
            return Self { state: None, policy_version: 0, changes: Vec::new() };
        };
        let policy_version = price.entry.policy_version;
        let is_due = price.state.valid_until.is_some_and(|valid_until| valid_until <= now);
        let unchanged =
            Self { state: Some(Cow::Borrowed(&price.state)), policy_version, changes: Vec::new() };
        if !is_due && price.state.movement.is_some() {
            return unchanged;
        }
        let recorded = price.explanation.as_deref();
        // Explanations from before some fields existed may be unreadable; then the price continues from where
        // it is.
        let recorded = recorded.and_then(|json| serde_json::from_str::<RecordedExplanation>(json).ok());
        let Some((recorded, policy)) = recorded.zip(policy_of(price.entry.policy_version)) else {
            return unchanged;
        };
        let mut state = price.state.clone();
        if state.movement.is_none() {
            state.movement = recorded.movement_of(&state, &policy);
        }
        let (state, changes) = recorded.catch_up(state, &policy, now);
        Self { state: Some(Cow::Owned(state)), policy_version, changes }
    }
}

/// Prices a product by this policy; while a move is held, by the facts of its last pricing.
pub(super) fn compute<'a>(
    stored: &'a StoredFacts,
    before: &'a Before<'_>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
    limiting: MoveLimiting,
) -> Computed<'a> {
    let hold = stored.held.as_ref().map(|held| held.hold.clone());
    Computed { hold, ..compute_by(&stored.signals, stored, before, policy, now, limiting) }
}

/// Prices a product by this policy and by these signals, without a held move.
pub(super) fn compute_by<'a>(
    signals: &'a Signals,
    stored: &'a StoredFacts,
    before: &'a Before<'_>,
    policy: &'a PricingPolicy,
    now: DateTime<Utc>,
    limiting: MoveLimiting,
) -> Computed<'a> {
    let state = before.state.as_deref();
    let previous = state.map(|state| state.previous(now));
    let facts = Facts { product: &stored.product, signals, previous };
    let list_price = price_with(&facts, policy, now, limiting);
    let entry = list_price.entry(stored.price.as_ref().map_or(0, |price| price.entry.revision));
    let changed = stored.price.as_ref().is_none_or(|price| price.entry != entry);
    let explained = stored.price.as_ref().and_then(|price| price.explanation_digest);
    let stays = state.filter(|state| state.list_price == list_price.amount);
    Computed {
        opened_on: PriceState::opened_on(state, now),
        changed_at: stays.map_or(Some(now), |state| state.changed_at),
        last_change: state.and_then(|state| state.changed_at).unwrap_or(DateTime::UNIX_EPOCH),
        old_list_price: state.map(|state| state.list_price),
        due: &before.changes,
        due_version: before.policy_version,
        hold: None,
        entry,
        explained,
        changed,
        list_price,
    }
}

impl Before<'_> {
    /// Returns the facts of the last pricing that was not frozen, as they count now; `None` if they are not
    /// known.
    pub(super) fn known_signals(&self, product: &Product, now: DateTime<Utc>) -> Option<Signals> {
        let movement = self.state.as_ref()?.movement.as_ref()?;
        Some(movement.facts.signals.still_known(product, now))
    }
}

impl Computed<'_> {
    /// Whether a rule failed, so that the price is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.list_price.explanation.outcome == Outcome::Frozen
    }

    /// Returns the list price that this pricing leads to: the target of a price that a limit holds back.
    pub(super) fn goal(&self) -> Decimal {
        self.list_price.explanation.held.map_or(self.entry.list_price, |held| held.target)
    }

    /// Whether neither the price nor the content of the explanation, the movement or the held move differs
    /// from the stored ones.
    pub(super) fn says_the_same(&self, write: &PriceWrite) -> bool {
        !self.changed && self.explained == Some(write.explanation_digest)
    }

    /// Returns the rows to be written.
    pub(super) fn write(&self, cause: String, now: DateTime<Utc>) -> Result<PriceWrite, serde_json::Error> {
        let mut explanation = Vec::with_capacity(USUAL_EXPLANATION_BYTES);
        let explanation_digest = self.list_price.explanation.append_json(&mut explanation)?;
        let mut movement = Vec::with_capacity(USUAL_MOVEMENT_BYTES);
        if let Some(state) = &self.list_price.movement {
            serde_json::to_writer(&mut movement, state)?;
        }
        let held = self.list_price.explanation.held.map(|held| held.by.name());
        let text = |json| String::from_utf8(json).map_err(serde::ser::Error::custom);
        // If this pricing changes nothing, the last change that fell due is the one that led to the price.
        let last_due = self.due.last().filter(|due| due.to == self.entry.list_price);
        let is_last_due = last_due.is_some() && self.old_list_price == Some(self.entry.list_price);
        let earlier = self.due.len() - usize::from(is_last_due);
        let earlier = self.due.iter().take(earlier).map(|change| EarlierChange {
            revision: 0,
            policy_version: self.due_version,
            change: *change,
        });
        Ok(PriceWrite {
            entry: self.entry.clone(),
            opening_price: self.list_price.opening_price,
            opened_on: self.opened_on,
            changed_at: self.changed_at,
            streak: self.list_price.streak,
            explanation_digest: digest_with(explanation_digest, &movement, self.hold.as_ref()),
            event_hold: self.hold.clone(),
            movement: if movement.is_empty() { None } else { Some(text(movement)?) },
            held_by: if self.is_frozen() { Some(FROZEN) } else { held },
            explanation: text(explanation)?,
            earlier: earlier.collect(),
            previous_list_price: match last_due.filter(|_| is_last_due) {
                Some(due) => Some(due.from),
                None => self.old_list_price,
            },
            // The history never goes back, whatever the clocks did.
            listed_at: last_due.filter(|_| is_last_due).map_or(now.max(self.last_change), |due| due.at),
            cause: if is_last_due { TIME.to_owned() } else { cause },
            priced_at: now,
        })
    }
}

/// Returns the digest of an explanation's content, of the state, whose last field, when it was priced, is
/// disregarded, and of the held move, if there is one.
fn digest_with(explanation: i64, movement: &[u8], hold: Option<&EventHold>) -> i64 {
    const PRICED_AT: &[u8] = b",\"priced_at\":";
    let content = movement.windows(PRICED_AT.len()).rposition(|window| window == PRICED_AT);
    let content = movement.get(..content.unwrap_or(movement.len())).unwrap_or_default();
    let digest = explanation.wrapping_mul(31).wrapping_add(xxh3_64(content).cast_signed());
    hold.map_or(digest, |hold| digest_with_hold(digest, hold))
}

/// Adds a held move to the digest of a price without one.
pub(super) fn digest_with_hold(digest: i64, hold: &EventHold) -> i64 {
    let EventHold { since, reason, rejected_by } = hold;
    let content = format!("{}\n{reason}\n{rejected_by:?}", since.timestamp_micros());
    digest.wrapping_mul(31).wrapping_add(xxh3_64(content.as_bytes()).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pricing_domain::facts::money::Currency;
    use pricing_domain::facts::product::{ProductDraft, WrittenNumber};
    use pricing_domain::facts::time_zone::TimeZones;
    use pricing_domain::policy::DEFAULT_POLICY;

    use crate::store::StoredPrice;

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
        let state = PriceState {
            list_price: Decimal::from(115),
            valid_until: None,
            opening_price: Decimal::from(100),
            opened_on: NaiveDate::from_ymd_opt(2026, 1, 2).unwrap(),
            changed_at: None,
            streak: None,
            movement: None,
        };
        let price =
            StoredPrice { entry, state, explanation: None, explanation_digest: None, event_hold: None };
        let signals = Signals::default();
        StoredFacts { product, signals, held: None, has_replaced_cost: false, price: Some(price) }
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
            let before = Before::of(&stored, |_| None, instant(now));
            let computed = compute(&stored, &before, &policy, instant(now), MoveLimiting::Limited);
            let written = computed.write("test".to_owned(), instant(now)).unwrap();
            assert_eq!(written.opening_price, Decimal::from(opening_price), "{now}");
            assert_eq!(written.opened_on.to_string(), opened_on, "{now}");
        }
    }

    #[test]
    fn a_state_differs_in_what_it_says_and_not_in_when_it_was_priced() {
        let digest = |movement: &str| digest_with(7, movement.as_bytes(), None);
        let state = r#"{"target":"1","priced_at":"2026-01-02T00:00:00Z"}"#;
        assert_eq!(digest(state), digest(r#"{"target":"1","priced_at":"2026-01-03T00:00:00Z"}"#));
        assert_ne!(digest(state), digest(r#"{"target":"2","priced_at":"2026-01-02T00:00:00Z"}"#));
        assert_ne!(digest(state), digest(""));
        let hold = EventHold { since: DateTime::UNIX_EPOCH, reason: String::new(), rejected_by: None };
        let rejected = EventHold { rejected_by: Some("zoe".to_owned()), ..hold.clone() };
        let held = |hold: &EventHold| digest_with(7, state.as_bytes(), Some(hold));
        assert_ne!(held(&hold), digest(state));
        assert_ne!(held(&hold), held(&rejected));
    }
}
