//! Recalculations as the catalogue keeps them: what is asked, and what is known of each.
//!
//! A request is a row before anybody works on it. The coordinator that holds the lease turns it into a run
//! with a number, which is also the fence: once a newer run has begun, transactions of an older one find out
//! by [`lock_run`](super::StoreTransaction::lock_run) and stop. Ranges are recorded in the transactions
//! that write their prices, so what a run says of itself is what was committed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use super::error::StoreError;
use super::json_rows::bounded;
use super::read_rows::count;
use super::{Store, on_store};
use pricing_domain::facts::recalculation::{RunState, Scope};

/// The longest reason, in characters; a longer one is cut. Enough for an error with its causes.
pub const MAX_REASON_CHARS: usize = 500;

/// Somebody asks for a recalculation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// Identifies the request; asking twice with the same is asking once.
    pub task_id: String,
    /// Which products.
    pub scope: Scope,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// Who lets it through even if it moves prices far; otherwise it may be held.
    pub approved_by: Option<String>,
}

/// A recalculation, asked for, under way or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// See [`RunRequest::task_id`].
    pub task_id: String,
    /// Which products.
    pub scope: Scope,
    /// How far it got.
    pub state: RunState,
    /// Why it was skipped or failed. At most [`MAX_REASON_CHARS`].
    pub reason: Option<String>,
    /// The task that does the work of this one, if it was skipped.
    pub follow_up: Option<String>,
    /// Who let it through.
    pub approved_by: Option<String>,
    /// Its fencing number, once it has begun. A run that is begun again has the newer one.
    pub run_number: Option<i64>,
    /// The policy it prices by, once it has begun; while it is held, and until it begins, the one that was
    /// judged.
    pub policy_version: Option<i64>,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// When it was first begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was done, skipped or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// How many products there were when it began.
    pub products_total: Option<u64>,
    /// Products whose prices were computed until now.
    pub products_done: u64,
    /// How many of these have another list price than before.
    pub prices_changed: u64,
    /// How many of these kept their list price because a rule failed.
    pub prices_frozen: u64,
    /// The number of ranges that each worker finished.
    pub workers: BTreeMap<String, u64>,
}

/// What came of one range of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeOutcome {
    /// The worker that priced it.
    pub worker: String,
    /// The products that were priced.
    pub products: u64,
    /// How many of these have another list price than before.
    pub changed: u64,
    /// How many of these kept their list price because a rule failed.
    pub frozen: u64,
}

/// What became of a request that came while a run was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoalescedRun {
    /// `Skipped` if another task does its work. `Requested` if it is itself the one that does the work of
    /// others. Anything else if somebody has taken care of it before.
    pub state: RunState,
    /// Why it was skipped or failed.
    pub reason: Option<String>,
    /// The task that does its work.
    pub follow_up: Option<String>,
}

impl Store {
    /// Takes down that somebody asks for a recalculation. Returns whether the request is new.
    pub async fn request_run(&self, request: &RunRequest) -> Result<bool, StoreError> {
        on_store!(self, store => store.request_run(request).await)
    }

    /// What is known of a recalculation. While it is under way, that is what its finished ranges add up to.
    pub async fn run(&self, task_id: &str) -> Result<Option<StoredRun>, StoreError> {
        on_store!(self, store => store.run(task_id).await)
    }

    /// Takes back a request that waits: it failed, for this reason. Returns whether there was one.
    pub async fn withdraw_run(
        &self,
        task_id: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        on_store!(self, store => store.withdraw_run(task_id, reason, now).await)
    }

    /// Holds a request that nobody has begun until somebody approves of it; what was judged is this policy.
    /// An earlier one for the same products that is held is skipped, as it is when a later one begins.
    /// Returns whether there was such a request.
    pub async fn hold_run(
        &self,
        task_id: &str,
        reason: &str,
        policy_version: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        on_store!(self, store => store.hold_run(task_id, reason, policy_version, now).await)
    }

    /// Gives a held request up: it failed, for this reason. Returns whether it was held.
    pub async fn reject_run(
        &self,
        task_id: &str,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        on_store!(self, store => store.reject_run(task_id, reason, now).await)
    }

    /// How many requests are held.
    pub async fn count_held_runs(&self) -> Result<u64, StoreError> {
        on_store!(self, store => store.count_held_runs().await)
    }

    /// The held requests, the latest first.
    pub async fn held_runs(&self, limit: u32) -> Result<Vec<StoredRun>, StoreError> {
        on_store!(self, store => store.held_runs(limit).await)
    }

    /// Lets a held request through: it waits for its turn again, and is not held any more. Returns whether it
    /// was held.
    pub async fn approve_run(&self, task_id: &str, approved_by: &str) -> Result<bool, StoreError> {
        on_store!(self, store => store.approve_run(task_id, approved_by).await)
    }

