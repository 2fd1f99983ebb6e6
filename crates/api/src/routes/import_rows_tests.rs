//! Tests of both row formats, split at every byte, and of refused rows.

use super::*;

/// Reads the text in chunks of this many bytes: line and product, or line and first problem.
fn rows(format: Format, text: &[u8], piece: usize) -> Result<Vec<String>, ApiError> {
    let mut reader = RowReader::new(format);
    let mut rows = Vec::new();
    for piece in text.chunks(piece) {
        let mut rest = piece;
        while let Some(row) = reader.next_row(&mut rest)? {
            rows.push(row);
        }
        assert!(rest.is_empty());
    }
    while let Some(row) = reader.last_row()? {
        rows.push(row);
    }
    Ok(rows.into_iter().map(shown).collect())
}

fn shown(row: Row) -> String {
    match row.draft {
        Ok(draft) => {
            let WrittenNumber(price) = draft.base_price.unwrap_or(WrittenNumber("-".to_owned()));
            format!("{}: {} {price}", row.line, draft.product_id.unwrap_or_default())
        }
        Err(errors) => {
            format!("{}: {}", row.line, errors.first().map(ToString::to_string).unwrap_or_default())
        }
    }
}

#[test]
fn csv_is_read_in_chunks_of_any_size() {
    let text = "\u{feff}product_id,currency,base_price,name\r\n\
        P-1,USD,1.50,plain\r\n\
        \r\n\
        P-2,USD,2.50,\"two\nlines, \"\"quoted\"\"\"\r\n\
        P-3,USD,3.50\r\n\
        P-4,USD, 4.50 ,ünï\r\n\
        P-5,USD,5.50,no line end";
    let expected = [
        "2: P-1 1.50",
        "4: P-2 2.50",
        "6: row: has 3 fields (allowed: 4 fields, as the header)",
        "7: P-4 4.50",
        "8: P-5 5.50",
    ];
    for piece in 1..text.len() {
        assert_eq!(rows(Format::Csv, text.as_bytes(), piece).unwrap(), expected, "in pieces of {piece}");
    }
}

#[test]
fn ndjson_is_read_in_chunks_of_any_size() {
    let text = "{\"product_id\":\"P-1\",\"base_price\":1.50}\n\n{\"product_id\":\"P-2\",\"base_price\":\"2.5\"}\r\n[1]\n{\"product_id\":\"P-3\"}";
    for piece in 1..text.len() {
        let read = rows(Format::Ndjson, text.as_bytes(), piece).unwrap();
        assert_eq!(read[..2], ["1: P-1 1.50", "3: P-2 2.5"], "in pieces of {piece}");
        assert!(read[2].starts_with("4: row: is a JSON array"), "{read:?}");
        assert_eq!(read[3..], ["5: P-3 -"]);
    }
}

#[test]
fn unknown_columns_become_attributes() {
    let mut reader = RowReader::new(Format::Csv);
    let mut text: &[u8] = b"product_id,currency,base_price,department,colour\nP-1,USD,1,Toys,\n";
    let row = reader.next_row(&mut text).unwrap().unwrap();
    let attributes = row.draft.unwrap().attributes;
    assert_eq!(attributes.into_iter().collect::<Vec<_>>(), [("department".to_owned(), "Toys".to_owned())]);
}

#[test]
fn a_column_without_a_name_is_ignored_while_it_is_empty() {
    let csv = b"product_id,currency,base_price,,\nP-1,USD,1,,\nP-2,USD,2,9.99,\nP-3,USD,3,, \n";
    let expected = [
        "2: P-1 1",
        "3: row: has \"9.99\" in column 4, which has no name (allowed: a name in the header, or nothing in the column)",
        "4: P-3 3",
    ];
    assert_eq!(rows(Format::Csv, csv, 7).unwrap(), expected);
}

