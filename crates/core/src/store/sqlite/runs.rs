//! Recalculations in a SQLite file. Whoever writes has the file's lock, so the fence needs none of its own.

use chrono::{DateTime, Utc};
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::types::Json;
use sqlx::{Sqlite, query, query_as, query_scalar};

use super::super::error::StoreError;
use super::super::json_rows::{instant, row_count};
use super::super::read_rows::{count, read_all};
use super::super::runs::{
    BeginRun, CoalescedRun, FinishRun, REPLACED, RangeOutcome, RunRecord, RunRequest, StoredRun,
    WaitingRecord, bounded_reason, follow_up_of, skipped_because_of,
};
use super::super::session::Session;
use super::{SqliteStore, SqliteTransaction, commit};
use pricing_domain::facts::recalculation::{RunState, Scope};

// The columns have nothing until the run is finished, the ranges nothing after.
macro_rules! runs {
    () => {
        "SELECT task_id, scope, state, reason, follow_up, approved_by, run_number, policy_version, requested_at, started_at,
                finished_at, products_total,
                products_done + (SELECT coalesce(sum(products), 0) FROM recalculation_ranges AS ranges
                                 WHERE ranges.run_number = runs.run_number) AS products_done,
                prices_changed + (SELECT coalesce(sum(changed), 0) FROM recalculation_ranges AS ranges
                                  WHERE ranges.run_number = runs.run_number) AS prices_changed,
                prices_frozen + (SELECT coalesce(sum(frozen), 0) FROM recalculation_ranges AS ranges
                                 WHERE ranges.run_number = runs.run_number) AS prices_frozen,
                json_patch(workers, (SELECT json_group_object(worker, number)
                                     FROM (SELECT worker, count(*) AS number FROM recalculation_ranges AS ranges
                                           WHERE ranges.run_number = runs.run_number GROUP BY worker))) AS workers
         FROM recalculation_runs AS runs "
    };
}
const RUN: &str = concat!(runs!(), "WHERE task_id = $1");
const NEXT_RUN: &str = concat!(
    runs!(),
    "WHERE task_id = (
         SELECT task_id FROM recalculation_runs WHERE state IN ('running', 'requested')
         ORDER BY state = 'running' DESC, requested_at, task_id LIMIT 1)"
);
const REQUEST: &str = "
    INSERT INTO recalculation_runs (task_id, scope, requested_at, approved_by, state, is_follow_up)
    VALUES ($1, $2, $3, $4, 'requested', false) ON CONFLICT DO NOTHING";
const WITHDRAW: &str = "
    UPDATE recalculation_runs SET state = 'failed', reason = $2, finished_at = $3
    WHERE task_id = $1 AND state = 'requested'";
const REJECT: &str = "
    UPDATE recalculation_runs SET state = 'failed', reason = $2, finished_at = $3
    WHERE task_id = $1 AND state = 'held'";
const HOLD: &str = "
    UPDATE recalculation_runs SET state = 'held', reason = $2, policy_version = $3
    WHERE task_id = $1 AND state = 'requested'";
const SKIP_EARLIER_HELD: &str = "
    UPDATE recalculation_runs SET state = 'skipped', reason = $2, follow_up = $1, finished_at = $3
    WHERE state = 'held' AND task_id <> $1
          AND scope = (SELECT scope FROM recalculation_runs WHERE task_id = $1)";
const APPROVE: &str = "
    UPDATE recalculation_runs SET state = 'requested', approved_by = $2, reason = NULL
    WHERE task_id = $1 AND state = 'held'";
const HELD_RUNS: &str = concat!(runs!(), "WHERE state = 'held' ORDER BY requested_at DESC LIMIT $1");
const COUNT_HELD: &str = "SELECT count(*) FROM recalculation_runs WHERE state = 'held'";
const COUNT_REQUESTED: &str = "
    SELECT count(*) FROM recalculation_runs WHERE state IN ('requested', 'held')";

const WAITING: &str = "
    SELECT state, reason, follow_up, is_follow_up FROM recalculation_runs WHERE task_id = $1";
const FOLLOW_UP: &str = "
    SELECT other.task_id
    FROM recalculation_runs AS own
    JOIN recalculation_runs AS other
      ON other.state = 'requested' AND other.is_follow_up AND other.scope = own.scope
         AND other.task_id <> own.task_id
    WHERE own.task_id = $1 ORDER BY other.requested_at, other.task_id LIMIT 1";
