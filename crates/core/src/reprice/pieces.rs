//! A batch priced in a transaction, piece by piece: while one piece is computed, the database writes the one before and
//! reads the next. So neither waits for the other, and a batch of any length has few explanations in memory. What a
//! transaction does between two statements keeps the database waiting: rows are read and written out by whoever
//! computes.

use std::collections::BTreeSet;

use chrono::Utc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::compute::compute;
use super::{RepriceError, Repricer, Served};
use crate::catalogue::{
    CatalogueError, CatalogueTransaction, PreparedPrices, ProductRows, StoredFacts, UnreadFacts,
};
use crate::domain::product::{Product, ProductId};

/// Products in a piece: enough that its statements cost little beside its rows.
const PIECE: usize = 500;

/// What is to be priced, in the order of the identifiers: transactions that lock the same products do so in one order.
pub(super) struct Batch {
    pieces: std::vec::IntoIter<Piece>,
}

enum Piece {
    /// To be locked; what does not exist is left out.
    Named(Vec<ProductId>),
    /// To be put, as far as they are not stored just so and locked.
    Put { products: Vec<Product>, rows: ProductRows },
}

/// A piece whose products are locked, with a revision for the price of each.
struct Locked {
    facts: UnreadFacts,
    revisions: Vec<i64>,
}

/// A piece whose prices are computed.
struct Priced {
    /// The prices of all of it, as they will be.
    served: Vec<Served>,
    /// Those that are new, to be written.
    prices: PreparedPrices,
}

impl Batch {
    /// Products with these identifiers.
    pub(super) fn named<'a>(ids: impl IntoIterator<Item = &'a ProductId>) -> Self {
        let ids: BTreeSet<&ProductId> = ids.into_iter().collect();
        let ids: Vec<ProductId> = ids.into_iter().cloned().collect();
        Self::of(ids.chunks(PIECE).map(|ids| Piece::Named(ids.to_vec())))
    }

    /// Products, each once, in the order of their identifiers, and the rows of those that the transaction has not locked
    /// just so.
    pub(super) fn put(products: Vec<Product>, mut rows: ProductRows) -> Self {
        let mut products = products.into_iter();
        Self::of(std::iter::from_fn(move || {
            let products: Vec<Product> = products.by_ref().take(PIECE).collect();
            let last = products.last()?;
            Some(Piece::Put { rows: rows.take_through(&last.product_id), products })
        }))
    }

    fn of(pieces: impl Iterator<Item = Piece>) -> Self {
        Self { pieces: pieces.collect::<Vec<_>>().into_iter() }
    }

    /// Locks the next piece. Revisions are drawn for all of it, though perhaps few of its prices become others, and after
    /// the lock: so those of a product grow in the order in which its prices are committed.
    async fn lock_next(
        &mut self,
        transaction: &mut CatalogueTransaction,
    ) -> Result<Option<Locked>, CatalogueError> {
        let Some(piece) = self.pieces.next() else { return Ok(None) };
        let (products, facts) = match piece {
            Piece::Named(ids) => (ids.len(), transaction.lock_facts(&ids).await?),
            Piece::Put { products, rows } => {
                transaction.put_products(rows, Utc::now()).await?;
                (products.len(), transaction.facts_of(products).await?)
            }
        };
        Ok(Some(Locked { facts, revisions: transaction.next_revisions(products).await? }))
    }
}

impl Repricer {
    /// Prices the products that `needs_price`, and those without a price that may be served. Gives the prices of all,
    /// as they will be after the transaction; products that do not exist are left out. Each piece is priced by the policy,
    /// and as of the instant, at which its turn comes.
    pub(super) async fn price_in(
        &self,
        transaction: &mut CatalogueTransaction,
        mut batch: Batch,
        needs_price: impl Fn(&StoredFacts) -> bool + Clone + Send + 'static,
        cause: impl Fn(&ProductId) -> String + Clone + Send + 'static,
    ) -> Result<Vec<Served>, RepriceError> {
        let mut served = Vec::new();
        let mut computed = None;
        let mut next = batch.lock_next(transaction).await?;
        while let Some(locked) = next {
            let (repricer, needs_price, cause) = (self.clone(), needs_price.clone(), cause.clone());
            let computing = async move { repricer.price_piece(locked, needs_price, cause).await };
            let computing = off_the_runtime(computing);
            if let Some(prices) = computed.take() {
                transaction.write_prices(prices).await?;
            }
            next = batch.lock_next(transaction).await?;
            let priced = computing.await.map_err(|_| RepriceError::Interrupted)??;
            served.extend(priced.served);
            computed = Some(priced.prices);
        }
        if let Some(prices) = computed {
            transaction.write_prices(prices).await?;
        }
        Ok(served)
    }

    async fn price_piece(
        &self,
        locked: Locked,
        needs_price: impl Fn(&StoredFacts) -> bool,
        cause: impl Fn(&ProductId) -> String,
    ) -> Result<Priced, RepriceError> {
        let piece = locked.facts.read()?;
        debug_assert!(piece.len() <= locked.revisions.len());
        // Not before: the wait for the locks may have been long.
        let now = Utc::now();
        let policy = self.policy_for(&piece).await?;
        let (mut served, mut writes) = (Vec::with_capacity(piece.len()), Vec::new());
        for (facts, revision) in piece.iter().zip(locked.revisions) {
            match &facts.price {
                Some(price) if self.is_servable(price) && !needs_price(facts) => {
                    served.push(Served::unchanged(price.entry.clone(), false));
                }
                _ => {
                    let computed = compute(facts, &policy, now);
                    self.count(&computed.list_price.explanation);
                    let is_frozen = computed.is_frozen();
                    if computed.changed {
                        let write = computed.write(revision, cause(&facts.product.product_id), now)?;
                        served.push(Served::written(&write, is_frozen));
                        writes.push(write);
                    } else {
                        served.push(Served::unchanged(computed.entry.clone(), is_frozen));
                    }
                }
            }
        }
        Ok(Priced { served, prices: self.catalogue.prepare_prices(writes)? })
    }
}

/// Runs what computes for milliseconds on a thread of its own: on one of the runtime's it would hold up whoever waits to
/// give the database its next statement.
fn off_the_runtime<T: Send + 'static>(computing: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let computing = computing.in_current_span();
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(computing))
}
