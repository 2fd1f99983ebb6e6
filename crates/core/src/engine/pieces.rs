//! Prices a batch in a transaction as a pipeline of pieces: while one piece is computed and the previous one
//! is encoded, the database writes the one before that and reads the next. So neither side waits for the
//! other, and few explanations are in memory regardless of the batch's length. Computation between two
//! statements keeps the database waiting, so computing threads also decode rows and encode prices.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, Utc};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::compute::{Before, Computed, digest_with_hold};
use super::holds::{EventMoves, JudgedMove};
use super::{Engine, EngineError, PublishedPrice};
use crate::store::{
    EventHold, LeftOut, PreparedPrices, PriceWrite, ProductRows, Readable, Store, StoreError,
    StoreTransaction, StoredFacts, UnreadFacts,
};
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::policy::PricingPolicy;
use pricing_domain::policy::circuit_breaker::MovedProducts;
use pricing_domain::pricing::price::MoveLimiting;
use pricing_domain::pricing::simulation::SimulatedPrice;

/// The products in a piece: enough that the overhead of its statements is small.
const PIECE: usize = 500;

/// The most left-out products of a piece that are logged by name; the others are counted.
const MAX_NAMED: usize = 10;

/// Batches up to this size are computed on the runtime's own threads.
const MAX_INLINE_PRODUCTS: usize = 8;

/// The products to be priced, ordered by identifier, so that transactions lock the same products in the same
/// order.
pub(super) struct Batch {
    pieces: std::vec::IntoIter<Piece>,
    limiting: MoveLimiting,
}

enum Piece {
    /// Products to be locked; those that do not exist are left out.
    Named(Vec<ProductId>),
    /// Products to be upserted; `rows` lacks those that are locked and unchanged.
    Put { products: Vec<Product>, rows: ProductRows },
}

/// The prices of a batch.
pub(super) struct PricedBatch {
    /// The prices of all its products after the transaction; products that do not exist are left out.
    pub(super) published: Vec<PublishedPrice>,
    /// The moves of the products that were put; see [`PutSummary::moves`](super::PutSummary::moves).
    pub(super) moves: Vec<SimulatedPrice>,
}

/// A piece whose products are locked.
struct LockedPiece {
    /// The number of named products, some of which may not exist.
    named: usize,
    /// Whether its products were put.
    is_put: bool,
    facts: UnreadFacts,
}

/// A piece whose prices are computed.
pub(super) struct PricedPiece {
    unchanged: Vec<PublishedPrice>,
    /// The prices to be written, with the stored revision until a new one is assigned, and whether they are
    /// frozen.
    writes: Vec<(PriceWrite, bool)>,
    /// Unchanged prices with a changed explanation, which is not served, so they keep their revision.
    reexplained: Vec<PriceWrite>,
    /// See [`PricedBatch::moves`].
    pub(super) moves_of_put: Vec<SimulatedPrice>,
    /// The moves that events cause, ordered by product; each becomes a price once it is judged.
    pub(super) moves: Vec<JudgedMove>,
    /// What they are judged by.
    pub(super) limit: Option<MovedProducts>,
    /// The instant that the piece is priced as of.
    pub(super) now: DateTime<Utc>,
}

/// A computed price of a product.
pub(super) struct PricedProduct {
    pub(super) write: PriceWrite,
    is_changed: bool,
    says_the_same: bool,
    is_frozen: bool,
}

/// A piece that is ready to be written.
struct EncodedPiece {
    /// The prices of all its products after the transaction.
    published: Vec<PublishedPrice>,
    /// The rows to be written.
    prices: PreparedPrices,
}

impl Batch {
    /// Creates a batch of products by identifier.
    pub(super) fn named<'a>(ids: impl IntoIterator<Item = &'a ProductId>) -> Self {
        let ids: BTreeSet<&ProductId> = ids.into_iter().collect();
        let ids: Vec<ProductId> = ids.into_iter().cloned().collect();
        Self::of(ids.chunks(PIECE).map(|ids| Piece::Named(ids.to_vec())))
    }

    /// Creates a batch of products by identifier that are all locked before the first is written.
    pub(super) fn named_at_once(ids: Vec<ProductId>) -> Self {
        let ids: BTreeSet<ProductId> = ids.into_iter().collect();
        Self::of(std::iter::once(Piece::Named(ids.into_iter().collect())))
    }

    /// Creates a batch of unique products ordered by identifier; `rows` lacks those that the transaction has
    /// locked unchanged.
    pub(super) fn put(products: Vec<Product>, mut rows: ProductRows) -> Self {
        let mut products = products.into_iter();
        Self::of(std::iter::from_fn(move || {
            let products: Vec<Product> = products.by_ref().take(PIECE).collect();
            let last = products.last()?;
            Some(Piece::Put { rows: rows.take_through(&last.product_id), products })
        }))
    }

    /// Lets held prices go to their targets.
    pub(super) fn released(self) -> Self {
        Self { limiting: MoveLimiting::Released, ..self }
    }

    fn of(pieces: impl Iterator<Item = Piece>) -> Self {
        Self { pieces: pieces.collect::<Vec<_>>().into_iter(), limiting: MoveLimiting::Limited }
    }

    async fn lock_next(
        &mut self,
        transaction: &mut StoreTransaction,
        now: DateTime<Utc>,
    ) -> Result<Option<LockedPiece>, StoreError> {
        let Some(piece) = self.pieces.next() else { return Ok(None) };
        Ok(Some(match piece {
            Piece::Named(ids) => {
                let facts = transaction.lock_facts(&ids).await?;
                LockedPiece { named: ids.len(), is_put: false, facts }
            }
            Piece::Put { products, rows } => {
                transaction.put_products(rows, now).await?;
                let named = products.len();
                LockedPiece { named, is_put: true, facts: transaction.facts_of(products).await? }
            }
        }))
    }
}

