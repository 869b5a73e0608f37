//! Jobs: asking for them, following them, stopping them.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    cursor,
    extract::{Body, FromQuery, Parameters, Query},
    idempotency, panels, respond,
};
use crate::{
    Error,
    db::{
        self, DEFAULT_TENANT,
        job::{Filter, Job},
        words::JobState,
    },
    forecaster::RequestKey,
    jobs::{self, Ask, Work, work::UnreadWork},
    server::State,
};

/// Jobs of a page, unless the request says otherwise.
const PAGE_ROWS_DEFAULT: usize = 50;

/// Lines of a page of a log, unless the request says otherwise.
const LOG_ROWS_DEFAULT: usize = 200;

/// A job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobBody {
    /// Its identifier.
    pub job_id: Uuid,
    /// What is to be done.
    #[schema(example = "train")]
    pub kind: String,
    /// With these arguments, defaults filled in.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// Name of the panel that it is about.
    #[schema(example = "valencia")]
    pub panel: Option<String>,
    /// Who asked: `rest`, or `schedule` and its name.
    #[schema(example = "rest")]
    pub asked_by: String,
    /// `waiting`, `running`, `succeeded`, `failed` or `cancelled`.
    #[schema(example = "running")]
    pub state: String,
    /// Share that is done, 0 to 1.
    #[schema(example = 0.42)]
    pub progress: f32,
    /// What is being done.
    #[schema(example = "train 42/100, loss 0.913")]
    pub activity: String,
    /// Attempts begun.
    pub attempts: i32,
    /// Attempts allowed.
    pub attempts_max: i32,
    /// It is not begun before this instant.
    pub run_after: DateTime<Utc>,
    /// The worker that does it, or did it last.
    pub worker: Option<String>,
    /// What came out, in words of its kind.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub failure: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last attempt was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, well or not.
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<Job> for JobBody {
    fn from(job: Job) -> Self {
        Self {
            job_id: job.job_id,
            kind: job.kind,
            arguments: job.arguments,
            panel: job.panel,
            asked_by: job.asked_by,
            state: job.state.to_string(),
            progress: job.progress,
            activity: job.activity,
            attempts: job.attempts,
            attempts_max: job.attempts_max,
            run_after: job.run_after,
            worker: job.worker,
            result: job.result,
            failure: job.failure,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }
}

/// A page of jobs, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A line of a job's log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobLogLine {
    /// The attempt that wrote it, counted from 1.
    pub attempt: i32,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// What it says.
    #[schema(example = "model version 3 is champion")]
    pub text: String,
}

/// A page of a job's log, the oldest line first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobLog {
    /// The lines.
    pub lines: Vec<JobLogLine>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Ask for a job
///
/// The job waits for a worker; follow it at the address in `Location`. A request with the header `Idempotency-Key` can be
/// repeated: the same key and request give the same job.
#[utoipa::path(
    post,
    path = "/v1/jobs", operation_id = "createJob",
    tag = "jobs",
    request_body = Work,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request, so that it can be repeated")),
    responses(
        (status = 202, description = "The job, which waits", body = JobBody,
            headers(("Location" = String, description = "Where the job is"))),
        (status = 400, description = "The body is not JSON, or a header is wrong"),
        (status = 404, description = "No such panel"),
        (status = 409, description = "The key belongs to another request"),
        (status = 422, description = "There is no such kind, or something in its arguments is out of range"),
        (status = 503, description = "Too many jobs wait, or the database cannot be reached"),
    )
)]
pub async fn create(
    http_request: HttpRequest,
    state: web::Data<State>,
    body: Body<UnreadWork>,
) -> Result<HttpResponse, Error> {
    let UnreadWork { kind, arguments } = body.0;
    let work = Work::parse(&kind, arguments)?;
    let key = idempotency::request_key(&http_request, &work)?;
    accept(&state, &work, key.as_ref()).await
}

