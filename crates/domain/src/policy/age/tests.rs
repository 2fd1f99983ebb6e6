//! Tests of ages: a price expires exactly when an age test changes its result.

use proptest::prelude::*;

use super::*;
use crate::expression::variable::RuleKind;
use crate::expression::{Expression, ExpressionError};
use crate::facts::product::{Product, ProductDraft, WrittenNumber};
use crate::facts::signal::{Signal, SignalKind, Signals, Subject};
use crate::facts::time_zone::TimeZones;
use crate::policy::pricing_policy::PricingPolicy;
use crate::pricing::price::price;

fn product() -> Product {
    let draft = ProductDraft {
        product_id: Some("P-1".to_owned()),
        currency: Some("USD".to_owned()),
        base_price: Some(WrittenNumber("100".to_owned())),
        ..ProductDraft::default()
    };
    draft.check().unwrap()
}

fn demand_seen_at(seen_at: DateTime<Utc>) -> Signals {
    let subject = Subject::Product("P-1".to_owned());
    let signal = Signal::new(subject, SignalKind::DemandIndex, Decimal::TWO, seen_at);
    Signals::of_product([signal], None, seen_at)
}

#[test]
fn an_age_may_be_compared_with_a_number_and_nothing_else() {
    for allowed in [
        "demand.age_hours < 24",
        "24.5 >= demand.age_hours",
        "(demand.age_hours ?? 999) < 24",
        "24 > (demand.age_hours ?? 999)",
        "demand.age_hours != null and not (demand.age_hours > 1)",
        "demand.age_hours == null ? 1 : (demand.age_hours < 2 ? 3 : 4)",
    ] {
        let compiled = Expression::compile(allowed, RuleKind::Market);
        assert!(compiled.is_ok(), "{allowed}: {compiled:?}");
    }
    for refused in [
        "demand.age_hours",
        "demand.age_hours + 1 < 24",
        "demand.age_hours == 24",
        "demand.age_hours < stock.level",
        "demand.age_hours < stock.age_hours",
        "demand.age_hours in [1, 2]",
        "demand.age_hours in (1..2)",
        "min([demand.age_hours, 24]) < 3",
        "(demand.age_hours ?? stock.level) < 24",
        "(stock.age_hours ?? demand.age_hours) < 24",
        "true ? demand.age_hours : 1",
    ] {
        let refusal = Expression::compile(refused, RuleKind::Market).unwrap_err();
        assert!(matches!(refusal, ExpressionError::AgeNotCompared(_)), "{refused}: {refusal:?}");
        assert!(refusal.to_string().contains("age_hours < 24\""), "{refusal}");
    }
    assert!(Expression::compile("demand.age_hours < 24", RuleKind::Offer).is_err());
}

proptest! {
    /// The price is unchanged until `valid_until` and changes exactly then, not a microsecond early or late.
    #[test]
    fn a_price_is_valid_until_the_very_instant_at_which_the_answer_changes(
        comparison in proptest::sample::select(vec!["<", "<=", ">", ">="]),
        millionths in 0_u64..50_000_000,
        age_us in 0_i64..200_000_000_000,
        nanos in 0_i64..1_000,
        has_default in any::<bool>(),
    ) {
        let hours = Decimal::new(i64::try_from(millionths).unwrap(), 6);
        let age = if has_default { "(demand.age_hours ?? 999)" } else { "demand.age_hours" };
        let source = format!("name: x\nmarket: [{{ name: r, when: {age} {comparison} {hours}, adjust: +10% }}]");
        let policy = PricingPolicy::from_yaml(&source, 1, &TimeZones::bundled()).unwrap();
        let seen_at = DateTime::from_timestamp(1_790_000_000, 123_456_000).unwrap();
        let (product, signals) = (product(), demand_seen_at(seen_at));
        let facts = Facts { product: &product, signals: &signals, previous: None };
        let at = |instant| price(&facts, &policy, instant);
        let now = seen_at + TimeDelta::microseconds(age_us) + TimeDelta::nanoseconds(nanos);
        let priced = at(now);
        match priced.valid_until {
            Some(until) => {
                prop_assert!(now < until);
                prop_assert_eq!(at(until - TimeDelta::nanoseconds(1)).amount, priced.amount);
                prop_assert_ne!(at(until).amount, priced.amount);
                prop_assert_eq!(at(until).valid_until, None);
            }
            // The result has changed already.
            None => prop_assert_eq!(at(now + TimeDelta::days(9_999)).amount, priced.amount),
        }
    }
}

#[test]
fn what_is_dated_ahead_is_of_now() {
    let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let (product, signals) = (product(), demand_seen_at(now + TimeDelta::minutes(5)));
    let facts = Facts { product: &product, signals: &signals, previous: None };
    assert_eq!(age_hours(Variable::DemandAge, &facts, now), Some(Decimal::ZERO));
    assert_eq!(age_hours(Variable::StockAge, &facts, now), None);
}
