//! Moves that market events cause: judged by the circuit breaker, held beyond its limit, and decided about.
//!
//! While a move is held, the product is priced by the facts of its last pricing: the store gives no others
//! ([`StoredFacts::signals`](crate::store::StoredFacts)). Only here are the others used: to judge an event,
//! to end a hold that makes no difference any more, and after an approval.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::compute::{Computed, compute, compute_by};
use super::pieces::{PricedPiece, PricedProduct, Pricing};
use super::simulate_products::move_of;
use super::{Batch, Engine, EngineError, WRITE_BATCH, detached};
use crate::audit::{Action, Origin};
use crate::cache::PutMode;
use crate::store::{AuditEntry, EventHold, StoreTransaction, StoredFacts};
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::product::ProductId;
use pricing_domain::policy::circuit_breaker::MovedProducts;
use pricing_domain::pricing::event_move::{EventHoldReason, EventMove};
use pricing_domain::pricing::price::MoveLimiting;

/// What a pricing makes of moves that market events cause.
#[derive(Debug, Clone)]
pub(super) enum EventMoves {
    /// Held moves stay held. A hold ends if the current facts give the same price.
    Kept,
    /// Events are the reason to price: the moves that they cause are judged.
    Judged,
    /// Held moves are made.
    Approved,
    /// Held moves stay held, and no longer wait for a decision.
    Rejected {
        /// Who rejects them.
        by: Arc<str>,
    },
}

/// Who decides about held moves.
#[derive(Debug, Clone)]
struct Decider {
    name: Arc<str>,
    origin: Origin,
}

/// A decision about held moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldDecision {
    /// The moves are made.
    Approve,
    /// The products stay priced by the facts of their last pricing.
    Reject,
}

/// A move that events cause, with both prices between which the judgement decides.
pub(super) struct JudgedMove {
    /// The price by the current facts.
    by_events: PricedProduct,
    /// The price by the facts of the last pricing, with the hold, if the move is held already.
    by_known: PricedProduct,
    list_prices: (Decimal, Decimal),
    currency: Currency,
}

impl Engine {
    /// Prices a product, and adds the price, or the move that has to be judged, to the piece.
    pub(super) fn price_product(
        &self,
        pricing: &Pricing<'_>,
        event_moves: &EventMoves,
        cause: String,
        piece: &mut PricedPiece,
    ) -> Result<(), EngineError> {
        let Pricing { facts, before, policy, now, limiting, is_put } = *pricing;
        let by = |signals| compute_by(signals, facts, before, policy, now, limiting);
        let mut computed = compute(facts, before, policy, now, limiting);
        self.count(&computed.list_price.explanation);
        let current = facts.held.as_ref().map(|held| &held.signals);
        if matches!(event_moves, EventMoves::Judged)
            && let Some(judged) = judged_move(pricing, &computed, &cause)?
        {
            piece.moves.push(judged);
            return Ok(());
        }
        match (event_moves, current) {
            (EventMoves::Approved, Some(signals)) => computed = by(signals),
            (EventMoves::Rejected { by }, Some(_)) => {
                computed.hold =
                    computed.hold.map(|hold| EventHold { rejected_by: Some(by.to_string()), ..hold });
            }
            (EventMoves::Kept | EventMoves::Judged, Some(signals)) => {
                let by_current = by(signals);
                // A rule that fails says nothing about the move.
                if !by_current.is_frozen() && by_current.entry.list_price == computed.entry.list_price {
                    computed = by_current;
                }
            }
            (_, None) => {}
        }
        if is_put {
            piece.moves_of_put.extend(move_of(facts, &computed, policy));
        }
        piece.add(PricedProduct::of(&computed, cause, now)?);
        Ok(())
    }

