//! Everything that can go wrong with a request, and its only mapping to HTTP.
//!
//! Bad input is answered with what is wrong and where. A failure of ours (5xx) says nothing of the
//! inside to the client and is logged once, by the server, with its causes.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    db,
    db::words::JobState,
    problem::{Problem, Violation},
};

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No route has this path.
    #[error("there is nothing at this path")]
    UnknownPath,
    /// The path exists, the method does not.
    #[error("this path does not answer to this method; see the header `Allow`")]
    MethodNotAllowed,
    /// A browser asks for a change on behalf of a page of another site.
    #[error("a page of another site asks for this; only this service's own pages, and programs, may")]
    CrossSite,
    /// The body is not of a type that the route reads.
    #[error("the body must be {expected}, not {}", .content_type.as_deref().unwrap_or("untyped"))]
    UnsupportedMediaType {
        /// What the route reads.
        expected: &'static str,
        /// What the request says.
        content_type: Option<String>,
    },
    /// The route cannot answer in any type that the client accepts.
    #[error("the answer is not available as {wanted}")]
    NotAcceptable {
        /// What the request asks for.
        wanted: String,
    },
    /// The body is larger than the limit.
    #[error("the body is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body ended early or its encoding is broken.
    #[error("the body could not be read to its end")]
    UnreadableBody,
    /// The body is not JSON.
    #[error("the body is not JSON: {reason}")]
    MalformedBody {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// The body is JSON, but not what the route expects.
    #[error("the body is not valid: {}", summary(.errors))]
    InvalidBody {
        /// Each thing that is wrong.
        errors: Vec<Violation>,
    },
    /// The query string or a header is not what the route expects.
    #[error("the request is not valid: {}", summary(.errors))]
    InvalidParameter {
        /// Each thing that is wrong.
        errors: Vec<Violation>,
    },
    /// No panel has this name.
    #[error("there is no panel `{panel}`")]
    UnknownPanel {
        /// The name.
        panel: String,
    },
    /// The panel or forecast has no such series.
    #[error("there is no series `{series}` here")]
    UnknownSeries {
        /// The name.
        series: String,
    },
    /// No forecast has this identifier.
    #[error("there is no forecast `{forecast}`")]
    UnknownForecast {
        /// The identifier as given.
        forecast: String,
    },
    /// No load has this identifier.
    #[error("there is no load `{load}`")]
    UnknownLoad {
        /// The identifier as given.
        load: String,
    },
    /// No pipeline has this name.
    #[error("there is no pipeline `{pipeline}`")]
    UnknownPipeline {
        /// The name.
        pipeline: String,
    },
    /// The pipeline stands in a file, which is where it is to be changed.
    #[error("pipeline `{pipeline}` stands in a file of the service and can only be changed there")]
    PipelineInFile {
        /// The name.
        pipeline: String,
    },
    /// A file of the folder of pipelines is no declaration.
    #[error("{}: {reason}", path.display())]
    InvalidPipelineFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else runs the pipeline at this moment.
    #[error("pipeline `{pipeline}` is being run; try again later")]
    PipelineRunning {
        /// The name.
        pipeline: String,
    },
    /// Nothing of a file or body can be used.
    #[error("{reason}")]
    UnusableData {
        /// Why.
        reason: String,
        /// Each thing that is wrong, where that is known.
        errors: Vec<Violation>,
    },
    /// The database that a pipeline reads from is away.
    #[error("{reason}")]
    SourceUnavailable {
        /// Which, and what it says.
        reason: String,
    },
    /// A load has what its pipeline fails on; nothing was stored.
    #[error("{failure}; nothing was stored, see load {load_id}")]
    LoadFailed {
        /// Its record, with the report.
        load_id: Uuid,
        /// What it fails on.
        failure: String,
    },
    /// The forecast was made without keeping its trajectories.
    #[error("forecast {forecast_id} has no stored trajectories")]
    NoTrajectories {
        /// The forecast.
        forecast_id: Uuid,
    },
    /// No backtest has this identifier.
    #[error("there is no backtest `{backtest}`")]
    UnknownBacktest {
        /// The identifier as given.
        backtest: String,
    },
    /// The panel has no model with this version.
    #[error("panel `{panel}` has no model of version {version}")]
    UnknownModel {
        /// The panel.
        panel: String,
        /// The version as given.
        version: String,
    },
    /// The model was not made by retraining.
    #[error("version {version} of panel `{panel}` was compared with nothing")]
    NoComparison {
        /// The panel.
        panel: String,
        /// The version.
        version: i32,
    },
    /// The model serves: it can be neither archived nor deleted.
    #[error("version {version} of panel `{panel}` serves; promote another one first")]
    ChampionServes {
        /// The panel.
        panel: String,
        /// The version.
        version: i32,
    },
    /// Forecasts of the model are stored, and must stay traceable to it.
    #[error("stored forecasts were made by version {version} of panel `{panel}`; archive it instead")]
    ModelInUse {
        /// The panel.
        panel: String,
        /// The version.
        version: i32,
    },
    /// There is nothing to roll back to.
    #[error("the champion of panel `{panel}` has replaced no model that still exists")]
    NoEarlierChampion {
        /// The panel.
        panel: String,
    },
    /// Another model serves than the request says.
    #[error("the champion of panel `{panel}` is another one by now")]
    ChampionChanged {
        /// The panel.
        panel: String,
    },
    /// The panel has no champion model yet.
    #[error("panel `{panel}` has no model yet; train one with `plumecast train`")]
    NoModel {
        /// The panel.
        panel: String,
    },
    /// Nothing of the panel is known at the issue time.
    #[error("nothing is known of panel `{panel}` at {issue_time}, or what is known is too old for its model")]
    NoObservations {
        /// The panel.
        panel: String,
        /// The issue time asked for.
        issue_time: DateTime<Utc>,
    },
    /// The forecast is too large to be computed while the client waits.
    #[error("{cost} values (trajectories * steps * series) are more than the limit of {limit}")]
    TooCostly {
        /// Values that would be computed.
        cost: u64,
        /// The limit.
        limit: u64,
    },
    /// The idempotency key was used before, for another request.
    #[error("the idempotency key was used for a different request")]
    IdempotencyConflict,
    /// No job has this identifier.
    #[error("there is no job `{job}`")]
    UnknownJob {
        /// The identifier as given.
        job: String,
    },
    /// No schedule has this name.
    #[error("there is no schedule `{schedule}`")]
    UnknownSchedule {
        /// The name.
        schedule: String,
    },
    /// There is a schedule of this name.
    #[error("there is a schedule `{schedule}` already; change it with PUT")]
    ScheduleExists {
        /// The name.
        schedule: String,
    },
    /// The job is not in a state in which this can be done to it.
    #[error("job {job_id} is {state}; {needed}")]
    WrongJobState {
        /// The job.
        job_id: Uuid,
        /// Its state.
        state: JobState,
        /// What would be right.
        needed: &'static str,
    },
    /// Too many jobs wait for a worker.
    #[error("{limit} jobs wait for a worker, which is the limit; try again later")]
    TooManyJobs {
        /// The limit.
        limit: i64,
    },
    /// Too many clients watch jobs.
    #[error("too many clients watch jobs; read the job instead, or try again later")]
    TooManyWatchers,
    /// Too many requests wait for the model.
    #[error("too many requests wait for the model; try again later")]
    QueueFull {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// The request took longer than the limit.
    #[error("the request took longer than {} seconds", .limit.as_secs_f64())]
    Timeout {
        /// The limit.
        limit: std::time::Duration,
    },
    /// The model's files are missing, damaged or of another version.
    #[error("model {model_id} cannot be used")]
    BrokenModel {
        /// The model.
        model_id: i32,
        /// What is wrong with it.
        #[source]
        source: forecast::Error,
    },
    /// The model did not come to an end with what it was given.
    #[error("the model failed")]
    ModelFailed {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused or could not be reached.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// Something that the service needs is not there.
    #[error("not ready: {}", summary(.errors))]
    NotReady {
        /// Each thing that is missing.
        errors: Vec<Violation>,
    },
    /// A failure of ours.
    #[error("{attempt} failed")]
    Internal {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The first of the violations, for the one-line description.
fn summary(errors: &[Violation]) -> String {
    let Some(first) = errors.first() else { return "no reason is known".to_owned() };
    let place = first.pointer.as_ref().or(first.parameter.as_ref());
    match place.filter(|place| !place.is_empty()) {
        Some(place) => format!("`{place}`: {}", first.message),
        None => first.message.clone(),
    }
}

/// The fixed part of a problem: HTTP status, code and title.
struct Kind(StatusCode, &'static str, &'static str);

impl Error {
    /// A failure of ours while attempting something.
    pub fn internal(attempt: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { attempt, source: source.into() }
    }

    /// A body with one thing wrong.
    pub fn invalid_body(pointer: &str, code: &str, message: impl Into<String>) -> Self {
        Self::InvalidBody { errors: vec![Violation::at(pointer, code, message)] }
    }

    /// A query string or header with one thing wrong.
    pub fn invalid_parameter(parameter: &str, code: &str, message: impl Into<String>) -> Self {
        Self::InvalidParameter { errors: vec![Violation::of(parameter, code, message)] }
    }

    /// The error that stands for a status code set by a library.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::UnknownPath,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::UnsupportedMediaType { expected: "of another type", content_type: None }
            }
            StatusCode::NOT_ACCEPTABLE => Self::NotAcceptable { wanted: "any encoding asked for".to_owned() },
            status if status.is_client_error() => Self::UnreadableBody,
            status => Self::internal("answering", format!("unexpected status {status}")),
        }
    }

    /// The one table of status codes, codes and titles.
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownPath => Kind(StatusCode::NOT_FOUND, "unknown-path", "There is nothing at this path"),
            Self::MethodNotAllowed => {
                Kind(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not answer to this method")
            }
            Self::CrossSite => {
                Kind(StatusCode::FORBIDDEN, "cross-site", "Pages of other sites can change nothing here")
            }
            Self::UnsupportedMediaType { .. } => Kind(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body has a type that is not read here",
            ),
            Self::NotAcceptable { .. } => {
                Kind(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "The answer is not available in the type asked for")
            }
            Self::BodyTooLarge { .. } => Kind(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnreadableBody => Kind(StatusCode::BAD_REQUEST, "unreadable-body", "The body cannot be read"),
            Self::MalformedBody { .. } => Kind(StatusCode::BAD_REQUEST, "malformed-body", "The body is not JSON"),
            Self::InvalidBody { .. } => {
                Kind(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The body is not what is expected here")
            }
            Self::InvalidParameter { .. } | Self::Database(db::Error::UnstorableText(_)) => {
                Kind(StatusCode::BAD_REQUEST, "invalid-parameter", "A parameter or header is not what is expected here")
            }
            Self::UnknownPanel { .. } => Kind(StatusCode::NOT_FOUND, "unknown-panel", "There is no such panel"),
            Self::UnknownSeries { .. } => Kind(StatusCode::NOT_FOUND, "unknown-series", "There is no such series"),
            Self::UnknownForecast { .. } => {
                Kind(StatusCode::NOT_FOUND, "unknown-forecast", "There is no such forecast")
            }
            Self::UnknownLoad { .. } => Kind(StatusCode::NOT_FOUND, "unknown-load", "There is no such load"),
            Self::UnknownPipeline { .. } => {
                Kind(StatusCode::NOT_FOUND, "unknown-pipeline", "There is no such pipeline")
            }
            Self::PipelineInFile { .. } => {
                Kind(StatusCode::CONFLICT, "pipeline-in-file", "The pipeline stands in a file of the service")
            }
            Self::InvalidPipelineFile { .. } => {
                Kind(StatusCode::INTERNAL_SERVER_ERROR, "invalid-pipeline-file", "A pipeline file cannot be used")
            }
            Self::PipelineRunning { .. } => Kind(StatusCode::CONFLICT, "pipeline-running", "The pipeline is being run"),
            Self::UnusableData { .. } => {
                Kind(StatusCode::UNPROCESSABLE_ENTITY, "unusable-data", "Nothing of the data can be used")
            }
            Self::SourceUnavailable { .. } => {
                Kind(StatusCode::SERVICE_UNAVAILABLE, "source-unavailable", "The source cannot be reached")
            }
            Self::LoadFailed { .. } => {
                Kind(StatusCode::UNPROCESSABLE_ENTITY, "load-failed", "The data have what the pipeline fails on")
            }
            Self::Database(db::Error::PanelDiffers { .. }) => {
                Kind(StatusCode::CONFLICT, "panel-differs", "The panel has another frequency or time zone")
            }
            Self::NoTrajectories { .. } => {
                Kind(StatusCode::NOT_FOUND, "no-trajectories", "The forecast has no stored trajectories")
            }
            Self::UnknownModel { .. } => Kind(StatusCode::NOT_FOUND, "unknown-model", "There is no such model"),
            Self::UnknownBacktest { .. } => {
                Kind(StatusCode::NOT_FOUND, "unknown-backtest", "There is no such backtest")
            }
            Self::NoComparison { .. } => {
                Kind(StatusCode::NOT_FOUND, "no-comparison", "The model was compared with nothing")
            }
            Self::ChampionServes { .. } => Kind(StatusCode::CONFLICT, "champion-serves", "The model serves"),
            Self::ModelInUse { .. } => {
                Kind(StatusCode::CONFLICT, "model-in-use", "Stored forecasts refer to the model")
            }
            Self::NoEarlierChampion { .. } => {
                Kind(StatusCode::CONFLICT, "no-earlier-champion", "There is no model to roll back to")
            }
            Self::ChampionChanged { .. } => {
                Kind(StatusCode::CONFLICT, "champion-changed", "Another model serves by now")
            }
            Self::NoModel { .. } => Kind(StatusCode::CONFLICT, "no-model", "The panel has no model yet"),
            Self::NoObservations { .. } => {
                Kind(StatusCode::CONFLICT, "no-observations", "There is nothing to forecast from at this issue time")
            }
            Self::TooCostly { .. } => {
                Kind(StatusCode::UNPROCESSABLE_ENTITY, "too-costly", "The forecast is too large to be computed at once")
            }
            Self::IdempotencyConflict => {
                Kind(StatusCode::CONFLICT, "idempotency-conflict", "The idempotency key belongs to another request")
            }
            Self::UnknownJob { .. } => Kind(StatusCode::NOT_FOUND, "unknown-job", "There is no such job"),
            Self::UnknownSchedule { .. } => {
                Kind(StatusCode::NOT_FOUND, "unknown-schedule", "There is no such schedule")
            }
            Self::ScheduleExists { .. } => {
                Kind(StatusCode::CONFLICT, "schedule-exists", "There is a schedule of this name")
            }
            Self::WrongJobState { .. } => {
                Kind(StatusCode::CONFLICT, "wrong-job-state", "The job is not in a state in which this can be done")
            }
            Self::TooManyJobs { .. } => {
                Kind(StatusCode::SERVICE_UNAVAILABLE, "too-many-jobs", "Too many jobs wait for a worker")
            }
            Self::TooManyWatchers => {
                Kind(StatusCode::SERVICE_UNAVAILABLE, "too-many-watchers", "Too many clients watch jobs")
            }
            Self::QueueFull { .. } => Kind(StatusCode::SERVICE_UNAVAILABLE, "queue-full", "The model is busy"),
            Self::Stopping => Kind(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
            Self::Timeout { .. } => Kind(StatusCode::GATEWAY_TIMEOUT, "timeout", "The request took too long"),
            Self::BrokenModel { .. } => {
                Kind(StatusCode::SERVICE_UNAVAILABLE, "model-unavailable", "The panel's model cannot be used")
            }
            Self::ModelFailed { .. } => {
                Kind(StatusCode::INTERNAL_SERVER_ERROR, "model-failed", "The panel's model failed")
            }
            Self::Database(db::Error::Unavailable(_)) => {
                Kind(StatusCode::SERVICE_UNAVAILABLE, "database-unavailable", "The database cannot be reached")
            }
            Self::Database(db::Error::StatementTimeout(_)) => {
                Kind(StatusCode::GATEWAY_TIMEOUT, "database-timeout", "The database took too long")
            }
            Self::NotReady { .. } => Kind(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The service is not ready"),
            Self::Database(_) | Self::Internal { .. } => {
                Kind(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed to answer")
            }
        }
    }

    /// The code of the problem, which is stable.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().1
    }

    /// Whether the request was wrong, so that the same one would be refused again.
    #[must_use]
    pub fn is_of_client(&self) -> bool {
        self.kind().0.is_client_error()
    }

    /// Seconds after which the same request may succeed, for failures that pass.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after_seconds } => Some(*retry_after_seconds),
            Self::Database(db::Error::Unavailable(_)) | Self::NotReady { .. } => Some(5),
            Self::Stopping | Self::PipelineRunning { .. } | Self::TooManyWatchers => Some(10),
            Self::TooManyJobs { .. } | Self::SourceUnavailable { .. } => Some(60),
            _ => None,
        }
    }

    /// The problem document, with the request's path and identifier where they are known.
    #[must_use]
    pub fn problem(&self, instance: Option<String>, request_id: Option<String>) -> Problem {
        let Kind(status, code, title) = self.kind();
        let detail = if status == StatusCode::INTERNAL_SERVER_ERROR {
            "the service failed to answer; its log says why".to_owned()
        } else {
            self.to_string()
        };
        let errors = match self {
            Self::InvalidBody { errors }
            | Self::InvalidParameter { errors }
            | Self::NotReady { errors }
            | Self::UnusableData { errors, .. } => errors.clone(),
            _ => Vec::new(),
        };
        Problem {
            type_uri: format!("urn:plumecast:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            instance,
            code: code.to_owned(),
            request_id,
            errors,
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        self.problem(None, None).into_response(self.retry_after_seconds())
    }
}

impl From<ingest::Error> for Error {
    fn from(error: ingest::Error) -> Self {
        let errors = match &error {
            ingest::Error::NoValidRows { rejected, .. } => rejected.iter().map(Violation::of_rejection).collect(),
            _ => Vec::new(),
        };
        // It may quote the data, and is kept on record.
        Self::UnusableData { reason: ingest::without_nul(&error.to_string()), errors }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_with_its_causes() {
        let error = Error::internal("reading", std::io::Error::other("disk gone"));
        assert_eq!(causes(&error), "reading failed: disk gone");
    }

    #[test]
    fn a_failure_of_ours_reveals_nothing() {
        let error = Error::internal("reading a table", "relation \"secret\" does not exist");
        let problem = serde_json::to_string(&error.problem(None, None)).expect("it serialises");
        assert!(!problem.contains("secret") && !problem.contains("table"), "{problem}");
        assert_eq!(error.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_problem_names_its_type_status_and_place() {
        let error = Error::invalid_body("/quantiles/2", "out-of-range", "must lie between 0 and 1");
        let problem = error.problem(Some("/v1/forecasts".to_owned()), Some("r-1".to_owned()));
        assert_eq!(problem.type_uri, "urn:plumecast:problem:invalid-body");
        assert_eq!(problem.status, 422);
        assert_eq!(problem.detail, "the body is not valid: `/quantiles/2`: must lie between 0 and 1");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/quantiles/2"));
        assert_eq!(problem.request_id.as_deref(), Some("r-1"));
    }

    #[test]
    fn a_database_that_is_away_is_503_with_retry_after() {
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed, sqlx::Error::WorkerCrashed] {
            let error = Error::from(error);
            assert_eq!(error.status_code(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(error.error_response().headers().contains_key("retry-after"));
        }
    }

    #[test]
    fn a_wrong_statement_is_our_failure() {
        let error = Error::from(sqlx::Error::RowNotFound);
        assert_eq!(error.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let response = Error::QueueFull { retry_after_seconds: 3 }.error_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("retry-after"), Some("3"));
        assert_eq!(header("content-type"), Some("application/problem+json"));
    }
}
