//! Tests of format detection and of the summary.

use super::*;

#[test]
fn the_format_is_detected_from_the_name() {
    for (name, format) in [
        ("products.csv", Some(Format::Csv)),
        ("PRODUCTS.CSV", Some(Format::Csv)),
        ("a.b/products.ndjson", Some(Format::Ndjson)),
        ("products.jsonl", Some(Format::Ndjson)),
        ("products.json", None),
        ("products.csv.gz", None),
        ("products", None),
        ("-", None),
    ] {
        assert_eq!(Format::of_path(Path::new(name)), format, "{name}");
    }
}

#[test]
fn the_summary_lists_what_failed() -> Result<()> {
    let summary = serde_json::from_str(
        r#"{"rows": 20000, "created": 19990, "updated": 5, "unchanged": 2, "failed": 3, "dry_run": false,
            "errors": [{"line": 17, "product_id": "P-3", "errors": [
                {"field": "base_price", "problem": "\"-3\" is not above 0", "allowed": "up to 999999999999.99"},
                {"field": "currency", "problem": "unknown currency \"XXX\""}]},
                {"line": 18, "product_id": null, "errors": [{"field": "product_id", "problem": "is missing"}]}],
            "errors_left_out": 1}"#,
    )?;
    insta::assert_snapshot!(render(&summary), @r#"
    imported: 20000 rows
      created       19990
      updated           5
      unchanged         2
      failed            3
    line 17: base_price: "-3" is not above 0 (allowed: up to 999999999999.99)
    line 17: currency: unknown currency "XXX"
    line 18: product_id: is missing
    and 1 more row failed
    "#);
    Ok(())
}

#[test]
fn no_more_than_twenty_rows_are_shown() -> Result<()> {
    let row = r#"{"line": 2, "product_id": null, "errors": [{"field": "name", "problem": "is too long"}]}"#;
    let rows = vec![row; 25].join(",");
    let summary = serde_json::from_str(&format!(
        r#"{{"rows": 130, "created": 0, "updated": 0, "unchanged": 0, "failed": 130, "dry_run": true,
             "errors": [{rows}], "errors_left_out": 105}}"#
    ))?;
    let text = render(&summary);
    assert_eq!(text.matches("is too long").count(), 20, "{text}");
    assert!(text.starts_with("checked, nothing written: 130 rows"), "{text}");
    assert!(text.ends_with("and 110 more rows failed"), "{text}");
    Ok(())
}

#[test]
fn probable_mistakes_are_warnings() -> Result<()> {
    let summary = serde_json::from_str(
        r#"{"rows": 9, "created": 0, "updated": 7, "unchanged": 0, "repeated": 1, "failed": 1, "not_compared": 2,
            "dry_run": true, "attributes": ["colour", "department"],
            "warnings": [{"warning": "BGN is withdrawn; EUR has taken its place", "line": 2, "rows": 3}],
            "lost": {"unit_cost": 12, "floor_price": 1, "ceiling_price": 0, "minimum_advertised_price": 0,
                     "product_ids": ["P-1","P-2","P-3","P-4","P-5","P-6","P-7","P-8","P-9","P-10","P-11"],
                     "product_ids_left_out": 1},
            "errors": [{"line": 5, "product_id": "P-1", "errors": [
                {"field": "product_id", "problem": "is in line 2 already, with other values; that row counts"}]}],
            "errors_left_out": 0}"#,
    )?;
    insta::assert_snapshot!(render(&summary), @r"
    checked, nothing written: 9 rows
      created           0
      updated           7
      unchanged         0
      repeated          1
      failed            1
    as attributes: colour, department
    12 products would lose their unit cost
    1 product would lose its floor price
    these are P-1, P-2, P-3, P-4, P-5, P-6, P-7, P-8, P-9, P-10 and 2 more
    warning: BGN is withdrawn; EUR has taken its place (line 2 and 2 more)
    warning: 2 rows were not compared with all earlier ones: a product may be there twice
    line 5: product_id: is in line 2 already, with other values; that row counts
    ");
    Ok(())
}

#[test]
fn the_moves_are_shown_and_what_needs_approval() -> Result<()> {
    let summary = serde_json::from_str(
        r#"{"rows": 100, "created": 1, "updated": 98, "unchanged": 1, "failed": 0, "dry_run": true,
            "moves": {"up": 1, "down": 97, "unchanged": 1, "frozen": 2, "median_change_percent": -99,
                "distribution": [{"from_percent": null, "to_percent": -50, "products": 97},
                    {"from_percent": 0, "to_percent": 0, "products": 1}, {"from_percent": 5, "to_percent": 10, "products": 1}],
                "biggest_moves": [{"product_id": "P-7", "currency": "USD", "list_price": 10.00, "simulated_list_price": 0.10,
                    "change_percent": -99, "outcome": "priced", "guardrails": []}]},
            "held": ["97 of 100 products would move by more than 10% (allowed: 20% of them)"],
            "errors": [], "errors_left_out": 0}"#,
    )?;
    insta::assert_snapshot!(render(&summary), @r"
    checked, nothing written: 100 rows
      created           1
      updated          98
      unchanged         1
      failed            0
    list prices would move: 1 up, 97 down, 1 not, 2 frozen; the median by -99%
         below -50%        97 ████████████████████████████████████████
               none         1 █
           +5..+10%         1 █
    the biggest moves
      P-7                       10.00 ->       0.10 USD      -99%
    importing it needs approval (--approved-by NAME): 97 of 100 products would move by more than 10% (allowed: 20% of them)
    ");
    Ok(())
}

#[test]
fn an_import_that_moves_nothing_shows_no_moves() -> Result<()> {
    let summary = serde_json::from_str(
        r#"{"rows": 2, "created": 1, "updated": 1, "unchanged": 0, "failed": 0, "dry_run": false,
            "moves": {"up": 0, "down": 0, "unchanged": 1, "frozen": 0, "median_change_percent": 0,
                "distribution": [{"from_percent": 0, "to_percent": 0, "products": 1}], "biggest_moves": []},
            "held": [], "errors": [], "errors_left_out": 0}"#,
    )?;
    assert!(!render(&summary).contains("prices"), "{}", render(&summary));
    Ok(())
}
