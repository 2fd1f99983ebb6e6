//! The pricing domain: what a price is and how it comes about.
//!
//! Here: the nouns of the business and the two functions that matter, [`price::price`] (facts and policy
//! become a list price, with its explanation) and [`quote::quote`] (a list price becomes the answer to one
//! shopper). Never here: async, I/O, a clock, randomness or logging. `now` is an argument, so the same inputs
//! give the same price and the same explanation on every machine, today and at a replay.
//!
//! Input comes in two stages. What somebody wrote is a *draft* ([`product::ProductDraft`],
//! [`policy::PolicyDraft`]); checking it gives either the finished thing, which is never checked again, or
//! every [`diagnostic::Diagnostic`] at once.
//!
//! Where next: [`price`] for the list price, [`policy`] for the document a pricing team writes,
//! [`expression`] for what a rule may say. Who calls this: `reprice` (writes) and the API's price route
//! (reads).

pub mod action;
mod age;
pub mod apply;
mod arithmetic;
pub mod circuit_breaker;
pub mod diagnostic;
mod evaluate;
mod event_json;
mod every_shopper;
pub mod explanation;
pub mod expression;
mod expression_calls;
mod expression_check;
mod expression_operators;
mod expression_syntax;
mod fuse;
pub mod guardrail;
pub mod instant;
mod json;
mod kinds;
pub mod ladder;
mod local_time;
pub mod market_event;
pub mod money;
pub mod policy;
mod policy_document;
mod policy_places;
pub mod price;
pub mod prior_price;
pub mod product;
pub mod product_tag;
pub mod quote;
pub mod recalculation;
pub mod reference;
pub mod rounding;
pub mod rule;
pub mod selector;
pub mod signal;
pub mod simulation;
pub mod surge;
pub mod time_zone;
pub mod used_facts;
pub mod variable;
pub mod view;
pub mod warning;
pub mod window;
