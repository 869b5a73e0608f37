//! Writing responses that may be large, off the threads that answer requests.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use ingest::trajectories::Encoding;
use serde::Serialize;

use crate::{Error, blocking};

/// Media type of an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Media types of tables.
const CSV: &str = "text/csv";
const PARQUET: &str = "application/vnd.apache.parquet";

/// The media types that large answers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// An Arrow IPC stream.
    Arrow,
    /// A table.
    Table(Encoding),
}

impl Format {
    /// What the client prefers: the first type of its `Accept` that is on offer; JSON when it names none.
    ///
    /// # Errors
    /// [`Error::NotAcceptable`] when it accepts none.
    pub fn wanted(request: &HttpRequest) -> Result<Self, Error> {
        accepted(request, Self::Json, |media_type| match media_type {
            ARROW_STREAM => Some(Self::Arrow),
            CSV => Some(Self::Table(Encoding::Csv)),
            PARQUET => Some(Self::Table(Encoding::Parquet)),
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            _ => None,
        })
    }

    /// The format that a word names: `json`, `arrow`, `csv` or `parquet`.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "json" => Some(Self::Json),
            "arrow" => Some(Self::Arrow),
            "csv" => Some(Self::Table(Encoding::Csv)),
            "parquet" => Some(Self::Table(Encoding::Parquet)),
            _ => None,
        }
    }
}

/// What the client prefers: the first type of its `Accept` that is on offer; the usual one when it names none.
///
/// # Errors
/// [`Error::NotAcceptable`] when it accepts none.
pub fn accepted<T>(request: &HttpRequest, usual: T, offered: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    match request.headers().get(header::ACCEPT).map(|accept| accept.to_str().unwrap_or_default()) {
        None | Some("") => Ok(usual),
        Some(accept) => accept
            .split(',')
            .find_map(|range| offered(&range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()))
            .ok_or_else(|| Error::NotAcceptable { wanted: format!("`{accept}`") }),
    }
}

/// A table as a file to keep.
#[must_use]
pub fn table(name: &str, encoding: Encoding, bytes: Vec<u8>) -> HttpResponse {
    let (media_type, extension) = match encoding {
        Encoding::Csv => (CSV, "csv"),
        Encoding::Parquet => (PARQUET, "parquet"),
    };
    HttpResponse::Ok()
        .content_type(media_type)
        .insert_header((header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.{extension}\"")))
        .insert_header((header::VARY, "accept"))
        .body(bytes)
}

/// A JSON body, written on a thread where it keeps no other request waiting.
///
/// # Errors
/// When the value cannot be written as JSON, which no body of ours does.
pub async fn json<T: Serialize + Send + 'static>(status: StatusCode, body: T) -> Result<HttpResponse, Error> {
    let text = blocking::run("writing a response", move || serde_json::to_vec(&body)).await?;
    let text = text.map_err(|error| Error::internal("writing a response", error))?;
    Ok(HttpResponse::build(status).content_type("application/json").body(text))
}

/// As [`json`], with the address at which the body can be read again.
///
/// # Errors
/// Those of [`json`].
pub async fn json_at<T: Serialize + Send + 'static>(
    status: StatusCode,
    location: &str,
    body: T,
) -> Result<HttpResponse, Error> {
    let mut response = json(status, body).await?;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_first_type_on_offer_is_chosen() {
        for (accept, expected) in [
            ("application/vnd.apache.arrow.stream", Some(Format::Arrow)),
            ("text/html, application/json;q=0.9", Some(Format::Json)),
            ("text/html,*/*;q=0.8", Some(Format::Json)),
            ("text/csv", Some(Format::Table(Encoding::Csv))),
            ("application/vnd.apache.parquet", Some(Format::Table(Encoding::Parquet))),
            ("text/html", None),
        ] {
            let request = TestRequest::default().insert_header((header::ACCEPT, accept)).to_http_request();
            assert_eq!(Format::wanted(&request).ok(), expected, "{accept}");
        }
    }
}
