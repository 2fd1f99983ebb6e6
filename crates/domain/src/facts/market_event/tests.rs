use proptest::prelude::*;

use super::*;

fn received_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 123_456_789).unwrap()
}

fn check(json: &str) -> Result<MarketEvent, Vec<String>> {
    let draft = EventDraft::read(json.as_bytes()).map_err(|error| vec![error.to_string()])?;
    draft.check(received_at()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn event(event_type: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"1","source":"/shop","type":"pricing.{event_type}.v1","data":{data}}}"#
    )
}

fn expiring(event_type: &str, data: &str, expires: &str) -> String {
    event(event_type, data).replace("\"data\"", &format!("\"expires\":\"{expires}\",\"data\""))
}

#[test]
fn a_refusal_names_the_fields_of_this_type_only() {
    let problems = check(&event("stock_level", r#"{"product_id":"P-1","stock":3}"#)).unwrap_err();
    assert!(problems[0].ends_with("(allowed: product_id, level)"), "{problems:?}");
}

#[test]
fn a_withdrawal_is_a_fact_that_has_expired_when_it_was_true() {
    for (data, kind, source) in [
        (
            r#"{"product_id":"P-1","kind":"competitor_price","competitor":"acme"}"#,
            SignalKind::CompetitorPrice,
            "acme",
        ),
        (r#"{"category":"toys","kind":"demand_index"}"#, SignalKind::DemandIndex, ""),
        (r#"{"product_id":"P-1","kind":"stock_level"}"#, SignalKind::StockLevel, ""),
        (r#"{"product_id":"P-1","kind":"unit_cost"}"#, SignalKind::UnitCost, ""),
        (r#"{"product_id":"P-1","kind":"sales"}"#, SignalKind::UnitsSold, ""),
    ] {
        let event = check(&event("fact_withdrawn", data)).unwrap();
        let Change::Signal(signal) = &event.change else { panic!("{event:?} is no signal") };
        assert_eq!(
            (signal.kind, signal.source.as_str(), signal.is_withdrawn()),
            (kind, source, true),
            "{data}"
        );
        assert_eq!(check(&event.to_json()).unwrap(), event, "{data}");
    }
}

#[test]
fn a_price_says_its_currency_and_until_when_it_holds() {
    let json = expiring(
        "competitor_price",
        r#"{"product_id":"P-1","competitor":"acme","price":41.9,"currency":"EUR","in_stock":true}"#,
        "2036-01-31T13:00:00.1234567+01:00",
    );
    let event = check(&json).unwrap();
    let Change::Signal(signal) = &event.change else { panic!("{event:?} is no signal") };
    assert_eq!(signal.currency.map(Currency::code), Some("EUR"));
    assert_eq!(signal.expires_at, Some("2036-01-31T12:00:00.123456Z".parse().unwrap()));
    assert_eq!(signal.event_source.as_deref(), Some("/shop"));
    assert_eq!(check(&event.to_json()).unwrap(), event);
}

#[test]
fn each_type_is_read_with_exact_digits() {
    let table = [
        ("competitor_price", r#"{"product_id":"P-1","competitor":"acme","price":41.90}"#, "41.9"),
        (
            "competitor_price",
            r#"{"product_id":"P-1","competitor":"acme","price":"123456789012.123456"}"#,
            "123456789012.123456",
        ),
        ("demand_index", r#"{"category":"toys","index":1.25}"#, "1.25"),
        ("demand_index", r#"{"product_id":"P-1","index":0}"#, "0"),
        ("stock_level", r#"{"product_id":"P-1","level":12.5}"#, "12.5"),
        ("unit_cost", r#"{"product_id":"P-1","cost":0.000001}"#, "0.000001"),
        ("location_factor", r#"{"location":"NY","factor":0.95}"#, "0.95"),
    ];
    for (event_type, data, value) in table {
        let checked = check(&event(event_type, data)).unwrap();
        let Change::Signal(signal) = &checked.change else { panic!("{checked:?} is no signal") };
        assert_eq!(signal.value.to_string(), value, "{data}");
        assert_eq!(signal.observed_at, received_at().trunc_subsecs(6));
    }
}

#[test]
fn white_space_around_a_name_is_no_part_of_it_and_an_exponent_only_moves_the_point() {
    for (event_type, spaced, plain) in [
        (
            "competitor_price",
            r#"{"product_id":" P-1 ","competitor":" acme","price":4.19E+1}"#,
            r#"{"product_id":"P-1","competitor":"acme","price":41.90}"#,
        ),
        ("demand_index", r#"{"category":"toys ","index":12E-1}"#, r#"{"category":"toys","index":1.2}"#),
        ("location_factor", r#"{"location":" ZH","factor":1.2}"#, r#"{"location":"ZH","factor":1.2}"#),
        ("recalculation_requested", r#"{"category":" toys"}"#, r#"{"category":"toys"}"#),
        ("catalogue_changed", r#"{"product_ids":["P-1 "]}"#, r#"{"product_ids":["P-1"]}"#),
    ] {
        assert_eq!(check(&event(event_type, spaced)), check(&event(event_type, plain)), "{spaced}");
    }
    assert!(check(&event("location_factor", r#"{"location":" ","factor":1}"#)).is_err());
}

#[test]
fn a_recalculation_has_a_scope() {
    let scope = |data| match check(&event("recalculation_requested", data)).unwrap().change {
        Change::RecalculationRequested { scope } => scope,
        other => panic!("{other:?}"),
    };
    assert_eq!(scope("{}"), RecalculationScope::All);
    assert_eq!(scope("null"), RecalculationScope::All);
    assert_eq!(scope(r#"{"category":"toys"}"#), RecalculationScope::Category("toys".to_owned()));
    assert_eq!(
        scope(r#"{"product_ids":["P-1"]}"#),
        RecalculationScope::Products(vec![ProductId::parse("P-1").unwrap()])
    );
    let released = RecalculationScope::Released(Box::new(RecalculationScope::Category("toys".to_owned())));
    assert_eq!(scope(r#"{"category":"toys","release":true}"#), released);
    assert_eq!(scope(r#"{"release":false}"#), RecalculationScope::All);
    // What is published is read back.
    let id = EventId { source: "/test".to_owned(), id: "1".to_owned() };
    let change = Change::RecalculationRequested { scope: released };
    let event = MarketEvent { id, time: received_at().trunc_subsecs(6), change };
    let written = event.to_json();
    assert_eq!(EventDraft::read(written.as_bytes()).unwrap().check(received_at()).unwrap(), event);
}

#[test]
fn what_is_wrong_is_said_with_its_field() {
    let too_many = format!(r#"{{"product_ids":[{}]}}"#, vec![r#""P-1""#; 1_001].join(","));
    let table = [
        (r#"{}"#.to_owned(), "specversion"),
        (r#"{"specversion":"0.3","id":"1","source":"s","type":"pricing.recalculation_requested.v1"}"#.to_owned(), "specversion"),
        (r#"{"specversion":"1.0","source":"s","type":"pricing.recalculation_requested.v1"}"#.to_owned(), "id"),
        (r#"{"specversion":"1.0","id":"1","type":"pricing.recalculation_requested.v1"}"#.to_owned(), "source"),
        (r#"{"specversion":"1.0","id":"a\nb","source":"s","type":"pricing.recalculation_requested.v1"}"#.to_owned(), "id"),
        (r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1","time":"noon"}"#.to_owned(), "time"),
        (r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1","datacontenttype":"text/xml"}"#.to_owned(), "datacontenttype"),
        (r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1","time":"9999-12-31T23:59:59-01:00"}"#.to_owned(), "time"),
        (r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1","time":"0000-01-01T00:00:00Z"}"#.to_owned(), "time"),
        (r#"{"specversion":"1.0","id":"1","source":"s","type":"pricing.recalculation_requested.v1","data_base64":"e30="}"#.to_owned(), "data_base64"),
        (event("weather", "{}"), "type"),
        (event("recalculation_requested", "[]"), "data"),
        (event("recalculation_requested", " [null]"), "data"),
        (event("competitor_price", "{}"), "data.price"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":0}"#), "data.price"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":-1}"#), "data.price"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":1e400}"#), "data.price"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":1.1234567}"#), "data.price"),
        (event("competitor_price", r#"{"product_id":"a b","competitor":"a","price":1}"#), "data.product_id"),
        (event("competitor_price", r#"{"product_id":"P-1","price":1}"#), "data.competitor"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":1,"level":3}"#), "data.level"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","price":1,"currency":"USX"}"#), "data.currency"),
        (event("stock_level", r#"{"product_id":"P-1","level":1,"currency":"USD"}"#), "data.currency"),
        (event("fact_withdrawn", r#"{"product_id":"P-1"}"#), "data.kind"),
        (event("fact_withdrawn", r#"{"product_id":"P-1","kind":"weather"}"#), "data.kind"),
        (event("fact_withdrawn", r#"{"product_id":"P-1","kind":"competitor_price"}"#), "data.competitor"),
        (event("fact_withdrawn", r#"{"product_id":"P-1","kind":"sales","competitor":"acme"}"#), "data.competitor"),
        (event("fact_withdrawn", r#"{"category":"toys","kind":"stock_level"}"#), "data.product_id"),
        (expiring("fact_withdrawn", r#"{"product_id":"P-1","kind":"sales"}"#, "2036-01-31T12:00:00Z"), "expires"),
        (expiring("location_factor", r#"{"location":"NY","factor":1}"#, "2036-01-31T12:00:00Z"), "expires"),
        (expiring("sales", r#"{"product_id":"P-1","units_sold":1}"#, "tomorrow"), "expires"),
        // It expires before its own time.
        (expiring("sales", r#"{"product_id":"P-1","units_sold":1}"#, "2026-09-21T14:13:20.123456Z"), "expires"),
        (event("competitor_price", r#"{"product_id":"P-1","competitor":"a","prize":1}"#), "data.prize"),
        (event("demand_index", r#"{"product_id":"P-1","index":1001}"#), "data.index"),
        (event("demand_index", r#"{"product_id":"P-1","category":"toys","index":1}"#), "data.category"),
        (event("location_factor", r#"{"location":"","factor":1}"#), "data.location"),
        (event("catalogue_changed", r#"{"product_ids":[]}"#), "data.product_ids"),
        (event("catalogue_changed", &too_many), "data.product_ids"),
        (event("catalogue_changed", r#"{"product_ids":["P-1",""]}"#), "data.product_ids[1]"),
        (event("policy_published", r#"{"version":0}"#), "data.version"),
        (event("policy_published", "{}"), "data.version"),
    ];
    for (json, field) in table {
        let problems = check(&json).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.starts_with(&format!("{field}:"))),
            "{json}: {problems:?}"
        );
    }
}

#[test]
fn unusual_times_are_read_and_written_in_the_usual_form() {
    for (time, expected) in [
        // A leap second becomes the next second.
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2026-06-01t12:34:60z", "2026-06-01T12:35:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        let json = event("stock_level", r#"{"product_id":"P-1","level":1}"#)
            .replace("\"data\"", &format!("\"time\":\"{time}\",\"data\""));
        let event = check(&json).unwrap();
        assert_eq!(check(&event.to_json()).unwrap(), event, "{time}");
        assert!(event.to_json().contains(expected), "{time}: {}", event.to_json());
    }
}

#[test]
fn a_list_is_not_an_event() {
    let list = r#" ["1.0","1","/shop","pricing.recalculation_requested.v1",null,null,null,null]"#;
    assert_eq!(check(list).unwrap_err(), ["a list is not an event"]);
}

/// The reason events are not parsed with simd-json. If this fails, simd-json now preserves digits.
#[test]
fn only_serde_json_keeps_the_digits() {
    #[derive(Debug, Deserialize)]
    struct Written {
        price: WrittenNumber,
    }
    let json = br#"{"price":123456789012.123456}"#;
    assert_eq!(serde_json::from_slice::<Written>(json).unwrap().price.0, "123456789012.123456");
    let other = simd_json::serde::from_slice::<Written>(&mut json.to_vec());
    assert!(other.is_err(), "{other:?}");
}

#[test]
fn unknown_attributes_are_ignored() {
    let json = event("recalculation_requested", "{}").replace("\"id\"", "\"traceparent\":\"00-1\",\"id\"");
    assert!(check(&json).is_ok());
}

#[test]
fn the_future_is_refused_where_events_come_in() {
    let now = received_at();
    let mut event = MarketEvent::recalculate_all(EventId { source: "s".to_owned(), id: "1".to_owned() }, now);
    assert_eq!(event.check_time(now), Ok(()));
    event.time = now + TimeDelta::minutes(5);
    assert_eq!(event.check_time(now), Ok(()));
    event.time += TimeDelta::microseconds(1);
    assert!(event.check_time(now).is_err());
}

#[test]
fn an_events_wire_form_changes_only_on_purpose() {
    let json = event("competitor_price", r#"{"product_id":"P-1","competitor":"acme","price":41.90}"#);
    insta::assert_snapshot!(check(&json).unwrap().to_json());
}

fn any_change() -> impl Strategy<Value = (SignalKind, Subject)> {
    let product = || Subject::Product("P-1".to_owned());
    prop_oneof![
        Just((SignalKind::CompetitorPrice, product())),
        Just((SignalKind::DemandIndex, product())),
        Just((SignalKind::DemandIndex, Subject::Category("\"toys\" & ünïcode".to_owned()))),
        Just((SignalKind::StockLevel, product())),
        Just((SignalKind::UnitCost, product())),
        Just((SignalKind::LocationFactor, Subject::Location("NY".to_owned()))),
    ]
}

proptest! {
    #[test]
    fn an_event_is_read_as_it_was_written(
        (kind, subject) in any_change(),
        units in 1_i64..100_000_000,
        source in "[ -~]{1,40}",
        id in "[ -~äß中]{1,30}",
        seconds in 0_i64..2_000_000_000,
        micros in 0_u32..1_000_000,
    ) {
        let time = DateTime::from_timestamp(seconds, micros * 1_000).unwrap();
        let competitor = if kind == SignalKind::CompetitorPrice { "a \"shop\"".to_owned() } else { String::new() };
        let value = Decimal::new(units, 6).normalize();
        let signal = Signal { source: competitor, event_source: Some(source.clone()), ..Signal::new(subject, kind, value, time) };
        let event = MarketEvent { id: EventId { source, id }, time, change: Change::Signal(signal) };
        let draft = EventDraft::read(event.to_json().as_bytes()).unwrap();
        prop_assert_eq!(draft.check(received_at()).unwrap(), event);
    }
}