/// Adds a job, unless an earlier request with the key did, and answers with it.
///
/// # Errors
/// Those of [`jobs::enqueue`].
pub(super) async fn accept(state: &State, work: &Work, key: Option<&RequestKey>) -> Result<HttpResponse, Error> {
    if let Some(key) = key
        && let Some(earlier) = find_earlier(state, key).await?
    {
        return accepted(earlier).await;
    }
    let now = Utc::now();
    let ask = Ask { by: "rest", run_after: now, now, key };
    let mut connection = state.pool.acquire().await?;
    let enqueued = jobs::enqueue(&mut connection, work, &ask, &state.limits).await;
    drop(connection);
    let job = match (enqueued, key) {
        (Ok(job_id), _) => get(state, job_id).await?,
        // The same request came twice at once; the other one was faster.
        (Err(Error::Database(db::Error::IdempotencyKeyInUse)), Some(key)) => {
            find_earlier(state, key).await?.ok_or(Error::IdempotencyConflict)?
        }
        (Err(error), _) => return Err(error),
    };
    accepted(job).await
}

/// The job that an earlier request with this key made.
///
/// # Errors
/// [`Error::IdempotencyConflict`] when that was another request.
pub(super) async fn find_earlier(state: &State, key: &RequestKey) -> Result<Option<Job>, Error> {
    match db::job::find_by_key(&state.pool, DEFAULT_TENANT, &key.key).await? {
        None => Ok(None),
        Some((_, digest)) if digest != key.digest => Err(Error::IdempotencyConflict),
        Some((job_id, _)) => Ok(Some(get(state, job_id).await?)),
    }
}

/// The answer to a request that has become a job.
///
/// # Errors
/// Those of [`respond::json`].
pub(super) async fn accepted(job: Job) -> Result<HttpResponse, Error> {
    let location = format!("/v1/jobs/{}", job.job_id);
    respond::json_at(StatusCode::ACCEPTED, &location, JobBody::from(job)).await
}

/// The job that a path names.
///
/// # Errors
/// [`Error::UnknownJob`]; those of the database.
pub async fn find(state: &State, identifier: &str) -> Result<Job, Error> {
    let job_id = Uuid::parse_str(identifier).map_err(|_| Error::UnknownJob { job: identifier.to_owned() })?;
    get(state, job_id).await
}

async fn get(state: &State, job_id: Uuid) -> Result<Job, Error> {
    let job = db::job::get(&state.pool, DEFAULT_TENANT, job_id).await?;
    job.ok_or_else(|| Error::UnknownJob { job: job_id.to_string() })
}

/// Read a job
#[utoipa::path(
    get,
    path = "/v1/jobs/{job_id}", operation_id = "readJob",
    tag = "jobs",
    params(("job_id" = Uuid, Path, description = "Identifier of the job")),
    responses(
        (status = 200, description = "The job", body = JobBody),
        (status = 404, description = "No such job"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<JobBody>, Error> {
    Ok(web::Json(find(&state, &path).await?.into()))
}

/// Cancel a job
///
/// One that waits is never begun; one that runs is stopped, and changes nothing any more from the moment of the answer.
/// Those of the kinds `load`, `score` and `retain` store part after part, and may store further ones until they have
/// stopped.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job_id}/cancel", operation_id = "cancelJob",
    tag = "jobs",
    params(("job_id" = Uuid, Path, description = "Identifier of the job")),
    responses(
        (status = 200, description = "The job, which is cancelled", body = JobBody),
        (status = 404, description = "No such job"),
        (status = 409, description = "The job is over"),
    )
)]
pub async fn cancel(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<JobBody>, Error> {
    let job = find(&state, &path).await?;
    let is_cancelled = db::job::cancel(&state.pool, DEFAULT_TENANT, job.job_id, Utc::now()).await?;
    changed(&state, job.job_id, is_cancelled, "only a job that waits or runs can be cancelled").await
}

/// Repeat a job
///
/// It waits again, with all its attempts.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job_id}/retry", operation_id = "retryJob",
    tag = "jobs",
    params(("job_id" = Uuid, Path, description = "Identifier of the job")),
    responses(
        (status = 200, description = "The job, which waits", body = JobBody),
        (status = 404, description = "No such job"),
        (status = 409, description = "The job has neither failed nor been cancelled"),
    )
)]
pub async fn retry(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<JobBody>, Error> {
    let job = find(&state, &path).await?;
    let is_retried = db::job::retry(&state.pool, DEFAULT_TENANT, job.job_id, Utc::now()).await?;
    changed(&state, job.job_id, is_retried, "only a job that failed or was cancelled can be repeated").await
}

/// The job after a change, or why it was not changed.
async fn changed(
    state: &State,
    job_id: Uuid,
    is_changed: bool,
    needed: &'static str,
) -> Result<web::Json<JobBody>, Error> {
    let job = get(state, job_id).await?;
    if is_changed { Ok(web::Json(job.into())) } else { Err(Error::WrongJobState { job_id, state: job.state, needed }) }
}

/// Which jobs.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct JobsParameters {
    /// Name of the panel. Default: all jobs, also those that are about no panel.
    panel: Option<String>,
    /// `waiting`, `running`, `succeeded`, `failed` or `cancelled`. Default: all.
    state: Option<String>,
    /// A kind. Default: all.
    kind: Option<String>,
    /// Most jobs of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct JobsQuery {
    panel: Option<String>,
    state: Option<JobState>,
    kind: Option<String>,
    limit: usize,
    cursor: Option<Uuid>,
}

