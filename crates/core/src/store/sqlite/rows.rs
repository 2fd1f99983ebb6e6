//! Bulk writes to a SQLite file. The transaction holds the file's lock, so rows need none.

use chrono::{DateTime, Utc};
use sqlx::{Sqlite, query_scalar};

use super::super::connection::Connection;
use super::super::error::StoreError;
use super::super::prepared_rows::ProductRows;
use super::prepared::{SqlitePrices, product_rows};

const PUT_PRODUCTS: &str = "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, cost_stated_at, updated_at) ";
const REPLACE_PRODUCT: &str = "
    ON CONFLICT (product_id) DO UPDATE SET
        name = excluded.name, category = excluded.category, brand = excluded.brand,
        currency = excluded.currency, base_price = excluded.base_price, unit_cost = excluded.unit_cost,
        floor_price = excluded.floor_price, ceiling_price = excluded.ceiling_price,
        minimum_advertised_price = excluded.minimum_advertised_price,
        attributes = excluded.attributes, updated_at = excluded.updated_at,
        cost_stated_at = max(coalesce(excluded.cost_stated_at, products.cost_stated_at),
                             coalesce(products.cost_stated_at, excluded.cost_stated_at))";
const NEXT_REVISIONS: &str =
    "UPDATE price_revisions SET last_revision = last_revision + $1 RETURNING last_revision";
const WRITE_PRICES: &str = "
    INSERT INTO prices (product_id, revision, category, currency, base_price, list_price, lowest, highest,
                        policy_version, valid_until, opening_price, opened_on, changed_at, streak_moves,
                        streak_since, priced_at, explanation, explanation_digest, movement, held_by,
                        events_held_since, events_held_reason, events_rejected_by) ";
const UNLESS_OLDER: &str = "
    ON CONFLICT (product_id) DO UPDATE SET
        revision = excluded.revision, category = excluded.category, currency = excluded.currency,
        base_price = excluded.base_price, list_price = excluded.list_price, lowest = excluded.lowest,
        highest = excluded.highest, policy_version = excluded.policy_version,
        valid_until = excluded.valid_until, opening_price = excluded.opening_price,
        opened_on = excluded.opened_on, changed_at = excluded.changed_at, streak_moves = excluded.streak_moves,
        streak_since = excluded.streak_since, priced_at = excluded.priced_at, explanation = excluded.explanation,
        explanation_digest = excluded.explanation_digest, movement = excluded.movement, held_by = excluded.held_by,
        events_held_since = excluded.events_held_since, events_held_reason = excluded.events_held_reason,
        events_rejected_by = excluded.events_rejected_by
    WHERE excluded.revision > prices.revision
          OR excluded.revision = prices.revision AND excluded.list_price = prices.list_price
             AND excluded.explanation_digest IS NOT prices.explanation_digest";
// A duplicate change is the same change written twice.
const WRITE_CHANGES: (&str, &str) = (
    "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT column1, column2, column3, column4, column5, column6, column7, column8 FROM (",
    ") WHERE true
    ON CONFLICT DO NOTHING",
);
// Writes changes only of prices that are in effect: one that lost to a newer revision was never the product's
// price.
const WRITE_CHANGES_IN_EFFECT: (&str, &str) = (
    "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT column1, column2, column3, column4, column5, column6, column7, column8 FROM (",
    ")
    WHERE EXISTS (SELECT 1 FROM prices WHERE product_id = column1 AND revision = column9)
    ON CONFLICT DO NOTHING",
);

pub(in super::super) async fn put_products(
    connection: &mut Connection<Sqlite>,
    products: ProductRows,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    for rows in product_rows(products, now)? {
        let put = rows.into_query(PUT_PRODUCTS, REPLACE_PRODUCT);
        connection.run(|connection| put.execute(connection)).await?;
    }
    Ok(())
}

pub(in super::super) async fn add_products(
    connection: &mut Connection<Sqlite>,
    products: ProductRows,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let mut added = 0;
    for rows in product_rows(products, now)? {
        let add = rows.into_query(PUT_PRODUCTS, "ON CONFLICT DO NOTHING");
        added += connection.run(|connection| add.execute(connection)).await?.rows_affected();
    }
    Ok(added)
}

pub(in super::super) async fn next_revisions(
    connection: &mut Connection<Sqlite>,
    count: i64,
) -> Result<Vec<i64>, StoreError> {
    let draw = query_scalar(NEXT_REVISIONS).bind(count);
    let last: i64 = connection.run(|connection| draw.fetch_one(connection)).await?;
    Ok((last - count + 1..=last).collect())
}

pub(in super::super) async fn write_prices(
    connection: &mut Connection<Sqlite>,
    written: SqlitePrices,
) -> Result<(), StoreError> {
    let SqlitePrices { count, prices, changes } = written;
    let mut in_effect = 0;
    for rows in prices {
        let write = rows.into_query(WRITE_PRICES, UNLESS_OLDER);
        in_effect += connection.run(|connection| write.execute(connection)).await?.rows_affected();
    }
    let (insert, unless) = if in_effect == count { WRITE_CHANGES } else { WRITE_CHANGES_IN_EFFECT };
    for rows in changes {
        let write = rows.into_query(insert, unless);
        connection.run(|connection| write.execute(connection)).await?;
    }
    Ok(())
}
