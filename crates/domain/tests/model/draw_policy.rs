//! Draws policies.

use chrono::{DateTime, NaiveTime, TimeDelta, Timelike, Utc, Weekday};

use crate::clock::{Clock, End, Schedule, Window};
use crate::draw::Draw;
use crate::draw_expression::Side;
use crate::fraction::Fraction;
use crate::policy::{
    Action, Apply, Change, Competitor, Guardrails, Mode, Only, Policy, Reference, Rounding, Rule, Step, Which,
};

const LOCAL_WINDOWS: bool = true;
const PLAIN_DISCOUNTS: bool = false;

/// About when and about how large the prices of a policy are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) clock: Clock,
    /// When that was changed.
    pub(crate) change: DateTime<Utc>,
    pub(crate) size: Fraction,
}

impl Draw {
    pub(crate) fn policy(&mut self, place: &Place) -> Policy {
        let market = (0..self.whole(0, 4)).map(|index| self.rule(Side::Market, index, place)).collect();
        let offer = (0..self.whole(0, 3)).map(|index| self.rule(Side::Offer, index, place)).collect();
        Policy {
            apply_market: self.of(&[Apply::All, Apply::All, Apply::FirstMatch]),
            apply_offer: self.of(&[Apply::All, Apply::FirstMatch, Apply::BestForShopper]),
            market,
            offer,
            guardrails: self.guardrails(),
            rounding: self.rounding(place.size),
        }
    }

    fn rule(&mut self, side: Side, index: i64, place: &Place) -> Rule {
        Rule {
            name: format!("rule-{index}"),
            priority: self.maybe(30, |draw| i32::try_from(draw.whole(-2, 2)).expect("a small number")),
            when: self.maybe(35, |draw| draw.condition(side, 2)),
            only: self.only(side),
            window: self.maybe(25, |draw| draw.window(place)).unwrap_or_default(),
            schedule: self.maybe(30, |draw| draw.schedule(place)),
            action: match side {
                Side::Market => self.market_action(place.size),
                Side::Offer => self.offer_action(place.size),
            },
            is_discount: side == Side::Market || PLAIN_DISCOUNTS || self.chance(75),
        }
    }

    fn window(&mut self, place: &Place) -> Window {
        let is_local = LOCAL_WINDOWS && self.chance(50);
        let mut from = place.change + self.minutes(-600, 300);
        let mut until = from + self.minutes(1, 900);
        if self.chance(30) {
            from = place.change + self.minutes(-120, 120);
            until = from + self.minutes(1, 240);
        }
        let mut end = |instant: DateTime<Utc>| {
            if !is_local {
                return End::Instant(instant);
            }
            let shown = place.clock.shows(instant);
            End::Shown(if self.chance(20) { shown.date().and_time(NaiveTime::MIN) } else { shown })
        };
        let ends = (end(from), end(until));
        let (from, until) = match self.whole(0, 2) {
            0 => (Some(ends.0), None),
            1 => (None, Some(ends.1)),
            _ => (Some(ends.0), Some(ends.1)),
        };
        let clock = is_local.then(|| place.clock.clone());
        let window = Window { clock, from, until };
        // A window that ends before it begins is refused.
        if matches!(window.times()[..], [from, until] if until <= from) {
            return Window { until: None, ..window };
        }
        window
    }

    /// Hours around the change of the clock.
    fn schedule(&mut self, place: &Place) -> Schedule {
        let mut time = |percent: u32| {
            self.maybe(percent, |draw| {
                let grid = draw.of(&[1, 10, 30, 60]);
                let shift = TimeDelta::minutes(draw.whole(-240, 240));
                let at = place.clock.shows(place.change + shift).time();
                let minutes = (at.hour() * 60 + at.minute()) / grid * grid;
                NaiveTime::from_num_seconds_from_midnight_opt(minutes * 60, 0).expect("a time of day")
            })
        };
        let (from, until) = (time(85), time(85));
        let week = [
            Weekday::Mon,
            Weekday::Tue,
            Weekday::Wed,
            Weekday::Thu,
            Weekday::Fri,
            Weekday::Sat,
            Weekday::Sun,
        ];
        let days = self.maybe(40, |draw| draw.some_of(&week));
        Schedule { clock: place.clock.clone(), days, from, until }
    }

