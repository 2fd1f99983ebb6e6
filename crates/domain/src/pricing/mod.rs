//! How prices are computed, and their explanations.
//!
//! Here: the list price ([`price`]), a shopper's price ([`quote`]), their explanation ([`explanation`]),
//! which is stored (`json`), read ([`used_facts`]) and replayed ([`replay`]), and the effect of a policy on a
//! catalogue ([`simulation`], [`breaker`]). Never here: the meaning of the parts of a policy
//! ([`policy`](crate::policy)).

pub mod apply;
pub mod breaker;
pub mod catalogue_warning;
pub mod event_move;
mod every_shopper;
pub mod explanation;
pub mod final_prices;
pub mod held_prices;
mod json;
mod market_part;
pub mod moves;
mod next_movement;
pub mod price;
pub mod price_state;
pub mod prior_price;
pub mod quote;
pub mod replay;
mod seller_part;
pub mod simulation;
mod target;
pub mod used_facts;
