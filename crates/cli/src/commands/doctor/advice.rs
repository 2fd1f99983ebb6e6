//! The next step for each check of `/readyz` that found something, by its name. docs/operations.md says what
//! each check looks at.

/// A check with the advice for each status that it can have besides `ok`.
struct Advice {
    name: &'static str,
    /// The next step if it failed.
    failed: &'static str,
    /// The next step if it warns.
    warning: &'static str,
}

impl Advice {
    /// The same step for both.
    const fn same(name: &'static str, step: &'static str) -> Self {
        Self { name, failed: step, warning: step }
    }
}

const ADVICE: [Advice; 13] = [
    Advice::same(
        "redis",
        "prices are still read, from memory and the database; products, policies and events are refused: start Redis, or let PRICING_REDIS_URL lead to a master",
    ),
    Advice::same(
        "redis_writes",
        "prices are still read; products, policies and events are refused: give Redis memory (maxmemory, maxmemory-policy volatile-lfu), room on its disk, or its user the right to write",
    ),
    Advice::same(
        "redis_settings",
        "set in Redis' configuration: maxmemory-policy volatile-lfu or noeviction, appendonly yes; raise maxmemory or maxclients if they are nearly reached",
    ),
    Advice::same(
        "database",
        "prices in memory and in Redis are still read, changes are refused: start the database, or correct PRICING_DATABASE_URL",
    ),
    Advice::same(
        "database_writes",
        "prices are still read, changes are refused: make room on the database's disk, or let PRICING_DATABASE_URL lead to a primary where its user may write",
    ),
    Advice::same(
        "events",
        "prices do not follow the market: see the logs of pricing-listener and pricing-worker, and `pricing jobs list`; nothing is lost meanwhile",
    ),
    Advice::same(
        "worker",
        "start pricing-worker with the same Redis, database and PRICING_KEY_PREFIX; events and recalculations wait for it",
    ),
    Advice::same(
        "listener",
        "start pricing-listener with the same Redis and PRICING_KEY_PREFIX; events wait for it",
    ),
    Advice::same(
        "clock",
        "the API uses the database's time meanwhile: synchronise the clock of its host (NTP); no restart is needed",
    ),
    Advice::same(
        "time_zones",
        "schedules begin and end at different times: install the same version of the engine, or of the system's time zone database, everywhere",
    ),
    Advice {
        name: "policy",
        failed: "this API cannot use the newest policy, and another version published it: install that version, or publish an earlier policy again with it (`pricing policy rollback`)",
        warning: "it keeps its meaning: see `pricing policy check`, correct it and publish it again",
    },
    Advice::same(
        "access",
        "see docs/access.md: `pricing keys create` creates a key, and without PRICING_AUTH=off callers need one; if the keys cannot be read, see the check of the database",
    ),
    Advice::same(
        "held_moves",
        "`pricing approve` lists them; `pricing approve events` lets them go, with --reject it keeps the prices",
    ),
];

/// The next step for a check that found something. A newer API may have checks that this program does not
/// know.
pub(super) fn next_step(name: &str, is_warning: bool) -> &'static str {
    let known = ADVICE.iter().find(|advice| advice.name == name);
    known.map_or(UNKNOWN_CHECK, |known| if is_warning { known.warning } else { known.failed })
}

/// The next step for a check that this program does not know.
const UNKNOWN_CHECK: &str =
    "this program does not know the check: see the API's log, and install the API's version of `pricing`";

#[cfg(test)]
mod tests {
    use pricing_core::health::CheckName;

    use super::*;

    #[test]
    fn each_check_of_the_server_has_advice_for_each_status() {
        for name in CheckName::ALL {
            for is_warning in [false, true] {
                assert_ne!(next_step(name.as_str(), is_warning), UNKNOWN_CHECK, "{name:?}");
            }
        }
        assert_eq!(ADVICE.len(), CheckName::ALL.len(), "advice for a check that does not exist");
        assert_eq!(next_step("of_tomorrow", false), UNKNOWN_CHECK);
    }
}
