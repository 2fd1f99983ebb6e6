//! The instants at which time alone may change a price.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};

use crate::clock::{End, Schedule, Window};
use crate::draw_expression::AGE_LIMITS;
use crate::list_price::Asked;
use crate::policy::{Action, Competitor, Reference, Rule};

/// Days after now that are looked through for schedules.
const DAYS: i64 = 9;

impl Asked<'_> {
    /// Instants after `now` at which a limit, a fact or a step of it ends.
    pub(crate) fn edges(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut edges = self.ends_of_limits(now);
        edges.extend(self.rules().flat_map(|rule| self.ends_of_facts(&rule.action)));
        edges.extend(self.market.facts().filter_map(|fact| fact.expires_at));
        edges.extend(self.ages());
        edges.retain(|edge| now <= *edge);
        edges
    }

    /// About when windows and schedules begin and end.
    pub(crate) fn times(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let of_schedules = self.rules().filter_map(|rule| rule.schedule.as_ref());
        let times = of_schedules.flat_map(|schedule| schedule.times_after(now));
        times.chain(self.rules().flat_map(|rule| rule.window.times())).filter(|time| now < *time).collect()
    }

    /// Whether a window or a schedule begins or ends just then.
    pub(crate) fn is_time(&self, instant: DateTime<Utc>) -> bool {
        let before = instant - TimeDelta::seconds(1);
        self.rules().any(|rule| {
            let is_on = |at| rule.schedule.as_ref().is_some_and(|schedule| schedule.is_on(at));
            rule.window.is_open(before) != rule.window.is_open(instant) || is_on(before) != is_on(instant)
        })
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.policy.market.iter().chain(&self.policy.offer);
        rules.filter(|rule| rule.only.may_be_for(self.item))
    }

    fn ends_of_limits(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let guardrails = &self.policy.guardrails;
        let midnight = now.date_naive().succ_opt().map(|day| day.and_time(NaiveTime::MIN).and_utc());
        let mut ends: Vec<DateTime<Utc>> = guardrails.max_daily_move.and(midnight).into_iter().collect();
        let in_effect = self.market.in_effect;
        let changed_at = in_effect.and_then(|in_effect| in_effect.changed_at);
        ends.extend(guardrails.max_step.map(|_| now + guardrails.step_length()));
        if let Some(pause) = guardrails.min_time_between_changes {
            ends.push(now + pause);
            ends.extend(changed_at.map(|changed_at| changed_at + pause));
        }
        let (_, within) = guardrails.competitor_loop.unwrap_or((8, TimeDelta::hours(24)));
        let moves = in_effect.and_then(|in_effect| in_effect.moves);
        ends.extend(moves.map(|(_, since)| since + within));
        ends
    }

    /// When facts become as old as what ages are compared with.
    fn ages(&self) -> Vec<DateTime<Utc>> {
        let seen = self.market.facts().map(|fact| fact.seen_at).chain(self.item.cost_stated_at);
        seen.flat_map(|seen_at| AGE_LIMITS.map(|(_, minutes)| seen_at + TimeDelta::minutes(minutes)))
            .collect()
    }

    fn ends_of_facts(&self, action: &Action) -> Vec<DateTime<Utc>> {
        match action {
            Action::Match(reference, _) | Action::Beat(reference, _) | Action::Index(reference, _) => {
                let Reference::Competitor(Competitor { not_older_than: Some(age), .. }) = reference else {
                    return Vec::new();
                };
                self.market.competitors.iter().map(|fact| fact.price.seen_at + *age).collect()
            }
            Action::Surge { decay: Some(decay), .. } => {
                let demands = [self.market.demand, self.market.demand_of_category].into_iter().flatten();
                demands
                    .flat_map(|demand| (1..=12).map(move |step| demand.seen_at + *decay / 12 * step))
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Schedule {
    fn times_after(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let times = [self.from.unwrap_or(NaiveTime::MIN), self.until.unwrap_or(NaiveTime::MIN)];
        let today = self.clock.shows(now).date();
        let days = (0..DAYS).map(|days| today + TimeDelta::days(days));
        let shown = days.flat_map(|day| times.map(|time| day.and_time(time)));
        shown.map(|shown| self.clock.about(shown)).collect()
    }
}

impl Window {
    pub(crate) fn times(&self) -> Vec<DateTime<Utc>> {
        let ends = [self.from, self.until].into_iter().flatten();
        ends.filter_map(|end| match end {
            End::Instant(at) => Some(at),
            End::Shown(shown) => self.clock.as_ref().map(|clock| clock.about(shown)),
        })
        .collect()
    }
}
