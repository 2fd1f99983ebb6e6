//! The contents of the store besides products and signals: prices with their explanation, their history,
//! policies.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;

use super::columns::Columns;
use pricing_domain::facts::previous::Streak;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::signal::Signals;
use pricing_domain::pricing::price_state::{DueChange, PriceState};

/// The longest cause of a price change, in characters; a longer one is truncated.
pub const MAX_CAUSE_CHARS: usize = 200;

/// The rows that could be read, and those left out because they could not: one bad row does not fail the
/// others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable<T> {
    /// The readable rows.
    pub known: Vec<T>,
    /// The products that are left out.
    pub left_out: Vec<LeftOut>,
}

/// A product whose currency is unknown to this program: it was written by a newer program, or manually.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The product.
    pub product_id: ProductId,
    /// The code as it is stored.
    pub currency: String,
}

/// The current price of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPrice {
    /// The price entry, as it is served.
    pub entry: PriceEntry,
    /// What the next pricing needs of the last one.
    pub state: PriceState,
    /// The explanation, if the price may have to catch up with steps that fell due.
    pub explanation: Option<String>,
    /// See [`PriceWrite::explanation_digest`]; absent if it was written by a version without it.
    pub explanation_digest: Option<i64>,
    /// The move that the circuit breaker holds, if there is one.
    pub event_hold: Option<EventHold>,
}

/// A move of a list price that market events would have made and the circuit breaker holds: the product keeps
/// being priced by the facts of its last pricing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHold {
    /// When it was held.
    pub since: DateTime<Utc>,
    /// Why, with the figures.
    pub reason: String,
    /// Who rejected it; absent while it waits for a decision.
    pub rejected_by: Option<String>,
}

/// All inputs of a product's next price, besides the policy and the instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFacts {
    /// The product.
    pub product: Product,
    /// The signals that it is priced by: its own and its category's or, while a move is held, those of its
    /// last pricing.
    pub signals: Signals,
    /// The move that is held, with the signals that would make it.
    pub held: Option<HeldSignals>,
    /// Whether an event's cost is ignored because the seller stated a later one.
    pub has_replaced_cost: bool,
    /// Its current price.
    pub price: Option<StoredPrice>,
}

/// Signals that a product is not priced by, because the circuit breaker holds the move that they would make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSignals {
    /// The product's own signals and its category's.
    pub signals: Signals,
    /// The move.
    pub hold: EventHold,
}

/// A new price of a product, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceWrite {
    /// The price, with a new revision.
    pub entry: PriceEntry,
    /// See [`PriceState::opening_price`].
    pub opening_price: Decimal,
    /// See [`PriceState::opened_on`].
    pub opened_on: NaiveDate,
    /// See [`PriceState::changed_at`].
    pub changed_at: Option<DateTime<Utc>>,
    /// See [`PriceState::streak`].
    pub streak: Option<Streak>,
    /// See [`PriceState::movement`]; as JSON.
    pub movement: Option<String>,
    /// What keeps the price from its target: the name of a limit on moves, or [`FROZEN`].
    pub held_by: Option<&'static str>,
    /// The explanation of the price, as JSON; kept byte for byte.
    pub explanation: String,
    /// The move that the circuit breaker holds, if there is one.
    pub event_hold: Option<EventHold>,
    /// The digest of the content of the explanation, of the movement and of the held move: where one of them
    /// differs for the same price, so does the digest.
    pub explanation_digest: i64,
    /// The changes that fell due before the last one, in order, each with a row of the history.
    pub earlier: Vec<EarlierChange>,
    /// The list price before the last change. The history gets a row for it only if the new one differs.
    pub previous_list_price: Option<Decimal>,
    /// When the list price last changed, if this pricing changed it.
    pub listed_at: DateTime<Utc>,
    /// What caused the price change: `import`, `product`, an event's identifier. At most [`MAX_CAUSE_CHARS`].
    pub cause: String,
    /// When the price was computed.
    pub priced_at: DateTime<Utc>,
}

/// A change of a list price that fell due before the product was priced again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierChange {
    /// A revision of its own, before that of the price; 0 until one is assigned.
    pub revision: i64,
    /// The policy version that made it.
    pub policy_version: i64,
    /// The change.
    pub change: DueChange,
}

/// The value of [`PriceWrite::held_by`] if a rule fails.
pub const FROZEN: &str = "frozen";

/// The cause of changes that fell due with time.
pub const TIME: &str = "time";

impl PriceWrite {
    /// Whether the list price changes, which adds a row to the history.
    pub fn changes_list_price(&self) -> bool {
        self.previous_list_price != Some(self.entry.list_price)
    }
}

/// A row of the history: a change of a list price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceChange {
    /// The revision of the new price entry.
    pub revision: i64,
    /// The product.
    pub product_id: ProductId,
    /// The list price before; `None` if it is the product's first.
    pub old_list_price: Option<Decimal>,
    /// The list price after; `None` if the product was removed.
    pub new_list_price: Option<Decimal>,
    /// The currency code of both prices, which may be unknown to this program.
    pub currency: Cow<'static, str>,
    /// The policy version of the new price or, for a removal, of the last one.
    pub policy_version: i64,
    /// See [`PriceWrite::cause`].
    pub cause: String,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
}

/// A published policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// 1, 2, 3 and so on, without a gap.
    pub version: i64,
    /// The policy's own name.
    pub name: String,
    /// The document as its author wrote it (YAML).
    pub source: String,
    /// The publisher.
    pub author: String,
    /// The reason, in the author's words; may be empty.
    pub note: String,
    /// When it was published.
    pub published_at: DateTime<Utc>,
}

impl<'row, R: Columns> FromRow<'row, R> for StoredPolicy {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.value("version")?,
            name: row.value("name")?,
            source: row.value("source")?,
            author: row.value("author")?,
            note: row.value("note")?,
            published_at: row.value("published_at")?,
        })
    }
}

/// A policy to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPolicy {
    /// See [`StoredPolicy::name`].
    pub name: String,
    /// See [`StoredPolicy::source`].
    pub source: String,
    /// See [`StoredPolicy::author`].
    pub author: String,
    /// See [`StoredPolicy::note`].
    pub note: String,
}
