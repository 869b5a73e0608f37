//! `plumecast serve`: REST, page and metrics.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::StopHandle;
use crate::{Application, Config, telemetry};

/// Serves until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// When there is no database, or the address is taken.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    telemetry::init(config.log_format, telemetry::SERVICE);
    let database = super::open(&config.database).await?;
    let application = Application::build(config, database.pool().clone())?;
    tracing::info!("listening on http://{}", application.address());
    stop_on_signal(application.stop_handle())?;
    let result = application.run().await.context("serving");
    database.close().await;
    result
}

/// Stops the service on SIGINT or SIGTERM.
///
/// # Errors
/// When the system lets no handler be set.
pub(super) fn stop_on_signal(stop: StopHandle) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        stop.stop().await;
    });
    Ok(())
}
