//! The limit: each policy of the bench as hand-written code, with rust_decimal's own operations.
//!
//! Here is each decimal operation that the policy asks for, once and in the engine's order, and nothing else:
//! the conditions, the changes, the check of every price (above 0, and not beyond what an amount may be), the
//! guardrails, the rounding with the checks after it, and the discount. There are no rules to look up, no
//! instants to compare, and nothing is explained: that is what the engine costs.

use pricing_domain::facts::limits::Limits;
use pricing_domain::facts::money::AMOUNT_LIMIT;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::pricing::quote::Quote;
use rust_decimal::Decimal;

use super::facts::Market;

const CENT: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
const MIN_MARGIN: Decimal = Decimal::from_parts(1, 0, 0, false, 1);
const MAX_STEP: Decimal = Decimal::from_parts(15, 0, 0, false, 2);
const MAX_DAILY_MOVE: Decimal = Decimal::from_parts(3, 0, 0, false, 1);

/// `location.factor ?? 0.95`, and 5% off for prime members.
pub(crate) fn default_quote(entry: &PriceEntry, shopper: &Shopper<'_>) -> Quote {
    let ninety_five = Decimal::new(95, 2);
    let undiscounted = moved(entry.list_price, shopper.location_factor.unwrap_or(ninety_five));
    let price = if shopper.prime { moved(undiscounted, ninety_five) } else { undiscounted };
    finish(entry, price, undiscounted)
}

/// Five times `shopper.prime and shopper.quantity >= 2`, 1% off.
pub(crate) fn five_rules_quote(entry: &PriceEntry, shopper: &Shopper<'_>) -> Quote {
    let factor = Decimal::new(99, 2);
    let mut price = entry.list_price;
    for _ in 0..5 {
        if shopper.prime && Decimal::from(shopper.quantity) >= Decimal::TWO {
            price = moved(price, factor);
        }
    }
    finish(entry, price, entry.list_price)
}

/// Ten times `stock.level > 10 and demand.index > 1`, 0.5% more; then the guardrails.
pub(crate) fn ten_rules_price(market: &Market) -> (Decimal, Limits) {
    let factor = Decimal::new(1_005, 3);
    let (product, signals) = (&market.product, &market.signals);
    let mut price = product.base_price;
    for _ in 0..10 {
        if signals.stock_level.is_some_and(|level| level > Decimal::TEN)
            && signals.demand_index.is_some_and(|index| index > Decimal::ONE)
        {
            price = moved(price, factor);
        }
    }
    let (before, opening) = (market.state.list_price, market.state.opening_price);
    let step = before * MAX_STEP;
    let (step_lowest, step_highest) = (before - step, before + step);
    let day = opening * MAX_DAILY_MOVE;
    let (day_lowest, day_highest) = ((opening - day).min(before), (opening + day).max(before));
    let margin_floor = product.unit_cost.map(|cost| cost / (Decimal::ONE - MIN_MARGIN));
    let lowest = margin_floor.into_iter().chain(product.floor_price).max();
    let highest = product.ceiling_price;
    price = price.min(step_highest).max(step_lowest);
    price = price.min(day_highest).max(day_lowest);
    price = highest.map_or(price, |highest| price.min(highest));
    price = margin_floor.map_or(price, |floor| price.max(floor));
    price = product.floor_price.map_or(price, |floor| price.max(floor));
    let mut rounded = round(price, lowest, highest);
    if rounded > step_highest || rounded < step_lowest || rounded > day_highest || rounded < day_lowest {
        let lowest = lowest.into_iter().chain([step_lowest, day_lowest]).max();
        rounded = round(price, lowest, highest.into_iter().chain([step_highest, day_highest]).min());
    }
    (rounded, Limits { lowest, highest })
}

/// The price times the factor, if that is a price.
fn moved(price: Decimal, factor: Decimal) -> Decimal {
    match price.checked_mul(factor) {
        Some(moved) if moved > Decimal::ZERO && moved < AMOUNT_LIMIT => moved,
        _ => price,
    }
}

fn finish(entry: &PriceEntry, price: Decimal, undiscounted: Decimal) -> Quote {
    let final_price = bring_to_market(entry, price);
    let discount_rate = if price < undiscounted {
        let taken = Decimal::ONE - final_price / bring_to_market(entry, undiscounted);
        taken.max(Decimal::ZERO).round_dp(4).normalize()
    } else {
        Decimal::ZERO
    };
    Quote { final_price, discount_rate, failed_rules: 0, is_personalised: true }
}

fn bring_to_market(entry: &PriceEntry, price: Decimal) -> Decimal {
    if price == entry.list_price {
        return price;
    }
    let capped = entry.highest.map_or(price, |highest| price.min(highest));
    let allowed = entry.lowest.map_or(capped, |lowest| capped.max(lowest));
    round(allowed, entry.lowest, entry.highest)
}

/// To a cent, and back within the limits if that left them.
fn round(price: Decimal, lowest: Option<Decimal>, highest: Option<Decimal>) -> Decimal {
    let mut rounded = price.round_dp(2).max(CENT);
    if let Some(highest) = highest.filter(|highest| rounded > *highest) {
        rounded = highest.trunc_with_scale(2);
    }
    if let Some(lowest) = lowest.filter(|lowest| rounded < *lowest) {
        rounded = lowest.round_dp_with_strategy(2, rust_decimal::RoundingStrategy::AwayFromZero);
    }
    rounded.rescale(2);
    rounded
}