    fn only(&mut self, side: Side) -> Only {
        let mut lists = Vec::new();
        let mut list = |draw: &mut Self, percent: u32, name: &'static str, values: &[&'static str]| {
            lists.extend(draw.maybe(percent, |draw| (name, draw.some_of(values))));
        };
        list(self, 6, "categories", &["toys", "games", "books"]);
        list(self, 6, "products", &["P-1", "P-2", "P-3"]);
        if side == Side::Market {
            list(self, 6, "brands", &["Acme", "Zeta"]);
            return Only { lists, colours: self.maybe(5, |draw| draw.some_of(&["red", "blue"])) };
        }
        list(self, 6, "segments", &["vip", "staff"]);
        list(self, 6, "locations", &["NY", "SF", "LA"]);
        list(self, 6, "channels", &["app", "web"]);
        Only { lists, colours: None }
    }

    fn market_action(&mut self, size: Fraction) -> Action {
        match self.whole(0, 15) {
            0 | 1 => Action::Adjust(self.change(size)),
            2 => Action::MultiplyBy(self.factor_formula(Side::Market, 2)),
            3 | 4 => Action::SetTo(self.price_formula(Side::Market, 2)),
            5 => Action::CostPlus(self.cost_change(size)),
            6 => Action::TargetMargin(self.part(0, 70)),
            7 | 8 => Action::Match(self.reference(Side::Market), self.offset(size)),
            9 => {
                let by = self.below(size);
                Action::Beat(self.reference(Side::Market), by)
            }
            10 => Action::Index(self.reference(Side::Market), self.part(80, 120)),
            11 | 12 => Action::StockCover(self.steps(size, 60, 0)),
            13 => Action::SellThrough(self.steps(size, 99, 2)),
            _ => Action::Surge {
                sensitivity: self.part(10, 100),
                cap: self.part(5, 60),
                decay: self.maybe(70, |draw| TimeDelta::minutes(draw.of(&[60, 360, 1440, 90, 7]))),
            },
        }
    }

    fn offer_action(&mut self, size: Fraction) -> Action {
        match self.whole(0, 8) {
            0..=2 => Action::Adjust(self.change(size)),
            3 => Action::MultiplyBy(self.factor_formula(Side::Offer, 2)),
            4 => Action::SetTo(self.price_formula(Side::Offer, 2)),
            5 => match self.whole(0, 2) {
                0 => Action::Match(self.reference(Side::Offer), self.offset(size)),
                1 => {
                    let by = self.below(size);
                    Action::Beat(self.reference(Side::Offer), by)
                }
                _ => Action::Index(self.reference(Side::Offer), self.part(80, 120)),
            },
            _ => Action::QuantityTiers(self.tiers(size)),
        }
    }

    fn cost_change(&mut self, size: Fraction) -> Change {
        if self.chance(60) { Change::Part(self.part(0, 150)) } else { Change::Amount(self.amount(size)) }
    }

    fn offset(&mut self, size: Fraction) -> Change {
        if self.chance(40) { Change::Amount(Fraction::ZERO) } else { self.change(size * Fraction::of(1, 5)) }
    }

    fn below(&mut self, size: Fraction) -> Change {
        if self.chance(50) { Change::Part(self.part(1, 15)) } else { Change::Amount(self.amount(size)) }
    }

    /// An amount above zero of up to a tenth of the size.
    fn amount(&mut self, size: Fraction) -> Fraction {
        let cents = i64::try_from((size * Fraction::whole(10)).ceil().max(1)).expect("a price of a shop");
        self.number(1, cents, 2)
    }

    fn reference(&mut self, side: Side) -> Reference {
        if side == Side::Offer || self.chance(20) {
            return Reference::Formula(self.price_formula(side, 1));
        }
        let which = match self.whole(0, 4) {
            0 => Which::Min,
            1 => Which::Median,
            2 => Which::Max,
            3 => Which::Nth(usize::try_from(self.whole(1, 3)).expect("a small number")),
            _ => Which::Name(self.of(&["acme", "bolt", "core"])),
        };
        let not_older_than = self.maybe(50, |draw| TimeDelta::hours(draw.of(&[1, 2, 24])));
        Reference::Competitor(Competitor { which, in_stock: self.chance(40), not_older_than })
    }

    /// Steps that rise, up to a limit of so many decimal places; the last may have none.
    fn steps(&mut self, size: Fraction, most: i64, scale: u32) -> Vec<Step> {
        let mut limits: Vec<i64> = (0..self.whole(1, 3)).map(|_| self.whole(1, most)).collect();
        limits.sort_unstable();
        limits.dedup();
        let mut steps: Vec<Step> = limits
            .into_iter()
            .map(|limit| Step {
                below: Some(Fraction::decimal(i128::from(limit), scale)),
                adjust: self.change(size),
            })
            .collect();
        steps.extend(self.maybe(50, |draw| Step { below: None, adjust: draw.change(size) }));
        steps
    }

    /// Tiers on which a unit gets cheaper and cheaper.
    fn tiers(&mut self, size: Fraction) -> Vec<(u32, Change)> {
        let is_part = self.chance(70);
        let (mut from, mut less) = (0, Fraction::ZERO);
        (0..self.whole(1, 3))
            .map(|_| {
                from += u32::try_from(self.whole(1, 10)).expect("a small number");
                less = less + if is_part { self.part(0, 30) } else { self.amount(size * Fraction::whole(3)) };
                (from, if is_part { Change::Part(-less) } else { Change::Amount(-less) })
            })
            .collect()
    }

    fn guardrails(&mut self) -> Guardrails {
        Guardrails {
            min_margin: self.maybe(25, |draw| draw.part(0, 50)),
            floor_of_base: self.maybe(20, |draw| draw.part(30, 99)),
            ceiling_of_base: self.maybe(20, |draw| draw.part(100, 180)),
            max_step: self.maybe(30, |draw| draw.part(1, 40)),
            step_interval: self.maybe(15, |draw| draw.minutes(1, 240)),
            max_daily_move: self.maybe(25, |draw| draw.part(0, 50)),
            min_time_between_changes: self.maybe(20, |draw| draw.minutes(1, 240)),
            competitor_loop: self.maybe(20, |draw| {
                let moves = i32::try_from(draw.whole(2, 5)).expect("a small number");
                (moves, TimeDelta::hours(draw.whole(1, 24)))
            }),
        }
    }

    fn rounding(&mut self, size: Fraction) -> Rounding {
        let mode = self
            .maybe(70, |draw| draw.of(&[Mode::HalfEven, Mode::HalfUp, Mode::HalfDown, Mode::Up, Mode::Down]));
        let increments = ["0.005", "0.01", "0.05", "0.1", "0.2", "0.5", "1", "5", "10"];
        let increment = self.maybe(40, |draw| Fraction::parse(draw.of(&increments)));
        let endings = ["0.99", "0.49", "0.95", "0.5", "9", "9.95", "0.995", "80", "99"];
        let mut drawn: Vec<Fraction> = Vec::new();
        if self.chance(25) {
            drawn = (0..self.whole(1, 3)).map(|_| Fraction::parse(self.of(&endings))).collect();
        }
        let mut price_points = Vec::new();
        if self.chance(12) {
            let cents = i64::try_from((size * Fraction::whole(200)).ceil()).expect("a price of a shop");
            price_points = (0..self.whole(1, 6)).map(|_| self.number(1, cents, 2)).collect();
        }
        price_points.sort();
        price_points.dedup();
        drawn.sort();
        drawn.dedup();
        Rounding { mode, increment, endings: drawn, price_points }
    }
}
