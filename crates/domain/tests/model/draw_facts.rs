//! Draws products, what is known of their markets, and shoppers.

use chrono::{DateTime, TimeDelta, Utc};

use crate::draw::Draw;
use crate::draw_policy::Place;
use crate::facts::{Buyer, CompetitorFact, InEffect, Item, Known, Market};
use crate::fraction::Fraction;
use crate::policy::Policy;

impl Draw {
    /// About when the policy's clock is changed, and about how large its prices are.
    pub(crate) fn place(&mut self) -> Place {
        let (clock, change) = self.clock_change();
        Place { clock, change, size: Fraction::parse(self.of(&["0.5", "5", "20", "100", "100", "900"])) }
    }

    pub(crate) fn item(&mut self, place: &Place, now: DateTime<Utc>) -> Item {
        let currency = self.of(&["USD", "USD", "USD", "JPY", "BHD", "CHF"]);
        let mut item = Item {
            id: self.of(&["P-1", "P-2", "P-3", "P-4"]),
            currency,
            category: self.maybe(80, |draw| draw.of(&["toys", "games", "books"])),
            brand: self.maybe(70, |draw| draw.of(&["Acme", "Zeta"])),
            colour: self.maybe(50, |draw| draw.of(&["red", "blue", "green"])),
            base_price: Fraction::ONE,
            unit_cost: None,
            cost_stated_at: None,
            floor_price: None,
            ceiling_price: None,
            minimum_advertised_price: None,
        };
        item.base_price = self.price(&item, place.size, 50, 150);
        let base = item.base_price;
        item.unit_cost = self.maybe(65, |draw| draw.cost(base));
        // Also of a row that has lost its cost.
        item.cost_stated_at = self.maybe(60, |draw| now - draw.age());
        item.floor_price = self.maybe(28, |draw| draw.price_or_base(&item, 30, 105));
        item.minimum_advertised_price = self.maybe(10, |draw| draw.price(&item, base, 50, 100));
        let floor = item.floor_price.unwrap_or(Fraction::ZERO);
        item.ceiling_price = self.maybe(28, |draw| draw.price_or_base(&item, 90, 160).max(floor));
        item
    }

    /// A price between two parts of a size, in hundredths; many of them round.
    fn price(&mut self, item: &Item, size: Fraction, from: i64, to: i64) -> Fraction {
        let mut price = size * self.number(from * 10, to * 10, 3);
        if self.chance(30) {
            price = Fraction::whole((price * Fraction::whole(20)).floor()) / Fraction::whole(20);
        }
        let unit = item.minor_unit();
        Fraction::whole((price / unit).floor().max(1)) * unit
    }

    /// A bound, which may be the base price itself.
    fn price_or_base(&mut self, item: &Item, from: i64, to: i64) -> Fraction {
        if self.chance(25) { item.base_price } else { self.price(item, item.base_price, from, to) }
    }

    /// A cost, which may have more places than a price.
    fn cost(&mut self, base: Fraction) -> Fraction {
        let cost = base * self.number(20, 105, 2);
        let scale = Fraction::whole(self.of(&[100, 100, 10_000, 1]));
        Fraction::whole((cost * scale).ceil()) / scale
    }

