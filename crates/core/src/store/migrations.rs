//! The migrations of both databases, in order. The two lists differ only in steps that one of them needs.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A migration's number, its description and its statements. All three are recorded in databases: a migration
/// that has been released is never changed.
type Step = (i64, &'static str, &'static str);

const SQLITE: &[Step] = &[
    (1, "catalogue", include_str!("../../migrations/sqlite/0001_catalogue.sql")),
    (2, "recalculation", include_str!("../../migrations/sqlite/0002_recalculation.sql")),
    (3, "policies", include_str!("../../migrations/sqlite/0003_policies.sql")),
    (4, "approval and drafts", include_str!("../../migrations/sqlite/0004_approval_and_drafts.sql")),
    (5, "age of facts", include_str!("../../migrations/sqlite/0005_age_of_facts.sql")),
    (6, "range ends", include_str!("../../migrations/sqlite/0006_range_ends.sql")),
    (7, "movements", include_str!("../../migrations/sqlite/0007_movements.sql")),
    (8, "event moves", include_str!("../../migrations/sqlite/0008_event_moves.sql")),
    (9, "unserved prices", include_str!("../../migrations/sqlite/0009_unserved_prices.sql")),
    (10, "access keys", include_str!("../../migrations/sqlite/0010_access_keys.sql")),
    (11, "audit", include_str!("../../migrations/sqlite/0011_audit.sql")),
];

const POSTGRES: &[Step] = &[
    (1, "catalogue", include_str!("../../migrations/postgres/0001_catalogue.sql")),
    (2, "recalculation", include_str!("../../migrations/postgres/0002_recalculation.sql")),
    (3, "policies", include_str!("../../migrations/postgres/0003_policies.sql")),
    (4, "approval and drafts", include_str!("../../migrations/postgres/0004_approval_and_drafts.sql")),
    (5, "prices of products", include_str!("../../migrations/postgres/0005_prices_of_products.sql")),
    (6, "age of facts", include_str!("../../migrations/postgres/0006_age_of_facts.sql")),
    (7, "range ends", include_str!("../../migrations/postgres/0007_range_ends.sql")),
    (8, "movements", include_str!("../../migrations/postgres/0008_movements.sql")),
    (9, "event moves", include_str!("../../migrations/postgres/0009_event_moves.sql")),
    (10, "unserved prices", include_str!("../../migrations/postgres/0010_unserved_prices.sql")),
    (11, "access keys", include_str!("../../migrations/postgres/0011_access_keys.sql")),
    (12, "audit", include_str!("../../migrations/postgres/0012_audit.sql")),
];

pub(super) fn of_sqlite() -> Migrator {
    migrator(SQLITE)
}

pub(super) fn of_postgres() -> Migrator {
    migrator(POSTGRES)
}

fn migrator(steps: &[Step]) -> Migrator {
    let migration = |(number, description, sql): &Step| {
        let (description, sql) = (Cow::Borrowed(*description), (*sql).into_sql_str());
        Migration::new(*number, description, MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file is listed, under the number and the description of its name.
    #[test]
    fn the_lists_are_the_files() {
        for (folder, steps) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let folder = format!("{}/migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let listed: Vec<String> = steps
                .iter()
                .map(|(number, description, _)| format!("{number:04}_{}.sql", description.replace(' ', "_")))
                .collect();
            assert_eq!(files, listed);
            for ((_, _, sql), file) in steps.iter().zip(files) {
                assert_eq!(*sql, std::fs::read_to_string(format!("{folder}/{file}")).unwrap(), "{file}");
            }
        }
    }
}
