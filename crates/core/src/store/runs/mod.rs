//! The state machine of recalculations.
//!
//! | from | to | by |
//! |---|---|---|
//! | | requested | [`request_run`](super::Store::request_run) |
//! | requested | held | [`hold_run`](super::Store::hold_run): its circuit breaker opened |
//! | held | requested | [`approve_run`](super::Store::approve_run) |
//! | held | failed | [`reject_run`](super::Store::reject_run) |
//! | held | skipped | a later request for the same products is held or begins |
//! | requested | skipped | [`coalesce_run`](super::Store::coalesce_run): a follow-up does its work |
//! | requested | failed | [`withdraw_run`](super::Store::withdraw_run) |
//! | requested, running | running | [`begin_run`](super::Store::begin_run), under a newer number |
//! | running | done, failed | [`finish_run`](super::Store::finish_run) |
//!
//! A request is stored before any work on it begins. The coordinator that holds the lease turns it into a run
//! with a number, which is also the fencing token: once a newer run has begun,
//! [`lock_run`](super::StoreTransaction::lock_run) stops transactions of an older one. Ranges are recorded in
//! the transactions that write their prices, so the progress of a run is exactly what was committed. Where
//! next: `statements` for the SQL and its locks, the worker's `jobs::coordinate_run` for the coordinator.

mod statements;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::FromRow;
use sqlx::types::Json;

use self::statements::{
    APPROVE, APPROVE_FOLLOW_UP, BEGIN, COUNT_HELD, COUNT_RANGES, COUNT_REQUESTED, DELETE_RANGES, FINISH,
    FINISH_RANGE, FINISHED_RANGES, FOLLOW_UP, FORGET, FORMER_NUMBER, HELD_RUNS, HOLD, IS_OPEN, LAST_NUMBER,
    LOCK_COALESCING, LOCK_FENCE, MOVE_FENCE, NEXT_RUN, REJECT, REQUEST, REQUEST_FOLLOW_UP, RUN,
    RUNNING_NUMBER, SHARE_FENCE, SKIP, SKIP_EARLIER_HELD, TAKE_OVER_RANGES, WAITING, WITHDRAW,
};
use super::audit::{self, AuditEntry};
use super::columns::Columns;
use super::error::StoreError;
use super::json_rows::{bounded, row_count};
use super::read_rows::{count, product_id, read_all};
use super::session::Session;
use super::statement::Query;
use super::{Store, StoreTransaction};
use crate::audit::{Action, Origin};
use pricing_domain::facts::product::ProductId;
use pricing_domain::facts::recalculation::{RecalculationScope, RunState};

/// The longest reason, in characters; a longer one is truncated. It suffices for an error with its causes.
pub const MAX_REASON_CHARS: usize = 500;

/// A request for a recalculation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Identifies the request; requesting the same twice is idempotent.
    pub task_id: String,
    /// The products to recalculate.
    pub scope: RecalculationScope,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// The approver, who accepts that it may move prices far; without approval it may be held.
    pub approved_by: Option<String>,
}

/// A recalculation: requested, running or finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// See [`RunRequest::task_id`].
    pub task_id: String,
    /// The products to recalculate.
    pub scope: RecalculationScope,
    /// Its state.
    pub state: RunState,
    /// The reason that it was skipped or failed, at most [`MAX_REASON_CHARS`].
    pub reason: Option<String>,
    /// The task that does the work of this one, if it was skipped.
    pub follow_up: Option<String>,
    /// The approver.
    pub approved_by: Option<String>,
    /// Its fencing token, once it has begun. A restarted run gets a newer one.
    pub run_number: Option<i64>,
    /// The policy it prices by, once it has begun; before that, and while it is held, the policy that was
    /// examined.
    pub policy_version: Option<i64>,
    /// When it was requested.
    pub requested_at: DateTime<Utc>,
    /// When it was first begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was done, failed or skipped.
    pub finished_at: Option<DateTime<Utc>>,
    /// The number of products when it began.
    pub products_total: Option<u64>,
    /// The number of products priced so far.
    pub products_done: u64,
    /// The number of these whose list price changed.
    pub prices_changed: u64,
    /// The number of these whose list price is frozen because a rule failed.
    pub prices_frozen: u64,
    /// The number of ranges that each worker finished.
    pub workers: BTreeMap<String, u64>,
}

