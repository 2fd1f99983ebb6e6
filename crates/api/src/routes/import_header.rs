//! The header line of a CSV file: the meaning of each column, and all reasons to refuse the file.
//!
//! An unknown column becomes an attribute, which bounds no price. So a name that means a cost, a bound, a
//! quantity, a shopper or a time is refused with what to write, unless it is written `attribute.NAME`.

use std::collections::HashMap;

use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::money::Currency;

use crate::error::ApiError;

/// The most columns of a CSV file.
pub(super) const MAX_COLUMNS: usize = 64;
/// The most columns that an error quotes.
const SHOWN_COLUMNS: usize = 20;
/// The prefix that makes a column an attribute, whatever its name.
const ATTRIBUTE_PREFIX: &str = "attribute.";

/// What a column of a CSV file means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Column {
    ProductId,
    Name,
    Category,
    Brand,
    Currency,
    BasePrice,
    UnitCost,
    FloorPrice,
    CeilingPrice,
    MinimumAdvertisedPrice,
    Attribute(String),
    /// Spreadsheets leave such columns behind; nothing may stand in it.
    Unnamed,
}

/// The columns that do not become attributes, as a header names them.
pub(super) const COLUMN_NAMES: [(&str, Column); 10] = [
    ("product_id", Column::ProductId),
    ("name", Column::Name),
    ("category", Column::Category),
    ("brand", Column::Brand),
    ("currency", Column::Currency),
    ("base_price", Column::BasePrice),
    ("unit_cost", Column::UnitCost),
    ("floor_price", Column::FloorPrice),
    ("ceiling_price", Column::CeilingPrice),
    ("minimum_advertised_price", Column::MinimumAdvertisedPrice),
];

/// The columns that a file must have.
const REQUIRED: [(&str, &str); 3] = [
    ("product_id", "a column with the products' identifiers"),
    ("currency", "a column with ISO 4217 codes"),
    ("base_price", "a column with the prices before any rule"),
];

const UNIT_COST: &str = "unit_cost";
const BASE_PRICE: &str = "base_price";
const FLOOR_PRICE: &str = "floor_price";
const CEILING_PRICE: &str = "ceiling_price";
const ADVERTISED: &str = "minimum_advertised_price";
const RECOMMENDED: &str = "base_price, if it is the price before any rule; a recommended price is not kept";
const REDUCED: &str = "a rule of a policy: a product has one price before any rule";
const QUANTITY: &str = "quantity_tiers of a policy: a product has one row, and its stock comes with events";
const SHOPPER: &str = "an offer rule of a policy with `only`: a product has one price for every shopper";
const TIME: &str = "a rule of a policy with `from` and `until`: a row is true from its import on";

