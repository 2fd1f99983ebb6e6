//! Draws expressions: formulas for prices and factors, and conditions.

use Expression::{
    And, Arithmetic, Between, Call, Choose, Compare, Extreme, InList, IsNotNull, IsNull, Name, Negative, Not,
    Number, Or, Otherwise, Text,
};

use crate::draw::{Draw, boxed};
use crate::expression::Expression;
use crate::fraction::Fraction;

/// Whose rule the expression is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Market,
    Offer,
}

/// Numbers that may be about as large as a price, and those that may not be known.
const PRICES: [&str; 2] = ["product.base_price", "price.now"];
const MARKET_PRICES: [&str; 5] =
    ["product.unit_cost", "competitor.min", "competitor.median", "competitor.max", "price.current"];
/// Other numbers, with two between which they lie.
const MARKET_NUMBERS: [(&str, i64, i64); 6] = [
    ("stock.level", 0, 60),
    ("stock.cover_days", 0, 60),
    ("stock.sell_through", 0, 1),
    ("sales.units", 0, 60),
    ("demand.index", 0, 2),
    ("competitor.count", 0, 4),
];
const OFFER_NUMBERS: [(&str, i64, i64); 2] = [("shopper.quantity", 1, 30), ("location.factor", 0, 2)];
/// Texts, with what they may be, and whether they are always known.
const TEXTS: [(&str, &[&str]); 2] =
    [("product.id", &["P-1", "P-2"]), ("product.category", &["toys", "games"])];
const MARKET_TEXTS: [(&str, &[&str]); 1] = [("product.brand", &["Acme", "Zeta"])];
const OFFER_TEXTS: [(&str, &[&str]); 3] = [
    ("shopper.location", &["NY", "SF"]),
    ("shopper.channel", &["app", "web"]),
    ("shopper.segment", &["vip", "staff"]),
];
/// What formulas divide by: numbers by which every division ends. Where one does not, the engine's numbers
/// have 28 digits and the model's have no end, so that the two may be on different sides of a half.
const DIVISORS: [&str; 7] = ["50", "64", "80", "100", "125", "200", "0.8"];
const AGE_NAMES: [&str; 5] =
    ["competitor.age_hours", "stock.age_hours", "sales.age_hours", "demand.age_hours", "cost.age_hours"];
/// The hours that ages are compared with, and in minutes.
pub(crate) const AGE_LIMITS: [(&str, i64); 4] = [("0.5", 30), ("1", 60), ("2", 120), ("24", 1440)];
const ALWAYS_KNOWN: [&str; 8] = [
    "product.id",
    "product.currency",
    "product.base_price",
    "price.now",
    "price.list",
    "competitor.count",
    "shopper.quantity",
    "shopper.location",
];

impl Draw {
    /// An expression that gives a price, where all it asks for is known.
    pub(crate) fn price_formula(&mut self, side: Side, depth: u32) -> Expression {
        if depth == 0 {
            return self.price_leaf(side);
        }
        match self.whole(0, 6) {
            0 => self.price_leaf(side),
            1 => {
                let condition = self.condition(side, 1);
                let (yes, no) = (self.price_formula(side, depth - 1), self.price_formula(side, depth - 1));
                Choose(boxed(condition), boxed(yes), boxed(no))
            }
            2 => {
                let name = self.of(&["min", "max"]);
                let list = (0..self.whole(1, 3)).map(|_| self.price_formula(side, depth - 1)).collect();
                Extreme(name, list)
            }
            3 => {
                let amount = Number(self.number(0, 300, 2));
                let sign = self.of(&['+', '-']);
                Arithmetic(sign, boxed(self.price_formula(side, depth - 1)), boxed(amount))
            }
            4 => {
                let name = self.of(&["abs", "floor", "ceil", "round", "trunc"]);
                let places =
                    if matches!(name, "round" | "trunc") && self.chance(50) { Some(1) } else { None };
                Call(name, boxed(self.price_formula(side, depth - 1)), places)
            }
            _ => {
                let factor = self.factor_formula(side, depth - 1);
                Arithmetic('*', boxed(self.price_formula(side, depth - 1)), boxed(factor))
            }
        }
    }

    fn price_leaf(&mut self, side: Side) -> Expression {
        let name = match side {
            Side::Market if self.chance(50) => self.of(&MARKET_PRICES),
            Side::Offer if self.chance(40) => "price.list",
            _ => self.of(&PRICES),
        };
        let leaf = Name(name);
        if ALWAYS_KNOWN.contains(&name) || self.chance(30) {
            return leaf;
        }
        let otherwise =
            if self.chance(50) { Name("product.base_price") } else { Number(self.number(1, 9000, 2)) };
        Otherwise(boxed(leaf), boxed(otherwise))
    }