/// The first and the last product of a range, in the order of identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeEnds {
    /// The first product.
    pub first: ProductId,
    /// The last product, which may be the first.
    pub last: ProductId,
}

/// The result of one range of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeOutcome {
    /// The worker that priced it.
    pub worker: String,
    /// The number of priced products.
    pub products: u64,
    /// The number of these whose list price changed.
    pub changed: u64,
    /// The number of these whose list price is frozen because a rule failed.
    pub frozen: u64,
}

/// The result of coalescing a request that arrived during a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoalescedRun {
    /// `Skipped` if another task does its work. `Requested` if it is itself the follow-up that does the work
    /// of others. Any other state if it was handled before.
    pub state: RunState,
    /// The reason that it was skipped or failed.
    pub reason: Option<String>,
    /// The task that does its work.
    pub follow_up: Option<String>,
}

impl Store {
    /// Records a request for a recalculation. Returns whether it is new.
    pub async fn request_run(&self, request: &RunRequest) -> Result<bool, StoreError> {
        self.writer().await?.changes_any(insert_request(request)).await
    }

    /// Records a caller's request for a recalculation. Returns whether it is new.
    pub async fn request_run_by(&self, request: &RunRequest, origin: &Origin) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let is_new = session.changes_any(insert_request(request)).await?;
        if is_new {
            let entry = AuditEntry {
                action: Action::RecalculationRequest,
                subject: request.task_id.clone(),
                before: None,
                // Serialising names and identifiers cannot fail.
                after: serde_json::to_string(&request.scope).ok(),
            };
            audit::record(&mut session, origin, &entry, request.requested_at).await?;
        }
        session.commit().await?;
        Ok(is_new)
    }

    /// The state of a recalculation. While it is running, its counts are the sums of its finished ranges.
    pub async fn run(&self, task_id: &str) -> Result<Option<StoredRun>, StoreError> {
        let record: Option<RunRecord> = self.reader().await?.optional(RUN.bind(task_id)).await?;
        record.map(StoredRun::try_from).transpose()
    }

    /// Withdraws a waiting request: it failed, for this reason. Returns whether it was waiting.
    pub async fn withdraw_run(
        &self,
        task_id: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let withdraw = WITHDRAW.bind(task_id).bind(bounded_reason(reason)).bind(now);
        self.writer().await?.changes_any(withdraw).await
    }

    /// Holds a request that has not begun until it is approved; `policy_version` is the policy that was
    /// examined. An earlier held request for the same products is skipped, as it is when a later one begins.
    /// Returns whether the request was waiting.
    pub async fn hold_run(
        &self,
        task_id: &str,
        reason: &str,
        policy_version: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let hold = HOLD.bind(task_id).bind(bounded_reason(reason)).bind(policy_version);
        let is_held = session.changes_any(hold).await?;
        if is_held {
            session.execute(SKIP_EARLIER_HELD.bind(task_id).bind(REPLACED).bind(now)).await?;
        }
        session.commit().await?;
        Ok(is_held)
    }

    /// Rejects a held request: it failed, for this reason. Returns whether it was held.
    pub async fn reject_run(
        &self,
        task_id: &str,
        reason: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let reject = REJECT.bind(task_id).bind(bounded_reason(reason)).bind(now);
        self.decide_run(task_id, reject, (Action::RecalculationReject, "failed"), origin, now).await
    }

    /// The number of held requests.
    pub async fn count_held_runs(&self) -> Result<u64, StoreError> {
        let (held,) = self.reader().await?.one(COUNT_HELD).await?;
        count(held)
    }

    /// The held requests, newest first.
    pub async fn held_runs(&self, limit: u32) -> Result<Vec<StoredRun>, StoreError> {
        let records: Vec<RunRecord> = self.reader().await?.all(HELD_RUNS.bind(limit)).await?;
        read_all(records)
    }

    /// Approves a held request: it waits for its turn again. Returns whether it was held.
    pub async fn approve_run(
        &self,
        task_id: &str,
        approved_by: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let approve = APPROVE.bind(task_id).bind(approved_by);
        self.decide_run(task_id, approve, (Action::RecalculationApprove, "requested"), origin, now).await
    }

    /// Decides about a held request, and records it. Returns whether it was held.
    async fn decide_run(
        &self,
        task_id: &str,
        decide: Query<'_>,
        (action, state): (Action, &str),
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        let was_held = session.changes_any(decide).await?;
        if was_held {
            let state_json = |state: &str| Some(json!({"state": state}).to_string());
            let (before, after) = (state_json("held"), state_json(state));
            let entry = AuditEntry { action, subject: task_id.to_owned(), before, after };
            audit::record(&mut session, origin, &entry, now).await?;
        }
        session.commit().await?;
        Ok(was_held)
    }

    /// The number of requests that wait for their turn or for approval.
    pub async fn count_requested_runs(&self) -> Result<u64, StoreError> {
        let (requested,) = self.reader().await?.one(COUNT_REQUESTED).await?;
        count(requested)
    }

    /// The next work: a started run, whose coordinator must have died if the caller holds the lease;
    /// otherwise the oldest request.
    pub async fn next_requested_run(&self) -> Result<Option<StoredRun>, StoreError> {
        let record: Option<RunRecord> = self.reader().await?.optional(NEXT_RUN).await?;
        record.map(StoredRun::try_from).transpose()
    }

    /// Coalesces a request into one follow-up run after the current one, and marks the request as skipped.
    /// All requests for the same scope that arrive meanwhile share that follow-up, which the first of them
    /// requests. It begins after them, so it sees all of their facts.
    ///
    /// A request that is no longer waiting is not changed, nor is a follow-up run itself, unless there is
    /// another. A request that was never recorded is recorded first.
    pub async fn coalesce_run(
        &self,
        task_id: &str,
        scope: &RecalculationScope,
        now: DateTime<Utc>,
    ) -> Result<CoalescedRun, StoreError> {
        let request = RunRequest {
            task_id: task_id.to_owned(),
            scope: scope.clone(),
            requested_at: now,
            approved_by: None,
        };
        let mut session = self.begin_session().await?;
        session.lock(LOCK_COALESCING).await?;
        session.execute(insert_request(&request)).await?;
        let waiting: WaitingRecord = session.one(WAITING.bind(task_id)).await?;
        let coalesced = if waiting.state == RunState::Requested.name() {
            leave_to_follow_up(&mut session, task_id, &waiting, now).await?
        } else {
            None
        };
        session.commit().await?;
        coalesced.map_or_else(|| waiting.try_into(), Ok)
    }

    /// Begins a run, or restarts it with a newer number, which takes over the finished ranges. Policy version
    /// and number of products stay those of the beginning. Waits for transactions of the earlier run; its
    /// later ones fail to lock it and stop.
    ///
    /// Returns `false`, and changes nothing, if a run with this number or a newer one has begun, or if the
    /// task is neither waiting nor running.
    pub async fn begin_run(
        &self,
        task_id: &str,
        run_number: i64,
        policy_version: i64,
        products_total: u64,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let products_total = row_count(products_total)?;
        let mut session = self.begin_session().await?;
        session.lock(LOCK_FENCE).await?;
        let former: Option<(Option<i64>,)> = session.optional(FORMER_NUMBER.bind(task_id)).await?;
        let may_begin = former.is_some() && session.changes_any(MOVE_FENCE.bind(run_number)).await?;
        if may_begin {
            let begin =
                BEGIN.bind(task_id).bind(run_number).bind(policy_version).bind(products_total).bind(now);
            session.execute(begin).await?;
            session.execute(SKIP_EARLIER_HELD.bind(task_id).bind(REPLACED).bind(now)).await?;
            if let Some((Some(former),)) = former {
                session.execute(TAKE_OVER_RANGES.bind(former).bind(run_number)).await?;
                session.execute(DELETE_RANGES.bind(former)).await?;
            }
        }
        session.commit().await?;
        Ok(may_begin)
    }

    /// The number of finished ranges of a run; 0 once the run itself is finished.
    pub async fn count_finished_ranges(&self, run_number: i64) -> Result<u64, StoreError> {
        let (ranges,) = self.reader().await?.one(COUNT_RANGES.bind(run_number)).await?;
        count(ranges)
    }

    /// The finished ranges of a run, in the order of identifiers; none once the run itself is finished.
    pub async fn finished_ranges(&self, run_number: i64) -> Result<Vec<RangeEnds>, StoreError> {
        let rows: Vec<(String, String)> = self.reader().await?.all(FINISHED_RANGES.bind(run_number)).await?;
        let ends = rows
            .iter()
            .map(|(first, last)| Ok(RangeEnds { first: product_id(first)?, last: product_id(last)? }));
        ends.collect()
    }

    /// Ends a run in a final state and stores the sums of its ranges. Waits for transactions of its ranges;
    /// later ones are not counted. Returns `false` and changes nothing if the task does not run under this
    /// number: it was restarted, or is finished.
    pub async fn finish_run(
        &self,
        task_id: &str,
        run_number: i64,
        state: RunState,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let mut session = self.begin_session().await?;
        session.lock(LOCK_FENCE).await?;
        let reason = reason.map(bounded_reason);
        let finish = FINISH.bind(task_id).bind(run_number).bind(state.name()).bind(reason).bind(now);
        let is_finished = session.changes_any(finish).await?;
        if is_finished {
            session.execute(DELETE_RANGES.bind(run_number)).await?;
        }
        session.commit().await?;
        Ok(is_finished)
    }

    /// The number of the newest run; 0 if there was none.
    pub async fn last_run_number(&self) -> Result<i64, StoreError> {
        let (number,) = self.reader().await?.one(LAST_NUMBER).await?;
        Ok(number)
    }

    /// Deletes at most `limit` runs that were finished, or requested and held, before an instant. Returns how
    /// many.
    pub async fn forget_runs(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        self.writer().await?.execute(FORGET.bind(before).bind(limit)).await
    }
}

