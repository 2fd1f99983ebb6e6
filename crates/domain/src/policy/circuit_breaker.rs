//! The circuit breaker: a recalculation that would move too many prices too far is held for approval, and so
//! are the moves that market events cause beyond the same limit within a window of time.
//!
//! A guardrail checks one price at a time, so a thousand moves of 14 % pass a largest step of 15 %. The
//! circuit breaker examines all moves together, before the first price is written: those of the list prices,
//! and those of the final prices of its panel's shoppers. What it makes of market events is in
//! [`event_move`](crate::pricing::event_move).

use chrono::TimeDelta;
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::policy::panel::{NamedShopperDraft, Panel};
use crate::policy::scalar::{Scalar, duration, fraction, percentage};

/// The window within which the moves that market events cause are counted, if none is written.
const USUAL_WINDOW: TimeDelta = TimeDelta::hours(1);

/// The circuit breaker as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreakerDraft {
    /// With `moved_by`: it opens if more than this part of the products move by more than that.
    pub moved_products: Option<Scalar>,
    /// See `moved_products`.
    pub moved_by: Option<Scalar>,
    /// The window within which `moved_products` limits what market events move, at least a minute: beyond it,
    /// their moves are held. 1h if absent.
    pub within: Option<Scalar>,
    /// It opens if the median of all moves, of an even number the mean of the two in the middle, is further
    /// than this from 0, up or down.
    pub median_move: Option<Scalar>,
    /// It opens if the prices of more than this part of the products would be frozen, because a rule fails.
    pub frozen_products: Option<Scalar>,
    /// The shoppers whose final prices are judged, too, each by `moved_products` and `median_move`; at most
    /// 16. If absent: an anonymous one, a prime member, and those at the locations with the lowest and the
    /// highest factor.
    pub panel: Option<Vec<NamedShopperDraft>>,
}

/// The limits on a recalculation as a whole. All numbers are fractions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// The largest fraction of the products that may move by more than a given fraction.
    pub moved: Option<MovedProducts>,
    /// The largest distance of the median move from 0.
    pub median_move: Option<Decimal>,
    /// The largest fraction of the products whose price may be frozen.
    pub frozen_products: Option<Decimal>,
    /// The shoppers whose final prices are judged along with the list prices.
    pub panel: Panel,
}

/// A fraction of the products, and how far they may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedProducts {
    /// The fraction of the products.
    pub part: Decimal,
    /// A move counts if it is larger.
    pub by: Decimal,
    /// How long a move that market events caused counts.
    pub within: TimeDelta,
}

impl CircuitBreakerDraft {
    pub(crate) fn check(&self, problems: &mut Vec<Diagnostic>) -> CircuitBreaker {
        let part = self
            .moved_products
            .as_ref()
            .and_then(|written| fraction("circuit_breaker.moved_products", written, problems));
        let by = self.moved_by.as_ref().and_then(|written| change("moved_by", written, problems));
        let within = self.within.as_ref().map_or(Some(USUAL_WINDOW), |written| window(written, problems));
        if self.within.is_some() && self.moved_products.is_none() && self.moved_by.is_none() {
            let problem = "limits nothing without moved_products and moved_by";
            problems.push(Diagnostic::bare("circuit_breaker.within", problem));
        }
        let median_move =
            self.median_move.as_ref().and_then(|written| change("median_move", written, problems));
        let frozen_products = self
            .frozen_products
            .as_ref()
            .and_then(|written| fraction("circuit_breaker.frozen_products", written, problems));
        match (&self.moved_products, &self.moved_by) {
            (Some(_), None) | (None, Some(_)) => problems.push(Diagnostic::new(
                "circuit_breaker",
                "says how many products may move, or how far, without the other",
                "moved_products and moved_by together",
            )),
            (None, None) if self.median_move.is_none() && self.frozen_products.is_none() => {
                let allowed = "moved_products with moved_by, median_move or frozen_products";
                let problem = if self.panel.is_some() { "has a panel and no limit" } else { "says nothing" };
                problems.push(Diagnostic::new("circuit_breaker", problem, allowed));
            }
            _ => {}
        }
        let moved = part.zip(by).zip(within).map(|((part, by), within)| MovedProducts { part, by, within });
        let panel = Panel::check(self.panel.as_deref(), problems);
        CircuitBreaker { moved, median_move, frozen_products, panel }
    }
}

/// Parses a percentage above 0%, as a fraction.
fn change(name: &str, written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<Decimal> {
    let field = format!("circuit_breaker.{name}");
    percentage(&field, written, "above 0%", |fraction| fraction > Decimal::ZERO, problems)
}

/// Parses a duration of at least a minute.
fn window(written: &Scalar, problems: &mut Vec<Diagnostic>) -> Option<TimeDelta> {
    let parsed = duration("circuit_breaker.within", written, problems)?;
    if parsed < TimeDelta::minutes(1) {
        let problem = format!("\"{}\" is too short", written.0);
        problems.push(Diagnostic::new(
            "circuit_breaker.within",
            problem,
            "1m to 366 days, such as 30m or 1h",
        ));
        return None;
    }
    Some(parsed)
}
