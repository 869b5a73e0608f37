//! Requests that can be repeated without harm: the header `Idempotency-Key`, and what stands for the request.

use actix_web::HttpRequest;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::forecaster::RequestKey;

/// Longest key.
const KEY_LENGTH_MAX: usize = 255;

/// The key of a request with the digest of its body, if it has one.
///
/// # Errors
/// [`Error::InvalidParameter`] for a key that is empty, too long or not visible ASCII.
pub fn request_key<T: Serialize>(http_request: &HttpRequest, body: &T) -> Result<Option<RequestKey>, Error> {
    let Some(value) = http_request.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| (1..=KEY_LENGTH_MAX).contains(&key.len()));
    let key = key.ok_or_else(|| refuse_key("must be 1 to 255 visible ASCII characters"))?;
    Ok(Some(RequestKey { key: key.to_owned(), digest: digest(body)? }))
}

/// A key that cannot be used.
#[must_use]
pub fn refuse_key(message: &str) -> Error {
    Error::invalid_parameter("Idempotency-Key", "invalid-value", message)
}

/// SHA-256 of a request with its defaults filled in, in hexadecimal: spaces and the order of fields make no difference.
///
/// # Errors
/// When the request cannot be written as JSON, which a request that was read always can.
pub fn digest<T: Serialize>(body: &T) -> Result<String, Error> {
    let text = serde_json::to_vec(body).map_err(|error| Error::internal("writing a request", error))?;
    Ok(hex::encode(Sha256::digest(text)))
}
