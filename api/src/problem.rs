//! The body of every error response: a problem document (RFC 9457).

use actix_web::{HttpResponse, http::StatusCode, http::header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for people (`title`, `detail`) and programs (`type`, `code`, `errors`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:plumecast:problem:unknown-panel",
    "title": "There is no such panel",
    "status": 404,
    "detail": "there is no panel `tourism`",
    "instance": "/v1/panels/tourism",
    "code": "unknown-panel",
    "request_id": "0199f3a0-6a3e-7c43-9d1e-0d5f2c1f7a11",
    "errors": []
}))]
pub struct Problem {
    /// Stable name of the kind of problem, `urn:plumecast:problem:{code}`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The kind of problem in words; the same for every problem of this type.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Last part of `type`.
    pub code: String,
    /// Identifies the request in the logs; also in the header `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Each thing that is wrong with the request, where that is known.
    #[serde(default)]
    pub errors: Vec<Violation>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// JSON pointer (RFC 6901) to the value in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/quantiles/2")]
    pub pointer: Option<String>,
    /// Name of the query parameter, path parameter or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Stable name of what is wrong.
    #[schema(example = "out-of-range")]
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
}

impl Violation {
    /// Something wrong with the value at `pointer` in the body.
    pub fn at(pointer: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, code: code.to_owned(), message: message.into() }
    }

    /// A row or cell of data that was not taken.
    #[must_use]
    pub fn of_rejection(rejection: &ingest::Rejection) -> Self {
        Self {
            pointer: rejection.pointer.clone(),
            parameter: None,
            code: rejection.reason.code().to_owned(),
            message: rejection.to_string(),
        }
    }

    /// Something wrong with a parameter or header.
    pub fn of(parameter: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(parameter.into()), code: code.to_owned(), message: message.into() }
    }
}

impl Problem {
    /// The problem as a response; `retry_after_seconds` becomes the header `Retry-After`.
    #[must_use]
    pub fn into_response(self, retry_after_seconds: Option<u64>) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if let Some(seconds) = retry_after_seconds {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        // A problem is texts and numbers only, which always are JSON.
        response.content_type(CONTENT_TYPE).body(serde_json::to_string(&self).unwrap_or_default())
    }
}