impl StoreTransaction {
    /// Records a request for a recalculation. Returns whether it is new.
    pub async fn request_run(&mut self, request: &RunRequest) -> Result<bool, StoreError> {
        self.session.changes_any(insert_request(request)).await
    }

    /// Whether the run of this number is the newest. If so, no newer one begins before this transaction ends.
    /// If not, the range must not be re-priced: the newer run may have priced these products already, by a
    /// newer policy. Prices that an earlier delivery of the range committed may still have to reach the
    /// caches.
    pub async fn lock_run(&mut self, run_number: i64) -> Result<bool, StoreError> {
        let (is_newest,) = self.session.one(SHARE_FENCE.bind(run_number)).await?;
        Ok(is_newest)
    }

    /// Whether the run is running and the range that begins with this product is not recorded. Concurrent
    /// deliveries of a range may both find so; [`finish_range`](Self::finish_range) decides.
    pub async fn is_range_open(&mut self, run_number: i64, first: &ProductId) -> Result<bool, StoreError> {
        let (is_open,) = self.session.one(IS_OPEN.bind(run_number).bind(first.as_str())).await?;
        Ok(is_open)
    }

    /// Records that a range of a run, which this transaction has locked by [`lock_run`](Self::lock_run), is
    /// priced. Returns `false` if it was recorded before, or if the run is finished.
    pub async fn finish_range(
        &mut self,
        run_number: i64,
        ends: &RangeEnds,
        outcome: &RangeOutcome,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let finish = FINISH_RANGE
            .bind(run_number)
            .bind(ends.first.as_str())
            .bind(ends.last.as_str())
            .bind(&outcome.worker)
            .bind(row_count(outcome.products)?)
            .bind(row_count(outcome.changed)?)
            .bind(row_count(outcome.frozen)?)
            .bind(now);
        self.session.changes_any(finish).await
    }
}

