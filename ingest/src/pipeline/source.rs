//! Where a pipeline reads: files, objects of a store, or what a database answers to a query.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{DeclarationError, Objects, Pipeline, SCHEME, wrong};

/// Longest time that a query may be given: a day.
const TIMEOUT_SECONDS_MAX: u32 = 86_400;

/// Where a pipeline reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Source {
    /// A file, a folder, a pattern such as `in/*.csv`, or a folder partitioned as `site=north/…`.
    Files(String),
    /// Objects of an S3-compatible store.
    Objects(Objects),
    /// What a Postgres database answers to a query.
    Query(Query),
}

/// A query of a Postgres database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The environment variable that holds the address of the database, `postgres://user:password@host/database`. The
    /// address itself is never declared, stored or logged.
    pub url_variable: String,
    /// A `select` whose columns are those of a table as a file has it.
    pub query: String,
    /// A column of it whose values only grow, such as the time of the last change: a run reads rows from the largest
    /// value on that it has seen. Without it every run reads all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// How far before that value a run begins, where the watermark is a time: as long as a transaction may take that
    /// writes rows, since it shows them later than their time says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u32>,
    /// How long a statement may take. Default ten minutes.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u32,
}

fn timeout_seconds() -> u32 {
    600
}

/// For people: the pattern, or whose query it is.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(pattern) => f.write_str(pattern),
            Self::Objects(objects) => f.write_str(&objects.objects),
            Self::Query(query) => write!(f, "query of ${}", query.url_variable),
        }
    }
}

/// A text or a table, told apart by hand: "untagged" would not say what is wrong in the table.
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of files or objects, or a table with `objects` or a `query`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(match text.starts_with(SCHEME) {
                    true => Source::Objects(Objects::new(text)),
                    false => Source::Files(text.to_owned()),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let table = serde_json::Value::deserialize(MapAccessDeserializer::new(map))?;
                let source = match table.get("objects") {
                    Some(_) => Objects::deserialize(table).map(Source::Objects),
                    None => Query::deserialize(table).map(Source::Query),
                };
                source.map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Checks the source of a pipeline, and what is declared beside it.
pub(super) fn check(pipeline: &Pipeline) -> Result<(), DeclarationError> {
    match &pipeline.source {
        Source::Files(pattern) if pattern.is_empty() => Err(wrong("source", "must not be empty")),
        Source::Files(_) => Ok(()),
        Source::Objects(objects) => {
            objects.check().map_err(|reason| wrong("source", reason))?;
            match objects.variables().all(is_variable) {
                true => Ok(()),
                false => Err(wrong("source", "must name environment variables, and not what they hold")),
            }
        }
        Source::Query(query) => check_query(pipeline, query),
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn check_query(pipeline: &Pipeline, query: &Query) -> Result<(), DeclarationError> {
    if !is_variable(&query.url_variable) {
        return Err(wrong("source", "must name an environment variable in `url_variable`, and not an address itself"));
    }
    if query.query.trim().is_empty() || query.query.contains('\0') {
        return Err(wrong("source", "must have a `select` in `query`"));
    }
    if query.watermark.as_ref().is_some_and(|column| column.is_empty() || column.contains('\0')) {
        return Err(wrong("source", "must name a column in `watermark`"));
    }
    if query.watermark.is_none() && query.overlap_seconds.is_some() {
        return Err(wrong("source", "has `overlap_seconds`, which goes with a `watermark`"));
    }
    if !(1..=TIMEOUT_SECONDS_MAX).contains(&query.timeout_seconds) {
        return Err(wrong("source", format!("must have `timeout_seconds` from 1 to {TIMEOUT_SECONDS_MAX}")));
    }
    let of_files = [
        ("format", pipeline.format.is_some()),
        ("separator", pipeline.separator.is_some()),
        ("part_bytes", pipeline.part_bytes.is_some()),
        ("decimal_comma", pipeline.decimal_comma),
        ("thousands_separator", pipeline.thousands_separator.is_some()),
        ("rows", !pipeline.rows.is_empty()),
    ];
    if let Some((key, _)) = of_files.into_iter().find(|(_, is_declared)| *is_declared) {
        return Err(wrong(key, "is for files; a query says itself what it gives"));
    }
    if query.watermark.is_some() && pipeline.resample.is_some() {
        // Of the last interval, the rows that were read before would be missing.
        return Err(wrong("resample", "needs all rows of an interval, which a `watermark` does not give"));
    }
    Ok(())
}
