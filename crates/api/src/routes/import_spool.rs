//! The spool of an import: a copy of its body, in a file, so that its rows can be judged first and stored
//! afterwards.
//!
//! The file has no name: it is unlinked when it is created, and its space is free when its handle is closed.
//! So none is left, whether the import ends, fails, or is abandoned by its client, or the process is killed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use futures::{Stream, TryStreamExt};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;

use crate::error::ApiError;

/// Concurrent spools in one process: on disk there are at most as many files of the longest body.
const MAX_SPOOLS: usize = 4;
/// Bytes read from the file at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where the spools of a process are, and how many and how long they may be.
#[derive(Clone)]
pub(crate) struct Spools {
    directory: PathBuf,
    limit_bytes: u64,
    places: Arc<Semaphore>,
}

/// The copy of one body.
pub(super) struct Spool {
    file: File,
    bytes_kept: u64,
    limit_bytes: u64,
    _place: OwnedSemaphorePermit,
}

impl Spools {
    pub(crate) fn new(directory: PathBuf, limit_bytes: u64) -> Self {
        Self { directory, limit_bytes, places: Arc::new(Semaphore::new(MAX_SPOOLS)) }
    }

    /// Creates an empty spool, unless [`MAX_SPOOLS`] are in use.
    pub(super) async fn create(&self) -> Result<Spool, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| ApiError::Unavailable { reason: "four imports are being judged" })?;
        let directory = self.directory.clone();
        let creating = tokio::task::spawn_blocking(move || tempfile::tempfile_in(directory));
        let created = creating.await.map_err(io::Error::other).flatten();
        let file = File::from_std(created.map_err(|error| unusable(&error))?);
        Ok(Spool { file, bytes_kept: 0, limit_bytes: self.limit_bytes, _place: place })
    }
}

impl Spool {
    /// Passes these chunks on, each once the spool has it.
    pub(super) fn copying(
        &mut self,
        chunks: impl Stream<Item = Result<Bytes, ApiError>>,
    ) -> impl Stream<Item = Result<Bytes, ApiError>> {
        futures::stream::try_unfold((Box::pin(chunks), self), async |(mut chunks, spool)| {
            let Some(chunk) = chunks.try_next().await? else {
                spool.file.flush().await.map_err(|error| unusable(&error))?;
                return Ok(None);
            };
            spool.keep(&chunk).await?;
            Ok(Some((chunk, (chunks, spool))))
        })
    }

    /// Reads the copy from its beginning.
    pub(super) async fn chunks(&mut self) -> Result<impl Stream<Item = Result<Bytes, ApiError>>, ApiError> {
        self.file.rewind().await.map_err(|error| unusable(&error))?;
        Ok(ReaderStream::with_capacity(&mut self.file, CHUNK_BYTES).map_err(|error| unusable(&error)))
    }

    async fn keep(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        self.bytes_kept += chunk.len() as u64;
        if self.bytes_kept > self.limit_bytes {
            return Err(ApiError::SpoolTooLarge { limit_bytes: self.limit_bytes });
        }
        self.file.write_all(chunk).await.map_err(|error| unusable(&error))
    }
}

fn unusable(error: &io::Error) -> ApiError {
    tracing::warn!(%error, "the spool of an import cannot be used; see PRICING_IMPORT_SPOOL_DIRECTORY");
    ApiError::Unavailable {
        reason: "the file in which an import is judged cannot be used, and nothing was stored",
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn chunks(sent: &'static [&'static str]) -> impl Stream<Item = Result<Bytes, ApiError>> {
        stream::iter(sent.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))))
    }

    async fn text(chunks: impl Stream<Item = Result<Bytes, ApiError>>) -> Result<String, ApiError> {
        let read: Vec<Bytes> = chunks.try_collect().await?;
        Ok(String::from_utf8(read.concat()).unwrap())
    }

    #[tokio::test]
    async fn a_copy_is_read_as_often_as_needed_and_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let spools = Spools::new(directory.path().to_owned(), 12);
        let mut spool = spools.create().await.unwrap();
        let passed_on = text(spool.copying(chunks(&["product", "_id", "\n1"]))).await;
        assert_eq!(passed_on.as_deref(), Ok("product_id\n1"));
        for _ in 0..2 {
            assert_eq!(text(spool.chunks().await.unwrap()).await.as_deref(), Ok("product_id\n1"));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_longer_body_is_refused() {
        let spools = Spools::new(std::env::temp_dir(), 12);
        let mut spool = spools.create().await.unwrap();
        let refused = text(spool.copying(chunks(&["product_id\n1", "2"]))).await.unwrap_err();
        let problem = refused.problem();
        assert_eq!((problem.status, &*problem.kind), (413, "/problems/body-too-large"));
        assert!(problem.detail.contains("12 bytes"), "{}", problem.detail);
        assert!(problem.detail.contains("PRICING_IMPORT_SPOOL_LIMIT_BYTES"), "{}", problem.detail);
    }

    #[tokio::test]
    async fn places_are_bounded_and_released() {
        let spools = Spools::new(std::env::temp_dir(), 1);
        let mut kept = Vec::new();
        for _ in 0..MAX_SPOOLS {
            kept.push(spools.create().await.unwrap());
        }
        assert_eq!(spools.create().await.err().map(|refused| refused.problem().status), Some(503));
        kept.pop();
        assert!(spools.create().await.is_ok());
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_refuses_the_import() {
        let spools = Spools::new("/no/such/directory".into(), 1);
        assert_eq!(spools.create().await.err().map(|refused| refused.problem().status), Some(503));
        assert_eq!(spools.places.available_permits(), MAX_SPOOLS);
    }
}
