//! The SQL of recalculations.
//!
//! The row of `current_run` is the fence. In PostgreSQL a transaction of a range takes a shared lock on it,
//! while beginning and finishing a run lock it exclusively, always before any other lock, so there is no
//! deadlock. In SQLite a write transaction locks the whole file.

use super::super::statement::Statement;

/// A run with the sums of its ranges: its own columns are empty until it is finished, when the ranges are
/// deleted.
macro_rules! runs {
    ($workers:literal, $which:literal) => {
        concat!(
            "SELECT task_id, scope, state, reason, follow_up, approved_by, run_number, policy_version, requested_at,
                started_at, finished_at, products_total,
                products_done + (SELECT CAST(coalesce(sum(products), 0) AS bigint) FROM recalculation_ranges AS ranges
                                 WHERE ranges.run_number = runs.run_number) AS products_done,
                prices_changed + (SELECT CAST(coalesce(sum(changed), 0) AS bigint) FROM recalculation_ranges AS ranges
                                  WHERE ranges.run_number = runs.run_number) AS prices_changed,
                prices_frozen + (SELECT CAST(coalesce(sum(frozen), 0) AS bigint) FROM recalculation_ranges AS ranges
                                 WHERE ranges.run_number = runs.run_number) AS prices_frozen, ",
            $workers,
            " FROM recalculation_runs AS runs WHERE ",
            $which
        )
    };
}
macro_rules! runs_of_each {
    ($which:literal) => {
        Statement {
            sqlite: runs!(
                "json_patch(workers, (
                    SELECT json_group_object(worker, number)
                    FROM (SELECT worker, count(*) AS number FROM recalculation_ranges AS ranges
                          WHERE ranges.run_number = runs.run_number GROUP BY worker))) AS workers",
                $which
            ),
            postgres: runs!(
                "workers || (
                    SELECT coalesce(jsonb_object_agg(worker, number), '{}')
                    FROM (SELECT worker, count(*) AS number FROM recalculation_ranges AS ranges
                          WHERE ranges.run_number = runs.run_number GROUP BY worker) AS by_worker) AS workers",
                $which
            ),
        }
    };
}
pub(super) const RUN: Statement = runs_of_each!("task_id = $1");
pub(super) const NEXT_RUN: Statement = runs_of_each!(
    "task_id = (
         SELECT task_id FROM recalculation_runs WHERE state IN ('running', 'requested')
         ORDER BY state = 'running' DESC, requested_at, task_id LIMIT 1)"
);
pub(super) const HELD_RUNS: Statement = runs_of_each!("state = 'held' ORDER BY requested_at DESC LIMIT $1");
pub(super) const COUNT_HELD: Statement =
    Statement::same("SELECT count(*) FROM recalculation_runs WHERE state = 'held'");
pub(super) const COUNT_REQUESTED: Statement =
    Statement::same("SELECT count(*) FROM recalculation_runs WHERE state IN ('requested', 'held')");

pub(super) const REQUEST: Statement = Statement::same(
    "
    INSERT INTO recalculation_runs (task_id, scope, requested_at, approved_by, state, is_follow_up)
    VALUES ($1, $2, $3, $4, 'requested', false) ON CONFLICT DO NOTHING",
);
pub(super) const WITHDRAW: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'failed', reason = $2, finished_at = $3
    WHERE task_id = $1 AND state = 'requested'",
);
pub(super) const REJECT: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'failed', reason = $2, finished_at = $3
    WHERE task_id = $1 AND state = 'held'",
);
pub(super) const HOLD: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'held', reason = $2, policy_version = $3
    WHERE task_id = $1 AND state = 'requested'",
);
pub(super) const SKIP_EARLIER_HELD: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'skipped', reason = $2, follow_up = $1, finished_at = $3
    WHERE state = 'held' AND task_id <> $1
          AND scope = (SELECT scope FROM recalculation_runs WHERE task_id = $1)",
);
pub(super) const APPROVE: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'requested', approved_by = $2, reason = NULL
    WHERE task_id = $1 AND state = 'held'",
);

/// Without this lock, two requests that find no follow-up would each request one. It is held until the
/// transaction ends. An advisory lock is used because rows of the table are written meanwhile.
pub(super) const LOCK_COALESCING: &str =
    "SELECT pg_advisory_xact_lock('recalculation_runs'::regclass::oid::bigint)";
macro_rules! waiting {
    () => {
        "SELECT state, reason, follow_up, is_follow_up FROM recalculation_runs WHERE task_id = $1"
    };
}
pub(super) const WAITING: Statement =
    Statement { sqlite: waiting!(), postgres: concat!(waiting!(), " FOR UPDATE") };
pub(super) const FOLLOW_UP: Statement = Statement::same(
    "
    SELECT other.task_id
    FROM recalculation_runs AS own
    JOIN recalculation_runs AS other
      ON other.state = 'requested' AND other.is_follow_up AND other.scope = own.scope
         AND other.task_id <> own.task_id
    WHERE own.task_id = $1 ORDER BY other.requested_at, other.task_id LIMIT 1",
);
pub(super) const REQUEST_FOLLOW_UP: Statement = Statement::same(
    "
    INSERT INTO recalculation_runs (task_id, scope, requested_at, state, is_follow_up)
    SELECT $2, scope, $3, 'requested', true FROM recalculation_runs WHERE task_id = $1
    ON CONFLICT DO NOTHING",
);
pub(super) const APPROVE_FOLLOW_UP: Statement = Statement::same(
    "
    UPDATE recalculation_runs
    SET approved_by = coalesce(approved_by, (SELECT approved_by FROM recalculation_runs WHERE task_id = $1))
    WHERE task_id = $2",
);
pub(super) const RUNNING_NUMBER: Statement =
    Statement::same("SELECT max(run_number) FROM recalculation_runs WHERE state = 'running'");