impl Engine {
    /// Prices the products for which `needs_price` holds, and those without a servable price. Returns the
    /// prices of all products after the transaction; products that do not exist are left out. Each piece is
    /// priced by the policy, and as of the instant, in effect when its computation starts.
    pub(super) async fn price_in(
        &self,
        transaction: &mut StoreTransaction,
        batch: Batch,
        event_moves: EventMoves,
        needs_price: impl Fn(&StoredFacts, &PricingPolicy) -> bool + Clone + Send + 'static,
        cause: impl Fn(&ProductId) -> String + Clone + Send + 'static,
    ) -> Result<Vec<PublishedPrice>, EngineError> {
        Ok(self.price_and_compare(transaction, batch, event_moves, needs_price, cause).await?.published)
    }

    /// [`price_in`](Self::price_in), with the moves of products that are put.
    pub(super) async fn price_and_compare(
        &self,
        transaction: &mut StoreTransaction,
        mut batch: Batch,
        event_moves: EventMoves,
        needs_price: impl Fn(&StoredFacts, &PricingPolicy) -> bool + Clone + Send + 'static,
        cause: impl Fn(&ProductId) -> String + Clone + Send + 'static,
    ) -> Result<PricedBatch, EngineError> {
        let (mut published, mut moves) = (Vec::new(), Vec::new());
        let (mut computing, mut writing_out) = (None, None);
        loop {
            let locked = batch.lock_next(transaction, self.clock.now()).await?;
            let priced: Option<PricedPiece> = outcome(computing.take()).await?;
            computing = locked.map(|locked| {
                let (engine, needs_price, cause) = (self.clone(), needs_price.clone(), cause.clone());
                let event_moves = event_moves.clone();
                let (named, limiting) = (locked.named, batch.limiting);
                let price = async move {
                    engine.price_piece(locked, limiting, event_moves, needs_price, cause).await
                };
                spawn_compute(named, price)
            });
            let before = writing_out.take();
            if let Some(mut priced) = priced {
                moves.append(&mut priced.moves_of_put);
                self.judge_moves(transaction, &mut priced).await?;
                writing_out = Some(self.begin_to_write_out(transaction, priced).await?);
            }
            if let Some(before) = outcome(before).await? {
                transaction.write_prices(before.prices).await?;
                published.extend(before.published);
            }
            if computing.is_none() && writing_out.is_none() {
                return Ok(PricedBatch { published, moves });
            }
        }
    }

    async fn price_piece(
        &self,
        locked: LockedPiece,
        limiting: MoveLimiting,
        event_moves: EventMoves,
        needs_price: impl Fn(&StoredFacts, &PricingPolicy) -> bool,
        cause: impl Fn(&ProductId) -> String,
    ) -> Result<PricedPiece, EngineError> {
        // Read after the wait for the locks, which may have been long.
        let now = self.clock.now().trunc_subsecs(6);
        let Readable { known: products, left_out } = locked.facts.read(now)?;
        report(&left_out);
        let policy = self.policy_for(&products).await?;
        let policies = self.policies.snapshot();
        let mut piece = PricedPiece {
            unchanged: Vec::new(),
            writes: Vec::new(),
            reexplained: Vec::new(),
            moves_of_put: Vec::new(),
            moves: Vec::new(),
            limit: policy.circuit_breaker.moved,
            now,
        };
        for facts in &products {
            let is_asked = needs_price(facts, &policy);
            if let Some(price) = facts.price.as_ref().filter(|price| !is_asked && self.is_servable(price)) {
                piece.unchanged.push(PublishedPrice::unchanged(price.entry.clone(), false));
                continue;
            }
            let before = Before::of(facts, |version| policies.policy(version).cloned(), now);
            let (now, is_put) = (before.instant(now), locked.is_put);
            let pricing = Pricing { facts, before: &before, policy: &policy, now, limiting, is_put };
            // A product that no event names may be in the batch, too, because its price has expired.
            let event_moves = if is_asked { &event_moves } else { &EventMoves::Kept };
            self.price_product(&pricing, event_moves, cause(&facts.product.product_id), &mut piece)?;
        }
        Ok(piece)
    }

