//! `plumecast openapi`: the description of the REST API.

use anyhow::Context;

/// Prints the OpenAPI document as JSON.
///
/// # Errors
/// When standard output is closed.
pub fn run() -> anyhow::Result<()> {
    let document = crate::openapi::document().to_pretty_json().context("writing the document")?;
    Ok(super::say(&document)?)
}
