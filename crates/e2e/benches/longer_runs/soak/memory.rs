//! Whether memory grows: the slope of the resident size of each process, after a warm-up.
//!
//! The slope is Theil and Sen's: the median of the slopes between all pairs of samples. A few samples that
//! are far off, as while everything is broken, do not move it. It is measured from four minutes after the
//! process has started, for processes that live for six minutes more; others are left out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use pricing_e2e::{Member, memory_kb};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::verdict::Verdict;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(4 * 60);
const SHORTEST: Duration = Duration::from_secs(6 * 60);
/// The unit of the slope.
const PERIOD_SECONDS: f64 = 600.0;
/// Percent of the median size in ten minutes.
const PROMISED_PERCENT: f64 = 1.0;

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    kb: f64,
}

type Lives = BTreeMap<(String, u32), Vec<Sample>>;

/// The samples of each process, by its name and its id; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    lives: Arc<Mutex<Lives>>,
}

/// How the memory of a process changed.
#[derive(Debug, PartialEq)]
struct Slope {
    median_kb: f64,
    /// Of the median, in ten minutes.
    percent: f64,
}

impl Memory {
    /// From now on the process of this member is sampled, until it ends.
    pub(crate) fn watch(&self, member: &Member, place: &str) {
        let name = format!("{}{place}", member.service().program());
        self.lives().entry((name, member.process.id())).or_default();
    }

    /// Samples every process that is watched, until `stop` is cancelled.
    pub(crate) async fn sample(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            for ((_, id), samples) in self.lives().iter_mut() {
                if let Ok(kb) = memory_kb(*id, "VmRSS") {
                    samples.push(Sample { at: Instant::now(), kb: kb as f64 });
                }
            }
        }
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints every slope, and judges those of processes that lived for long enough. Returns the steepest.
    pub(crate) fn judge(&self, verdict: &mut Verdict) -> String {
        let lives = self.lives();
        let mut steepest: Option<(f64, String)> = None;
        for ((name, id), samples) in lives.iter() {
            let Some(slope) = slope(samples) else {
                println!("memory of {name} ({id}): too short a life to measure");
                continue;
            };
            let text =
                format!("{name}: {:.1} MB, {:+.2} % in 10 minutes", slope.median_kb / 1024.0, slope.percent);
            println!("memory of {text} ({id})");
            let is_flat = slope.percent < PROMISED_PERCENT;
            let outcome = if is_flat { Ok(()) } else { Err(anyhow!(text.clone())) };
            verdict.promise(&format!("the memory of {name} grows by less than 1 % in 10 minutes"), outcome);
            if steepest.as_ref().is_none_or(|(percent, _)| *percent < slope.percent) {
                steepest = Some((slope.percent, text));
            }
        }
        steepest.map_or_else(|| "not measured: too short a run".to_owned(), |(_, text)| text)
    }
}

/// The slope after the warm-up; `None` if the process did not live for long enough.
fn slope(samples: &[Sample]) -> Option<Slope> {
    let (first, last) = (samples.first()?, samples.last()?);
    let warm: Vec<Sample> =
        samples.iter().filter(|sample| sample.at >= first.at + WARM_UP).copied().collect();
    if last.at < warm.first()?.at + SHORTEST {
        return None;
    }
    let mut slopes = Vec::new();
    for (place, from) in warm.iter().enumerate() {
        for to in warm.iter().skip(place + 1) {
            let seconds = (to.at - from.at).as_secs_f64();
            if seconds > 0.0 {
                slopes.push((to.kb - from.kb) / seconds);
            }
        }
    }
    let median_kb = median(warm.iter().map(|sample| sample.kb).collect())?;
    let percent = median(slopes)? * PERIOD_SECONDS / median_kb * 100.0;
    Some(Slope { median_kb, percent })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
