//! Objects of an S3-compatible store as the source of a pipeline: those that are new are copied to files without a name, and
//! read like any other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use ingest::Limits;
use ingest::pipeline::{Listed, Objects, Watermark};
use object_store::path::Path as Key;
use object_store::{Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::time::timeout;

use super::{nameless, unavailable_source, unusable_source};
use crate::Error;
use crate::config::bucket;

/// Folder of copies below the data folder.
const COPIES: &str = "objects";
/// How long the store may take to say more.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects that are listed for each that may be meant.
const LISTED_PER_MEANT: usize = 100;
/// Characters of what a store says that are told.
const SAID_MAX: usize = 300;

/// What a listing has, and copies of what is to be read of it. They are gone when this is.
#[derive(Debug)]
pub(super) struct Copied {
    /// All objects that are meant.
    pub listed: Vec<Listed>,
    files: BTreeMap<String, File>,
}

impl Copied {
    /// Where the copies are, by key, while this lives.
    pub(super) fn paths(&self) -> BTreeMap<String, PathBuf> {
        self.files.iter().map(|(key, file)| (key.clone(), nameless::path(file))).collect()
    }
}

/// Lists objects, and copies those that a run needs: each as it was listed, whole, or not at all.
///
/// # Errors
/// - [`Error::SourceUnavailable`] when the store is away, or an object is no longer what it was when it was listed
/// - [`Error::UnusableData`] when there is no such bucket or object, we are not let in, or there is too much
/// - when the copies cannot be kept
pub(super) async fn fetch(
    objects: &Objects,
    watermark: &Watermark,
    limits: &Limits,
    data_dir: &Path,
) -> Result<Copied, Error> {
    let store = bucket::of_objects(objects).map_err(unusable_source)?;
    fetch_from(&store, objects, watermark, limits, data_dir).await
}

async fn fetch_from(
    store: &dyn ObjectStore,
    objects: &Objects,
    watermark: &Watermark,
    limits: &Limits,
    data_dir: &Path,
) -> Result<Copied, Error> {
    let listed = objects.select(list(store, objects, limits.n_files_max).await?, limits.n_files_max)?;
    let folder = data_dir.join(COPIES);
    let mut files = BTreeMap::new();
    for object in watermark.wanted(objects, &listed, limits.part_bytes_max) {
        let name = objects.name(&object.key);
        if object.n_bytes > limits.n_bytes_max {
            return Err(ingest::Error::TooManyBytes { path: name.into(), limit: limits.n_bytes_max }.into());
        }
        files.insert(object.key.clone(), copy(store, &name, object, &folder).await?);
    }
    Ok(Copied { listed, files })
}

/// The object that is named, or those below what is.
async fn list(store: &dyn ObjectStore, objects: &Objects, n_meant_max: usize) -> Result<Vec<Listed>, Error> {
    let name = &objects.objects;
    let key = |path: &str| Key::parse(path).map_err(|error| unusable_source(format!("{name}: {error}")));
    if let Some(path) = objects.key() {
        let key = key(path)?;
        match patient(name, store.head(&key)).await? {
            Ok(found) => return Ok(vec![describe(found)]),
            // Perhaps it is a folder.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(explain(name, &error)),
        }
    }
    let folder = key(objects.folder())?;
    let mut stream = store.list((!objects.folder().is_empty()).then_some(&folder));
    let mut listed = Vec::new();
    while let Some(found) = patient(name, stream.next()).await? {
        let found = found.map_err(|error| match error {
            error if is_no_bucket(&error) => {
                unusable_source(format!("{name}: there is no bucket `{}`", objects.bucket()))
            }
            error => explain(name, &error),
        })?;
        if listed.len() == n_meant_max.saturating_mul(LISTED_PER_MEANT) {
            let n = listed.len();
            return Err(unusable_source(format!(
                "{name}: more than {n} objects have to be listed; name a narrower folder"
            )));
        }
        listed.push(describe(found));
    }
    Ok(listed)
}

fn describe(found: ObjectMeta) -> Listed {
    let version = found.e_tag.or(found.version).unwrap_or_else(|| found.last_modified.to_rfc3339());
    Listed { key: found.location.into(), n_bytes: found.size, version }
}

/// Copies an object. It must be what was listed.
async fn copy(store: &dyn ObjectStore, name: &str, object: &Listed, folder: &Path) -> Result<File, Error> {
    let key = Key::parse(&object.key).map_err(|error| unusable_source(format!("{name}: {error}")))?;
    let changed = || unavailable_source(format!("{name} was changed while it was read; the next run reads it again"));
    let failed = |error: StoreError| match error {
        StoreError::NotFound { .. } => {
            unavailable_source(format!("{name} is gone since it was listed; the next run reads what is there then"))
        }
        StoreError::Precondition { .. } => changed(),
        error => explain(name, &error),
    };
    let found = patient(name, store.get_opts(&key, GetOptions::default())).await?.map_err(failed)?;
    if describe(found.meta.clone()) != *object && !lacks_version(&found.meta, object) {
        return Err(changed());
    }
    let keeping = |error| Error::internal("keeping a copy of an object", error);
    let mut file = BufWriter::new(nameless::create(folder).map_err(keeping)?);
    let mut stream = found.into_stream();
    let mut n_bytes = 0_u64;
    while let Some(piece) = patient(name, stream.next()).await? {
        let piece = piece.map_err(failed)?;
        n_bytes += piece.len() as u64;
        if n_bytes > object.n_bytes {
            return Err(changed());
        }
        file.write_all(&piece).map_err(keeping)?;
    }
    if n_bytes < object.n_bytes {
        return Err(unavailable_source(format!("{name} ended after {n_bytes} of {} bytes", object.n_bytes)));
    }
    file.into_inner().map_err(|error| keeping(error.into_error()))
}

/// Whether a store does not say of an object what it says in a listing, so that its length must do.
fn lacks_version(found: &ObjectMeta, object: &Listed) -> bool {
    found.e_tag.is_none() && found.version.is_none() && found.size == object.n_bytes
}

/// Waits for the store, but not for ever.
async fn patient<T>(name: &str, answer: impl Future<Output = T>) -> Result<T, Error> {
    let waited = timeout(PATIENCE, answer).await;
    waited.map_err(|_| {
        unavailable_source(format!("{name}: the store has said nothing for {} seconds", PATIENCE.as_secs()))
    })
}

/// Whether a listing failed because there is no such bucket, which stores say in two ways.
fn is_no_bucket(error: &StoreError) -> bool {
    const CODE: &str = "<Code>NoSuchBucket</Code>";
    matches!(error, StoreError::NotFound { .. }) || crate::error::causes(error).contains(CODE)
}

/// What a store says, in one line; whether another attempt may do better.
fn explain(name: &str, error: &StoreError) -> Error {
    /// Where machines in a cloud ask who they are.
    const METADATA: &str = "://169.254.";
    let causes = crate::error::causes(error);
    let said = said(&causes);
    match error {
        _ if causes.contains(METADATA) => unusable_source(format!(
            "{name}: no credentials are given by the environment, and this machine has no role: {said}"
        )),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            unusable_source(format!("{name}: the store does not let us in: {said}"))
        }
        StoreError::InvalidPath { .. } => unusable_source(format!("{name}: {said}")),
        _ => unavailable_source(format!("{name}: the store is not available: {said}")),
    }
}

