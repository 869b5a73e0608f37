//! Objects of a store as the source of a pipeline: where they are, and which of them are meant.

use std::path::Path;

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

use super::files::labels;
use crate::Error;

/// What the address of objects begins with.
pub const SCHEME: &str = "s3://";
/// Longest key of an object, as of S3.
const KEY_LENGTH_MAX: usize = 1_024;

/// Objects of an S3-compatible store. The store and who we are to it is said by the environment: by the variables that are
/// named here, or where none is by those with the usual names (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, …). What they hold is never declared, stored or logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    /// `s3://bucket/key` of an object, `s3://bucket/prefix/` of all below, or a pattern: `s3://bucket/in/*.csv.gz`.
    pub objects: String,
    /// Variable with the address of the store; Amazon's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_variable: Option<String>,
    /// Variable with the region; `us-east-1` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_variable: Option<String>,
    /// Variable with the identifier of the access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_variable: Option<String>,
    /// Variable with its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_variable: Option<String>,
    /// Variable with the token of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token_variable: Option<String>,
}

/// An object as a listing tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length.
    pub n_bytes: u64,
    /// What changes whenever its bytes do: its ETag, or what else the store says.
    pub version: String,
}

impl Objects {
    /// Objects of the store that the usual variables name.
    pub fn new(objects: &str) -> Self {
        Self { objects: objects.to_owned(), ..Self::default() }
    }

