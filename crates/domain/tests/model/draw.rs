//! Draws: what every part of a case is drawn with.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::{Clock, ZONES};
use crate::expression::Expression;
use crate::fraction::Fraction;
use crate::policy::Change;

/// Chance, the same for the same seed.
pub(crate) struct Draw {
    random: fastrand::Rng,
    /// Clocks and their changes.
    changes: Vec<(Clock, Vec<DateTime<Utc>>)>,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        let from = "2025-01-01T00:00:00Z".parse().expect("an instant");
        let until = "2028-01-01T00:00:00Z".parse().expect("an instant");
        let changes = ZONES.map(Clock::of).map(|clock| (clock.clone(), clock.changes(from, until))).to_vec();
        Self { random: fastrand::Rng::with_seed(seed), changes }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.random.seed(seed);
    }

    /// True so many times of a hundred.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    pub(crate) fn whole(&mut self, from: i64, to: i64) -> i64 {
        self.random.i64(from..=to)
    }

    pub(crate) fn number(&mut self, from: i64, to: i64, scale: u32) -> Fraction {
        Fraction::decimal(i128::from(self.whole(from, to)), scale)
    }

    pub(crate) fn of<T: Clone>(&mut self, values: &[T]) -> T {
        self.random.choice(values).expect("there are some").clone()
    }

    /// One to all of the values, in their order.
    pub(crate) fn some_of<T: Clone>(&mut self, values: &[T]) -> Vec<T> {
        loop {
            let some: Vec<T> = values.iter().filter(|_| self.random.bool()).cloned().collect();
            if !some.is_empty() {
                return some;
            }
        }
    }

    pub(crate) fn maybe<T>(&mut self, percent: u32, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| draw(self))
    }

    /// A part between two, in hundredths; most of them round.
    pub(crate) fn part(&mut self, from: i64, to: i64) -> Fraction {
        let percent = self.whole(from, to);
        let finer = if self.chance(20) && percent < to { self.of(&[5, 25, 50, 75, 33]) } else { 0 };
        Fraction::decimal(i128::from(percent * 100 + finer), 4)
    }

    /// A change by a part or by an amount that a price of this size can bear.
    pub(crate) fn change(&mut self, size: Fraction) -> Change {
        if self.chance(65) {
            Change::Part(self.part(-40, 40))
        } else {
            let cents = (size * Fraction::whole(20)).ceil().max(1);
            let cents = i64::try_from(cents).expect("a price of a shop");
            Change::Amount(self.number(-cents, cents, 2))
        }
    }

    pub(crate) fn minutes(&mut self, from: i64, to: i64) -> TimeDelta {
        TimeDelta::minutes(self.whole(from, to))
    }

    /// A clock, and an instant at which it was changed.
    pub(crate) fn clock_change(&mut self) -> (Clock, DateTime<Utc>) {
        let index = self.random.usize(0..self.changes.len());
        let (clock, changes) = self.changes.get(index).expect("one of the clocks");
        let change = self.random.choice(changes).expect("each is changed");
        (clock.clone(), *change)
    }
}

pub(crate) fn boxed(expression: Expression) -> Box<Expression> {
    Box::new(expression)
}