    /// Draws revisions and starts the encoding. The products are locked, so the revisions of a product grow
    /// in the order of its commits.
    async fn begin_to_write_out(
        &self,
        transaction: &mut StoreTransaction,
        priced: PricedPiece,
    ) -> Result<JoinHandle<Result<EncodedPiece, EngineError>>, EngineError> {
        let writes = priced.writes.len();
        let revisions = writes + priced.writes.iter().map(|(write, _)| write.earlier.len()).sum::<usize>();
        let revisions = if writes == 0 { Vec::new() } else { transaction.next_revisions(revisions).await? };
        let store = self.store.clone();
        let reexplained = priced.reexplained.len();
        let write_out = async move { priced.write_out(&store, revisions) };
        Ok(spawn_compute(writes + reexplained, write_out))
    }
}

/// The inputs of one price.
#[derive(Clone, Copy)]
pub(super) struct Pricing<'a> {
    pub(super) facts: &'a StoredFacts,
    pub(super) before: &'a Before<'a>,
    pub(super) policy: &'a PricingPolicy,
    pub(super) now: DateTime<Utc>,
    pub(super) limiting: MoveLimiting,
    /// Whether the product was put, so that its move is counted.
    pub(super) is_put: bool,
}

/// Logs products whose prices are kept because their currency is unknown.
fn report(left_out: &[LeftOut]) {
    for LeftOut { product_id, currency } in left_out.iter().take(MAX_NAMED) {
        tracing::error!(%product_id, currency, "a product is left out: this program does not know its currency");
    }
    if let Some(more) = left_out.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        tracing::error!(more, "more products are left out: this program does not know their currencies");
    }
}

impl PricedProduct {
    pub(super) fn of(
        computed: &Computed<'_>,
        cause: String,
        now: DateTime<Utc>,
    ) -> Result<Self, serde_json::Error> {
        let write = computed.write(cause, now)?;
        let says_the_same = computed.says_the_same(&write);
        Ok(Self { is_changed: computed.changed, says_the_same, is_frozen: computed.is_frozen(), write })
    }

    /// Adds a held move to a price without one.
    pub(super) fn hold(&mut self, hold: EventHold) {
        self.write.explanation_digest = digest_with_hold(self.write.explanation_digest, &hold);
        self.write.event_hold = Some(hold);
        self.says_the_same = false;
    }
}

impl PricedPiece {
    pub(super) fn add(&mut self, priced: PricedProduct) {
        let PricedProduct { write, is_changed, says_the_same, is_frozen } = priced;
        if is_changed {
            self.writes.push((write, is_frozen));
            return;
        }
        self.unchanged.push(PublishedPrice::unchanged(write.entry.clone(), is_frozen));
        if !says_the_same {
            self.reexplained.push(write);
        }
    }

    fn write_out(self, store: &Store, revisions: Vec<i64>) -> Result<EncodedPiece, EngineError> {
        let mut published = self.unchanged;
        published.reserve(self.writes.len());
        let mut revisions = revisions.into_iter();
        // Drawn for exactly these: one for each price, and one for each change before.
        let mut next_revision = || revisions.next().unwrap_or_default();
        let writes = self.writes.into_iter().map(|(mut write, is_frozen)| {
            write.earlier.iter_mut().for_each(|earlier| earlier.revision = next_revision());
            write.entry.revision = next_revision();
            published.push(PublishedPrice::written(&write, is_frozen));
            write
        });
        let writes = writes.chain(self.reexplained).collect();
        Ok(EncodedPiece { published, prices: store.prepare_prices(writes)? })
    }
}

/// Spawns a computation that runs while the database works. Large ones get a blocking thread: on a runtime
/// thread they would delay, by milliseconds, tasks that are about to send their next statement.
pub(super) fn spawn_compute<T: Send + 'static>(
    products: usize,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let work = work.in_current_span();
    if products <= MAX_INLINE_PRODUCTS {
        return tokio::spawn(work);
    }
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work))
}

async fn outcome<T>(task: Option<JoinHandle<Result<T, EngineError>>>) -> Result<Option<T>, EngineError> {
    match task {
        Some(task) => task.await.map_err(|_| EngineError::Interrupted)?.map(Some),
        None => Ok(None),
    }
}
