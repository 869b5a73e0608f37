//! Reading requests: bodies and query strings become types, or a problem that says where and why.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    error::PayloadError,
    http::header,
    web::{self, Bytes},
};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, problem::Violation, server::State};

/// A JSON body, read completely and strictly.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = content_type(request);
        let limit = request.app_data::<web::Data<State>>().map_or(0, |state| state.limits.body_bytes_max);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move {
            if !content_type.as_deref().is_some_and(is_json) {
                return Err(Error::UnsupportedMediaType { expected: "`application/json`", content_type });
            }
            parse_json(&read_body(bytes, limit).await?).map(Body)
        })
    }
}

/// A body of any type, read completely and decompressed, up to the limit of pushes.
pub struct Upload {
    /// What the request says that it is.
    pub content_type: Option<String>,
    /// What it is.
    pub bytes: Bytes,
}

impl FromRequest for Upload {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let content_type = content_type(request);
        let limit = request.app_data::<web::Data<State>>().map_or(0, |state| state.limits.push_bytes_max);
        let bytes = Bytes::from_request(request, payload);
        Box::pin(async move { Ok(Self { content_type, bytes: read_body(bytes, limit).await? }) })
    }
}

fn content_type(request: &HttpRequest) -> Option<String> {
    request.headers().get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

async fn read_body(bytes: impl Future<Output = Result<Bytes, actix_web::Error>>, limit: usize) -> Result<Bytes, Error> {
    bytes.await.map_err(|error| match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => Error::BodyTooLarge { limit },
        _ => Error::UnreadableBody,
    })
}

/// Whether a media type says JSON in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_utf8 = parts.all(|parameter| {
        parameter.split_once('=').is_none_or(|(name, value)| {
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    is_utf8 && (essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")))
}

/// What a text with NUL is told, which the database cannot hold.
const NO_NUL: &str = "must not hold the character NUL";

/// Parses a body; where it is JSON of the wrong shape, or has a text with NUL, the problem has a JSON pointer to the place.
fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // Derived structs would read a list as their fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::invalid_body("", "wrong-type", "must be an object"));
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let pointer = json_pointer(error.path());
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => {
                let code = data_error_code(&error.to_string());
                Error::invalid_body(&pointer, code, without_position(&error.to_string()))
            }
            _ => Error::MalformedBody { reason: error.to_string() },
        }
    })?;
    parser.end().map_err(|error| Error::MalformedBody { reason: error.to_string() })?;
    match place_of_nul(bytes) {
        Some(pointer) => Err(Error::invalid_body(&pointer, "invalid-value", NO_NUL)),
        None => Ok(value),
    }
}

/// A JSON pointer to the first text or name with NUL in a body.
fn place_of_nul(bytes: &[u8]) -> Option<String> {
    // JSON has no other way to write it.
    const ESCAPE: &[u8] = b"\\u0000";
    if !bytes.windows(ESCAPE.len()).any(|written| written == ESCAPE) {
        return None;
    }
    nul_within(&serde_json::from_slice::<Value>(bytes).ok()?)
}

fn nul_within(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(values) => {
            values.iter().enumerate().find_map(|(index, value)| Some(format!("/{index}{}", nul_within(value)?)))
        }
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            let below = if key.contains('\0') { String::new() } else { nul_within(value)? };
            Some(format!("{}{below}", key_pointer(key)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Reads an object that stands within a body; pointers begin at it.
///
/// # Errors
/// [`Error::InvalidBody`] with the place of what is wrong.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    if !value.is_object() {
        return Err(Error::invalid_body("", "wrong-type", "must be an object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = json_pointer(error.path());
        let message = error.into_inner().to_string();
        Error::invalid_body(&pointer, data_error_code(&message), message)
    })
}

/// A stable code for what serde says about a value of the wrong shape.
fn data_error_code(message: &str) -> &'static str {
    match message.split(' ').next() {
        Some("unknown") => "unknown-field",
        Some("missing") => "missing-field",
        Some("duplicate") => "duplicate-field",
        _ => "wrong-type",
    }
}

/// serde_json's message without the line and column, which the pointer says better.
fn without_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

/// The path as a JSON pointer (RFC 6901); the whole body is the empty string.
fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => key_pointer(key),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// The part of a JSON pointer that leads to a member of an object.
fn key_pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A query string, read by the names that `T` knows.
pub struct Query<T>(pub T);

/// What a route reads from its query string.
pub trait FromQuery: Sized {
    /// Takes each parameter that the route knows.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for the first one that is wrong.
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error>;
}

impl<T: FromQuery + 'static> FromRequest for Query<T> {
    type Error = Error;
    type Future = std::future::Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(parse_query(request.query_string()).map(Query))
    }
}

pub(crate) fn parse_query<T: FromQuery>(query: &str) -> Result<T, Error> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| Error::invalid_parameter("", "malformed", "the query string is malformed"))?;
    let mut parameters = Parameters(pairs.into_inner());
    if let Some((name, _)) = parameters.0.iter().find(|(_, value)| value.contains('\0')) {
        return Err(Error::invalid_parameter(name, "invalid-value", NO_NUL));
    }
    let value = T::from_query(&mut parameters)?;
    match parameters.0.first() {
        None => Ok(value),
        Some((name, _)) => Err(Error::InvalidParameter {
            errors: vec![Violation::of(name, "unknown-parameter", "there is no such parameter here")],
        }),
    }
}

