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
    CatalogueError, CatalogueTransaction, PriceRows, PriceWrite, ProductRows, StoredFacts, UnreadFacts,
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

/// A piece whose prices are computed.
#[derive(Default)]
struct Priced {
    unchanged: Vec<Served>,
    /// With the stored revision until each gets its own.
    writes: Vec<PriceWrite>,
    /// Which of the writes are of a price that stayed because a rule failed.
    frozen: Vec<bool>,
    rows: PriceRows,
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

    async fn next_facts(
        &mut self,
        transaction: &mut CatalogueTransaction,
    ) -> Result<Option<UnreadFacts>, CatalogueError> {
        Ok(match self.pieces.next() {
            Some(Piece::Named(ids)) => Some(transaction.lock_facts(&ids).await?),
            Some(Piece::Put { products, rows }) => {
                transaction.put_products(rows, Utc::now()).await?;
                Some(transaction.facts_of(products).await?)
            }
            None => None,
        })
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
        let mut priced = Priced::default();
        let mut next = batch.next_facts(transaction).await?;
        while let Some(unread) = next {
            let (repricer, needs_price, cause) = (self.clone(), needs_price.clone(), cause.clone());
            let computing = async move { repricer.price_piece(unread, needs_price, cause).await };
            let computing = off_the_runtime(computing);
            served.extend(write(transaction, priced).await?);
            next = batch.next_facts(transaction).await?;
            priced = computing.await.map_err(|_| RepriceError::Interrupted)??;
        }
        served.extend(write(transaction, priced).await?);
        Ok(served)
    }

    async fn price_piece(
        &self,
        unread: UnreadFacts,
        needs_price: impl Fn(&StoredFacts) -> bool,
        cause: impl Fn(&ProductId) -> String,
    ) -> Result<Priced, RepriceError> {
        let piece = unread.read()?;
        // Not before: the wait for the locks may have been long.
        let now = Utc::now();
        let policy = self.policy_for(&piece).await?;
        let mut priced = Priced::default();
        for facts in &piece {
            match &facts.price {
                Some(price) if self.is_servable(price) && !needs_price(facts) => {
                    priced.unchanged.push(Served::unchanged(price.entry.clone(), false));
                }
                _ => {
                    let computed = compute(facts, &policy, now);
                    self.count(&computed.list_price.explanation);
                    if computed.changed {
                        priced.writes.push(computed.write(&cause(&facts.product.product_id), now)?);
                        priced.frozen.push(computed.is_frozen());
                    } else {
                        priced
                            .unchanged
                            .push(Served::unchanged(computed.entry.clone(), computed.is_frozen()));
                    }
                }
            }
        }
        priced.rows = PriceRows::of(&priced.writes);
        Ok(priced)
    }
}

/// Runs what computes for milliseconds on a thread of its own: on one of the runtime's it would hold up whoever waits to
/// give the database its next statement.
fn off_the_runtime<T: Send + 'static>(
    computing: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let computing = computing.in_current_span();
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(computing))
}

/// Writes a piece, under new revisions; gives the prices of all of it.
async fn write(transaction: &mut CatalogueTransaction, priced: Priced) -> Result<Vec<Served>, RepriceError> {
    let Priced { unchanged: mut served, mut writes, frozen, rows } = priced;
    if !writes.is_empty() {
        // Each once and in the order of the products, as the pieces are: so the rows have the order of the writes.
        debug_assert_eq!(rows.len(), writes.len());
        let revisions = transaction.next_revisions(writes.len()).await?;
        transaction.write_prices(rows.with_revisions(&revisions)).await?;
        for (write, revision) in writes.iter_mut().zip(revisions) {
            write.entry.revision = revision;
        }
    }
    let written = writes.into_iter().zip(frozen);
    served.extend(written.map(|(write, is_frozen)| Served::written(write, is_frozen)));
    Ok(served)
}
