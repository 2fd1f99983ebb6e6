//! The faults, one a minute in this order, and what `/readyz` of the API that is not struck says of each.

use std::time::Duration;

use anyhow::Result;
use pricing_e2e::{Member, Service};
use tokio::time::sleep;

use super::{Arena, DATABASE, reports, stays_ready};
use crate::verdict::recalculate;

/// How long something is away.
const AWAY: Duration = Duration::from_secs(8);
const RECALCULATION_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Service),
    RedisKilled,
    RedisCut,
    RedisSilent,
    DatabaseAway,
    DatabaseReadOnly,
    NoWorker,
    Frozen(Service),
    Recalculation,
    Restart(Service),
}

use Fault::{Frozen, Kill, Restart};
use Service::{Api, Listener, Worker};

const ORDER: [Fault; 16] = [
    Kill(Api),
    Fault::RedisKilled,
    Kill(Worker),
    Fault::RedisCut,
    Kill(Listener),
    Fault::DatabaseAway,
    Frozen(Api),
    Fault::RedisSilent,
    Fault::Recalculation,
    Fault::NoWorker,
    Restart(Api),
    Fault::DatabaseReadOnly,
    Frozen(Worker),
    Restart(Worker),
    Frozen(Listener),
    Restart(Listener),
];

impl Fault {
    /// The fault of this minute, from 1.
    pub(crate) fn of_minute(minute: u64) -> Self {
        let place = usize::try_from(minute.saturating_sub(1)).unwrap_or_default() % ORDER.len();
        ORDER.get(place).copied().unwrap_or(Self::Recalculation)
    }

    pub(crate) fn name(self) -> String {
        match self {
            Kill(service) => format!("kill -9 of a {}", service.program()),
            Self::RedisKilled => "Redis killed and back".to_owned(),
            Self::RedisCut => "the path to Redis cut".to_owned(),
            Self::RedisSilent => "the path to Redis silent".to_owned(),
            Self::DatabaseAway => "the database away".to_owned(),
            Self::DatabaseReadOnly => "the database read-only".to_owned(),
            Self::NoWorker => "no worker".to_owned(),
            Frozen(service) => format!("a {} frozen", service.program()),
            Self::Recalculation => "a full recalculation".to_owned(),
            Restart(service) => format!("a {} restarted", service.program()),
        }
    }

    /// Whether it ends or freezes a process of this service.
    pub(crate) fn strikes(self, service: Service) -> bool {
        matches!(self, Kill(one) | Frozen(one) | Restart(one) if one == service)
    }

    /// Breaks something, sees that `/readyz` tells the truth meanwhile, and mends it.
    pub(crate) async fn strike(self, arena: &mut Arena) -> Result<()> {
        match self {
            Kill(service) => kill(arena, service).await,
            Frozen(service) => freeze(arena, service).await,
            Restart(service) => restart(arena, service).await,
            Self::RedisKilled => {
                arena.redis.kill()?;
                let said = away(arena, "redis").await;
                arena.redis.restart().await?;
                said
            }
            Self::RedisCut => {
                arena.proxy.cut().await;
                let said = away(arena, "redis").await;
                arena.proxy.restore().await?;
                said
            }
            Self::RedisSilent => {
                arena.proxy.stall();
                let said = away(arena, "redis").await;
                arena.proxy.restore().await?;
                said
            }
            Self::DatabaseAway => {
                arena.postgres.kill()?;
                let said = away(arena, "database").await;
                arena.postgres.restart().await?;
                said
            }
            Self::DatabaseReadOnly => {
                set_read_only(arena, "on").await?;
                let said = away(arena, "database_writes").await;
                set_read_only(arena, "off").await?;
                said
            }
            Self::NoWorker => without_workers(arena).await,
            Self::Recalculation => {
                recalculate(&arena.apis.steady.client, RECALCULATION_PATIENCE).await?;
                stays_ready(&arena.apis.steady).await
            }
        }
    }
}

/// Waits until both APIs name what is away, and a while longer.
async fn away(arena: &Arena, check: &str) -> Result<()> {
    let reported = async {
        reports(&arena.apis.steady, check).await?;
        reports(&arena.apis.struck, check).await
    };
    let (said, ()) = tokio::join!(reported, sleep(AWAY));
    said
}

async fn kill(arena: &mut Arena, service: Service) -> Result<()> {
    arena.pair(service).struck.kill()?;
    sleep(Duration::from_secs(2)).await;
    let said = stays_ready(&arena.apis.steady).await;
    start_again(&mut arena.pair(service).struck).await?;
    said
}

/// Longer than its heartbeats and its leases.
async fn freeze(arena: &mut Arena, service: Service) -> Result<()> {
    arena.pair(service).struck.process.freeze()?;
    sleep(AWAY + AWAY / 2).await;
    let said = stays_ready(&arena.apis.steady).await;
    arena.pair(service).struck.process.thaw()?;
    said
}

async fn restart(arena: &mut Arena, service: Service) -> Result<()> {
    let in_order = arena.pair(service).struck.terminate().await?;
    let said = stays_ready(&arena.apis.steady).await;
    start_again(&mut arena.pair(service).struck).await?;
    anyhow::ensure!(in_order, "a {} ended with an error", service.program());
    said
}

async fn start_again(member: &mut Member) -> Result<()> {
    member.start_again()?;
    member.wait_until_ready().await
}

/// One worker is stopped, and the one that is never struck is frozen, which keeps its memory.
async fn without_workers(arena: &mut Arena) -> Result<()> {
    let in_order = arena.workers.struck.terminate().await?;
    arena.workers.steady.process.freeze()?;
    let said = away(arena, "worker").await;
    arena.workers.steady.process.thaw()?;
    start_again(&mut arena.workers.struck).await?;
    anyhow::ensure!(in_order, "a worker ended with an error");
    said
}

async fn set_read_only(arena: &Arena, read_only: &str) -> Result<()> {
    let setting = format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = {read_only}");
    arena.postgres.execute("postgres", &setting).await?;
    let end =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    arena.postgres.execute("postgres", &end).await?;
    Ok(())
}