const REQUEST_FOLLOW_UP: &str = "
    INSERT INTO recalculation_runs (task_id, scope, requested_at, state, is_follow_up)
    SELECT $2, scope, $3, 'requested', true FROM recalculation_runs WHERE task_id = $1
    ON CONFLICT DO NOTHING";
const APPROVE_FOLLOW_UP: &str = "
    UPDATE recalculation_runs
    SET approved_by = coalesce(approved_by, (SELECT approved_by FROM recalculation_runs WHERE task_id = $1))
    WHERE task_id = $2";
const RUNNING_NUMBER: &str = "SELECT max(run_number) FROM recalculation_runs WHERE state = 'running'";
const SKIP: &str = "
    UPDATE recalculation_runs SET state = 'skipped', reason = $2, follow_up = $3, finished_at = $4
    WHERE task_id = $1";

const MOVE_FENCE: &str = "UPDATE current_run SET run_number = $1 WHERE run_number < $1";
const FORMER_NUMBER: &str = "
    SELECT run_number FROM recalculation_runs
    WHERE task_id = $1 AND state IN ('requested', 'running')";
const BEGIN: &str = "
    UPDATE recalculation_runs
    SET state = 'running', run_number = $2, policy_version = $3, products_total = $4,
        started_at = coalesce(started_at, $5)
    WHERE task_id = $1";
const DELETE_RANGES: &str = "DELETE FROM recalculation_ranges WHERE run_number = $1";
const FINISH: &str = "
    UPDATE recalculation_runs
    SET state = $3, reason = $4, finished_at = $5,
        (products_done, prices_changed, prices_frozen) = (
            SELECT coalesce(sum(products), 0), coalesce(sum(changed), 0), coalesce(sum(frozen), 0)
            FROM recalculation_ranges WHERE run_number = $2),
        workers = (
            SELECT json_group_object(worker, number)
            FROM (SELECT worker, count(*) AS number FROM recalculation_ranges
                  WHERE run_number = $2 GROUP BY worker))
    WHERE task_id = $1 AND run_number = $2 AND state = 'running'";
const COUNT_RANGES: &str = "SELECT count(*) FROM recalculation_ranges WHERE run_number = $1";
const FORGET: &str = "
    DELETE FROM recalculation_runs WHERE task_id IN (
        SELECT task_id FROM recalculation_runs
        WHERE finished_at < $1 OR (state = 'held' AND requested_at < $1) ORDER BY requested_at LIMIT $2)";

const FENCE: &str = "SELECT run_number = $1 FROM current_run";
const FINISH_RANGE: &str = "
    INSERT INTO recalculation_ranges (run_number, range_start, worker, products, changed, frozen, finished_at)
    SELECT run_number, $2, $3, $4, $5, $6, $7
    FROM recalculation_runs WHERE run_number = $1 AND state = 'running'
    ON CONFLICT DO NOTHING";

impl SqliteStore {
    pub(in super::super) async fn request_run(&self, request: &RunRequest) -> Result<bool, StoreError> {
        let insert = insert_request(request);
        let mut session = self.writer().await?;
        changes_any(&mut session, insert).await
    }

    pub(in super::super) async fn run(&self, task_id: &str) -> Result<Option<StoredRun>, StoreError> {
        let run = query_as(RUN).bind(task_id);
        let mut session = self.reader().await?;
        let record: Option<RunRecord> = session.run(|connection| run.fetch_optional(connection)).await?;
        record.map(StoredRun::try_from).transpose()
    }

    pub(in super::super) async fn withdraw_run(
        &self,
        task_id: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let withdraw = query(WITHDRAW).bind(task_id).bind(bounded_reason(reason)).bind(instant(now));
        let mut session = self.writer().await?;
        changes_any(&mut session, withdraw).await
    }

    pub(in super::super) async fn hold_run(
        &self,
        task_id: &str,
        reason: &str,
        policy_version: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let hold = query(HOLD).bind(task_id).bind(bounded_reason(reason)).bind(policy_version);
        let skip = query(SKIP_EARLIER_HELD).bind(task_id).bind(REPLACED).bind(instant(now));
        let mut session = self.begin_session().await?;
        let is_held = changes_any(&mut session, hold).await?;
        if is_held {
            session.run(|connection| skip.execute(connection)).await?;
        }
        commit(&mut session).await?;
        Ok(is_held)
    }

