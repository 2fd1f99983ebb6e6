//! `pricing doctor --prices`: compares the prices that are served with those that are stored.

use pricing_wire::price_difference::{PriceDifferenceAnswer, PriceDifferencesAnswer, PriceDifferencesQuery};

use super::{Finding, Status};
use crate::client::{Client, ClientError};
use crate::output;

/// The differences that are shown; all are counted.
const MAX_SHOWN: usize = 1_000;

/// Compares all prices, page by page.
pub(super) async fn compare(client: &Client) -> Result<Finding, ClientError> {
    let mut query = PriceDifferencesQuery::default();
    let (mut compared, mut found) = (0, 0);
    let mut differences = Vec::new();
    loop {
        let request = client.get(&["api", "v1", "prices", "differences"]).query(&query);
        let page: PriceDifferencesAnswer = client.read(&client.send(request).await?)?;
        compared += page.compared;
        found += page.differences.len();
        let room = MAX_SHOWN.saturating_sub(differences.len());
        differences.extend(page.differences.into_iter().take(room));
        match page.next_after {
            Some(next) => query.after = Some(next),
            None => return Ok(finding(compared, found, differences)),
        }
    }
}

/// The finding about this many stored prices and differences, with the first differences.
fn finding(compared: u64, found: usize, differences: Vec<PriceDifferenceAnswer>) -> Finding {
    let compared = format!("{compared} stored prices compared with this API's memory and with Redis");
    if found == 0 {
        return Finding::ok("prices", format!("{compared}; what is served is what is stored"));
    }
    let detail = format!("{compared}; entries that are served and are not what is stored: {found}");
    let advice = "`pricing recalculate` replaces older entries; docs/runbook.md, \"Served prices differ from stored ones\", says what to do with others";
    Finding { differences, ..Finding::bad("prices", Status::Failed, detail, advice) }
}

/// The differences as a table.
pub(super) fn table(differences: &[PriceDifferenceAnswer]) -> String {
    let mut table = output::table(["product", "where", "served", "revision", "stored", "revision"]);
    for difference in differences {
        let served = difference.served_list_price;
        let served = served.map_or_else(|| "no such product".to_owned(), |price| price.to_string());
        table.add_row([
            difference.product_id.clone(),
            difference.place.clone(),
            served,
            difference.served_revision.to_string(),
            difference.stored_list_price.to_string(),
            difference.stored_revision.to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::super::render;
    use super::*;

    #[test]
    fn differences_are_counted_and_shown() {
        let difference = |served_list_price: Option<&str>| PriceDifferenceAnswer {
            product_id: "P-1".to_owned(),
            place: "redis".to_owned(),
            served_revision: 7,
            stored_revision: 9,
            served_list_price: served_list_price.map(|price| price.parse().unwrap()),
            stored_list_price: "10.00".parse().unwrap(),
        };
        let findings =
            [finding(2, 0, Vec::new()), finding(2, 2, vec![difference(Some("1.23")), difference(None)])];
        insta::assert_snapshot!(strip_str(&render(&findings)));
    }
}