/// Names that other systems use, without punctuation, and what to write instead.
const SYNONYMS: [(&[&str], &str); 10] = [
    (
        &[
            "cost",
            "costs",
            "cogs",
            "costofgoodssold",
            "costofgoods",
            "costperitem",
            "itemcost",
            "costprice",
            "purchaseprice",
            "buyingprice",
            "landedcost",
            "productcost",
            "standardcost",
            "costperunit",
        ],
        UNIT_COST,
    ),
    (
        &["price", "regularprice", "sellingprice", "retailprice", "listprice", "unitprice", "variantprice"],
        BASE_PRICE,
    ),
    (
        &["floor", "pricefloor", "min", "minprice", "minimumprice", "lowestprice", "minimumsellingprice"],
        FLOOR_PRICE,
    ),
    (
        &[
            "ceiling",
            "ceil",
            "cap",
            "pricecap",
            "priceceiling",
            "max",
            "maxprice",
            "maximumprice",
            "highestprice",
        ],
        CEILING_PRICE,
    ),
    (&["map", "mapprice", "minadvertisedprice", "advertisedprice", "minimumadvertised"], ADVERTISED),
    (
        &["msrp", "rrp", "srp", "uvp", "recommendedretailprice", "suggestedretailprice", "compareatprice"],
        RECOMMENDED,
    ),
    (
        &[
            "saleprice",
            "specialprice",
            "discountprice",
            "discountedprice",
            "promoprice",
            "promotionalprice",
            "offerprice",
        ],
        REDUCED,
    ),
    (
        &[
            "quantity",
            "qty",
            "minquantity",
            "minimumquantity",
            "minqty",
            "moq",
            "minimumorderquantity",
            "quantityfrom",
            "fromquantity",
            "quantitybreak",
            "breakquantity",
        ],
        QUANTITY,
    ),
    (
        &[
            "customer",
            "customerid",
            "customergroup",
            "customersegment",
            "segment",
            "channel",
            "saleschannel",
            "market",
            "pricelist",
            "userlocation",
            "location",
        ],
        SHOPPER,
    ),
    (
        &[
            "from",
            "until",
            "validfrom",
            "validuntil",
            "validto",
            "validthrough",
            "effectivefrom",
            "effectivedate",
            "effectiveuntil",
            "startdate",
            "enddate",
            "startsat",
            "endsat",
            "activefrom",
            "activeuntil",
            "salepriceeffectivedate",
        ],
        TIME,
    ),
];

/// The meaning of the columns, or all problems of the header.
pub(super) fn read_header(names: &[String]) -> Result<Vec<Column>, ApiError> {
    let mut names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    if let Some(first) = names.first_mut() {
        *first = first.trim_start_matches('\u{feff}').trim();
    }
    let mut errors: Vec<Diagnostic> = separated_by(&names).into_iter().collect();
    let read = names.iter().map(|name| column(name));
    let columns: Vec<Option<Column>> =
        read.map(|column| column.map_err(|problem| errors.push(problem)).ok()).collect();
    find_repeated(&names, &columns, &mut errors);
    for (name, allowed) in REQUIRED {
        let is_there = |(written, column): (&&str, &Option<Column>)| {
            // A column that has to be renamed is not reported as missing too.
            column.as_ref().and_then(column_name) == Some(name) || meant_by(written) == Some(name)
        };
        if !names.iter().zip(&columns).any(is_there) {
            errors.push(Diagnostic::new(name, "is missing", allowed));
        }
    }
    let columns: Option<Vec<Column>> = columns.into_iter().collect();
    match columns {
        Some(columns) if errors.is_empty() => Ok(columns),
        _ => Err(unusable(&names, errors)),
    }
}

/// The attributes that columns of the file become.
pub(super) fn attributes(columns: &[Column]) -> impl Iterator<Item = &String> {
    columns.iter().filter_map(|column| match column {
        Column::Attribute(name) => Some(name),
        _ => None,
    })
}

/// The error of a header that is not text.
pub(super) fn unreadable(errors: Vec<Diagnostic>) -> ApiError {
    unusable(&[], errors)
}

fn unusable(names: &[&str], errors: Vec<Diagnostic>) -> ApiError {
    let shown: Vec<String> =
        names.iter().take(SHOWN_COLUMNS).map(|name| format!("\"{}\"", shorten(name))).collect();
    let left_out = names.len().saturating_sub(SHOWN_COLUMNS);
    let columns = match (names.len(), left_out) {
        (0, _) => String::new(),
        (_, 0) => format!("; its columns are {}", shown.join(", ")),
        (_, more) => format!("; its columns are {} and {more} more", shown.join(", ")),
    };
    ApiError::UnusableHeader { reason: format!("the header cannot be used{columns}"), errors }
}

