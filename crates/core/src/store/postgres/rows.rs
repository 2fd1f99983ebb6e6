//! Bulk writes to a PostgreSQL database: each column of many rows is an array.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, query, query_scalar, query_with};

use super::super::connection::Connection;
use super::super::error::StoreError;
use super::super::prepared_rows::ProductRows;
use super::prepared::{PostgresPrices, column};

macro_rules! insert_products {
    () => {
        "
    INSERT INTO products (product_id, name, category, brand, currency, base_price, unit_cost, floor_price,
                          ceiling_price, minimum_advertised_price, attributes, updated_at, cost_stated_at)
    SELECT product_id, name, category, brand, currency, base_price::numeric, unit_cost::numeric,
           floor_price::numeric, ceiling_price::numeric, minimum_advertised_price::numeric, attributes::jsonb, $12,
           cost_stated_at
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::text[]) AS name, unnest($3::text[]) AS category,
                 unnest($4::text[]) AS brand, unnest($5::text[]) AS currency, unnest($6::text[]) AS base_price,
                 unnest($7::text[]) AS unit_cost, unnest($8::text[]) AS floor_price,
                 unnest($9::text[]) AS ceiling_price, unnest($10::text[]) AS minimum_advertised_price,
                 unnest($11::text[]) AS attributes, unnest($13::timestamptz[]) AS cost_stated_at) AS written"
    };
}
const ADD_PRODUCTS: &str = concat!(insert_products!(), " ON CONFLICT DO NOTHING");
const PUT_PRODUCTS: &str = concat!(
    insert_products!(),
    "
    ON CONFLICT (product_id) DO UPDATE SET
        name = excluded.name, category = excluded.category, brand = excluded.brand,
        currency = excluded.currency, base_price = excluded.base_price, unit_cost = excluded.unit_cost,
        floor_price = excluded.floor_price, ceiling_price = excluded.ceiling_price,
        minimum_advertised_price = excluded.minimum_advertised_price,
        attributes = excluded.attributes, updated_at = excluded.updated_at,
        cost_stated_at = greatest(excluded.cost_stated_at, products.cost_stated_at)"
);
const NEXT_REVISIONS: &str = "SELECT nextval('price_revisions') FROM generate_series(1, $1)";
const WRITE_PRICES: &str = "
    INSERT INTO prices (product_id, revision, category, currency, base_price, list_price, lowest, highest,
                        policy_version, valid_until, opening_price, opened_on, changed_at, streak_moves,
                        streak_since, priced_at, explanation, explanation_digest, movement, held_by,
                        events_held_since, events_held_reason, events_rejected_by)
    SELECT product_id, revision, category, currency, base_price::numeric, list_price::numeric, lowest::numeric,
           highest::numeric, policy_version, valid_until, opening_price::numeric, opened_on, changed_at,
           streak_moves, streak_since, priced_at, explanation, explanation_digest, movement, held_by,
           events_held_since, events_held_reason, events_rejected_by
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::bigint[]) AS revision,
                 unnest($3::text[]) AS category, unnest($4::text[]) AS currency,
                 unnest($5::text[]) AS base_price, unnest($6::text[]) AS list_price,
                 unnest($7::text[]) AS lowest, unnest($8::text[]) AS highest,
                 unnest($9::bigint[]) AS policy_version, unnest($10::timestamptz[]) AS valid_until,
                 unnest($11::text[]) AS opening_price, unnest($12::date[]) AS opened_on,
                 unnest($13::timestamptz[]) AS changed_at, unnest($14::integer[]) AS streak_moves,
                 unnest($15::timestamptz[]) AS streak_since, unnest($16::timestamptz[]) AS priced_at,
                 unnest($17::text[]) AS explanation, unnest($18::bigint[]) AS explanation_digest,
                 unnest($19::text[]) AS movement, unnest($20::text[]) AS held_by,
                 unnest($21::timestamptz[]) AS events_held_since, unnest($22::text[]) AS events_held_reason,
                 unnest($23::text[]) AS events_rejected_by) AS written
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
             AND excluded.explanation_digest IS DISTINCT FROM prices.explanation_digest";
