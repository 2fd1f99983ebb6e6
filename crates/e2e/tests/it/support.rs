//! What the tests of several modules share.

use anyhow::Result;
use pricing_e2e::PostgresServer;
use tokio::sync::OnceCell;

/// The one PostgreSQL of this test binary. Each test makes a database of its own in it, named after itself.
///
/// A test that kills or restarts the server starts its own instead.
pub(crate) async fn shared_postgres() -> Result<&'static PostgresServer> {
    // A `static` because the tests of a binary have nothing else in common. It is never dropped; the
    // server ends with the process.
    static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
    SERVER.get_or_try_init(PostgresServer::start).await
}