    pub(crate) fn market(&mut self, item: &Item, policy: &Policy, now: DateTime<Utc>) -> Market {
        let mut competitors: Vec<CompetitorFact> = Vec::new();
        for name in ["acme", "bolt", "core", "dash"] {
            competitors.extend(self.maybe(45, |draw| CompetitorFact {
                name,
                price: draw.known(now, |draw| draw.price(item, item.base_price, 40, 160)),
                in_stock: draw.of(&[None, Some(true), Some(false)]),
                currency: draw.maybe(15, |draw| draw.of(&[item.currency, item.currency, "EUR"])),
            }));
        }
        Market {
            competitors,
            demand: self.maybe(70, |draw| draw.known(now, |draw| draw.number(0, 250, 2))),
            demand_of_category: self.maybe(20, |draw| draw.known(now, |draw| draw.number(0, 250, 2))),
            stock: self.maybe(75, |draw| draw.known(now, |draw| draw.number(0, 80, 0))),
            sold: self.maybe(75, |draw| draw.known(now, |draw| draw.number(0, 80, 0))),
            // A cost of 0 is one that is not known.
            cost: self.maybe(25, |draw| {
                let is_none = draw.chance(10);
                draw.known(now, |draw| if is_none { Fraction::ZERO } else { draw.cost(item.base_price) })
            }),
            in_effect: self.maybe(70, |draw| draw.in_effect(item, policy, now)),
        }
    }

    fn known(&mut self, now: DateTime<Utc>, draw: impl FnOnce(&mut Self) -> Fraction) -> Known {
        let nearly = TimeDelta::seconds(self.of(&[-1, 0, 0, 1]));
        let expires_at = self.maybe(12, |draw| now + nearly + draw.minutes(-30, 90).max(TimeDelta::zero()));
        Known { number: draw(self), seen_at: now - self.age(), expires_at }
    }

    /// How old a fact is; often as old as something in a policy lasts, or nearly.
    fn age(&mut self) -> TimeDelta {
        let nearly = TimeDelta::seconds(self.of(&[-1, 0, 0, 1]));
        match self.whole(0, 3) {
            0 => TimeDelta::zero(),
            1 => TimeDelta::minutes(self.of(&[5, 30, 60, 120, 1440])) + nearly,
            2 => self.minutes(0, 180),
            _ => TimeDelta::seconds(self.whole(0, 200_000)),
        }
    }

    fn in_effect(&mut self, item: &Item, policy: &Policy, now: DateTime<Utc>) -> InEffect {
        let price = self.price(item, item.base_price, 60, 140);
        let first_of_day = if self.chance(50) { price } else { self.price(item, item.base_price, 60, 140) };
        let pause = policy.guardrails.min_time_between_changes;
        let changed_at = self.maybe(85, |draw| match pause {
            Some(pause) if draw.chance(60) => now - pause + TimeDelta::seconds(draw.whole(-1, 1) * 60),
            _ => now - draw.age(),
        });
        let moves = self.maybe(60, |draw| {
            let moves = i32::try_from(draw.whole(1, 11)).expect("a small number");
            (if draw.chance(50) { moves } else { -moves }, now - draw.age())
        });
        InEffect { price, first_of_day, changed_at, moves, current: price, interval: None }
    }

    pub(crate) fn buyer(&mut self) -> Buyer {
        Buyer {
            location: self.of(&["NY", "SF", "LA", "TX"]),
            prime: self.chance(50),
            quantity: u32::try_from(self.whole(1, 30)).expect("a small number"),
            channel: self.maybe(60, |draw| draw.of(&["app", "web"])),
            segment: self.maybe(60, |draw| draw.of(&["vip", "staff", "new"])),
            factor: self.maybe(60, |draw| draw.number(60, 140, 2)),
        }
    }

    /// An instant around the change of the clock: at it, at a window's end, within hours or within days of
    /// it.
    pub(crate) fn instant(&mut self, place: &Place, policy: &Policy) -> DateTime<Utc> {
        let nearly = TimeDelta::seconds(self.of(&[-1, 0, 0, 1]));
        let ends: Vec<DateTime<Utc>> =
            policy.market.iter().chain(&policy.offer).flat_map(|rule| rule.window.times()).collect();
        match self.whole(0, 9) {
            0 => place.change + nearly,
            1 if !ends.is_empty() => self.of(&ends) + nearly,
            2..=6 => place.change + self.minutes(-240, 240),
            7 | 8 => place.change + TimeDelta::seconds(self.whole(-14_400, 14_400)),
            _ => place.change + self.minutes(-5_000, 5_000),
        }
    }
}
