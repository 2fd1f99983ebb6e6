//! What one rule makes of a price.

use std::cell::RefCell;
use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::expression::{Expression, Failed, NOT_KNOWN, Value};
use crate::facts::{Buyer, Item, Market, is_young, median};
use crate::fraction::Fraction;
use crate::policy::{Action, Apply, Change, Competitor, Only, Reference, Rule, Step, Which};

/// What a rule sees: for a market rule the market, for an offer rule the shopper and the list price.
pub(crate) struct Scene<'a> {
    pub(crate) item: &'a Item,
    pub(crate) market: Option<&'a Market>,
    pub(crate) buyer: Option<(&'a Buyer, Fraction)>,
    pub(crate) now: DateTime<Utc>,
    /// What the case exercised.
    pub(crate) notes: &'a RefCell<BTreeSet<String>>,
}

/// A new price, or none if the rule does not apply.
pub(crate) type Attempt = Result<Option<Fraction>, Failed>;

/// The rules in the order in which they are looked at.
pub(crate) fn in_order(rules: &[Rule]) -> Vec<&Rule> {
    let mut ordered: Vec<&Rule> = rules.iter().collect();
    ordered.sort_by_key(|rule| -rule.priority.unwrap_or(0));
    ordered
}

/// The price after all market rules that count, and whether one of those followed competitors.
pub(crate) fn market_price(
    rules: &[Rule],
    apply: Apply,
    scene: &Scene<'_>,
    has_own_bound: bool,
) -> Result<(Fraction, bool), Failed> {
    let mut price = scene.item.base_price;
    let mut has_followed = false;
    for rule in in_order(rules) {
        let Some(after) = rule.attempt(price, scene)? else { continue };
        if rule.follows_competitors() && !has_own_bound {
            return Err(Failed("it follows competitors without a bound of its own"));
        }
        price = after;
        has_followed |= rule.follows_competitors();
        scene.note(&format!("market {}", rule.action.name()));
        if apply == Apply::FirstMatch {
            scene.note("market first_match");
            break;
        }
    }
    Ok((price, has_followed))
}

impl Scene<'_> {
    pub(crate) fn note(&self, what: &str) {
        self.notes.borrow_mut().insert(what.to_owned());
    }

    fn value(&self, name: &str, price: Fraction) -> Value {
        let number = |number: Option<Fraction>| number.map_or(Value::Null, Value::Number);
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.to_owned()));
        match name {
            "product.id" => text(Some(self.item.id)),
            "product.base_price" => number(Some(self.item.base_price)),
            "product.category" => text(self.item.category),
            "product.currency" => text(Some(self.item.currency)),
            "price.now" => number(Some(price)),
            _ => match (self.market, self.buyer) {
                (Some(market), _) => self.market_value(name, market),
                (None, Some((buyer, list_price))) => match name {
                    "price.list" => number(Some(list_price)),
                    "shopper.location" => text(Some(buyer.location)),
                    "shopper.prime" => Value::Truth(buyer.prime),
                    "shopper.quantity" => number(Some(Fraction::whole(i128::from(buyer.quantity)))),
                    "shopper.channel" => text(buyer.channel),
                    "shopper.segment" => text(buyer.segment),
                    "location.factor" => number(buyer.factor),
                    _ => panic!("the model knows no {name}"),
                },
                (None, None) => panic!("no competitor to go by"),
            },
        }
    }

    fn market_value(&self, name: &str, market: &Market) -> Value {
        let mut asked: Vec<Fraction> = market.competitors.iter().map(|fact| fact.price.number).collect();
        asked.sort();
        let number = match name {
            "product.brand" => {
                return self.item.brand.map_or(Value::Null, |brand| Value::Text(brand.to_owned()));
            }
            "product.unit_cost" => market.unit_cost(self.item),
            "competitor.min" => asked.first().copied(),
            "competitor.median" => median(&asked),
            "competitor.max" => asked.last().copied(),
            "competitor.count" => Some(Fraction::whole(i128::try_from(asked.len()).expect("a small number"))),
            "stock.level" => market.stock.map(|stock| stock.number),
            "stock.cover_days" => market.cover_days(),
            "stock.sell_through" => market.sell_through(),
            "sales.units" => market.sold.map(|sold| sold.number),
            "demand.index" => market.demand.map(|demand| demand.number),
            "price.current" => market.in_effect.map(|in_effect| in_effect.current),
            _ => self.age(name, market),
        };
        number.map_or(Value::Null, Value::Number)
    }

    /// How long ago a fact was true; of several the oldest.
    fn age(&self, name: &str, market: &Market) -> Option<Fraction> {
        let oldest = market.competitors.iter().map(|fact| fact.price.seen_at).min();
        let seen_at = match name {
            "competitor.age_hours" => oldest,
            "stock.age_hours" => market.stock.map(|stock| stock.seen_at),
            "sales.age_hours" => market.sold.map(|sold| sold.seen_at),
            "demand.age_hours" => market.demand.map(|demand| demand.seen_at),
            "cost.age_hours" => market.cost_known_at(self.item),
            _ => panic!("the model knows no {name}"),
        };
        self.note(name);
        seen_at.map(|seen_at| hours(self.now - seen_at))
    }
}