    /// An expression that gives a factor of about 1.
    pub(crate) fn factor_formula(&mut self, side: Side, depth: u32) -> Expression {
        let constant = |draw: &mut Self| Number(draw.number(70, 130, 2));
        let known = match side {
            Side::Market => "demand.index",
            Side::Offer => "location.factor",
        };
        match self.whole(0, 7) {
            0 if depth > 0 => {
                let condition = self.condition(side, 1);
                let (yes, no) = (self.factor_formula(side, depth - 1), self.factor_formula(side, depth - 1));
                Choose(boxed(condition), boxed(yes), boxed(no))
            }
            1 => Name(known),
            2 | 3 => Otherwise(boxed(Name(known)), boxed(constant(self))),
            4 => {
                let (name, low, high) = self.a_number(side);
                let mut part = Name(name);
                if side == Side::Market && self.chance(30) {
                    // The stock or the sales may be 0.
                    let divisor = Name(self.of(&["stock.level", "sales.units"]));
                    part = Arithmetic('%', boxed(Name("competitor.count")), boxed(divisor));
                }
                let divisor = Number(Fraction::parse(self.of(&DIVISORS)));
                let part = Arithmetic('/', boxed(part), boxed(divisor));
                let tested = Otherwise(boxed(part), boxed(Number(self.number(low, high, 2))));
                Arithmetic('+', boxed(Number(Fraction::ONE)), boxed(tested))
            }
            5 => {
                let (left, right) = (self.price_leaf(side), self.price_leaf(side));
                if self.chance(50) {
                    return Arithmetic('%', boxed(left), boxed(right));
                }
                let divisor = Number(Fraction::parse(self.of(&DIVISORS)));
                Arithmetic('/', boxed(left), boxed(divisor))
            }
            _ => constant(self),
        }
    }

    pub(crate) fn condition(&mut self, side: Side, depth: u32) -> Expression {
        if depth > 0 && self.chance(40) {
            let (left, right) = (self.condition(side, depth - 1), self.condition(side, depth - 1));
            return match self.whole(0, 2) {
                0 => And(boxed(left), boxed(right)),
                1 => Or(boxed(left), boxed(right)),
                _ => Not(boxed(left)),
            };
        }
        match self.whole(0, 5) {
            _ if side == Side::Market && self.chance(12) => self.age_condition(),
            0 => self.text_condition(side),
            1 if side == Side::Offer => Name("shopper.prime"),
            2 => {
                let (left, right) = (self.price_leaf(side), self.price_leaf(side));
                Compare(self.of(&["<", "<=", ">", ">=", "==", "!="]), boxed(left), boxed(right))
            }
            3 => self.known_condition(side),
            _ => self.number_condition(side),
        }
    }

    fn a_number(&mut self, side: Side) -> (&'static str, i64, i64) {
        match side {
            Side::Market => self.of(&MARKET_NUMBERS),
            Side::Offer => self.of(&OFFER_NUMBERS),
        }
    }

    fn number_condition(&mut self, side: Side) -> Expression {
        let (name, low, high) = self.a_number(side);
        let between = |draw: &mut Self| {
            if high < 5 {
                Number(draw.number(low * 10, high * 10, 1))
            } else {
                Number(draw.number(low, high, 0))
            }
        };
        let limit = between(self);
        let number = if ALWAYS_KNOWN.contains(&name) || self.chance(40) {
            Name(name)
        } else {
            Otherwise(boxed(Name(name)), boxed(between(self)))
        };
        match self.whole(0, 4) {
            0 => {
                // An interval that no number is in is refused.
                let wider = Number(self.number(1, 30, if high < 5 { 1 } else { 0 }));
                let high = Arithmetic('+', boxed(limit.clone()), boxed(wider));
                let ends = [self.of(&['(', '[']), self.of(&[')', ']'])];
                Between(boxed(number), ends, boxed(limit), boxed(high))
            }
            1 => InList(self.of(&["in", "not in"]), boxed(number), vec![limit, between(self)]),
            2 => {
                let number = if self.chance(20) { Negative(boxed(number)) } else { number };
                let sum = Arithmetic(self.of(&['+', '-', '*']), boxed(number), boxed(between(self)));
                Compare(self.of(&["<", ">"]), boxed(sum), boxed(limit))
            }
            _ => Compare(self.of(&["<", "<=", ">", ">="]), boxed(number), boxed(limit)),
        }
    }

    /// How old something is, against one of a few numbers of hours.
    fn age_condition(&mut self) -> Expression {
        let age = Name(self.of(&AGE_NAMES));
        let age =
            if self.chance(60) { Otherwise(boxed(age), boxed(Number(Fraction::whole(999)))) } else { age };
        let hours = Number(Fraction::parse(self.of(&AGE_LIMITS).0));
        Compare(self.of(&["<", "<=", ">", ">="]), boxed(age), boxed(hours))
    }

    fn text_condition(&mut self, side: Side) -> Expression {
        let mut texts = TEXTS.to_vec();
        texts.extend(if side == Side::Market { MARKET_TEXTS.to_vec() } else { OFFER_TEXTS.to_vec() });
        let (name, values) = self.of(&texts);
        let value = Text(self.of(values));
        let text = if ALWAYS_KNOWN.contains(&name) || self.chance(40) {
            Name(name)
        } else {
            Otherwise(boxed(Name(name)), boxed(Text("none")))
        };
        if self.chance(30) {
            return InList(self.of(&["in", "not in"]), boxed(text), vec![value, Text("other")]);
        }
        Compare(self.of(&["==", "!="]), boxed(text), boxed(value))
    }

    fn known_condition(&mut self, side: Side) -> Expression {
        let names: &[&str] = match side {
            Side::Market => {
                &["competitor.min", "stock.level", "demand.index", "product.brand", "price.current"]
            }
            Side::Offer => &["location.factor", "shopper.segment", "shopper.channel", "product.category"],
        };
        let name = boxed(Name(self.of(names)));
        if self.chance(50) { IsNull(name) } else { IsNotNull(name) }
    }
}
