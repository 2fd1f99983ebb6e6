//! Surge: a price that rises with demand, up to a cap, and decays as the demand fact ages.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::facts::signal::Signals;
use crate::policy::scalar::{Scalar, duration, percentage, written_duration};

/// The steps in which a surge decays: each price is exact and ends at a known instant.
const DECAY_STEPS: i32 = 12;

/// `surge` as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SurgeDraft {
    /// What part of the demand above the usual goes into the price: with 50%, a demand of 1.4 makes +20%.
    pub sensitivity: Scalar,
    /// The largest rise.
    pub cap: Scalar,
    /// How long after the demand was seen nothing is left of the rise; it stays if absent.
    pub decay: Option<Scalar>,
}

/// A rise of the price with demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surge {
    sensitivity: Decimal,
    cap: Decimal,
    decay: Option<TimeDelta>,
}

impl Surge {
    /// Returns the rise of the price now, as a fraction; `None` if demand is unknown or not above the usual
    /// level.
    pub fn rise(&self, signals: &Signals, now: DateTime<Utc>) -> Option<Decimal> {
        let above = signals.demand_index?.checked_sub(Decimal::ONE).filter(|above| *above > Decimal::ZERO)?;
        let full = above.checked_mul(self.sensitivity)?.min(self.cap);
        let left = full * Decimal::from(self.steps_left(signals, now)?) / Decimal::from(DECAY_STEPS);
        (left > Decimal::ZERO).then_some(left)
    }

    /// Returns the next instant at which the rise decays further.
    pub fn next_change(&self, signals: &Signals, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.rise(signals, now)?;
        let left = self.steps_left(signals, now)?;
        let gone = DECAY_STEPS - left;
        signals.demand_observed_at?.checked_add_signed((self.decay? / DECAY_STEPS) * (gone + 1))
    }

    /// Returns the number of steps left of the rise; `None` if it decays and the time of the demand is
    /// unknown.
    fn steps_left(&self, signals: &Signals, now: DateTime<Utc>) -> Option<i32> {
        let Some(decay) = self.decay else { return Some(DECAY_STEPS) };
        let step_us = (decay / DECAY_STEPS).num_microseconds()?.max(1);
        let age_us = now.signed_duration_since(signals.demand_observed_at?).num_microseconds()?.max(0);
        let gone = i32::try_from(age_us / step_us).unwrap_or(DECAY_STEPS);
        Some((DECAY_STEPS - gone).max(0))
    }
}

impl SurgeDraft {
    pub(crate) fn check(&self, place: &str, problems: &mut Vec<Diagnostic>) -> Option<Surge> {
        let mut above_zero = |name: &str, written: &Scalar| {
            let field = format!("{place}.{name}");
            percentage(&field, written, "above 0%", |part| part > Decimal::ZERO, problems)
        };
        let sensitivity = above_zero("sensitivity", &self.sensitivity);
        let cap = above_zero("cap", &self.cap);
        let before = problems.len();
        let decay =
            self.decay.as_ref().and_then(|decay| duration(&format!("{place}.decay"), decay, problems));
        let (sensitivity, cap) = (sensitivity?, cap?);
        (problems.len() == before).then_some(Surge { sensitivity, cap, decay })
    }
}

impl fmt::Display for Surge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: Decimal| (part * Decimal::ONE_HUNDRED).normalize();
        write!(
            formatter,
            "surge by {}% of demand, at most +{}%",
            percent(self.sensitivity),
            percent(self.cap)
        )?;
        match self.decay {
            Some(decay) => write!(formatter, ", gone after {}", written_duration(decay)),
            None => Ok(()),
        }
    }
}