/// The problem of a header that is not separated by commas, if the cause is known.
fn separated_by(names: &[&str]) -> Option<Diagnostic> {
    let [only] = names else { return None };
    let problem = match only {
        text if text.contains('\0') => "contains the character NUL: is the file UTF-16?",
        text if text.contains(';') => "has one column: is it separated by semicolons?",
        text if text.contains('\t') => "has one column: is it separated by tabs?",
        text if text.contains('|') => "has one column: is it separated by vertical bars?",
        text if text.starts_with('#') => "is a comment",
        text if text.starts_with("sep=") => "is a note of a spreadsheet program, not the names of columns",
        _ => return None,
    };
    Some(Diagnostic::new(
        "header",
        problem,
        "the first line names the columns, separated by commas, in UTF-8",
    ))
}

fn find_repeated(names: &[&str], columns: &[Option<Column>], errors: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<&Column, &str> = HashMap::new();
    let named = columns.iter().zip(names).filter_map(|(column, name)| column.as_ref().zip(Some(*name)));
    for (column, name) in named.filter(|(column, _)| **column != Column::Unnamed) {
        if let Some(first) = seen.insert(column, name) {
            let problem = match first == name {
                true => "is there twice".to_owned(),
                false => format!("means the same as \"{}\"", shorten(first)),
            };
            errors.push(Diagnostic::new(shorten(name), problem, "each column once"));
        }
    }
}

fn column(name: &str) -> Result<Column, Diagnostic> {
    if name.is_empty() {
        return Ok(Column::Unnamed);
    }
    if let Some(attribute) = name.strip_prefix(ATTRIBUTE_PREFIX).map(str::trim) {
        return match attribute {
            "" => Err(Diagnostic::new(shorten(name), "names no attribute", "attribute.NAME")),
            named => Ok(Column::Attribute(named.to_owned())),
        };
    }
    if let Some((_, column)) = COLUMN_NAMES.into_iter().find(|(known, _)| *known == name) {
        return Ok(column);
    }
    match meant_by(name) {
        None => Ok(Column::Attribute(name.to_owned())),
        // As an attribute it would have no effect: a price would lack its floor.
        Some(meant) => {
            let written = shorten(name);
            let allowed = format!("{meant}; or {ATTRIBUTE_PREFIX}{written}, if an attribute is meant");
            Err(Diagnostic::new(written, "is no column of a product", allowed))
        }
    }
}

fn column_name(column: &Column) -> Option<&'static str> {
    COLUMN_NAMES.into_iter().find(|(_, known)| known == column).map(|(name, _)| name)
}

/// What to write for a name that differs from a known one only by case, blanks, punctuation and a currency,
/// or that is a synonym of one.
fn meant_by(name: &str) -> Option<&'static str> {
    let lowercase = name.to_lowercase();
    let words: Vec<&str> =
        lowercase.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_currency = |word: &&str| Currency::from_code(&word.to_uppercase()).is_ok();
    meant_by_bare(&words.concat()).or_else(|| match words.as_slice() {
        [amount @ .., currency] if is_currency(currency) => meant_by_bare(&amount.concat()),
        _ => None,
    })
}