    pub(in super::super) async fn reject_run(
        &self,
        task_id: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let reject = query(REJECT).bind(task_id).bind(bounded_reason(reason)).bind(instant(now));
        let mut session = self.writer().await?;
        changes_any(&mut session, reject).await
    }

    pub(in super::super) async fn approve_run(
        &self,
        task_id: &str,
        approved_by: &str,
    ) -> Result<bool, StoreError> {
        let approve = query(APPROVE).bind(task_id).bind(approved_by);
        let mut session = self.writer().await?;
        changes_any(&mut session, approve).await
    }

    pub(in super::super) async fn count_held_runs(&self) -> Result<u64, StoreError> {
        let mut session = self.reader().await?;
        count(session.run(|connection| query_scalar(COUNT_HELD).fetch_one(connection)).await?)
    }

    pub(in super::super) async fn held_runs(&self, limit: u32) -> Result<Vec<StoredRun>, StoreError> {
        let held = query_as(HELD_RUNS).bind(limit);
        let mut session = self.reader().await?;
        let records: Vec<RunRecord> = session.run(|connection| held.fetch_all(connection)).await?;
        read_all(records)
    }

    pub(in super::super) async fn count_requested_runs(&self) -> Result<u64, StoreError> {
        let mut session = self.reader().await?;
        count(session.run(|connection| query_scalar(COUNT_REQUESTED).fetch_one(connection)).await?)
    }

    pub(in super::super) async fn next_requested_run(&self) -> Result<Option<StoredRun>, StoreError> {
        let mut session = self.reader().await?;
        let record: Option<RunRecord> =
            session.run(|connection| query_as(NEXT_RUN).fetch_optional(connection)).await?;
        record.map(StoredRun::try_from).transpose()
    }

    pub(in super::super) async fn coalesce_run(
        &self,
        task_id: &str,
        scope: &Scope,
        now: DateTime<Utc>,
    ) -> Result<CoalescedRun, StoreError> {
        let request = RunRequest {
            task_id: task_id.to_owned(),
            scope: scope.clone(),
            requested_at: now,
            approved_by: None,
        };
        let mut session = self.begin_session().await?;
        session.run(|connection| insert_request(&request).execute(connection)).await?;
        let waiting = query_as(WAITING).bind(task_id);
        let waiting: WaitingRecord = session.run(|connection| waiting.fetch_one(connection)).await?;
        let coalesced = if waiting.state == RunState::Requested.name() {
            leave_to_follow_up(&mut session, task_id, &waiting, now).await?
        } else {
            None
        };
        commit(&mut session).await?;
        coalesced.map_or_else(|| waiting.try_into(), Ok)
    }

    pub(in super::super) async fn begin_run(&self, begin: BeginRun<'_>) -> Result<bool, StoreError> {
        let products_total = row_count(begin.products_total)?;
        let mut session = self.begin_session().await?;
        let former = query_scalar(FORMER_NUMBER).bind(begin.task_id);
        let former: Option<Option<i64>> = session.run(|connection| former.fetch_optional(connection)).await?;
        let may_begin = match former {
            None => false,
            Some(_) => {
                let fence = query(MOVE_FENCE).bind(begin.run_number);
                changes_any(&mut session, fence).await?
            }
        };
        if !may_begin {
            commit(&mut session).await?;
            return Ok(false);
        }
        let update = query(BEGIN)
            .bind(begin.task_id)
            .bind(begin.run_number)
            .bind(begin.policy_version)
            .bind(products_total)
            .bind(instant(begin.now));
        session.run(|connection| update.execute(connection)).await?;
        let skip = query(SKIP_EARLIER_HELD).bind(begin.task_id).bind(REPLACED).bind(instant(begin.now));
        session.run(|connection| skip.execute(connection)).await?;
        if let Some(former) = former.flatten() {
            let ranges = query(DELETE_RANGES).bind(former);
            session.run(|connection| ranges.execute(connection)).await?;
        }
        commit(&mut session).await?;
        Ok(true)
    }

    pub(in super::super) async fn finished_ranges(&self, run_number: i64) -> Result<u64, StoreError> {
        let ranges = query_scalar(COUNT_RANGES).bind(run_number);
        let mut session = self.reader().await?;
        count(session.run(|connection| ranges.fetch_one(connection)).await?)
    }