/// Of an XML answer its code and message, else what it says; not more than people read.
fn said(text: &str) -> String {
    let of = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner)
    };
    let said = match (of("Code"), of("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
    };
    said.chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ingest::LoadConfig;
    use object_store::memory::InMemory;

    use super::*;

    /// A store with these objects in bucket `b`.
    async fn store(objects: &[(&str, &str)]) -> InMemory {
        let store = InMemory::new();
        for (key, text) in objects {
            put(&store, key, text).await;
        }
        store
    }

    async fn put(store: &InMemory, key: &str, text: &str) {
        store.put(&Key::from(key), text.to_owned().into()).await.expect("put");
    }

    /// What is copied, by key, and what is remembered when it has been read.
    async fn run(store: &InMemory, watermark: &Watermark, limits: &Limits) -> (Vec<(String, String)>, Watermark) {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::new("s3://b/in/");
        let copied = fetch_from(store, &objects, watermark, limits, folder.path()).await.expect("copies");
        let text = |path: &PathBuf| {
            let mut text = String::new();
            File::open(path).expect("a copy").read_to_string(&mut text).expect("text");
            text
        };
        let paths = copied.paths();
        let texts = paths.iter().map(|(key, path)| (key.clone(), text(path))).collect();
        let config = LoadConfig { limits: limits.clone(), ..LoadConfig::default() };
        let plan = watermark.plan_objects(&objects, &copied.listed, &paths, &config).expect("a plan");
        (texts, plan.finish(None).expect("nobody writes").0)
    }

    fn copied(keys: &[(&str, &str)]) -> Vec<(String, String)> {
        keys.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
    }

    #[tokio::test]
    async fn objects_are_copied_when_they_are_new_or_have_changed() {
        const A: (&str, &str) = ("in/a.csv", "time,x\n1,2\n");
        const B: (&str, &str) = ("in/b.csv", "time,x\n3,4\n");
        let store = store(&[A, B, ("in/.hidden", ""), ("out/c.csv", "")]).await;
        let limits = Limits::default();
        let (texts, first) = run(&store, &Watermark::default(), &limits).await;
        assert_eq!(texts, copied(&[A, B]));
        assert_eq!(run(&store, &first, &limits).await, (vec![], first.clone()));
        put(&store, "in/b.csv", "time,x\n3,5\n").await;
        put(&store, "in/d.csv", "time,x\n6,7\n").await;
        let (texts, _) = run(&store, &first, &limits).await;
        assert_eq!(texts, copied(&[("in/b.csv", "time,x\n3,5\n"), ("in/d.csv", "time,x\n6,7\n")]));
    }

    #[tokio::test]
    async fn no_more_is_copied_at_a_time_than_a_part_has() {
        let objects = [("in/a", "time,x\n1,2\n"), ("in/b", "time,x\n1,2\n"), ("in/c", "time,x\n1,2\n")];
        let store = store(&objects).await;
        let limits = Limits { part_bytes_max: 22, ..Limits::default() };
        let (texts, first) = run(&store, &Watermark::default(), &limits).await;
        assert_eq!(texts, copied(&objects[..2]));
        let (texts, second) = run(&store, &first, &limits).await;
        assert_eq!(texts, copied(&objects[2..]));
        assert_eq!(run(&store, &second, &limits).await.0, []);
        // One at least, however long, up to the limit.
        let limits = Limits { part_bytes_max: 1, ..limits };
        assert_eq!(run(&store, &Watermark::default(), &limits).await.0, copied(&objects[..1]));
        let limits = Limits { n_bytes_max: 10, ..limits };
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::new("s3://b/in/");
        let refused = fetch_from(&store, &objects, &Watermark::default(), &limits, folder.path()).await;
        let refused = refused.expect_err("a refusal").to_string();
        assert!(refused.contains("s3://b/in/a") && refused.contains("10 bytes"), "{refused}");
    }

    #[tokio::test]
    async fn a_copy_is_what_was_listed_or_nothing() {
        let store = store(&[("in/a", "1234")]).await;
        let listed = list(&store, &Objects::new("s3://b/in"), 10).await.expect("a listing").remove(0);
        let folder = tempfile::tempdir().expect("a folder");
        let refused = async |listed: Listed| {
            let refused = copy(&store, "s3://b/in/a", &listed, folder.path()).await.expect_err("a refusal");
            assert!(matches!(refused, Error::SourceUnavailable { .. }), "{refused:?}");
            refused.to_string()
        };
        let changed = "s3://b/in/a was changed while it was read; the next run reads it again";
        assert_eq!(refused(Listed { version: "another".to_owned(), ..listed.clone() }).await, changed);
        assert_eq!(refused(Listed { n_bytes: 5, ..listed.clone() }).await, changed);
        let gone = refused(Listed { key: "in/b".to_owned(), ..listed.clone() }).await;
        assert!(gone.contains("is gone since it was listed"), "{gone}");
        copy(&store, "s3://b/in/a", &listed, folder.path()).await.expect("a copy");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_a_store_says_is_told_in_one_line() {
        let xml = "Server returned 403: <Error><Code>AccessDenied</Code><Message>No.</Message><Id>7</Id></Error>";
        assert_eq!(said(xml), "AccessDenied: No.");
        assert_eq!(said("connection refused"), "connection refused");
        assert_eq!(said(&"x".repeat(1_000)).len(), SAID_MAX);
    }
}