/// The parameters of a query string that have not been read yet.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes the parameter `name`, if it is given.
    ///
    /// # Errors
    /// When it is given twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(position) = self.0.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(position);
        if self.0.iter().any(|(key, _)| key == name) {
            return Err(Error::invalid_parameter(name, "duplicate-parameter", "is given twice"));
        }
        Ok(Some(value))
    }

    /// Takes every value of the parameter `name`, which may be given several times.
    pub fn take_all(&mut self, name: &'static str) -> Vec<String> {
        let (taken, rest) = std::mem::take(&mut self.0).into_iter().partition(|(key, _)| key == name);
        self.0 = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes the parameter `name` and parses it; `expected` completes "must be …".
    ///
    /// # Errors
    /// When it is given twice, or `parse` refuses it.
    pub fn take_parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.take(name)?
            .map(|text| {
                parse(&text)
                    .ok_or_else(|| Error::invalid_parameter(name, "invalid-value", format!("must be {expected}")))
            })
            .transpose()
    }

    /// Takes an instant with an offset from UTC.
    ///
    /// # Errors
    /// When it is given twice or is not RFC 3339.
    pub fn take_time(&mut self, name: &'static str) -> Result<Option<DateTime<Utc>>, Error> {
        self.take_parsed(name, "a time as in RFC 3339, such as 2026-01-31T12:00:00Z", |text| {
            DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
        })
    }

    /// Takes the number of rows of a page, `rows_default` unless given; the route caps it at the service's limit.
    ///
    /// # Errors
    /// When it is given twice or is not a positive number.
    pub fn take_limit(&mut self, rows_default: usize) -> Result<usize, Error> {
        let limit = self.take_parsed("limit", "a positive number of rows", |text| {
            text.parse().ok().filter(|&rows: &usize| rows > 0)
        })?;
        Ok(limit.unwrap_or(rows_default))
    }
}

/// The value of a parameter that cannot be left out.
///
/// # Errors
/// When it was.
pub fn required<T>(name: &'static str, taken: Option<T>) -> Result<T, Error> {
    taken.ok_or_else(|| Error::invalid_parameter(name, "missing-parameter", "is required"))
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Order {
        panel: String,
        #[serde(default)]
        levels: Vec<f64>,
    }

    /// The status, code of the first error and its pointer.
    fn body_problem(text: &str) -> (u16, String, Option<String>) {
        let error = parse_json::<Order>(text.as_bytes()).expect_err("the body is wrong");
        let violation = error.problem(None, None).errors.first().cloned();
        (
            error.status_code().as_u16(),
            violation.as_ref().map(|violation| violation.code.clone()).unwrap_or_default(),
            violation.and_then(|violation| violation.pointer),
        )
    }

    #[test]
    fn a_body_of_the_wrong_shape_is_pointed_at() {
        let check = |text, code: &str, pointer: &str| {
            assert_eq!(body_problem(text), (422, code.to_owned(), Some(pointer.to_owned())), "{text}");
        };
        check(r#"{"panel": "a", "levels": [0.5, "x"]}"#, "wrong-type", "/levels/1");
        check(r#"{"panel": 3}"#, "wrong-type", "/panel");
        check(r#"{"panel": "a", "colour": 1}"#, "unknown-field", "/colour");
        check(r#"{"levels": []}"#, "missing-field", "");
        check(r#"{"panel": "a", "panel": "b"}"#, "duplicate-field", "");
        check("[1, 2]", "wrong-type", "");
        check(r#"{"panel": "a\u0000"}"#, "invalid-value", "/panel");
    }

    #[test]
    fn nul_is_found_wherever_it_stands_and_a_backslash_is_none() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(place_of_nul(text.as_bytes()).as_deref(), expected);
        check(r#"{"a": [{"b/c": 1}, {"b/c": "\u0000"}]}"#, Some("/a/1/b~1c"));
        check(r#"{"a": {"x\u0000": "\u0000"}}"#, Some("/a/x\0"));
        check(r#"{"a": "\\u0000"}"#, None);
        check(r#"{"a": "b"}"#, None);
    }

    #[test]
    fn a_body_that_is_not_json_is_malformed() {
        for text in ["", "{", "{\"panel\": \"a\"} trailing", "panel=a", "\u{feff}{}"] {
            assert_eq!(body_problem(text).0, 400, "{text:?}");
        }
    }

    #[test]
    fn json_is_recognised_by_its_media_type() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/merge-patch+json", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), expected, "{content_type}");
        }
    }

    #[derive(Debug, PartialEq)]
    struct Page {
        start: Option<DateTime<Utc>>,
        limit: usize,
    }

    impl FromQuery for Page {
        fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
            Ok(Self { start: parameters.take_time("start")?, limit: parameters.take_limit(100)? })
        }
    }

    #[test]
    fn a_query_is_read_by_name() {
        let page: Page = parse_query("limit=5&start=2026-01-01T01:00:00%2B01:00").expect("it is valid");
        assert_eq!(page.limit, 5);
        assert_eq!(page.start.map(|time| time.to_rfc3339()).as_deref(), Some("2026-01-01T00:00:00+00:00"));
        assert_eq!(parse_query::<Page>("").expect("nothing is required"), Page { start: None, limit: 100 });
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        let check = |query, parameter: &str, code: &str| {
            let error = parse_query::<Page>(query).expect_err("the query is wrong");
            let Error::InvalidParameter { errors } = error else { panic!("{error:?}") };
            assert_eq!(errors[0].parameter.as_deref(), Some(parameter), "{query}");
            assert_eq!(errors[0].code, code, "{query}");
        };
        check("limit=0", "limit", "invalid-value");
        check("limit=many", "limit", "invalid-value");
        check("start=2026-01-01", "start", "invalid-value");
        check("limit=1&limit=2", "limit", "duplicate-parameter");
        check("limits=1", "limits", "unknown-parameter");
        check("start=%00", "start", "invalid-value");
    }
}
