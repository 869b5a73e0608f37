//! Buckets of S3-compatible stores: where they are and who asks stands in the environment.

use std::io;

use ingest::pipeline::{Objects, SCHEME};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, RetryConfig};

use crate::artefacts::{Artefacts, UnusableStore};

/// Attempts at a request after the first one.
const RETRIES_MAX: usize = 3;
/// For all of an object that a pipeline reads: who reads it watches that it goes on.
const SOURCE_TIMEOUT: &str = "24h";
/// For all of a file of a model or of a snapshot.
const ARTEFACT_TIMEOUT: &str = "10m";

/// The store of the objects that a pipeline reads: as the variables say that it names, or where it names none those that
/// every tool around S3 reads (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, …).
///
/// # Errors
/// Says which variable is missing, or what cannot be used.
pub fn of_objects(objects: &Objects) -> Result<AmazonS3, String> {
    let mut builder = match objects.variables().next() {
        Some(_) => AmazonS3Builder::new(),
        None => AmazonS3Builder::from_env(),
    };
    for (key, variable) in [
        (AmazonS3ConfigKey::Endpoint, &objects.endpoint_variable),
        (AmazonS3ConfigKey::Region, &objects.region_variable),
        (AmazonS3ConfigKey::AccessKeyId, &objects.access_key_id_variable),
        (AmazonS3ConfigKey::SecretAccessKey, &objects.secret_access_key_variable),
        (AmazonS3ConfigKey::Token, &objects.session_token_variable),
    ] {
        let Some(variable) = variable else { continue };
        let value = std::env::var(variable);
        let value = value.map_err(|_| format!("the environment variable {variable} is not set; `source` names it"))?;
        builder = builder.with_config(key, value);
    }
    open(builder, objects.bucket(), SOURCE_TIMEOUT).map_err(|error| format!("{}: {error}", objects.objects))
}

/// The files of models below `s3://BUCKET/PREFIX`, as the variables say that every tool around S3 reads. Call it within a
/// runtime.
///
/// # Errors
/// [`UnusableStore`] when that names no bucket, or the variables make no sense.
pub fn of_artefacts(url: &str) -> Result<Artefacts, UnusableStore> {
    let unusable = |source| UnusableStore { place: url.to_owned(), source };
    let place = url.strip_prefix(SCHEME).map(|rest| rest.split_once('/').unwrap_or((rest, "")));
    let Some((bucket, prefix)) = place.filter(|(bucket, _)| !bucket.is_empty()) else {
        let reason = format!("`--artefacts` must be `{SCHEME}BUCKET` or `{SCHEME}BUCKET/PREFIX`");
        return Err(unusable(io::Error::new(io::ErrorKind::InvalidInput, reason)));
    };
    let store = open(AmazonS3Builder::from_env(), bucket, ARTEFACT_TIMEOUT);
    Artefacts::bucket(store.map_err(|error| unusable(io::Error::other(error)))?, prefix).map_err(unusable)
}

fn open(builder: AmazonS3Builder, bucket: &str, timeout: &str) -> object_store::Result<AmazonS3> {
    // Who gives an address without encryption wants it.
    let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let retry = RetryConfig { max_retries: RETRIES_MAX, ..RetryConfig::default() };
    let builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout).with_retry(retry);
    let builder = if is_plain { builder.with_allow_http(true) } else { builder };
    builder.with_bucket_name(bucket).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artefacts_are_in_a_bucket_that_is_named() {
        for url in ["/srv/models", "s3://", "s3:///models", "gs://bucket/models"] {
            let error = of_artefacts(url).expect_err(url);
            assert!(error.to_string().contains(url) && error.source.to_string().contains("s3://BUCKET/PREFIX"));
        }
    }
}
