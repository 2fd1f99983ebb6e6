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