#[test]
fn a_row_with_a_wrong_number_of_fields_suggests_the_cause() {
    let csv = "product_id,currency,base_price\r\nP-1,USD\r\n\"P-2,USD,2\r\nP-3,USD,3\r\n\r\nP-4\",USD\r\nP-5,USD,5\r\n";
    let expected = [
        "2: row: has 2 fields (allowed: 3 fields, as the header)",
        "3: row: has 2 fields (allowed: 3 fields, as the header; it goes from line 3 to line 6: is a quote not closed?)",
        "7: P-5 5",
    ];
    for piece in 1..csv.len() {
        assert_eq!(rows(Format::Csv, csv.as_bytes(), piece).unwrap(), expected, "in pieces of {piece}");
    }
    let wide = format!("product_id,currency,base_price\nP-1,USD,1{}\nP-2,USD,2\n", ",".repeat(197));
    let read = rows(Format::Csv, wide.as_bytes(), 7).unwrap();
    assert_eq!(read, ["2: row: has 200 fields (allowed: at most 64)", "3: P-2 2"]);
}

#[test]
fn files_of_other_formats_are_recognised() {
    let refused = |text: &[u8]| match rows(Format::Csv, text, 7) {
        Err(ApiError::UnusableHeader { errors, .. }) => errors[0].to_string(),
        other => format!("{other:?}"),
    };
    assert!(refused(b"\xff\xfep\0r\0\n\0").contains("is UTF-16"));
    assert!(refused(b"p\0r\0o\0d\0\n\0").contains("is the file UTF-16?"));
    let wide = format!("product_id,currency,base_price{}\n", ",x".repeat(67));
    assert_eq!(refused(wide.as_bytes()), "row: has 70 fields (allowed: at most 64)");
    let array = rows(Format::Ndjson, b" [{\"product_id\":\"P-1\"}]\n", 7).unwrap();
    assert!(array[0].starts_with("1: row: is a JSON array (allowed: each product"), "{array:?}");
}

#[test]
fn unusable_headers_are_refused() {
    for header in
        ["", "\n\n", "product_id,currency\n", "product_id,product_id,currency,base_price\n", "\u{fffd}\n"]
    {
        assert!(rows(Format::Csv, header.as_bytes(), 7).is_err(), "{header:?}");
    }
    let wide = format!("product_id,currency,base_price{}\n", ",x".repeat(100));
    assert!(rows(Format::Csv, wide.as_bytes(), 7).is_err());
    assert!(rows(Format::Csv, b"product_id,currency,base_price,\xff\n", 7).is_err());
    assert_eq!(rows(Format::Csv, b"product_id,currency,base_price\n", 7), Ok(Vec::new()));
    assert_eq!(rows(Format::Ndjson, b"", 7), Ok(Vec::new()));
}

#[test]
fn a_row_without_an_end_is_refused_and_the_next_is_read() {
    let long = "x".repeat(10 * MAX_ROW_BYTES);
    let csv = format!("product_id,currency,base_price\n{long},USD,1\nP-2,USD,2\n");
    let read = rows(Format::Csv, csv.as_bytes(), 1_000).unwrap();
    assert!(read[0].starts_with("2: row: is too long"), "{read:?}");
    assert_eq!(read[1..], ["3: P-2 2"]);
    let ndjson = format!("{{\"product_id\":\"{long}\"}}\n{{\"product_id\":\"P-2\"}}\n");
    let read = rows(Format::Ndjson, ndjson.as_bytes(), 1_000).unwrap();
    assert!(read[0].starts_with("1: row: is too long"), "{read:?}");
    assert_eq!(read[1..], ["2: P-2 -"]);
    let open_quote = format!("product_id,currency,base_price\n\"{long}\nP-2,USD,2\n");
    let read = rows(Format::Csv, open_quote.as_bytes(), 1_000).unwrap();
    assert_eq!(read.len(), 1, "{read:?}");
    let commas = format!("product_id,currency,base_price\n{}\nP-2,USD,2\n", ",".repeat(1_000));
    assert_eq!(rows(Format::Csv, commas.as_bytes(), 1_000).unwrap()[1..], ["3: P-2 2"]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_rows_or_refused(text in proptest::collection::vec(proptest::num::u8::ANY, 0..500), piece in 1_usize..50) {
        let _ = rows(Format::Ndjson, &text, piece);
        let mut csv = b"product_id,currency,base_price\n".to_vec();
        csv.extend(&text);
        let _ = rows(Format::Csv, &csv, piece);
        let _ = rows(Format::Csv, &text, piece);
    }
}