macro_rules! write_changes {
    () => {
        "
    INSERT INTO price_changes (product_id, revision, old_list_price, new_list_price, currency, policy_version,
                               cause, changed_at)
    SELECT product_id, revision, old_list_price::numeric, new_list_price::numeric, currency, policy_version, cause,
           changed_at
    FROM (SELECT unnest($1::text[]) AS product_id, unnest($2::bigint[]) AS revision,
                 unnest($3::text[]) AS old_list_price, unnest($4::text[]) AS new_list_price,
                 unnest($5::text[]) AS currency, unnest($6::bigint[]) AS policy_version,
                 unnest($7::text[]) AS cause, unnest($8::timestamptz[]) AS changed_at,
                 unnest($9::bigint[]) AS price_revision) AS written"
    };
}
// For prices that all took effect because their revisions are new. The other statement takes twice as long.
const WRITE_CHANGES: &str = write_changes!();
// Writes changes only of prices that are in effect: one that lost to a newer revision was never the product's
// price. A duplicate change is the same change written twice.
const WRITE_CHANGES_IN_EFFECT: &str = concat!(
    write_changes!(),
    "
    WHERE EXISTS (SELECT 1 FROM prices
                  WHERE prices.product_id = written.product_id AND prices.revision = written.price_revision)
    ON CONFLICT DO NOTHING"
);

pub(in super::super) async fn put_products(
    connection: &mut Connection<Postgres>,
    products: &ProductRows,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    insert_products(connection, PUT_PRODUCTS, products, now).await?;
    Ok(())
}

pub(in super::super) async fn add_products(
    connection: &mut Connection<Postgres>,
    products: &ProductRows,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    insert_products(connection, ADD_PRODUCTS, products, now).await
}

async fn insert_products(
    connection: &mut Connection<Postgres>,
    statement: &'static str,
    products: &ProductRows,
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let rows = &products.rows;
    if rows.is_empty() {
        return Ok(0);
    }
    let insert = query(statement)
        .bind(column(rows, |row| &row.product_id))
        .bind(column(rows, |row| &row.name))
        .bind(column(rows, |row| &row.category))
        .bind(column(rows, |row| &row.brand))
        .bind(column(rows, |row| row.currency))
        .bind(column(rows, |row| &row.base_price))
        .bind(column(rows, |row| &row.unit_cost))
        .bind(column(rows, |row| &row.floor_price))
        .bind(column(rows, |row| &row.ceiling_price))
        .bind(column(rows, |row| &row.minimum_advertised_price))
        .bind(column(rows, |row| &row.attributes))
        .bind(now)
        .bind(column(rows, |row| row.cost_stated_at));
    let outcome = connection.run(|connection| insert.execute(connection)).await?;
    Ok(outcome.rows_affected())
}

pub(in super::super) async fn next_revisions(
    connection: &mut Connection<Postgres>,
    count: i64,
) -> Result<Vec<i64>, StoreError> {
    let draw = query_scalar(NEXT_REVISIONS).bind(count);
    let mut revisions: Vec<i64> = connection.run(|connection| draw.fetch_all(connection)).await?;
    // Without ORDER BY, the order of rows is undefined.
    revisions.sort_unstable();
    Ok(revisions)
}

pub(in super::super) async fn write_prices(
    connection: &mut Connection<Postgres>,
    written: PostgresPrices,
) -> Result<(), StoreError> {
    let PostgresPrices { count, prices, changes } = written;
    let Some(prices) = prices else { return Ok(()) };
    let write = query_with(WRITE_PRICES, prices);
    let written = connection.run(|connection| write.execute(connection)).await?;
    if let Some(changes) = changes {
        let all_in_effect = written.rows_affected() == count;
        let write_changes = if all_in_effect { WRITE_CHANGES } else { WRITE_CHANGES_IN_EFFECT };
        let write = query_with(write_changes, changes);
        connection.run(|connection| write.execute(connection)).await?;
    }
    Ok(())
}
