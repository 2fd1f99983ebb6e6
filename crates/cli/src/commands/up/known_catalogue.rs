//! The catalogue that `pricing up` finds in its data directory, compared with what the directory remembers.

use anyhow::{Error, Result};
use pricing_core::store::{Store, StoreError, StoreSettings};

use crate::data_directory::{DataDirectory, Mark};
use crate::output;
use crate::redis_child;

/// Opens the catalogue once before anything else uses it: creates or migrates it, refuses one that has
/// vanished or is damaged, and reports one that is another than before, and the loss of Redis's data.
pub(super) async fn open(data: &DataDirectory, uses_private_redis: bool) -> Result<()> {
    data.prepare_catalogue()?;
    let identity = identity(data).await?;
    let known = data.mark();
    if known.as_ref().is_some_and(|mark| mark.identity != identity) {
        output::note(&format!(
            "{} is another catalogue than at the last start: it was replaced without `pricing restore`",
            data.catalogue().display()
        ));
    }
    let had_redis_data = known.is_some_and(|mark| mark.has_redis_data);
    if uses_private_redis && had_redis_data && !redis_child::has_data(&data.redis()) {
        output::note(&format!(
            "Redis's file in {} is gone, and Redis starts without it: market events that were acknowledged and \
             not yet applied may be lost. Send again what was sent last",
            data.redis().display()
        ));
    }
    data.set_mark(&Mark { identity, has_redis_data: had_redis_data })
}

/// Records that Redis keeps data for the catalogue, after it has started. Without a catalogue in the
/// directory there is no mark.
pub(super) fn remember_redis(data: &DataDirectory) -> Result<()> {
    match data.mark() {
        Some(mark) if !mark.has_redis_data => data.set_mark(&Mark { has_redis_data: true, ..mark }),
        _ => Ok(()),
    }
}

async fn identity(data: &DataDirectory) -> Result<String> {
    let settings = StoreSettings { max_connections: 1, ..StoreSettings::default() };
    let reading = async {
        let store = Store::open(&data.database_url(), settings).await?;
        let identity = store.identity().await;
        store.close().await;
        identity
    };
    reading.await.map_err(|error| with_advice(error, data))
}

/// Says what to do about a damaged catalogue.
fn with_advice(error: StoreError, data: &DataDirectory) -> Error {
    let (catalogue, directory) = (data.catalogue(), data.path().display());
    let advice = match &error {
        StoreError::Corrupt { .. } => format!(
            "{catalogue} is damaged: restore a backup with `pricing restore FILE --data-dir {directory}`; without \
             one, `sqlite3 {catalogue} .recover` may save a part",
            catalogue = catalogue.display()
        ),
        _ => format!("cannot open {}", catalogue.display()),
    };
    Error::new(error).context(advice)
}
