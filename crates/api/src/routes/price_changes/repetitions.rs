//! Recognises changes that the stream has twice.
//!
//! A process that dies after its prices were written, or does not learn that Redis has them, publishes their
//! changes again. In the stream, such a repetition comes after the change that it repeats, so every follower
//! has passed that one already, or has begun after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use pricing_core::notifications::{Position, ProductChange};
use pricing_domain::facts::product::ProductId;
use rust_decimal::Decimal;

/// The latest changes that a process remembers for all its followers; an older one may be sent twice.
const MAX_REMEMBERED: usize = 20_000;

/// What makes a change the same as another one. The price is part of it, as a database that was restored from
/// a backup gives out revisions for the second time.
type Identity = (ProductId, i64, Option<Decimal>);

/// The first position of each of the latest changes.
#[derive(Debug, Default)]
pub(super) struct Repetitions(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    first: HashMap<Identity, Position>,
    /// The oldest first.
    order: VecDeque<Identity>,
}

impl Repetitions {
    /// Whether the same change is in the stream before this position; if not, it is remembered.
    pub(super) fn is_repetition(&self, position: Position, change: &ProductChange) -> bool {
        let identity = (change.product_id.clone(), change.revision, change.change.new_list_price);
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = remembered.first.get_mut(&identity) {
            let is_later = position > *first;
            *first = position.min(*first);
            return is_later;
        }
        if remembered.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.first.remove(&oldest);
        }
        remembered.first.insert(identity.clone(), position);
        remembered.order.push_back(identity);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use chrono::DateTime;
    use pricing_core::notifications::ListPriceChange;

    use super::*;

    fn change(product_id: &str, revision: i64, price: u32) -> ProductChange {
        let change = ListPriceChange {
            old_list_price: None,
            new_list_price: Some(price.into()),
            currency: Cow::Borrowed("USD"),
            policy_version: 1,
            cause: "test".to_owned(),
            changed_at: DateTime::UNIX_EPOCH,
        };
        ProductChange { product_id: ProductId::parse(product_id).unwrap(), revision, change }
    }

    fn at(position: &str) -> Position {
        position.parse().unwrap()
    }

    #[test]
    fn only_the_same_change_at_a_later_position_is_a_repetition() {
        let repetitions = Repetitions::default();
        let first = change("P-1", 7, 10);
        assert!(!repetitions.is_repetition(at("5-0.1"), &first));
        // For another follower.
        assert!(!repetitions.is_repetition(at("5-0.1"), &first));
        assert!(repetitions.is_repetition(at("5-0.2"), &first));
        assert!(repetitions.is_repetition(at("6-0.0"), &first));
        for other in [change("P-2", 7, 10), change("P-1", 8, 10), change("P-1", 7, 11)] {
            assert!(!repetitions.is_repetition(at("6-0.0"), &other));
        }
        // A follower that reads from further back meets the first one later.
        assert!(!repetitions.is_repetition(at("4-0.0"), &first));
        assert!(repetitions.is_repetition(at("5-0.1"), &first));
    }

    #[test]
    fn the_latest_changes_are_remembered() {
        let repetitions = Repetitions::default();
        let revisions = 1..=i64::try_from(MAX_REMEMBERED).unwrap() + 1;
        for revision in revisions {
            assert!(!repetitions.is_repetition(at("1-0.0"), &change("P-1", revision, 1)));
        }
        assert_eq!(repetitions.0.lock().unwrap().first.len(), MAX_REMEMBERED);
        assert!(repetitions.is_repetition(at("2-0.0"), &change("P-1", 2, 1)));
        assert!(!repetitions.is_repetition(at("2-0.0"), &change("P-1", 1, 1)));
    }
}