    /// Judges the moves of a piece that events cause: those beyond the limit of the circuit breaker are held.
    /// All products of the transaction are locked.
    pub(super) async fn judge_moves(
        &self,
        transaction: &mut StoreTransaction,
        piece: &mut PricedPiece,
    ) -> Result<(), EngineError> {
        let moves = std::mem::take(&mut piece.moves);
        let Some(limit) = piece.limit.filter(|_| !moves.is_empty()) else { return Ok(()) };
        let (now, since) = (piece.now, counts_since(&limit, piece.now));
        let ids: Vec<ProductId> = moves.iter().map(|judged| judged.product_id().clone()).collect();
        let known = transaction.event_moves(&ids, since).await?;
        let mut made: Vec<(ProductId, EventMove)> = Vec::with_capacity(moves.len());
        let mut beyond: Vec<(JudgedMove, EventMove)> = Vec::new();
        for judged in moves {
            let before = known.get(judged.product_id());
            let after = EventMove::after(before, &limit, judged.list_prices, now);
            let counts_already = before.is_some_and(|before| limit.is_exceeded_by(before));
            let is_held = judged.by_known.write.event_hold.is_some();
            match limit.is_exceeded_by(&after) {
                true if is_held => piece.add(judged.by_known),
                true if !counts_already => beyond.push((judged, after)),
                _ => {
                    made.push((judged.product_id().clone(), after));
                    piece.add(judged.by_events);
                }
            }
        }
        if !beyond.is_empty() {
            let (moved, products) = count_moves(transaction, &limit, since, beyond.len()).await?;
            let allowed = limit.allowed(products).saturating_sub(moved);
            let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).min(beyond.len());
            let moved = moved.saturating_add(u64::try_from(allowed).unwrap_or(u64::MAX));
            for (judged, _) in beyond.split_off(allowed) {
                let (list_prices, currency) = (judged.list_prices, judged.currency);
                let reason = EventHoldReason { list_prices, currency, moved, products, limit };
                self.hold(judged, reason, piece);
            }
            for (judged, after) in beyond {
                made.push((judged.product_id().clone(), after));
                piece.add(judged.by_events);
            }
        }
        if !made.is_empty() {
            transaction.put_event_moves(&made).await?;
        }
        Ok(())
    }

    fn hold(&self, judged: JudgedMove, reason: EventHoldReason, piece: &mut PricedPiece) {
        let JudgedMove { mut by_known, .. } = judged;
        let product_id = &by_known.write.entry.product_id;
        tracing::warn!(%product_id, %reason, "holding a move that market events cause until it is approved");
        self.metrics.event_holds.increment(1);
        by_known.hold(EventHold { since: piece.now, reason: reason.to_string(), rejected_by: None });
        piece.add(by_known);
    }

    /// Decides about the held moves of these products or, without products, about all that wait for a
    /// decision now. Returns how many were decided about. The work is completed even if the caller stops
    /// waiting.
    pub async fn decide_held_moves(
        &self,
        product_ids: Option<Vec<ProductId>>,
        decision: HoldDecision,
        by: &str,
        origin: &Origin,
    ) -> Result<usize, EngineError> {
        let (engine, now) = (self.clone(), self.clock.now());
        let by = Decider { name: by.into(), origin: origin.clone() };
        detached(async move {
            if let Some(ids) = product_ids {
                let mut decided = 0;
                for ids in ids.chunks(WRITE_BATCH) {
                    decided += engine.decide_batch(ids, None, decision, &by).await?;
                }
                return Ok(decided);
            }
            let (mut decided, mut after) = (0, None::<ProductId>);
            loop {
                let limit = u32::try_from(WRITE_BATCH).unwrap_or(u32::MAX);
                let page = engine.store.held_moves(after.as_ref().map(ProductId::as_str), limit).await?;
                let ids: Vec<ProductId> = page.moves.into_iter().map(|held| held.product_id).collect();
                let Some(last) = ids.last() else { return Ok(decided) };
                decided += engine.decide_batch(&ids, Some(now), decision, &by).await?;
                after = Some(last.clone());
            }
        })
        .await
    }

    /// Decides about the held moves of these products; with an instant, about those that have waited since.
    async fn decide_batch(
        &self,
        ids: &[ProductId],
        waiting_since: Option<DateTime<Utc>>,
        decision: HoldDecision,
        by: &Decider,
    ) -> Result<usize, EngineError> {
        let is_meant = move |facts: &StoredFacts| {
            let hold = facts.held.as_ref().map(|held| &held.hold);
            let waits = |hold: &EventHold, instant| hold.rejected_by.is_none() && hold.since <= instant;
            hold.is_some_and(|hold| waiting_since.is_none_or(|instant| waits(hold, instant)))
        };
        let (event_moves, cause) = match decision {
            HoldDecision::Approve => (EventMoves::Approved, format!("approved by {}", by.name)),
            HoldDecision::Reject => (EventMoves::Rejected { by: Arc::clone(&by.name) }, "time".to_owned()),
        };
        let mut transaction = self.store.begin().await?;
        let held = transaction.lock_facts(ids).await?.read(self.clock.now())?.known;
        let meant: HashSet<ProductId> =
            held.into_iter().filter(is_meant).map(|facts| facts.product.product_id).collect();
        let decided = meant.len();
        let mut meant_ids: Vec<ProductId> = meant.iter().cloned().collect();
        meant_ids.sort_unstable();
        let batch = Batch::named(&meant_ids);
        let needs_price = move |facts: &StoredFacts, _: &_| meant.contains(&facts.product.product_id);
        let published =
            self.price_in(&mut transaction, batch, event_moves, needs_price, move |_| cause.clone()).await?;
        if decided > 0 {
            let entry = decided_moves(decision, &meant_ids);
            transaction.record_change(&by.origin, &entry, self.clock.now()).await?;
        }
        let unserved = transaction.commit_prices().await?;
        let written = published.into_iter().filter(|published| published.is_written).collect();
        self.serve(written, PutMode::Insert, unserved).await?;
        Ok(decided)
    }
}