fn hours(duration: TimeDelta) -> Fraction {
    Fraction::of(i128::from(duration.num_milliseconds()), 3_600_000)
}

impl Rule {
    /// Whether others' prices become its own: by a competitor, or by a formula that names one.
    fn follows_competitors(&self) -> bool {
        let names_one = |formula: &Expression| {
            let prices = ["competitor.min", "competitor.median", "competitor.max"];
            formula.names().iter().any(|name| prices.contains(name))
        };
        match &self.action {
            Action::Match(reference, _) | Action::Beat(reference, _) | Action::Index(reference, _) => {
                match reference {
                    Reference::Competitor(_) => true,
                    Reference::Formula(formula) => names_one(formula),
                }
            }
            Action::MultiplyBy(formula) | Action::SetTo(formula) => names_one(formula),
            _ => false,
        }
    }

    /// The price above zero that the rule makes of `price`, if it applies.
    pub(crate) fn attempt(&self, price: Fraction, scene: &Scene<'_>) -> Attempt {
        match self.price(price, scene)? {
            Some(after) if !after.is_above_zero() => Err(Failed("the price would not be above 0")),
            after => Ok(after),
        }
    }

    /// Like [`Self::attempt`], also where the price would be zero or less.
    pub(crate) fn price(&self, price: Fraction, scene: &Scene<'_>) -> Attempt {
        if !self.is_meant(scene) {
            return Ok(None);
        }
        if let Some(when) = &self.when {
            let is_true = when.truth(&|name| scene.value(name, price))?;
            scene.note(if is_true { "when true" } else { "when false" });
            if !is_true {
                return Ok(None);
            }
        }
        self.action.price(price, scene)
    }

    fn is_meant(&self, scene: &Scene<'_>) -> bool {
        let is_for = self.only.is_for(scene);
        let is_open = self.window.is_open(scene.now);
        let is_scheduled = self.schedule.as_ref().is_none_or(|schedule| schedule.is_on(scene.now));
        if self.window.from.is_some() || self.window.until.is_some() {
            let by = if self.window.clock.is_some() { " by a clock" } else { "" };
            scene.note(&format!("window {}{by}", if is_open { "open" } else { "closed" }));
        }
        if self.schedule.is_some() {
            scene.note(if is_scheduled { "schedule on" } else { "schedule off" });
        }
        is_for && is_open && is_scheduled
    }
}

impl Only {
    /// Whether it may be for the product, for some shopper.
    pub(crate) fn may_be_for(&self, item: &Item) -> bool {
        let has = |list: &[&str], value: Option<&str>| value.is_some_and(|value| list.contains(&value));
        self.lists.iter().all(|(name, list)| match *name {
            "categories" => has(list, item.category),
            "products" => has(list, Some(item.id)),
            "brands" => has(list, item.brand),
            _ => true,
        }) && self.colours.as_ref().is_none_or(|colours| has(colours, item.colour))
    }

    fn is_for(&self, scene: &Scene<'_>) -> bool {
        let has = |list: &Vec<&str>, value: Option<&str>| value.is_some_and(|value| list.contains(&value));
        let all = self.lists.iter().all(|(name, list)| {
            let value = match (*name, scene.buyer) {
                ("categories", _) => scene.item.category,
                ("products", _) => Some(scene.item.id),
                ("brands", _) => scene.item.brand,
                ("segments", Some((buyer, _))) => buyer.segment,
                ("locations", Some((buyer, _))) => Some(buyer.location),
                ("channels", Some((buyer, _))) => buyer.channel,
                _ => panic!("the model knows no {name}"),
            };
            scene.note(&format!("only {name}"));
            has(list, value)
        });
        all && self.colours.as_ref().is_none_or(|colours| has(colours, scene.item.colour))
    }
}

impl Change {
    pub(crate) fn of(self, price: Fraction) -> Fraction {
        match self {
            Self::Part(part) => price * (Fraction::ONE + part),
            Self::Amount(amount) => price + amount,
        }
    }