pub(super) fn insert_request(request: &RunRequest) -> Query<'_> {
    REQUEST
        .bind(&request.task_id)
        .bind(&request.scope)
        .bind(request.requested_at)
        .bind(request.approved_by.as_deref())
}

/// Returns `None` if the request keeps waiting: it is itself a follow-up, or the name of its follow-up is
/// taken.
async fn leave_to_follow_up(
    session: &mut Session,
    task_id: &str,
    waiting: &WaitingRecord,
    now: DateTime<Utc>,
) -> Result<Option<CoalescedRun>, StoreError> {
    let known: Option<(String,)> = session.optional(FOLLOW_UP.bind(task_id)).await?;
    let follow_up = match known {
        Some((known,)) => known,
        None if waiting.is_follow_up => return Ok(None),
        None => {
            let new = follow_up_of(task_id);
            if !session.changes_any(REQUEST_FOLLOW_UP.bind(task_id).bind(&new).bind(now)).await? {
                return Ok(None);
            }
            new
        }
    };
    session.execute(APPROVE_FOLLOW_UP.bind(task_id).bind(&follow_up)).await?;
    let (running,) = session.one(RUNNING_NUMBER).await?;
    let reason = skipped_because_of(running);
    session.execute(SKIP.bind(task_id).bind(&reason).bind(&follow_up).bind(now)).await?;
    Ok(Some(CoalescedRun { state: RunState::Skipped, reason: Some(reason), follow_up: Some(follow_up) }))
}