    /// How many requests wait, for their turn or for approval.
    pub async fn count_requested_runs(&self) -> Result<u64, StoreError> {
        on_store!(self, store => store.count_requested_runs().await)
    }

    /// What to work on next: a run that is under way, as its coordinator must have died if the caller holds
    /// the lease; otherwise the oldest request.
    pub async fn next_requested_run(&self) -> Result<Option<StoredRun>, StoreError> {
        on_store!(self, store => store.next_requested_run().await)
    }

    /// Leaves the work of a request to one run after the one that is under way, and marks the request as
    /// skipped. All requests for the same scope that do so meanwhile share that further run, which is asked
    /// for if nobody has yet. It begins after them, so it sees every fact that they were about.
    ///
    /// A request that is no longer waiting stays as it is. So does one that is itself such a further run,
    /// unless there is another. One that was never taken down is taken down first.
    pub async fn coalesce_run(
        &self,
        task_id: &str,
        scope: &Scope,
        now: DateTime<Utc>,
    ) -> Result<CoalescedRun, StoreError> {
        on_store!(self, store => store.coalesce_run(task_id, scope, now).await)
    }

    /// Begins a run, or begins it again under a newer number: what it did under the former one no longer
    /// counts. Waits for transactions of the run before; later ones of it are told to stop.
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
        let begin = BeginRun { task_id, run_number, policy_version, products_total, now };
        on_store!(self, store => store.begin_run(begin).await)
    }

    /// How many ranges of a run are finished; 0 once the run itself is.
    pub async fn finished_ranges(&self, run_number: i64) -> Result<u64, StoreError> {
        on_store!(self, store => store.finished_ranges(run_number).await)
    }

    /// Ends a run in a final state and keeps what its ranges add up to. Waits for transactions of its ranges;
    /// those that come later are not counted. Returns `false`, and changes nothing, if the task does not run
    /// under this number: it was begun again, or is over.
    pub async fn finish_run(
        &self,
        task_id: &str,
        run_number: i64,
        state: RunState,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        let finish = FinishRun { task_id, run_number, state, reason, now };
        on_store!(self, store => store.finish_run(finish).await)
    }

    /// The number of the newest run; 0 if there was none.
    pub async fn last_run_number(&self) -> Result<i64, StoreError> {
        on_store!(self, store => store.last_run_number().await)
    }

    /// Forgets runs that were over, or asked for and held, before an instant; at most so many. Returns how
    /// many.
    pub async fn forget_runs(&self, before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        on_store!(self, store => store.forget_runs(before, limit).await)
    }
}

/// See [`Store::begin_run`].
#[derive(Debug, Clone, Copy)]
pub(super) struct BeginRun<'a> {
    pub(super) task_id: &'a str,
    pub(super) run_number: i64,
    pub(super) policy_version: i64,
    pub(super) products_total: u64,
    pub(super) now: DateTime<Utc>,
}

/// See [`Store::finish_run`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FinishRun<'a> {
    pub(super) task_id: &'a str,
    pub(super) run_number: i64,
    pub(super) state: RunState,
    pub(super) reason: Option<&'a str>,
    pub(super) now: DateTime<Utc>,
}

/// The task that does the work of those that came while a run was under way, if the first of these has to ask
/// for it.
pub(super) fn follow_up_of(task_id: &str) -> String {
    format!("{task_id}-follow-up")
}

/// The task that moves the products over to a policy.
pub fn run_of_policy(version: i64) -> String {
    format!("policy-{version}")
}

/// Asks for that task.
pub(super) fn request_of_policy(version: i64, approved_by: &str, now: DateTime<Utc>) -> RunRequest {
    let approved_by = Some(approved_by.to_owned());
    RunRequest { task_id: run_of_policy(version), scope: Scope::All, requested_at: now, approved_by }
}

/// Why a request that was held is skipped.
pub(super) const REPLACED: &str = "it was held, and a later request for the same products takes its place";

/// Why a request was skipped.
pub(super) fn skipped_because_of(running: Option<i64>) -> String {
    let running = running.map_or("another run".to_owned(), |number| format!("run {number}"));
    format!("{running} was under way; one run after it does the work of all requests that came meanwhile")
}

/// A reason of at most [`MAX_REASON_CHARS`].
pub(super) fn bounded_reason(reason: &str) -> &str {
    bounded(reason, MAX_REASON_CHARS)
}

/// A row of `recalculation_runs`, with the sums over its ranges.
#[derive(Debug, FromRow)]
pub(super) struct RunRecord {
    task_id: String,
    scope: Json<Scope>,
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

/// What is read of a request before it is coalesced.
#[derive(Debug, FromRow)]
pub(super) struct WaitingRecord {
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) follow_up: Option<String>,
    pub(super) is_follow_up: bool,
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