pub(super) const SKIP: Statement = Statement::same(
    "
    UPDATE recalculation_runs SET state = 'skipped', reason = $2, follow_up = $3, finished_at = $4
    WHERE task_id = $1",
);

pub(super) const LOCK_FENCE: &str = "SELECT run_number FROM current_run FOR UPDATE";
pub(super) const MOVE_FENCE: Statement =
    Statement::same("UPDATE current_run SET run_number = $1 WHERE run_number < $1");
macro_rules! former_number {
    () => {
        "SELECT run_number FROM recalculation_runs WHERE task_id = $1 AND state IN ('requested', 'running')"
    };
}
pub(super) const FORMER_NUMBER: Statement =
    Statement { sqlite: former_number!(), postgres: concat!(former_number!(), " FOR UPDATE") };
pub(super) const BEGIN: Statement = Statement::same(
    "
    UPDATE recalculation_runs
    SET state = 'running', run_number = $2, started_at = coalesce(started_at, $5),
        products_total = coalesce(products_total, $4),
        policy_version = CASE WHEN state = 'running' THEN policy_version ELSE $3 END
    WHERE task_id = $1",
);
/// Ranges whose end is not known are left, and deleted.
pub(super) const TAKE_OVER_RANGES: Statement = Statement::same(
    "UPDATE recalculation_ranges SET run_number = $2 WHERE run_number = $1 AND range_end IS NOT NULL",
);
pub(super) const FINISHED_RANGES: Statement = Statement::same(
    "SELECT range_start, range_end FROM recalculation_ranges WHERE run_number = $1 ORDER BY range_start",
);
pub(super) const DELETE_RANGES: Statement =
    Statement::same("DELETE FROM recalculation_ranges WHERE run_number = $1");
macro_rules! finish {
    ($workers:literal) => {
        concat!(
            "
    UPDATE recalculation_runs
    SET state = $3, reason = $4, finished_at = $5,
        (products_done, prices_changed, prices_frozen) = (
            SELECT CAST(coalesce(sum(products), 0) AS bigint), CAST(coalesce(sum(changed), 0) AS bigint),
                   CAST(coalesce(sum(frozen), 0) AS bigint)
            FROM recalculation_ranges WHERE run_number = $2),
        workers = (
            SELECT ",
            $workers,
            "
            FROM (SELECT worker, count(*) AS number FROM recalculation_ranges
                  WHERE run_number = $2 GROUP BY worker) AS by_worker)
    WHERE task_id = $1 AND run_number = $2 AND state = 'running'"
        )
    };
}
pub(super) const FINISH: Statement = Statement {
    sqlite: finish!("json_group_object(worker, number)"),
    postgres: finish!("coalesce(jsonb_object_agg(worker, number), '{}')"),
};
pub(super) const COUNT_RANGES: Statement =
    Statement::same("SELECT count(*) FROM recalculation_ranges WHERE run_number = $1");
pub(super) const LAST_NUMBER: Statement = Statement::same("SELECT run_number FROM current_run");
/// PostgreSQL skips rows that another worker is deleting.
pub(super) const FORGET: Statement = Statement {
    sqlite: "
    DELETE FROM recalculation_runs WHERE task_id IN (
        SELECT task_id FROM recalculation_runs
        WHERE finished_at < $1 OR (state = 'held' AND requested_at < $1) ORDER BY requested_at LIMIT $2)",
    postgres: "
    WITH old AS (
        SELECT task_id FROM recalculation_runs
        WHERE finished_at < $1 OR (state = 'held' AND requested_at < $1)
        ORDER BY requested_at LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM recalculation_runs AS runs USING old WHERE runs.task_id = old.task_id",
};

/// Read after the wait for the lock, so a run that began meanwhile is seen.
pub(super) const SHARE_FENCE: Statement = Statement {
    sqlite: "SELECT run_number = $1 FROM current_run",
    postgres: "SELECT run_number = $1 FROM current_run FOR SHARE",
};
pub(super) const IS_OPEN: Statement = Statement::same(
    "
    SELECT EXISTS (SELECT 1 FROM recalculation_runs WHERE run_number = $1 AND state = 'running')
           AND NOT EXISTS (SELECT 1 FROM recalculation_ranges WHERE run_number = $1 AND range_start = $2)",
);
pub(super) const FINISH_RANGE: Statement = Statement::same(
    "
    INSERT INTO recalculation_ranges (run_number, range_start, range_end, worker, products, changed, frozen, finished_at)
    SELECT run_number, $2, $3, $4, $5, $6, $7, $8
    FROM recalculation_runs WHERE run_number = $1 AND state = 'running'
    ON CONFLICT DO NOTHING",
);
