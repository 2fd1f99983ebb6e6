//! A batch priced in a transaction, piece by piece: while one piece is computed, the database writes the one before and
//! reads the next. So neither waits for the other, and a batch of any length has few explanations in memory.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tracing::Instrument;

use super::compute::compute;
use super::{RepriceError, Repricer, Served};
use crate::catalogue::{CatalogueError, CatalogueTransaction, PriceWrite, StoredFacts};
use crate::domain::policy::PricingPolicy;
use crate::domain::product::{Product, ProductId};

/// Products in a piece: enough that its statements cost little beside its rows.
const PIECE: usize = 250;

/// What is to be priced, in the order of the identifiers: transactions that lock the same products do so in one order.
pub(super) struct Batch {
    pieces: std::vec::IntoIter<Piece>,
}

enum Piece {
    /// To be locked; what does not exist is left out.
    Named(Vec<ProductId>),
    /// As the transaction has put or locked them.
    Held(Vec<Product>),
}

/// A piece whose prices are computed.
#[derive(Default)]
struct Priced {
    unchanged: Vec<Served>,
    /// With the stored revision until each gets its own.
    writes: Vec<PriceWrite>,
    /// Which of the writes are of a price that stayed because a rule failed.
    frozen: Vec<bool>,
}

/// A product with what is asked about it.
struct Asked {
    facts: StoredFacts,
    needs_price: bool,
    cause: String,
}

impl Batch {
    /// Products with these identifiers.
    pub(super) fn named<'a>(ids: impl IntoIterator<Item = &'a ProductId>) -> Self {
        let ids: BTreeSet<&ProductId> = ids.into_iter().collect();
        let ids: Vec<ProductId> = ids.into_iter().cloned().collect();
        Self::of(ids.chunks(PIECE).map(|ids| Piece::Named(ids.to_vec())))
    }

    /// Products that the transaction has put or locked just so; each once, in the order of their identifiers.
    pub(super) fn held(products: &[Product]) -> Self {
        Self::of(products.chunks(PIECE).map(|products| Piece::Held(products.to_vec())))
    }

    fn of(pieces: impl Iterator<Item = Piece>) -> Self {
        Self { pieces: pieces.collect::<Vec<_>>().into_iter() }
    }

    async fn next_facts(
        &mut self,
        transaction: &mut CatalogueTransaction,
    ) -> Result<Option<Vec<StoredFacts>>, CatalogueError> {
        Ok(match self.pieces.next() {
            Some(Piece::Named(ids)) => Some(transaction.lock_facts(&ids).await?),
            Some(Piece::Held(products)) => Some(transaction.facts_of(products).await?),
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
        needs_price: impl Fn(&StoredFacts) -> bool,
        cause: impl Fn(&ProductId) -> String,
    ) -> Result<Vec<Served>, RepriceError> {
        let mut served = Vec::new();
        let mut priced = Priced::default();
        let mut next = batch.next_facts(transaction).await?;
        while let Some(stored) = next {
            // Not before: the wait for the locks may have been long.
            let now = Utc::now();
            let policy = self.policy_for(&stored).await?;
            let asked = stored.into_iter().map(|facts| Asked {
                needs_price: needs_price(&facts),
                cause: cause(&facts.product.product_id),
                facts,
            });
            let (repricer, asked) = (self.clone(), asked.collect::<Vec<_>>());
            let computing = async move { repricer.price_piece(&asked, &policy, now) };
            let computing = tokio::spawn(computing.in_current_span());
            served.extend(write(transaction, priced).await?);
            next = batch.next_facts(transaction).await?;
            priced = computing.await.map_err(|_| RepriceError::Interrupted)??;
        }
        served.extend(write(transaction, priced).await?);
        Ok(served)
    }

    fn price_piece(
        &self,
        piece: &[Asked],
        policy: &PricingPolicy,
        now: DateTime<Utc>,
    ) -> Result<Priced, RepriceError> {
        let mut priced = Priced::default();
        for Asked { facts, needs_price, cause } in piece {
            match &facts.price {
                Some(price) if self.is_servable(price) && !needs_price => {
                    priced.unchanged.push(Served::unchanged(price.entry.clone(), false));
                }
                _ => {
                    let computed = compute(facts, policy, now);
                    self.count(&computed.list_price.explanation);
                    if computed.changed {
                        priced.writes.push(computed.write(cause, now)?);
                        priced.frozen.push(computed.is_frozen());
                    } else {
                        priced
                            .unchanged
                            .push(Served::unchanged(computed.entry.clone(), computed.is_frozen()));
                    }
                }
            }
        }
        Ok(priced)
    }
}

/// Writes a piece, under new revisions; gives the prices of all of it.
async fn write(transaction: &mut CatalogueTransaction, priced: Priced) -> Result<Vec<Served>, RepriceError> {
    let Priced { unchanged: mut served, mut writes, frozen } = priced;
    if !writes.is_empty() {
        let revisions = transaction.next_revisions(writes.len()).await?;
        for (write, revision) in writes.iter_mut().zip(revisions) {
            write.entry.revision = revision;
        }
        transaction.write_prices(&writes).await?;
    }
    let written = writes.into_iter().zip(frozen);
    served.extend(written.map(|(write, is_frozen)| Served::written(write, is_frozen)));
    Ok(served)
}
