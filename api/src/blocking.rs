//! Computation that must not keep other requests waiting.

use crate::Error;

/// Runs `work` on a thread for such work, and waits for it without blocking.
///
/// # Errors
/// [`Error::Internal`] when it panics.
pub async fn run<T: Send + 'static>(
    attempt: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(attempt, error))
}
