//! `eventually` waits no longer than it must, and explains itself when it waited in vain.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, ensure};
use pricing_e2e::eventually;

#[tokio::test]
async fn it_returns_what_the_first_successful_attempt_returned() -> Result<()> {
    let attempts = Cell::new(0);
    let value = eventually("the third attempt succeeds", Duration::from_secs(60), async || {
        attempts.set(attempts.get() + 1);
        ensure!(attempts.get() == 3, "too early");
        Ok(attempts.get())
    })
    .await?;
    assert_eq!(value, 3);
    Ok(())
}

#[tokio::test]
async fn its_error_names_the_condition_and_the_last_failure() {
    let attempts = Cell::new(0);
    let outcome: Result<()> = eventually("pigs fly", Duration::from_millis(100), async || {
        attempts.set(attempts.get() + 1);
        anyhow::bail!("pig {} is on the ground", attempts.get())
    })
    .await;
    let message = format!("{:#}", outcome.unwrap_err());
    let expected = format!("waited 100ms in vain: pigs fly: pig {} is on the ground", attempts.get());
    assert_eq!(message, expected);
}

#[tokio::test]
async fn it_gives_up_on_an_attempt_that_hangs() {
    let outcome: Result<()> =
        eventually("an answer comes", Duration::from_millis(100), async || std::future::pending().await)
            .await;
    assert!(format!("{:#}", outcome.unwrap_err()).ends_with("no attempt finished"));
}
