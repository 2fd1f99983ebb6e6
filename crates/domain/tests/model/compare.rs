//! One case, priced by both.

use std::cell::RefCell;
use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use pricing_domain::facts::Facts;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::Product;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::explanation::Outcome;
use pricing_domain::pricing::price::{ListPrice, price};
use pricing_domain::pricing::quote;

use crate::draw::Draw;
use crate::draw_policy::Place;
use crate::facts::{Buyer, Item, Market};
use crate::fraction::Fraction;
use crate::list_price::{self, Asked};
use crate::offers;
use crate::policy::{Policy, instant};

#[derive(Debug)]
pub(crate) struct Case {
    now: DateTime<Utc>,
    item: Item,
    market: Market,
    buyer: Buyer,
}

/// Instants before the end of a price's validity at which the model looks again.
const LATER_LOOKS: usize = 6;

impl Case {
    pub(crate) fn draw(draw: &mut Draw, place: &Place, policy: &Policy) -> Self {
        let now = draw.instant(place, policy);
        let item = draw.item(place, now);
        let market = draw.market(&item, policy, now);
        Self { now, item, market, buyer: draw.buyer() }
    }
}

/// In what the two differ, and what the case exercised.
pub(crate) fn differences(
    case: &Case,
    policy: &Policy,
    compiled: &PricingPolicy,
    draw: &mut Draw,
) -> (Vec<String>, BTreeSet<String>) {
    let notes = RefCell::new(BTreeSet::new());
    let mut found = Vec::new();
    let mut differ = |what: &str, engine: String, model: String| {
        if engine != model {
            found.push(format!("{what} is {engine} by the engine, {model} by the model"));
        }
    };
    let (item, market, now) = (&case.item, &case.market, case.now);
    let product = item.for_engine();
    let signals = market.for_engine(item, &product, now);
    let facts = Facts { product: &product, signals: &signals, previous: market.previous_for_engine() };
    let priced = price(&facts, compiled, now);
    let asked = Asked { policy, item, market, notes: &notes };
    let listed = asked.list_price(now);
    differ("the list price", text(priced.amount), listed.amount.to_string());
    differ(
        "the outcome",
        outcome(&priced).to_owned(),
        if listed.is_frozen { "frozen" } else { "priced" }.to_owned(),
    );
    let entry = entry(&product, &priced);
    let shopper = case.buyer.for_engine();
    let quoted = quote::quote(&entry, compiled, &shopper, now, None);
    let offered = asked.quote(case, &listed, now);
    differ("the final price", text(quoted.final_price), offered.final_price.to_string());
    differ("the discount rate", text(quoted.discount_rate), offered.discount_rate.to_string());
    let quiet = RefCell::new(BTreeSet::new());
    let asked = Asked { notes: &quiet, ..asked };
    if let Some(wrong) = wrong_end(priced.valid_until, case, &asked, &listed, draw) {
        found.push(wrong);
    }
    if !found.is_empty() {
        found.push(explained(&priced));
    }
    (found, notes.into_inner())
}

fn explained(priced: &ListPrice<'_>) -> String {
    format!("{:?}, valid until {:?}", priced.explanation.steps, priced.valid_until)
}

/// What is wrong with the end of the price's validity: that the model finds an instant before it at which
/// time alone has changed the price, or that nothing begins or ends then.
fn wrong_end(
    valid_until: Option<DateTime<Utc>>,
    case: &Case,
    asked: &Asked<'_>,
    listed: &list_price::ListPrice,
    draw: &mut Draw,
) -> Option<String> {
    let edges = asked.edges(case.now);
    if let Some(end) = valid_until {
        if end <= case.now {
            return Some(format!("the price is valid until {} and not even now", instant(end)));
        }
        if !is_edge(&edges, end) && !asked.is_time(end) {
            return Some(format!("the price is valid until {}, when nothing begins or ends", instant(end)));
        }
    }
    let end = valid_until.unwrap_or(case.now + TimeDelta::days(8));
    let mut looks = [edges, asked.times(case.now)].concat();
    looks.retain(|look| *look < end);
    let before = asked.quote(case, listed, case.now);
    for _ in 0..LATER_LOOKS {
        let later = if looks.is_empty() || draw.chance(40) {
            let milliseconds = (end - case.now).num_milliseconds();
            case.now + TimeDelta::milliseconds(draw.whole(0, (milliseconds - 1).max(0)))
        } else {
            draw.of(&looks)
        };
        let guardrails = &asked.policy.guardrails;
        let in_effect = case.market.in_effect;
        let in_effect = in_effect.map(|in_effect| in_effect.after(guardrails, listed, case.now, later));
        let market = Market { in_effect, ..case.market.clone() };
        let then = Asked { market: &market, ..*asked }.list_price(later);
        let quoted = asked.quote(case, &then, later);
        if (then.amount, then.is_frozen) != (listed.amount, listed.is_frozen) || quoted != before {
            let (from, to) = (listed.amount, then.amount);
            let later = instant(later);
            return Some(format!(
                "the price at {later} is {to} and not {from}, or {quoted:?} and not {before:?}"
            ));
        }
    }
    None
}

/// Whether something ends then, or has just ended: `<=` holds at the very instant, and no longer a moment
/// later.
fn is_edge(edges: &[DateTime<Utc>], end: DateTime<Utc>) -> bool {
    edges.iter().any(|edge| *edge <= end && end - *edge < TimeDelta::milliseconds(1))
}

impl Asked<'_> {
    fn quote(&self, case: &Case, listed: &list_price::ListPrice, now: DateTime<Utc>) -> offers::Quote {
        offers::quote(self.policy, self.item, listed, &case.buyer, now, self.notes)
    }
}

fn outcome(priced: &ListPrice<'_>) -> &'static str {
    match priced.explanation.outcome {
        Outcome::Priced => "priced",
        Outcome::Frozen => "frozen",
    }
}

fn entry(product: &Product, priced: &ListPrice<'_>) -> PriceEntry {
    PriceEntry {
        product_id: product.product_id.clone(),
        category: product.category.as_deref().map(Into::into),
        currency: product.currency,
        base_price: product.base_price,
        list_price: priced.amount,
        lowest: priced.limits.lowest,
        highest: priced.limits.highest,
        policy_version: 1,
        revision: 1,
        valid_until: priced.valid_until,
    }
}

/// The engine's number as the model writes it.
fn text(number: rust_decimal::Decimal) -> String {
    Fraction::parse(&number.to_string()).to_string()
}