    fn turned(self) -> Self {
        match self {
            Self::Part(part) => Self::Part(-part),
            Self::Amount(amount) => Self::Amount(-amount),
        }
    }
}

impl Action {
    fn price(&self, price: Fraction, scene: &Scene<'_>) -> Attempt {
        let of_name = |name: &str| scene.value(name, price);
        match self {
            Self::Adjust(change) => Ok(Some(change.of(price))),
            Self::MultiplyBy(formula) => Ok(Some(price * formula.number(&of_name)?)),
            Self::SetTo(formula) => formula.number(&of_name).map(Some),
            Self::CostPlus(change) => Ok(Some(change.of(scene.known_cost()?))),
            Self::TargetMargin(part) => Ok(Some(scene.known_cost()? / (Fraction::ONE - *part))),
            Self::Match(reference, offset) => {
                Ok(reference.price(price, scene)?.map(|theirs| offset.of(theirs)))
            }
            Self::Beat(reference, by) => {
                Ok(reference.price(price, scene)?.map(|theirs| by.turned().of(theirs)))
            }
            Self::Index(reference, at) => Ok(reference.price(price, scene)?.map(|theirs| theirs * *at)),
            Self::StockCover(steps) => Ok(step_price(steps, price, scene.market().cover_days())),
            Self::SellThrough(steps) => Ok(step_price(steps, price, scene.market().sell_through())),
            Self::Surge { sensitivity, cap, decay } => {
                Ok(scene.rise(*sensitivity, *cap, *decay).map(|rise| Change::Part(rise).of(price)))
            }
            Self::QuantityTiers(tiers) => {
                let quantity = scene.buyer.map_or(0, |(buyer, _)| buyer.quantity);
                let tier = tiers.iter().rev().find(|(from, _)| *from <= quantity);
                Ok(tier.map(|(_, change)| change.of(price)))
            }
        }
    }
}

impl Scene<'_> {
    fn market(&self) -> &Market {
        self.market.expect("a market rule")
    }

    fn known_cost(&self) -> Result<Fraction, Failed> {
        self.market().unit_cost(self.item).ok_or(NOT_KNOWN)
    }

    /// The rise with demand above the usual, up to the cap, less what has come down in twelve steps.
    fn rise(&self, sensitivity: Fraction, cap: Fraction, decay: Option<TimeDelta>) -> Option<Fraction> {
        let demand = self.market().demand?;
        let rise = ((demand.number - Fraction::ONE) * sensitivity).min(cap);
        let steps_left = decay.map_or(12, |decay| {
            let elapsed = i128::from((self.now - demand.seen_at).num_milliseconds().max(0));
            let step = Fraction::of(i128::from(decay.num_milliseconds()), 12);
            12 - (Fraction::whole(elapsed) / step).floor().min(12)
        });
        if steps_left < 12 {
            self.note(if steps_left == 0 { "surge decayed" } else { "surge decaying" });
        }
        let left = rise * Fraction::of(steps_left, 12);
        left.is_above_zero().then_some(left)
    }
}

/// What the first step above the number makes of the price.
fn step_price(steps: &[Step], price: Fraction, number: Option<Fraction>) -> Option<Fraction> {
    let number = number?;
    let step = steps.iter().find(|step| step.below.is_none_or(|below| number < below))?;
    Some(step.adjust.of(price))
}

impl Reference {
    fn price(&self, price: Fraction, scene: &Scene<'_>) -> Attempt {
        match self {
            Self::Formula(formula) => {
                scene.note("reference formula");
                formula.number(&|name| scene.value(name, price)).map(Some)
            }
            Self::Competitor(competitor) => Ok(competitor.price(scene)),
        }
    }
}

impl Competitor {
    fn price(&self, scene: &Scene<'_>) -> Option<Fraction> {
        let those_that_count = scene.market().competitors.iter().filter(|fact| {
            let is_had = !self.in_stock || fact.in_stock != Some(false);
            is_had && self.not_older_than.is_none_or(|age| is_young(fact.price.seen_at, scene.now, age))
        });
        let found: Vec<_> = those_that_count.collect();
        if found.len() < scene.market().competitors.len() {
            scene.note("competitors left out");
        }
        let mut asked: Vec<Fraction> = found.iter().map(|fact| fact.price.number).collect();
        asked.sort();
        match self.which {
            Which::Min => asked.first().copied(),
            Which::Median => median(&asked),
            Which::Max => asked.last().copied(),
            Which::Nth(nth) => asked.get(nth - 1).copied(),
            Which::Name(name) => found.iter().find(|fact| fact.name == name).map(|fact| fact.price.number),
        }
    }
}
