//! The files of models and of the data that they learned from, in an object store: a local folder, or a bucket of S3.
//!
//! This is the one place that puts, gets and deletes them. A model is a folder of files below `models/`, verified by digest when it
//! is loaded; a snapshot is a file of `snapshots/`, named by its digest; the state of a training is a file of `trainings/`, named by
//! the fingerprint of the training.
//!
//! **Nothing is left behind.** Before files are written, their folder is noted in the table `artefact_folder`, and the transaction
//! that is to store the model holds a lock on it; it takes the note away. Who is killed in between leaves note and files,
//! and no lock: whoever stores the next model removes them ([`Artefacts::sweep`]). So several databases may share a store.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use forecast::Device;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Place;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use sqlx::{PgConnection, PgPool};
use tokio::runtime::Handle;

use crate::db::model::Model;
use crate::db::{self, DEFAULT_TENANT};
use crate::{Error, blocking};

/// Folder of the models.
const MODELS: &str = "models";
/// Folder of the snapshots.
const SNAPSHOTS: &str = "snapshots";
/// Folder of the states of trainings that have not ended.
const TRAININGS: &str = "trainings";
/// The state of a training that nobody has gone on with for so long is removed.
const STATE_AGE_MAX: TimeDelta = TimeDelta::days(7);

/// Files in an object store. Its methods that are not `async` wait for the store: they are for threads that may wait.
#[derive(Clone)]
pub struct Artefacts {
    store: Arc<dyn ObjectStore>,
    /// Where the store is a local folder.
    folder: Option<PathBuf>,
    runtime: Handle,
}

impl fmt::Debug for Artefacts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Artefacts({})", self.store)
    }
}

/// A model's files, which are checked when they are read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The model's identifier.
    pub model_id: i32,
    /// The folder, relative to that of all models.
    pub folder: String,
    /// SHA-256 of its `config.json`, which names the digests of its other files, in hexadecimal.
    pub digest: String,
}

impl Checkpoint {
    /// Where a registered model's files are.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        Self { model_id: model.model_id, folder: model.artefact_path.clone(), digest: model.digest.clone() }
    }
}

/// A store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {place} for artefacts")]
pub struct UnusableStore {
    /// The folder or bucket.
    pub place: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Artefacts {
    /// Files below a data folder, which need not be there yet. Call it within a runtime.
    ///
    /// # Errors
    /// [`UnusableStore`] when there can be no such folder.
    pub fn local(data_dir: &Path) -> Result<Self, UnusableStore> {
        let unusable = |source| UnusableStore { place: data_dir.display().to_string(), source };
        let folder = std::path::absolute(data_dir).map_err(unusable)?;
        let prefix = Place::from_absolute_path(&folder).map_err(|error| unusable(io::Error::other(error)))?;
        let store = PrefixStore::new(LocalFileSystem::new(), prefix);
        Ok(Self { folder: Some(folder), ..Self::new(Arc::new(store)) })
    }

    /// Files in a bucket of S3, below a prefix.
    ///
    /// # Errors
    /// When the prefix is none that keys can have.
    pub fn bucket(store: AmazonS3, prefix: &str) -> io::Result<Self> {
        let prefix = Place::parse(prefix).map_err(io::Error::other)?;
        Ok(Self::new(Arc::new(PrefixStore::new(store, prefix))))
    }

    /// Files in any store.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, folder: None, runtime: Handle::current() }
    }

    /// Writes a file, all of it or nothing.
    fn put(&self, place: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.runtime.block_on(self.store.put(&Place::from(place), PutPayload::from(bytes))).map_err(io_error)?;
        match &self.folder {
            // What a row of the database names must not be lost with the power.
            Some(folder) => std::fs::File::open(folder.join(place))?.sync_all(),
            None => Ok(()),
        }
    }

    fn get(&self, place: &str) -> io::Result<Vec<u8>> {
        let read = async { self.store.get(&Place::from(place)).await?.bytes().await };
        Ok(self.runtime.block_on(read).map_err(io_error)?.to_vec())
    }

