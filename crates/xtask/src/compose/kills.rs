//! Kills every service, one after another, under a load of events and reads.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::containers::{PATIENCE, Stack};
use super::events::known_prices;
use super::load::{during, lost};
use crate::pause::{eventually, pause};

const VICTIMS: [&str; 6] = ["api", "worker", "listener", "redis", "postgres", "jaeger"];
/// The pause before each kill.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn killed_one_after_another(stack: &Stack) -> Result<String> {
    let kill_all = || {
        let mut recovered = Vec::new();
        for service in VICTIMS {
            pause(PAUSE);
            recovered.push(format!("{service} {:.0} s", stack.kill_9(service)?.as_secs_f64()));
        }
        Ok(recovered.join(", "))
    };
    let (recovered, published, reads) = during(kill_all)?;
    let none_lost = || {
        let lost = lost(&published, &known_prices(stack)?);
        ensure!(lost.is_empty(), "lost: {}", lost.join(", "));
        Ok(Some(()))
    };
    eventually("every acknowledged event is applied", PATIENCE, none_lost)?;
    Ok(format!(
        "kill -9 during load; healthy again after: {recovered}. {} events acknowledged, {} refused, none lost; \
        {} reads answered, the slowest after {:.2} s",
        published.acknowledged,
        published.refused,
        reads.count,
        reads.slowest.as_secs_f64()
    ))
}