    pub(in super::super) async fn finish_run(&self, finish: FinishRun<'_>) -> Result<bool, StoreError> {
        let update = query(FINISH)
            .bind(finish.task_id)
            .bind(finish.run_number)
            .bind(finish.state.name())
            .bind(finish.reason.map(bounded_reason))
            .bind(instant(finish.now));
        let mut session = self.begin_session().await?;
        let has_finished = changes_any(&mut session, update).await?;
        if has_finished {
            let ranges = query(DELETE_RANGES).bind(finish.run_number);
            session.run(|connection| ranges.execute(connection)).await?;
        }
        commit(&mut session).await?;
        Ok(has_finished)
    }

    pub(in super::super) async fn last_run_number(&self) -> Result<i64, StoreError> {
        let mut session = self.reader().await?;
        session
            .run(|connection| query_scalar("SELECT run_number FROM current_run").fetch_one(connection))
            .await
    }

    pub(in super::super) async fn forget_runs(
        &self,
        before: DateTime<Utc>,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let forget = query(FORGET).bind(instant(before)).bind(limit);
        let mut session = self.writer().await?;
        Ok(session.run(|connection| forget.execute(connection)).await?.rows_affected())
    }
}

impl SqliteTransaction {
    pub(in super::super) async fn request_run(&mut self, request: &RunRequest) -> Result<bool, StoreError> {
        changes_any(&mut self.session, insert_request(request)).await
    }

    pub(in super::super) async fn lock_run(&mut self, run_number: i64) -> Result<bool, StoreError> {
        let fence = query_scalar(FENCE).bind(run_number);
        self.session.run(|connection| fence.fetch_one(connection)).await
    }

    pub(in super::super) async fn finish_range(
        &mut self,
        run_number: i64,
        range_start: &str,
        outcome: &RangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let insert = query(FINISH_RANGE)
            .bind(run_number)
            .bind(range_start)
            .bind(&outcome.worker)
            .bind(row_count(outcome.products)?)
            .bind(row_count(outcome.changed)?)
            .bind(row_count(outcome.frozen)?)
            .bind(instant(now));
        changes_any(&mut self.session, insert).await
    }
}

pub(super) fn insert_request(request: &RunRequest) -> Query<'_, Sqlite, SqliteArguments> {
    query(REQUEST)
        .bind(&request.task_id)
        .bind(Json(&request.scope))
        .bind(instant(request.requested_at))
        .bind(request.approved_by.as_deref())
}

/// `None` if the request keeps waiting: it is itself a follow-up, or the name of its follow-up is taken.
async fn leave_to_follow_up(
    session: &mut Session<Sqlite>,
    task_id: &str,
    waiting: &WaitingRecord,
    now: DateTime<Utc>,
) -> Result<Option<CoalescedRun>, StoreError> {
    let known = query_scalar(FOLLOW_UP).bind(task_id);
    let known: Option<String> = session.run(|connection| known.fetch_optional(connection)).await?;
    let follow_up = match known {
        Some(known) => known,
        None if waiting.is_follow_up => return Ok(None),
        None => {
            let new = follow_up_of(task_id);
            let insert = query(REQUEST_FOLLOW_UP).bind(task_id).bind(&new).bind(instant(now));
            if !changes_any(session, insert).await? {
                return Ok(None);
            }
            new
        }
    };
    let approve = query(APPROVE_FOLLOW_UP).bind(task_id).bind(&follow_up);
    session.run(|connection| approve.execute(connection)).await?;
    let running = session.run(|connection| query_scalar(RUNNING_NUMBER).fetch_one(connection)).await?;
    let reason = skipped_because_of(running);
    let skip = query(SKIP).bind(task_id).bind(&reason).bind(&follow_up).bind(instant(now));
    session.run(|connection| skip.execute(connection)).await?;
    Ok(Some(CoalescedRun { state: RunState::Skipped, reason: Some(reason), follow_up: Some(follow_up) }))
}

async fn changes_any(
    session: &mut Session<Sqlite>,
    statement: Query<'_, Sqlite, SqliteArguments>,
) -> Result<bool, StoreError> {
    Ok(session.run(|connection| statement.execute(connection)).await?.rows_affected() > 0)
}