    /// Removes a folder with all that is in it, or a file; that it is gone already is no error.
    fn remove(&self, place: &str) -> io::Result<()> {
        let removed = if let Some(folder) = &self.folder {
            // Folders that are empty are none to a store.
            let path = folder.join(place);
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
        } else {
            let all = self.store.list(Some(&Place::from(place))).map_ok(|object| object.location);
            let removed = async {
                let mut places: Vec<Place> = all.try_collect().await?;
                places.push(Place::from(place));
                for place in places {
                    match self.store.delete(&place).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            };
            self.runtime.block_on(removed).map_err(io_error)
        };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }

    /// Writes the files of a model, as [`forecast::Model::save_with`] gives them, and others, into a folder; tells the digest of
    /// the model and the bytes of all. Of a failure nothing is left.
    ///
    /// # Errors
    /// [`forecast::Error::CheckpointFile`], [`forecast::Error::CheckpointContent`].
    pub fn put_model(
        &self,
        folder: &str,
        model: &forecast::Model,
        others: Vec<(&str, Vec<u8>)>,
    ) -> Result<(String, u64), forecast::Error> {
        let folder = format!("{MODELS}/{folder}");
        let mut n_bytes = 0;
        let mut put = |path: &Path, bytes: &[u8]| {
            n_bytes += bytes.len() as u64;
            self.put(&path.to_string_lossy(), bytes.to_vec())
        };
        let written = model.save_with(Path::new(&folder), &mut put).and_then(|digest| {
            for (name, bytes) in others {
                let path = Path::new(&folder).join(name);
                put(&path, &bytes).map_err(|source| forecast::Error::CheckpointFile { path, source })?;
            }
            Ok(digest)
        });
        match written {
            Ok(digest) => Ok((digest, n_bytes)),
            Err(error) => {
                // It takes room in a store that may be full.
                if let Err(error) = self.remove(&folder) {
                    tracing::warn!("cannot remove {folder}, which no model needs: {error}");
                }
                Err(error)
            }
        }
    }

    /// Writes a snapshot, unless it is there.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn put_snapshot(&self, snapshot: ingest::snapshot::Snapshot) -> io::Result<()> {
        let place = snapshot_place(&snapshot.digest);
        match self.runtime.block_on(self.store.head(&Place::from(place.as_str()))) {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotFound { .. }) => self.put(&place, snapshot.bytes),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Keeps the state of a training in place of the one before.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn put_training(&self, fingerprint: &str, state: Vec<u8>) -> io::Result<()> {
        self.put(&training_place(fingerprint), state)
    }

    /// The state of a training; `None` when none was kept.
    ///
    /// # Errors
    /// When the store does not give it.
    pub fn get_training(&self, fingerprint: &str) -> io::Result<Option<Vec<u8>>> {
        match self.get(&training_place(fingerprint)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Removes the state of a training that has ended.
    ///
    /// # Errors
    /// When the store does not do it.
    pub fn remove_training(&self, fingerprint: &str) -> io::Result<()> {
        self.remove(&training_place(fingerprint))
    }

    /// Removes the states of trainings that nobody has gone on with since an instant; tells how many.
    fn remove_trainings(&self, before: DateTime<Utc>) -> io::Result<usize> {
        let all = self.store.list(Some(&Place::from(TRAININGS)));
        let all: Vec<ObjectMeta> = self.runtime.block_on(all.try_collect()).map_err(io_error)?;
        let old: Vec<ObjectMeta> = all.into_iter().filter(|object| object.last_modified < before).collect();
        old.iter().try_for_each(|object| self.remove(object.location.as_ref()))?;
        Ok(old.len())
    }

    /// Reads a model, every file checked against its digest.
    ///
    /// # Errors
    /// [`Error::BrokenModel`] when a file is missing, damaged or of another version, or the store is away.
    pub fn get_model(&self, checkpoint: &Checkpoint, device: &Device) -> Result<forecast::Model, Error> {
        let folder = Path::new(MODELS).join(&checkpoint.folder);
        let read = |path: &Path| self.get(&path.to_string_lossy());
        let loaded = forecast::Model::load_with(&folder, &checkpoint.digest, &read, device);
        loaded.map_err(|source| Error::BrokenModel { model_id: checkpoint.model_id, source })
    }

    /// As [`Artefacts::get_model`], of a stored model, on a thread that may wait.
    ///
    /// # Errors
    /// [`Error::BrokenModel`].
    pub async fn load(&self, model: &Model, device: &Device) -> Result<forecast::Model, Error> {
        let (artefacts, checkpoint, device) = (self.clone(), Checkpoint::of(model), device.clone());
        blocking::run("loading a model", move || artefacts.get_model(&checkpoint, &device)).await?
    }

    /// Removes what was written for models that were never stored, by whoever was ended in between, and the states of trainings that
    /// were given up; tells how many folders and files.
    ///
    /// # Errors
    /// [`Error::Database`]. What cannot be removed is logged, and looked at again by the next sweep.
    pub async fn sweep(&self, pool: &PgPool) -> Result<usize, Error> {
        let mut n_removed = 0;
        for folder in db::artefact_folder::list(pool, DEFAULT_TENANT).await? {
            let mut transaction = pool.begin().await?;
            if !db::artefact_folder::forget_abandoned(&mut transaction, DEFAULT_TENANT, &folder).await? {
                continue;
            }
            let (artefacts, place) = (self.clone(), format!("{MODELS}/{folder}"));
            match blocking::run("removing the folder of a model", move || artefacts.remove(&place)).await? {
                Ok(()) => n_removed += 1,
                Err(error) => {
                    tracing::warn!("cannot remove {folder}, which no model needs: {error}");
                    continue;
                }
            }
            transaction.commit().await?;
        }
        let (artefacts, before) = (self.clone(), Utc::now() - STATE_AGE_MAX);
        match blocking::run("removing states of trainings", move || artefacts.remove_trainings(before)).await? {
            Ok(n_states) => Ok(n_removed + n_states),
            Err(error) => {
                tracing::warn!("cannot remove the states of trainings that were given up: {error}");
                Ok(n_removed)
            }
        }
    }

    /// Removes the files of a model whose row is about to go in the transaction of `connection`. What cannot be removed is
    /// logged, and costs space only.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn remove_model(&self, connection: &mut PgConnection, model: &Model) -> Result<(), Error> {
        let mut places = vec![];
        // A path that leads elsewhere was not written by us.
        if ingest::pipeline::leads_down(Path::new(&model.artefact_path)) {
            places.push(format!("{MODELS}/{}", model.artefact_path));
        }
        if !db::model::has_snapshot(connection, DEFAULT_TENANT, &model.snapshot_digest).await? {
            places.push(snapshot_place(&model.snapshot_digest));
        }
        let artefacts = self.clone();
        blocking::run("removing a model", move || {
            for place in places {
                artefacts.remove(&place).unwrap_or_else(|error| tracing::warn!("cannot remove {place}: {error}"));
            }
        })
        .await
    }
}

fn training_place(fingerprint: &str) -> String {
    format!("{TRAININGS}/{fingerprint}.safetensors")
}

fn snapshot_place(digest: &str) -> String {
    format!("{SNAPSHOTS}/{digest}.parquet")
}

/// The error of a store as one of files.
fn io_error(error: object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// Runs a check on a thread that may wait, for a store in memory and for a folder.
    async fn check(test: impl Fn(&Artefacts) + Send + Clone + 'static) {
        let folder = tempfile::tempdir().expect("a folder");
        let local = Artefacts::local(&folder.path().join("not yet there")).expect("a folder");
        for artefacts in [Artefacts::new(Arc::new(InMemory::new())), local] {
            let test = test.clone();
            blocking::run("a test", move || test(&artefacts)).await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn what_is_put_is_got_and_what_is_removed_is_gone() {
        check(|artefacts| {
            for (place, text) in [("models/1/a", "one"), ("models/1/b/c", "two"), ("models/11/a", "three")] {
                artefacts.put(place, text.into()).expect("written");
                assert_eq!(artefacts.get(place).expect("there"), text.as_bytes());
            }
            artefacts.remove("models/1").expect("removed");
            let is_gone = |place| matches!(artefacts.get(place), Err(error) if error.kind() == io::ErrorKind::NotFound);
            assert!(is_gone("models/1/a") && is_gone("models/1/b/c") && !is_gone("models/11/a"));
            artefacts.remove("models/1").expect("it is gone already");
            artefacts.put("models/11/a", b"four".to_vec()).expect("written again");
            artefacts.remove("models/11/a").expect("a file, too");
            assert!(is_gone("models/11/a"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_snapshot_is_written_once() {
        check(|artefacts| {
            let snapshot = |bytes: &[u8]| ingest::snapshot::Snapshot { digest: "0".repeat(64), bytes: bytes.to_vec() };
            artefacts.put_snapshot(snapshot(b"rows")).expect("written");
            artefacts.put_snapshot(snapshot(b"others, which cannot be")).expect("it is there");
            assert_eq!(artefacts.get(&snapshot_place(&"0".repeat(64))).expect("there"), b"rows");
        })
        .await;
    }

    #[tokio::test]
    async fn the_state_of_a_training_takes_the_place_of_the_one_before_and_goes_when_it_is_old() {
        check(|artefacts| {
            assert_eq!(artefacts.get_training("a").expect("the store is there"), None);
            for text in ["after a step", "after two"] {
                artefacts.put_training("a", text.into()).expect("written");
                assert_eq!(artefacts.get_training("a").expect("there").as_deref(), Some(text.as_bytes()));
            }
            artefacts.put_training("b", b"another".to_vec()).expect("written");
            artefacts.remove_training("a").expect("removed");
            artefacts.remove_training("a").expect("it is gone already");
            let now = Utc::now();
            assert_eq!(artefacts.remove_trainings(now - TimeDelta::minutes(1)).expect("none is so old"), 0);
            assert_eq!(artefacts.remove_trainings(now + TimeDelta::minutes(1)).expect("the other is"), 1);
            assert_eq!(artefacts.get_training("b").expect("the store is there"), None);
        })
        .await;
    }
}
