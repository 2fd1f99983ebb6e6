//! Tests of `pricing up` that need no running engine.

use super::*;

#[tokio::test]
async fn one_failing_service_stops_the_others() {
    let shutdown = CancellationToken::new();
    let waits = shutdown.clone().cancelled_owned();
    let services: Vec<(_, BoxFuture<'static, Result<()>>)> = vec![
        (
            "the patient one",
            Box::pin(async {
                waits.await;
                Ok(())
            }),
        ),
        ("the broken one", Box::pin(async { bail!("out of order") })),
    ];
    let outcome = run_together(services, shutdown).await;
    assert_eq!(
        outcome.err().map(|error| format!("{error:#}")).as_deref(),
        Some("the broken one has failed: out of order")
    );
}

#[test]
fn passwords_are_not_shown() {
    for (written, shown) in [
        ("redis://:secret@127.0.0.1:6379", "redis://:***@127.0.0.1:6379"),
        ("postgres://me:secret@db/prices", "postgres://me:***@db/prices"),
        ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ("sqlite:///var/lib/50%25/catalogue.db", "sqlite:///var/lib/50%25/catalogue.db"),
    ] {
        assert_eq!(without_password(written), shown);
    }
}

#[test]
fn a_service_on_every_address_is_reached_on_loopback() -> Result<()> {
    for (address, url) in [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/"),
        ("[::1]:8000", "http://[::1]:8000/"),
    ] {
        assert_eq!(reachable(address.parse()?)?.as_str(), url);
    }
    Ok(())
}
