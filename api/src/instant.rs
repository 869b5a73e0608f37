//! Instants as text.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::Error};

/// Reads a time, and says what one looks like where it is none.
///
/// # Errors
/// When the text is no time as in RFC 3339.
pub fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| D::Error::custom("must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z");
    DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc()).map_err(wrong)
}

/// As [`rfc3339`], where there may be none.
///
/// # Errors
/// As [`rfc3339`].
pub fn rfc3339_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    #[derive(Deserialize)]
    struct Instant(#[serde(deserialize_with = "rfc3339")] DateTime<Utc>);
    Ok(Option::<Instant>::deserialize(deserializer)?.map(|instant| instant.0))
}
