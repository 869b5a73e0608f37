//! Pipelines: where they are declared, and how one is run.

mod nameless;
mod objects;
mod query;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, TimeDelta, Utc};
use ingest::{
    Code, Finding, LoadConfig, Loaded,
    pipeline::{DeclarationError, Files, Pipeline, Plan, Source, Watermark, leads_down},
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    Error, blocking,
    config::Folders,
    db::{
        self, DEFAULT_TENANT,
        pipeline::NewWatermark,
        series::NewSeries,
        words::{Kind, Role},
    },
    loading::{self, Target},
    problem::Violation,
};

/// Pipelines that are listed.
const N_PIPELINES_MAX: usize = 1_000;
/// Bytes of one declaration.
const DECLARATION_BYTES_MAX: u64 = 1 << 16;
/// A file that nobody has written to for so long is taken to be whole.
const SETTLE: Duration = Duration::from_secs(10);

/// A pipeline and where it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// What is declared.
    pub pipeline: Pipeline,
    /// Where.
    pub origin: Origin,
}

/// Where a pipeline was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this file, in whose folder relative paths begin.
    File(PathBuf),
    /// By REST: it reads from the folder of sources and nowhere else.
    Rest,
}

impl Origin {
    /// The word in SQL and JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Rest => "rest",
        }
    }
}

/// The TOML files of the folder, sorted by name. There need not be a folder.
///
/// # Errors
/// [`Error::InvalidPipelineFile`] for the first one that is no declaration.
fn files(folder: &Path) -> Result<Vec<Declared>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(folder, &error.to_string())),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .take(N_PIPELINES_MAX)
        .collect();
    paths.sort();
    paths.into_iter().map(read_file).collect()
}