fn meant_by_bare(bare: &str) -> Option<&'static str> {
    let known = COLUMN_NAMES.into_iter().map(|(name, _)| name).find(|known| known.replace('_', "") == bare);
    let of_others = || SYNONYMS.into_iter().find(|(synonyms, _)| synonyms.contains(&bare));
    known.or_else(|| of_others().map(|(_, meant)| meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Vec<Column>, Vec<String>> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        read_header(&names).map_err(|error| match error {
            ApiError::UnusableHeader { reason, errors } => {
                std::iter::once(reason).chain(errors.iter().map(ToString::to_string)).collect()
            }
            other => vec![format!("{other:?}")],
        })
    }

    #[test]
    fn a_column_similar_to_a_known_one_is_refused_with_its_name() {
        for (known, meant) in COLUMN_NAMES {
            assert_eq!(column(known), Ok(meant));
            for written in [
                known.to_uppercase(),
                known.replace('_', " "),
                known.replace('_', "-"),
                known.replace('_', ""),
                known.replace('e', "E"),
                format!("{known} (USD)"),
                format!("{known}_gbp"),
            ] {
                if written == known {
                    continue;
                }
                let refused = column(&written).map_err(|problem| problem.to_string());
                let expected =
                    format!("{written}: is no column of a product (allowed: {known}; or attribute.{written}");
                assert!(refused.as_ref().is_err_and(|said| said.starts_with(&expected)), "{refused:?}");
            }
        }
    }

    #[test]
    fn synonyms_of_costs_bounds_scopes_and_times_are_refused_with_what_to_write() {
        for (written, meant) in [
            ("cost", "unit_cost"),
            ("Cost per item", "unit_cost"),
            ("cost_of_goods_sold", "unit_cost"),
            ("unit_cost_usd", "unit_cost"),
            ("price", "base_price"),
            ("price_gbp", "base_price"),
            ("MAP", "minimum_advertised_price"),
            ("min_price", "floor_price"),
            ("Floor", "floor_price"),
            ("ceil", "ceiling_price"),
            ("max price", "ceiling_price"),
            ("msrp", "base_price, if"),
            ("sale_price", "a rule of a policy"),
            ("min_quantity", "quantity_tiers"),
            ("customer", "an offer rule"),
            ("customer_group", "an offer rule"),
            ("valid_from", "a rule of a policy with"),
            ("Valid until", "a rule of a policy with"),
        ] {
            let refused = column(written).unwrap_err();
            assert!(refused.allowed.is_some_and(|allowed| allowed.starts_with(meant)), "{written}");
            let on_purpose = column(&format!("attribute.{written}"));
            assert_eq!(on_purpose, Ok(Column::Attribute(written.to_owned())));
        }
        for written in
            ["colour", "department", "base_price_old", "country of origin", "unit.cost.centre", "names"]
        {
            assert_eq!(column(written), Ok(Column::Attribute(written.to_owned())));
        }
        assert!(column("attribute.").is_err());
    }

    #[test]
    fn all_problems_of_a_header_are_reported_at_once() {
        assert_eq!(
            read("Name,Category,Regular price,Weight").unwrap_err(),
            [
                r#"the header cannot be used; its columns are "Name", "Category", "Regular price", "Weight""#,
                "Name: is no column of a product (allowed: name; or attribute.Name, if an attribute is meant)",
                "Category: is no column of a product (allowed: category; or attribute.Category, if an attribute is meant)",
                "Regular price: is no column of a product (allowed: base_price; or attribute.Regular price, if an attribute is meant)",
                "product_id: is missing (allowed: a column with the products' identifiers)",
                "currency: is missing (allowed: a column with ISO 4217 codes)",
            ]
        );
        let twice = read("product_id,currency,base_price,colour,attribute.colour,product_id").unwrap_err();
        assert_eq!(
            twice[1..],
            [
                r#"attribute.colour: means the same as "colour" (allowed: each column once)"#,
                "product_id: is there twice (allowed: each column once)"
            ]
        );
        let wide = ["x"; 25].map(str::to_owned);
        let Err(ApiError::UnusableHeader { reason, .. }) = read_header(&wide) else { panic!() };
        assert!(reason.ends_with("and 5 more"), "{reason}");
    }

    #[test]
    fn other_separators_are_recognised() {
        for (header, what) in [
            ("product_id;currency;base_price", "semicolons"),
            ("product_id\tcurrency\tbase_price", "tabs"),
            ("p\0r\0o\0d\0", "UTF-16"),
            ("sep=;", "semicolons"),
            ("# export of today", "comment"),
        ] {
            let refused = read(header).unwrap_err();
            assert!(refused[1].contains(what), "{refused:?}");
            assert!(refused[0].contains("its columns are"), "{refused:?}");
        }
    }

    #[test]
    fn columns_without_a_name_are_allowed_in_a_header() {
        let columns = read("\u{feff} product_id , currency,\tbase_price,, ").unwrap();
        assert_eq!(columns[3..], [Column::Unnamed, Column::Unnamed]);
    }
}