/// The entry for decided moves: its `after` names the products.
fn decided_moves(decision: HoldDecision, ids: &[ProductId]) -> AuditEntry {
    let action = match decision {
        HoldDecision::Approve => Action::MovesApprove,
        HoldDecision::Reject => Action::MovesReject,
    };
    let subject = match ids {
        [only] => only.to_string(),
        _ => format!("{} products", ids.len()),
    };
    // Serialising identifiers cannot fail.
    AuditEntry { action, subject, before: None, after: serde_json::to_string(ids).ok() }
}

/// Returns the move that events cause, if there is one to be judged: the difference between the prices by the
/// facts of the last pricing and by the current ones; of a price that a limit on moves keeps from its target,
/// the target, to which it continues. `computed` is the price by the facts that the store gives.
fn judged_move(
    pricing: &Pricing<'_>,
    computed: &Computed<'_>,
    cause: &str,
) -> Result<Option<JudgedMove>, EngineError> {
    let Pricing { facts, before, policy, now, .. } = *pricing;
    if policy.circuit_breaker.moved.is_none() {
        return Ok(None);
    }
    let known = before.known_signals(&facts.product, now);
    let other = match (&facts.held, &known) {
        (Some(held), _) => &held.signals,
        (None, Some(known)) => known,
        // A first price moves from nowhere.
        (None, None) => return Ok(None),
    };
    let other = compute_by(other, facts, before, policy, now, MoveLimiting::Limited);
    let is_held = facts.held.is_some();
    let is_frozen = if is_held { other.is_frozen() } else { computed.is_frozen() };
    let goals = (computed.goal(), other.goal());
    if is_frozen || goals.0 == goals.1 {
        return Ok(None);
    }
    let computed = PricedProduct::of(computed, cause.to_owned(), now)?;
    let other = PricedProduct::of(&other, cause.to_owned(), now)?;
    let (by_known, by_events) = if is_held { (computed, other) } else { (other, computed) };
    let list_prices = if is_held { goals } else { (goals.1, goals.0) };
    Ok(Some(JudgedMove { by_known, by_events, list_prices, currency: facts.product.currency }))
}

/// Counts the products that events have moved beyond the limit, under the lock of the count, and all
/// products, as far as their number matters for so many more moves.
async fn count_moves(
    transaction: &mut StoreTransaction,
    limit: &MovedProducts,
    since: DateTime<Utc>,
    more: usize,
) -> Result<(u64, u64), EngineError> {
    transaction.lock_event_moves().await?;
    let moved = transaction.count_event_moves(limit.by_millionths(), since).await?;
    let all = moved.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
    let enough = limit.products_for(all).unwrap_or(u64::MAX);
    Ok((moved, transaction.count_products_up_to(enough).await?))
}

/// Returns the instant since which moves count.
fn counts_since(limit: &MovedProducts, now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_sub_signed(limit.within).unwrap_or(DateTime::UNIX_EPOCH)
}

impl JudgedMove {
    fn product_id(&self) -> &ProductId {
        &self.by_known.write.entry.product_id
    }
}