impl FromQuery for JobsQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let one_of = |words: &[&str]| format!("one of {}", words.join(", "));
        let is_kind = |text: &str| Work::KINDS.contains(&text).then(|| text.to_owned());
        Ok(Self {
            panel: parameters.take("panel")?,
            state: parameters.take_parsed("state", &one_of(JobState::WORDS), |text| text.parse().ok())?,
            kind: parameters.take_parsed("kind", &one_of(Work::KINDS), is_kind)?,
            limit: parameters.take_limit(PAGE_ROWS_DEFAULT)?,
            cursor: cursor::take(parameters)?,
        })
    }
}

/// List jobs, the newest first
#[utoipa::path(
    get,
    path = "/v1/jobs", operation_id = "listJobs",
    tag = "jobs",
    params(JobsParameters),
    responses(
        (status = 200, description = "A page of jobs", body = JobPage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(state: web::Data<State>, query: Query<JobsQuery>) -> Result<web::Json<JobPage>, Error> {
    let JobsQuery { panel, state: job_state, kind, limit, cursor } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let filter = Filter { panel_id, state: job_state, kind };
    let limit = limit.min(state.limits.page_rows_max);
    let rows = db::job::list(&state.pool, DEFAULT_TENANT, &filter, cursor, cursor::limit_plus_one(limit)).await?;
    let (rows, next) = cursor::page(rows, limit, |job| job.job_id)?;
    Ok(web::Json(JobPage { jobs: rows.into_iter().map(JobBody::from).collect(), next }))
}

/// Which lines.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct JobLogParameters {
    /// Most lines of the page.
    #[param(minimum = 1, default = 200)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters, read.
pub struct JobLogQuery {
    limit: usize,
    cursor: Option<i64>,
}

impl FromQuery for JobLogQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        Ok(Self { limit: parameters.take_limit(LOG_ROWS_DEFAULT)?, cursor: cursor::take(parameters)? })
    }
}

/// Read what a job said, the oldest line first
#[utoipa::path(
    get,
    path = "/v1/jobs/{job_id}/log", operation_id = "readJobLog",
    tag = "jobs",
    params(("job_id" = Uuid, Path, description = "Identifier of the job"), JobLogParameters),
    responses(
        (status = 200, description = "A page of lines", body = JobLog),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such job"),
    )
)]
pub async fn log(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<JobLogQuery>,
) -> Result<web::Json<JobLog>, Error> {
    let job = find(&state, &path).await?;
    let JobLogQuery { limit, cursor } = query.0;
    let limit = limit.min(state.limits.page_rows_max);
    let limit_plus_one = cursor::limit_plus_one(limit);
    let rows = db::job::log::list(&state.pool, DEFAULT_TENANT, job.job_id, cursor, limit_plus_one).await?;
    let (rows, next) = cursor::page(rows, limit, |line| line.line_id)?;
    let lines =
        rows.into_iter().map(|line| JobLogLine { attempt: line.attempt, written_at: line.written_at, text: line.text });
    Ok(web::Json(JobLog { lines: lines.collect(), next }))
}