fn read_file(path: PathBuf) -> Result<Declared, Error> {
    let is_short = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= DECLARATION_BYTES_MAX);
    if !is_short {
        return Err(unusable(&path, &format!("must have at most {DECLARATION_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(&path).map_err(|error| unusable(&path, &error.to_string()))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let pipeline = Pipeline::from_toml(&text, &stem).map_err(|error| unusable(&path, &error.to_string()))?;
    check_series(&pipeline).map_err(|violation| unusable(&path, &violation.message))?;
    Ok(Declared { pipeline, origin: Origin::File(path) })
}

fn unusable(path: &Path, reason: &str) -> Error {
    Error::InvalidPipelineFile { path: path.to_owned(), reason: reason.trim().to_owned() }
}

/// The words that a declaration uses for its series.
fn check_series(pipeline: &Pipeline) -> Result<(), Violation> {
    for (name, series) in &pipeline.series {
        let role = series.role.as_deref().map(str::parse::<Role>).transpose().err();
        let kind = series.kind.as_deref().map(str::parse::<Kind>).transpose().err();
        if let Some(error) = role.or(kind) {
            return Err(Violation::at(format!("/series/{name}"), "unknown-word", format!("`series.{name}`: {error}")));
        }
    }
    Ok(())
}

/// Checks what a client declares.
///
/// # Errors
/// [`Error::InvalidBody`] with what is wrong where.
pub fn check(pipeline: &Pipeline) -> Result<(), Error> {
    match pipeline.load_config() {
        Ok(_) => {}
        Err(DeclarationError::Value { key, reason }) => {
            return Err(Error::invalid_body(&format!("/{key}"), "invalid-value", format!("`{key}` {reason}")));
        }
        Err(error @ DeclarationError::Toml(_)) => {
            return Err(Error::invalid_body("", "invalid-value", error.to_string()));
        }
    }
    check_series(pipeline).map_err(|violation| Error::InvalidBody { errors: vec![violation] })?;
    match &pipeline.source {
        Source::Files(source) if leads_down(Path::new(source)) => Ok(()),
        Source::Files(_) => {
            let message = "must be a path below the folder of sources, without `..`";
            Err(Error::invalid_body("/source", "outside-folder", message))
        }
        // Clients would else read what the service can reach.
        Source::Objects(_) | Source::Query(_) => {
            let message =
                "must be a path below the folder of sources; objects and queries can only stand in a pipeline file";
            Err(Error::invalid_body("/source", "outside-folder", message))
        }
    }
}

/// All pipelines by name. One that stands in a file hides one of the same name that was declared by REST.
///
/// # Errors
/// When a file is no declaration, or the database fails.
pub async fn list(pool: &PgPool, folders: &Folders) -> Result<Vec<Declared>, Error> {
    let folder = folders.pipelines.clone();
    let mut all = blocking::run("reading pipelines", move || files(&folder)).await??;
    let limit = i64::try_from(N_PIPELINES_MAX).unwrap_or(i64::MAX);
    for row in db::pipeline::list_by_rest(pool, DEFAULT_TENANT, limit).await? {
        if all.iter().all(|declared| declared.pipeline.name != row.name) {
            all.push(of_row(row)?);
        }
    }
    all.sort_by(|a, b| a.pipeline.name.cmp(&b.pipeline.name));
    Ok(all)
}

fn of_row(row: db::pipeline::Pipeline) -> Result<Declared, Error> {
    let pipeline = serde_json::from_value(row.declaration);
    let pipeline = pipeline.map_err(|error| Error::internal("reading a stored pipeline", error))?;
    Ok(Declared { pipeline, origin: Origin::Rest })
}

/// The pipeline of this name.
///
/// # Errors
/// [`Error::UnknownPipeline`], and those of [`list`].
pub async fn find(pool: &PgPool, folders: &Folders, name: &str) -> Result<Declared, Error> {
    let all = list(pool, folders).await?;
    let found = all.into_iter().find(|declared| declared.pipeline.name == name);
    found.ok_or_else(|| Error::UnknownPipeline { pipeline: name.to_owned() })
}

/// What a run did.
#[derive(Debug)]
pub struct Run {
    /// What was read; `None` when no file had anything new.
    pub loaded: Option<Loaded>,
    /// What was stored; `None` when nothing was read, or it was only to be checked.
    pub stored: Option<loading::Stored>,
    /// Whether something is left for the next run, because it is too much for one.
    pub has_more: bool,
}

/// Runs a pipeline: reads what is new since the last run, or as much of it as it may at a time, and stores all of that or
/// nothing. With `is_check` it reads what
/// a run would read, reports, and changes nothing.
///
/// # Errors
/// - [`Error::PipelineRunning`] when somebody else runs it
/// - [`Error::UnusableData`] when a file as a whole cannot be used; it is kept on record
/// - [`Error::LoadFailed`] when the report has what the pipeline fails on; it is kept on record
/// - when the database fails
pub async fn run(
    pool: &PgPool,
    folders: &Folders,
    declared: &Declared,
    is_check: bool,
    now: DateTime<Utc>,
) -> Result<Run, Error> {
    let pipeline = &declared.pipeline;
    let declaration = declaration(pipeline)?;
    if is_check {
        let watermark = watermark(pool, pipeline, &declaration).await?;
        let read = read(pool, folders, declared, &watermark, now).await??;
        return Ok(Run { loaded: read.loaded, stored: None, has_more: read.has_more });
    }

    let pipeline_id = put(pool, declared).await?.pipeline_id;
    // The lock goes with this transaction, which is on a connection of its own: it ends with us, whatever happens.
    let mut lock = pool.begin().await?;
    if !db::pipeline::try_lock(&mut lock, pipeline_id).await? {
        return Err(Error::PipelineRunning { pipeline: pipeline.name.clone() });
    }
    let run = run_alone(pool, folders, declared, &declaration, pipeline_id, now).await;
    // Before anybody is told that the run has ended. If the connection is gone, so is the lock.
    let _ = lock.rollback().await;
    run
}

/// As [`run`], while nobody else runs it.
async fn run_alone(
    pool: &PgPool,
    folders: &Folders,
    declared: &Declared,
    declaration: &serde_json::Value,
    pipeline_id: i32,
    now: DateTime<Utc>,
) -> Result<Run, Error> {
    let pipeline = &declared.pipeline;
    let source = pipeline.source.to_string();
    let target = Target {
        publication_delay: pipeline.publication_delay_seconds.map(|seconds| TimeDelta::seconds(i64::from(seconds))),
        holidays: pipeline.holidays,
        pipeline_id: Some(pipeline_id),
        ..Target::new(&pipeline.panel, &source, &folders.data, now)
    };
    let watermark = watermark(pool, pipeline, declaration).await?;
    let Read { mut loaded, next, has_more, findings } = match read(pool, folders, declared, &watermark, now).await? {
        Ok(read) => read,
        Err(error) => {
            loading::record_failure(pool, &target, &error.to_string()).await?;
            return Err(error);
        }
    };
    if let Some(loaded) = &mut loaded {
        loaded.report.add_findings(findings);
    }
    let is_changed = next != watermark;
    let next = serde_json::to_value(&next).map_err(|error| Error::internal("writing a watermark", error))?;
    let new = NewWatermark { pipeline_id, declaration, watermark: &next };
    let Some(loaded) = loaded else {
        if is_changed {
            db::pipeline::set_watermark(pool, DEFAULT_TENANT, &new).await?;
        }
        return Ok(Run { loaded: None, stored: None, has_more });
    };
    refuse_failures(pool, &target, pipeline, &loaded).await?;
    let target = Target { watermark: Some(&new), ..target };
    let stored = loading::store(pool, &target, &loaded, |name| declare(pipeline, name)).await?;
    Ok(Run { loaded: Some(loaded), stored: Some(stored), has_more })
}

/// Makes or updates the row of a pipeline.
///
/// # Errors
/// When the database fails.
pub async fn put(pool: &PgPool, declared: &Declared) -> Result<db::pipeline::Pipeline, Error> {
    let declaration = declaration(&declared.pipeline)?;
    let (name, origin) = (&declared.pipeline.name, declared.origin.as_str());
    Ok(db::pipeline::put(pool, DEFAULT_TENANT, name, &declaration, origin).await?)
}

fn declaration(pipeline: &Pipeline) -> Result<serde_json::Value, Error> {
    serde_json::to_value(pipeline).map_err(|error| Error::internal("writing a pipeline", error))
}

/// What has been read of a pipeline as it is declared: nothing, where something else is stored of it.
async fn watermark(pool: &PgPool, pipeline: &Pipeline, declaration: &serde_json::Value) -> Result<Watermark, Error> {
    let stored = db::pipeline::get(pool, DEFAULT_TENANT, &pipeline.name).await?;
    match stored.filter(|stored| stored.declaration == *declaration) {
        Some(stored) => {
            serde_json::from_value(stored.watermark).map_err(|error| Error::internal("reading a watermark", error))
        }
        None => Ok(Watermark::default()),
    }
}

/// What was read, and what is remembered once it is stored.
pub(crate) struct Read {
    pub loaded: Option<Loaded>,
    pub next: Watermark,
    pub has_more: bool,
    /// What is odd about the files.
    findings: Vec<Finding>,
}

/// Reads what is new. The outer error is ours, the inner one is told of the source.
async fn read(
    pool: &PgPool,
    folders: &Folders,
    declared: &Declared,
    watermark: &Watermark,
    now: DateTime<Utc>,
) -> Result<Result<Read, Error>, Error> {
    let pipeline = declared.pipeline.clone();
    let mut config =
        pipeline.load_config().map_err(|error| Error::invalid_body("", "invalid-value", error.to_string()))?;
    loading::follow_panel(pool, &pipeline.panel, pipeline.time_zone.is_some(), &mut config).await?;
    let watermark = watermark.clone();
    let read = match pipeline.source.clone() {
        Source::Files(source) => {
            let (folder, stays_inside) = match &declared.origin {
                Origin::File(path) => (path.parent().unwrap_or(Path::new(".")).to_owned(), false),
                Origin::Rest => (folders.sources.clone(), true),
            };
            blocking::run("reading files", move || {
                let files = Files::find(&source, &folder, stays_inside, config.limits.n_files_max)?;
                carry_out(watermark.plan(&files, &config, now.into(), SETTLE)?, &config)
            })
            .await?
        }
        Source::Objects(objects) => match objects::fetch(&objects, &watermark, &config.limits, &folders.data).await {
            Ok(copied) => {
                blocking::run("reading objects", move || {
                    let (listed, copies) = (&copied.listed, copied.paths());
                    carry_out(watermark.plan_objects(&objects, listed, &copies, &config)?, &config)
                })
                .await?
            }
            Err(error) => return Ok(Err(error)),
        },
        Source::Query(query) => {
            match query::ask(&query, watermark.end(), config.limits.n_bytes_max, &folders.data).await {
                Ok(kept) => {
                    blocking::run("reading an answer", move || {
                        let mut plan = watermark.plan_answer(kept.input(), kept.answer.clone());
                        plan.findings.extend(kept.finding());
                        carry_out(plan, &config)
                    })
                    .await?
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    };
    Ok(read.map_err(Error::from))
}

/// Reads the next part of one file that nobody is expected to write to. The outer error is ours, the inner one is told of the file.
pub(crate) async fn read_part(
    file: &Path,
    watermark: Watermark,
    config: &LoadConfig,
) -> Result<Result<Read, ingest::Error>, Error> {
    let (files, config) = (Files::one(file), config.clone());
    blocking::run("reading a file", move || {
        carry_out(watermark.plan(&files, &config, SystemTime::UNIX_EPOCH, Duration::ZERO)?, &config)
    })
    .await
}

/// The error of a source that no other attempt makes better.
fn unusable_source(reason: String) -> Error {
    Error::UnusableData { reason, errors: Vec::new() }
}

/// The error of a source that may be there later.
fn unavailable_source(reason: String) -> Error {
    Error::SourceUnavailable { reason }
}

/// Reads what is planned.
fn carry_out(plan: Plan, config: &LoadConfig) -> Result<Read, ingest::Error> {
    let loaded = (!plan.inputs.is_empty()).then(|| ingest::read(&plan.inputs, config)).transpose()?;
    let has_more = plan.has_more;
    let (next, findings) = plan.finish(loaded.as_ref())?;
    Ok(Read { loaded, next, has_more, findings })
}

/// Ends a load whose report has what the pipeline fails on.
async fn refuse_failures(
    pool: &PgPool,
    target: &Target<'_>,
    pipeline: &Pipeline,
    loaded: &Loaded,
) -> Result<(), Error> {
    let codes = pipeline.codes().map_err(|error| Error::internal("reading a pipeline", error))?;
    let met: Vec<&str> = loaded.report.failures(&codes).into_iter().map(Code::as_str).collect();
    if met.is_empty() {
        return Ok(());
    }
    let failure = format!("the pipeline fails on {}", met.join(", "));
    let load_id: Uuid = loading::record_refusal(pool, target, loaded, &failure).await?;
    Err(Error::LoadFailed { load_id, failure })
}

fn declare(pipeline: &Pipeline, name: &str) -> NewSeries {
    let Some(series) = pipeline.series(name) else {
        return NewSeries { name: name.to_owned(), ..NewSeries::default() };
    };
    // Words were checked when the declaration was read.
    NewSeries {
        name: name.to_owned(),
        role: series.role.as_deref().and_then(|word| word.parse().ok()),
        kind: series.kind.as_deref().and_then(|word| word.parse().ok()),
        unit: series.unit.clone(),
        lower_bound: series.lower_bound,
        upper_bound: series.upper_bound,
        is_integer: series.is_integer,
        attributes: series.attributes.clone().into_iter().collect(),
    }
}