    /// The variables that are named.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let variables = [
            &self.endpoint_variable,
            &self.region_variable,
            &self.access_key_id_variable,
            &self.secret_access_key_variable,
            &self.session_token_variable,
        ];
        variables.into_iter().flatten().map(String::as_str)
    }

    /// The bucket, and what follows it.
    fn split(&self) -> (&str, &str) {
        let rest = self.objects.strip_prefix(SCHEME).unwrap_or(&self.objects);
        rest.split_once('/').unwrap_or((rest, ""))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        self.split().0
    }

    /// The key, when a single one may be meant.
    pub fn key(&self) -> Option<&str> {
        let (_, path) = self.split();
        (!path.is_empty() && !path.ends_with('/') && !is_pattern(path)).then_some(path)
    }

    /// The folder below which all that is meant lies, without a slash at its end; all of the bucket when it is empty.
    pub fn folder(&self) -> &str {
        let (_, path) = self.split();
        match path.find(['*', '?', '[']) {
            Some(special) => path[..special].rsplit_once('/').map_or("", |(folder, _)| folder),
            None => path.trim_end_matches('/'),
        }
    }

    /// What reports call an object.
    pub fn name(&self, key: &str) -> String {
        format!("{SCHEME}{}/{key}", self.bucket())
    }

    /// What is wrong with the address.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.objects.starts_with(SCHEME) {
            return Err(format!("must begin with `{SCHEME}` in `objects`"));
        }
        let (bucket, path) = self.split();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_of_name) {
            return Err("must name a bucket in `objects`: s3://bucket/…".to_owned());
        }
        if path.len() > KEY_LENGTH_MAX {
            return Err(format!("must have at most {KEY_LENGTH_MAX} bytes after the bucket"));
        }
        let folders = path.strip_suffix('/').unwrap_or(path);
        if !folders.is_empty() && folders.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err("must have no empty folders, `.` or `..` in `objects`".to_owned());
        }
        Pattern::new(path).map_err(|error| format!("has an invalid pattern in `objects`: {error}"))?;
        Ok(())
    }

    /// Those of a listing that are meant, sorted by key: as with files, what is empty by its name (a folder), or begins with
    /// a point or an underscore, is passed over.
    ///
    /// # Errors
    /// [`Error::NoFiles`], [`Error::TooManyFiles`], [`Error::Pattern`].
    pub fn select(&self, listed: Vec<Listed>, n_max: usize) -> Result<Vec<Listed>, Error> {
        let (_, path) = self.split();
        let folder = self.folder();
        let pattern = is_pattern(path)
            .then(|| Pattern::new(path))
            .transpose()
            .map_err(|error| Error::Pattern { source_name: self.objects.clone(), reason: error.to_string() })?;
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let is_visible = |name: &str| !name.is_empty() && !name.starts_with(['.', '_']);
        let is_below = |key: &str| {
            let below = key.strip_prefix(folder).filter(|rest| folder.is_empty() || rest.starts_with('/'));
            below.is_some_and(|rest| rest.trim_start_matches('/').split('/').all(is_visible))
        };
        let is_meant = |key: &str| match &pattern {
            Some(pattern) => pattern.matches_with(key, options) && is_below(key),
            None => self.key() == Some(key) || is_below(key),
        };
        let mut meant: Vec<Listed> = listed.into_iter().filter(|object| is_meant(&object.key)).collect();
        if meant.is_empty() {
            return Err(Error::NoFiles { source_name: self.objects.clone() });
        }
        if meant.len() > n_max {
            return Err(Error::TooManyFiles { source_name: self.objects.clone(), limit: n_max });
        }
        meant.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(meant)
    }

    /// Columns of an object by its place: `site=north/…`.
    pub(super) fn labels(key: &str) -> Vec<(String, String)> {
        labels(Path::new(key))
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(objects: &str, keys: &[&str]) -> Result<Vec<String>, Error> {
        let listed = keys.iter().map(|key| Listed { key: (*key).to_owned(), n_bytes: 1, version: String::new() });
        let objects = Objects::new(objects);
        objects.check().expect("an address");
        let selected = objects.select(listed.collect(), 4)?;
        Ok(selected.into_iter().map(|object| object.key).collect())
    }

    #[test]
    fn an_object_a_folder_and_a_pattern_are_told_apart() {
        let keys =
            ["in/b.csv", "in/a.csv.gz", "in/deep/c.csv", "in/_d.csv", "in/.e/f.csv", "in/", "inner/g.csv", "h.csv"];
        let selected = |objects| select(objects, &keys).expect("some are meant");
        assert_eq!(selected("s3://bucket/in/"), ["in/a.csv.gz", "in/b.csv", "in/deep/c.csv"]);
        assert_eq!(selected("s3://bucket/in"), ["in/a.csv.gz", "in/b.csv", "in/deep/c.csv"]);
        assert_eq!(selected("s3://bucket/in/*.csv"), ["in/b.csv"]);
        assert_eq!(selected("s3://bucket/in/**/*.csv"), ["in/b.csv", "in/deep/c.csv"]);
        assert_eq!(selected("s3://bucket/in*/g.csv"), ["inner/g.csv"]);
        // Who names an object by all of its key means it.
        assert_eq!(selected("s3://bucket/in/_d.csv"), ["in/_d.csv"]);
        assert!(matches!(select("s3://bucket", &keys), Err(Error::TooManyFiles { limit: 4, .. })));
        assert!(matches!(select("s3://bucket/in/*.parquet", &keys), Err(Error::NoFiles { .. })));
    }

    #[test]
    fn an_address_has_a_bucket_a_key_and_a_folder() {
        let parts = |objects: &str| {
            let objects = Objects::new(objects);
            (objects.bucket().to_owned(), objects.key().map(str::to_owned), objects.folder().to_owned())
        };
        let owned = |bucket: &str, key: Option<&str>, folder: &str| {
            (bucket.to_owned(), key.map(str::to_owned), folder.to_owned())
        };
        assert_eq!(parts("s3://b"), owned("b", None, ""));
        assert_eq!(parts("s3://b/a.csv"), owned("b", Some("a.csv"), "a.csv"));
        assert_eq!(parts("s3://b/x/y/"), owned("b", None, "x/y"));
        assert_eq!(parts("s3://b/x/site=*/a?.csv"), owned("b", None, "x"));
        assert_eq!(parts("s3://b/a*/c"), owned("b", None, ""));
        for wrong in
            ["in/*.csv", "s3://", "s3:///a", "s3://user:secret@host/a", "s3://b/x//y", "s3://b/../a", "s3://b/["]
        {
            assert!(Objects::new(wrong).check().is_err(), "{wrong}");
        }
        assert_eq!(Objects::labels("x/site=north/a.csv"), [("site".to_owned(), "north".to_owned())]);
    }
}
