//! The rows that an import has read: the first row of a product counts, and a later one with other values is
//! refused, at any distance. A row takes sixteen bytes, within a bound that all imports under way share.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use pricing_domain::facts::product::Product;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Rows that all imports under way remember together: 80 MB, about twice that with the spare capacity of hash
/// tables.
pub(crate) const REMEMBERED_ROWS: usize = 5_000_000;
/// Permits are acquired for this many rows at a time.
const ROWS_AT_A_TIME: u32 = 1_000;

/// The remembered rows of one import.
pub(super) struct SeenRows {
    /// Keyed by a hash of the identifier. Among five million, two collide once in a million imports.
    rows: HashMap<u64, SeenRow>,
    hashes: RandomState,
    room: Arc<Semaphore>,
    /// The permits that are held; released when the import ends.
    taken: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy)]
struct SeenRow {
    line: u32,
    /// A hash of the row's product.
    product: u32,
}

/// A row compared with the first row of its product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is the first row of its product.
    First,
    /// It has the same values as the first row.
    Repeated,
    /// It has other values than the first row.
    Different {
        /// The line of the first row, from 1.
        first_line: u32,
    },
    /// It was not compared: too many rows came before.
    Unknown,
}

impl SeenRows {
    pub(super) fn new(room: Arc<Semaphore>) -> Self {
        Self { rows: HashMap::new(), hashes: RandomState::new(), room, taken: Vec::new() }
    }

    /// Compares this row with the first one of its product; remembers it if it is the first and there is
    /// room.
    pub(super) fn look(&mut self, product: &Product, line: u64) -> Seen {
        let key = self.hashes.hash_one(&product.product_id);
        let [a, b, c, d, ..] = self.hashes.hash_one(product).to_ne_bytes();
        let hash = u32::from_ne_bytes([a, b, c, d]);
        if let Some(first) = self.rows.get(&key) {
            return match first.product == hash {
                true => Seen::Repeated,
                false => Seen::Different { first_line: first.line },
            };
        }
        if !self.has_room() {
            return Seen::Unknown;
        }
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.rows.insert(key, SeenRow { line, product: hash });
        Seen::First
    }

    fn has_room(&mut self) -> bool {
        let room = self.taken.len() * ROWS_AT_A_TIME as usize;
        if self.rows.len() < room {
            return true;
        }
        let more = Arc::clone(&self.room).try_acquire_many_owned(ROWS_AT_A_TIME).ok();
        let has_more = more.is_some();
        self.taken.extend(more);
        has_more
    }
}

#[cfg(test)]
mod tests {
    use pricing_domain::facts::product::{ProductDraft, WrittenNumber};

    use super::*;

    fn product(id: usize, price: usize) -> Product {
        let draft = ProductDraft {
            product_id: Some(format!("P-{id}")),
            currency: Some("JPY".to_owned()),
            base_price: Some(WrittenNumber(price.to_string())),
            ..ProductDraft::default()
        };
        draft.check().unwrap()
    }

    #[test]
    fn the_first_row_of_a_product_is_remembered_at_any_distance() {
        let mut seen = SeenRows::new(Arc::new(Semaphore::new(REMEMBERED_ROWS)));
        for number in 0..10_000 {
            assert_eq!(seen.look(&product(number, 1 + number), number as u64 + 2), Seen::First);
        }
        for number in [0, 1, 9_999] {
            assert_eq!(seen.look(&product(number, 1 + number), 20_000), Seen::Repeated);
            let first_line = u32::try_from(number + 2).unwrap();
            assert_eq!(seen.look(&product(number, 2 + number), 20_001), Seen::Different { first_line });
        }
    }

    #[test]
    fn imports_share_the_room_and_release_it() {
        let room = Arc::new(Semaphore::new(2 * ROWS_AT_A_TIME as usize));
        let rows = ROWS_AT_A_TIME as usize;
        let mut one = SeenRows::new(Arc::clone(&room));
        let mut other = SeenRows::new(Arc::clone(&room));
        assert_eq!(other.look(&product(0, 1), 1), Seen::First);
        for number in 0..rows {
            assert_eq!(one.look(&product(number, 1), 1), Seen::First);
        }
        assert_eq!(one.look(&product(rows, 1), 1), Seen::Unknown);
        assert_eq!(one.look(&product(0, 1), 1), Seen::Repeated, "what is remembered stays so");
        drop(other);
        assert_eq!(one.look(&product(rows, 1), 1), Seen::First);
    }
}
