//! Computes prices and explains them.
//!
//! Here: facts ([`facts`]), the policies of a pricing team ([`policy`], with its [`expression`]s), and the
//! two main functions ([`pricing`]): [`price()`] computes a list price from facts and a policy, with its
//! explanation; [`quote()`] computes one shopper's price from a list price. Never here: async, I/O, a clock,
//! randomness or logging. `now` is an argument, so the same inputs give the same price and the same
//! explanation on every machine, today and in a replay.
//!
//! ```
//! use pricing_domain::{Facts, PricingPolicy, ProductDraft, Shopper, Signals, TimeZones, price, quote};
//! # use pricing_domain::Diagnostic;
//! # fn main() -> Result<(), Vec<Diagnostic>> {
//! let policy = PricingPolicy::from_yaml(
//!     "
//! name: follow the market
//! market: [{ name: undercut, match: { reference: competitor.min, offset: -0.01 } }]
//! offer: [{ name: prime, when: shopper.prime, adjust: -5% }]
//! guardrails: { min_margin: 10% }
//! ",
//!     1,
//!     &TimeZones::bundled(),
//! )?;
//! let draft = r#"{"product_id": "P-1", "currency": "EUR", "base_price": 24.99, "unit_cost": 15.00}"#;
//! let product = serde_json::from_str::<ProductDraft>(draft).unwrap().check()?;
//! let known = r#"{"competitor_prices": [{"competitor": "a", "price": 22.50}],
//!     "demand_index": null, "stock_level": null, "unit_cost": null}"#;
//! let signals: Signals = serde_json::from_str(known).unwrap();
//!
//! let now = chrono::DateTime::UNIX_EPOCH;
//! let list_price = price(&Facts { product: &product, signals: &signals, previous: None }, &policy, now);
//! assert_eq!(list_price.amount.to_string(), "22.49");
//!
//! let entry = list_price.entry(1);
//! let shopper = Shopper { prime: true, ..Shopper::at("NY") };
//! assert_eq!(quote(&entry, &policy, &shopper, now, None).final_price.to_string(), "21.37");
//! # Ok(())
//! # }
//! ```
//!
//! Input comes in two stages. Unchecked input is a *draft* ([`ProductDraft`],
//! [`PolicyDraft`](policy::PolicyDraft)); its check returns either the valid value, which is never checked
//! again, or every [`Diagnostic`] at once.
//!
//! Dependencies between the folders run one way: `facts` ← `expression` ← `policy` ← `pricing`.
//!
//! Where next: [`pricing::price`] for the list price, [`policy`] for the document, [`expression`] for the
//! language of rules. Callers: `pricing-core`'s `engine` (writes) and the API's price route (reads).

pub mod diagnostic;
pub mod expression;
pub mod facts;
pub mod policy;
pub mod pricing;

pub use diagnostic::Diagnostic;
pub use facts::Facts;
pub use facts::money::Currency;
pub use facts::price_entry::PriceEntry;
pub use facts::product::{Product, ProductDraft, ProductId};
pub use facts::shopper::Shopper;
pub use facts::signal::Signals;
pub use facts::time_zone::TimeZones;
pub use policy::{DEFAULT_POLICY, PricingPolicy};
pub use pricing::explanation::Explanation;
pub use pricing::price::{ListPrice, price};
pub use pricing::quote::{Quote, quote};
