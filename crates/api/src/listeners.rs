//! The sockets that the API serves on: one for everything, or one for prices and one for all routes.

use pricing_core::access::scope::Scope;
use pricing_core::engine::StartError;
use tokio::net::TcpListener;

use crate::access::Access;

/// The routes that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// All of them, as there is no other listener.
    Everything,
    /// Prices and health, as all else is served by another listener.
    Prices,
    /// All of them; most requests for prices arrive at another listener.
    Administration,
}

/// The sockets, each with the routes that it serves.
pub(crate) struct Listeners(pub(crate) Vec<(TcpListener, Served)>);

impl Listeners {
    /// `administration`: the socket of PRICING_ADMIN_LISTEN, if it is set.
    pub(crate) fn new(listener: TcpListener, administration: Option<TcpListener>) -> Self {
        Self(match administration {
            None => vec![(listener, Served::Everything)],
            Some(admin) => vec![(listener, Served::Prices), (admin, Served::Administration)],
        })
    }

    /// Refuses to serve routes beyond loopback to callers without a key, unless that was asked for.
    pub(crate) fn refuse_open(&self, access: &Access) -> Result<(), StartError> {
        let Some(reason) = access.refusal_beyond_loopback() else { return Ok(()) };
        for (listener, served) in &self.0 {
            let address = listener.local_addr()?;
            let is_open_by_setting = *served == Served::Prices && access.open.has(Scope::PricesRead);
            if !address.ip().is_loopback() && !is_open_by_setting {
                return Err(StartError::Unprotected { address, reason });
            }
        }
        Ok(())
    }

    /// Says in the log where the API listens.
    pub(crate) fn log(&self) -> Result<(), StartError> {
        for (listener, served) in &self.0 {
            let address = listener.local_addr()?;
            match served {
                Served::Everything => tracing::info!(%address, "the API is listening"),
                Served::Prices => tracing::info!(%address, "the API is listening for requests for prices"),
                Served::Administration => tracing::info!(%address, "the API is listening for all requests"),
            }
        }
        Ok(())
    }
}