/// The follow-up task of the requests that arrived during a run, if this request is the first of them.
fn follow_up_of(task_id: &str) -> String {
    format!("{task_id}-follow-up")
}

/// The task that moves the products to a policy version.
pub fn run_of_policy(version: i64) -> String {
    format!("policy-{version}")
}

/// A request for that task.
pub(super) fn request_of_policy(version: i64, approved_by: &str, now: DateTime<Utc>) -> RunRequest {
    let approved_by = Some(approved_by.to_owned());
    RunRequest {
        task_id: run_of_policy(version),
        scope: RecalculationScope::All,
        requested_at: now,
        approved_by,
    }
}

/// The reason that a held request is skipped.
const REPLACED: &str = "it was held and then replaced by a later request for the same products";

/// The reason that a request was skipped.
fn skipped_because_of(running: Option<i64>) -> String {
    let running = running.map_or("another run".to_owned(), |number| format!("run {number}"));
    format!("{running} was under way; one run after it does the work of all requests that came meanwhile")
}

/// Truncates a reason to [`MAX_REASON_CHARS`].
fn bounded_reason(reason: &str) -> &str {
    bounded(reason, MAX_REASON_CHARS)
}

/// A row of `recalculation_runs`, with the sums over its ranges.
#[derive(Debug)]
struct RunRecord {
    task_id: String,
    scope: Json<RecalculationScope>,
    state: String,
    reason: Option<String>,
    follow_up: Option<String>,
    approved_by: Option<String>,
    run_number: Option<i64>,
    policy_version: Option<i64>,
    requested_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    products_total: Option<i64>,
    products_done: i64,
    prices_changed: i64,
    prices_frozen: i64,
    workers: Json<BTreeMap<String, u64>>,
}

impl<'row, R: Columns> FromRow<'row, R> for RunRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            task_id: row.value("task_id")?,
            scope: row.value("scope")?,
            state: row.value("state")?,
            reason: row.value("reason")?,
            follow_up: row.value("follow_up")?,
            approved_by: row.value("approved_by")?,
            run_number: row.value("run_number")?,
            policy_version: row.value("policy_version")?,
            requested_at: row.value("requested_at")?,
            started_at: row.value("started_at")?,
            finished_at: row.value("finished_at")?,
            products_total: row.value("products_total")?,
            products_done: row.value("products_done")?,
            prices_changed: row.value("prices_changed")?,
            prices_frozen: row.value("prices_frozen")?,
            workers: row.value("workers")?,
        })
    }
}

impl TryFrom<RunRecord> for StoredRun {
    type Error = StoreError;

    fn try_from(record: RunRecord) -> Result<Self, StoreError> {
        Ok(Self {
            task_id: record.task_id,
            scope: record.scope.0,
            state: run_state(&record.state)?,
            reason: record.reason,
            follow_up: record.follow_up,
            approved_by: record.approved_by,
            run_number: record.run_number,
            policy_version: record.policy_version,
            requested_at: record.requested_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            products_total: record.products_total.map(count).transpose()?,
            products_done: count(record.products_done)?,
            prices_changed: count(record.prices_changed)?,
            prices_frozen: count(record.prices_frozen)?,
            workers: record.workers.0,
        })
    }
}

/// The fields of a request that coalescing needs.
#[derive(Debug)]
struct WaitingRecord {
    state: String,
    reason: Option<String>,
    follow_up: Option<String>,
    is_follow_up: bool,
}

impl<'row, R: Columns> FromRow<'row, R> for WaitingRecord {
    fn from_row(row: &'row R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            state: row.value("state")?,
            reason: row.value("reason")?,
            follow_up: row.value("follow_up")?,
            is_follow_up: row.value("is_follow_up")?,
        })
    }
}

impl TryFrom<WaitingRecord> for CoalescedRun {
    type Error = StoreError;

    fn try_from(record: WaitingRecord) -> Result<Self, StoreError> {
        Ok(Self { state: run_state(&record.state)?, reason: record.reason, follow_up: record.follow_up })
    }
}

fn run_state(text: &str) -> Result<RunState, StoreError> {
    RunState::parse(text).ok_or_else(|| StoreError::corrupt("state of a run", text))
}
