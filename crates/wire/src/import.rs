//! Imports of products: counts, moves of list prices, warnings and refused rows.

use pricing_domain::pricing::simulation::Simulation;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::amount;
use crate::problem::FieldError;
use crate::simulation::{MoveRange, SimulatedPrice};

/// The options of an import.
#[derive(Debug, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Dry run: rows are checked and compared, and nothing is written.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether the rows are stored even if the circuit breaker of the policy in use would hold them. With
    /// access control this needs the scope `policies:approve`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
    /// Without access control, the name of who approves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 100)]
    pub approved_by: Option<String>,
}

/// The outcome of an import, or of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportAnswer {
    /// The number of rows read.
    pub rows: u64,
    /// The number of products created.
    pub created: u64,
    /// The number of products updated.
    pub updated: u64,
    /// The number of products that already had these values.
    pub unchanged: u64,
    /// The number of rows identical to an earlier row of the same product.
    #[serde(default)]
    #[schema(required)]
    pub repeated: u64,
    /// The number of refused rows.
    pub failed: u64,
    /// The number of rows that were not compared with all earlier ones, as concurrent imports remember at
    /// most 5,000,000 rows together: of two for one product, the later may have taken effect.
    #[serde(default)]
    #[schema(required)]
    pub not_compared: u64,
    /// Whether this was a dry run: nothing was written.
    pub dry_run: bool,
    /// The columns of a CSV file that became attributes.
    #[serde(default)]
    #[schema(required)]
    pub attributes: Vec<String>,
    /// Accepted values that are probably not intended.
    #[serde(default)]
    #[schema(required)]
    pub warnings: Vec<ImportWarning>,
    /// The products that lost a cost or a bound.
    #[serde(default)]
    #[schema(required)]
    pub lost: LostBoundsAnswer,
    /// The moves of list prices.
    #[serde(default)]
    #[schema(required)]
    pub moves: ImportMoves,
    /// In a dry run, the reasons why the import would need approval, by the circuit breaker of the policy in
    /// use.
    #[serde(default)]
    #[schema(required)]
    pub held: Vec<String>,
    /// The first 1,000 refused rows.
    pub errors: Vec<RowErrors>,
    /// The number of refused rows that are not listed.
    pub errors_left_out: u64,
}

/// A value that is probably not intended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportWarning {
    /// The warning, in words.
    pub warning: String,
    /// The line of the first affected row, from 1.
    pub line: u64,
    /// The number of affected rows.
    pub rows: u64,
}

/// Products that lost a cost or a bound because their row leaves it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LostBoundsAnswer {
    /// The number of products that lost their unit cost.
    pub unit_cost: u64,
    /// The number of products that lost their floor price.
    pub floor_price: u64,
    /// The number of products that lost their ceiling price.
    pub ceiling_price: u64,
    /// The number of products that lost their minimum advertised price.
    pub minimum_advertised_price: u64,
    /// The first 100 of these products.
    pub product_ids: Vec<String>,
    /// The number of these products that are not listed.
    pub product_ids_left_out: u64,
}

/// How far the import moves the list prices of products that were in the catalogue before; in a dry run, how
/// far it would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportMoves {
    /// The number of products whose list price rises.
    pub up: u64,
    /// The number of products whose list price falls.
    pub down: u64,
    /// The number of products whose list price does not move, including those whose currency changes.
    pub unchanged: u64,
    /// The number of products whose price is frozen when it is computed again.
    pub frozen: u64,
    /// The median of all moves, in percent; for an even number, the mean of the middle two.
    #[serde(with = "amount")]
    #[schema(value_type = f64)]
    pub median_change_percent: Decimal,
    /// The distribution of the moves.
    pub distribution: Vec<MoveRange>,
    /// The 20 biggest moves, the largest first.
    pub biggest_moves: Vec<SimulatedPrice>,
}

impl ImportMoves {
    /// The moves of the products in the file; other products of the catalogue are not counted.
    pub fn of(moves: &Simulation) -> Self {
        let report = moves.report();
        Self {
            up: report.up,
            down: report.down,
            unchanged: moves.list_prices().products() - report.up - report.down,
            frozen: report.frozen,
            median_change_percent: report.median_change_percent,
            distribution: report.distribution.into_iter().map(Into::into).collect(),
            biggest_moves: report.biggest_moves.iter().map(Into::into).collect(),
        }
    }
}

/// A refused row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RowErrors {
    /// The line on which the row starts, from 1.
    pub line: u64,
    /// The row's product; null if it cannot be read.
    pub product_id: Option<String>,
    /// The invalid fields.
    pub errors: Vec<FieldError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_were_not_priced_again_are_in_the_distribution() {
        let mut moves = Simulation::default();
        moves.add_unmoved(7);
        let moves = ImportMoves::of(&moves);
        assert_eq!((moves.up, moves.down, moves.unchanged), (0, 0, 7));
        let range = moves.distribution.iter().find(|range| range.products > 0);
        assert_eq!(range.map(|range| (range.from_percent, range.to_percent)), Some((Some(0), Some(0))));
    }

    #[test]
    fn an_answer_of_an_older_api_is_read() {
        let json = r#"{"rows":1,"created":1,"updated":0,"unchanged":0,"failed":0,"dry_run":false,"errors":[],"errors_left_out":0}"#;
        let answer: ImportAnswer = serde_json::from_str(json).unwrap();
        assert_eq!((answer.created, answer.moves, answer.held), (1, ImportMoves::default(), vec![]));
    }
}
