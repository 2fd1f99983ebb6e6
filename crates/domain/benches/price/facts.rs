//! What is priced, by which rules, and for whom.

use pricing_domain::facts::Facts;
use pricing_domain::facts::money::Currency;
use pricing_domain::facts::price_entry::PriceEntry;
use pricing_domain::facts::product::{Product, ProductId};
use pricing_domain::facts::shopper::Shopper;
use pricing_domain::facts::signal::{CompetitorPrice, Signals};
use pricing_domain::facts::time_zone::TimeZones;
use pricing_domain::policy::PricingPolicy;
use pricing_domain::pricing::price::price;
use pricing_domain::pricing::price_state::PriceState;
use rust_decimal::Decimal;

use crate::NOW;

pub(crate) const FIVE_OFFER_RULES: &str = "
name: five rules
offer:
  - { name: r0, when: shopper.prime and shopper.quantity >= 2, adjust: -1% }
  - { name: r1, when: shopper.prime and shopper.quantity >= 2, adjust: -1% }
  - { name: r2, when: shopper.prime and shopper.quantity >= 2, adjust: -1% }
  - { name: r3, when: shopper.prime and shopper.quantity >= 2, adjust: -1% }
  - { name: r4, when: shopper.prime and shopper.quantity >= 2, adjust: -1% }
";

pub(crate) const TEN_MARKET_RULES: &str = "
name: ten rules
market:
  - { name: r0, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r1, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r2, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r3, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r4, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r5, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r6, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r7, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r8, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
  - { name: r9, when: stock.level > 10 and demand.index > 1, adjust: +0.5% }
guardrails: { min_margin: 10%, max_step: 15%, max_daily_move: 30% }
";

pub(crate) const SHOPPER: Shopper<'static> =
    Shopper { location: "NY", prime: true, quantity: 3, channel: None, segment: None, location_factor: None };

pub(crate) fn policy(document: &str) -> PricingPolicy {
    PricingPolicy::from_yaml(document, 1, &TimeZones::bundled()).expect("the policy is right")
}

/// A product with what is known about its market, and its last pricing, before demand rose.
pub(crate) struct Market {
    pub(crate) product: Product,
    pub(crate) signals: Signals,
    pub(crate) state: PriceState,
}

impl Market {
    pub(crate) fn new() -> Self {
        let (product, signals) = (product(), signals());
        let before = Signals { demand_index: Some(Decimal::ONE), ..signals.clone() };
        let facts = Facts { product: &product, signals: &before, previous: None };
        let state = PriceState::after(None, &price(&facts, &policy(TEN_MARKET_RULES), NOW), NOW);
        Self { product, signals, state }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { product: &self.product, signals: &self.signals, previous: Some(self.state.previous(NOW)) }
    }
}

fn product() -> Product {
    Product {
        product_id: ProductId::parse("P-1").expect("an identifier"),
        name: "Kettle".to_owned(),
        category: Some("Kitchen".to_owned()),
        brand: Some("Brand".to_owned()),
        currency: Currency::from_code("USD").expect("a currency"),
        base_price: Decimal::new(5199, 2),
        unit_cost: Some(Decimal::new(3000, 2)),
        floor_price: Some(Decimal::new(2000, 2)),
        ceiling_price: Some(Decimal::new(9000, 2)),
        minimum_advertised_price: None,
        attributes: Default::default(),
        cost_stated_at: None,
    }
}

fn signals() -> Signals {
    let price = |competitor: &str, cents| CompetitorPrice {
        competitor: competitor.to_owned(),
        price: Decimal::new(cents, 2),
        in_stock: None,
        observed_at: None,
        source: None,
        expires_at: None,
    };
    Signals {
        competitor_prices: vec![price("a", 4810), price("b", 5020), price("c", 4999)],
        demand_index: Some(Decimal::new(11, 1)),
        stock_level: Some(Decimal::from(50)),
        unit_cost: None,
        demand_observed_at: None,
        units_sold: None,
        ..Signals::default()
    }
}

pub(crate) fn entry() -> PriceEntry {
    PriceEntry {
        product_id: ProductId::parse("P-1").expect("an identifier"),
        category: Some("Kitchen".into()),
        currency: Currency::from_code("USD").expect("a currency"),
        base_price: Decimal::new(5199, 2),
        list_price: Decimal::new(5199, 2),
        lowest: Some(Decimal::new(2000, 2)),
        highest: Some(Decimal::new(9000, 2)),
        policy_version: 1,
        revision: 1,
        valid_until: None,
    }
}
