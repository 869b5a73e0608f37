//! `plumecast migrate`: bring the schema of the database up to date.

use crate::config::DatabaseConfig;

/// Applies the migrations that are missing.
///
/// # Errors
/// When there is no database, or a migration fails.
pub async fn run(config: &DatabaseConfig) -> anyhow::Result<()> {
    super::open(config).await?.close().await;
    Ok(())
}
