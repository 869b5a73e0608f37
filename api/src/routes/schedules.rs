//! Schedules: declaring them, and seeing what they did.

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    cursor,
    extract::{Body, Query},
    panels::{self, OfPanelQuery},
    respond,
};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT, schedule::Schedule},
    jobs::scheduler::{self, Declaration},
    server::State,
};

/// A schedule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScheduleBody {
    /// Its name.
    #[schema(example = "nightly")]
    pub name: String,
    /// When it is due.
    #[schema(example = "30 2 * * *")]
    pub cron: String,
    /// By the clock of this zone.
    #[schema(example = "Europe/Madrid")]
    pub time_zone: String,
    /// What is to be done.
    #[schema(example = "train")]
    pub kind: String,
    /// Its arguments, defaults filled in.
    #[schema(value_type = Object)]
    pub arguments: Value,
    /// Name of the panel that it is about.
    #[schema(example = "valencia")]
    pub panel: Option<String>,
    /// `skip`, `once` or `all`.
    #[schema(example = "once")]
    pub catch_up: String,
    /// Jobs begin up to so many seconds after their occasion.
    pub jitter_seconds: i32,
    /// Whether it makes no jobs for now.
    pub paused: bool,
    /// The next occasion; none while it is paused.
    pub next_run: Option<DateTime<Utc>>,
    /// The newest occasion that a job was made for.
    pub last_run: Option<DateTime<Utc>>,
    /// That job.
    pub last_job_id: Option<Uuid>,
    /// When it was first declared.
    pub created_at: DateTime<Utc>,
}

impl From<Schedule> for ScheduleBody {
    fn from(schedule: Schedule) -> Self {
        Self {
            name: schedule.name,
            cron: schedule.cron,
            time_zone: schedule.time_zone,
            kind: schedule.kind,
            arguments: schedule.arguments,
            panel: schedule.panel,
            catch_up: schedule.catch_up.to_string(),
            jitter_seconds: schedule.jitter_seconds,
            paused: schedule.paused,
            next_run: schedule.next_run,
            last_run: schedule.last_run,
            last_job_id: schedule.last_job_id,
            created_at: schedule.created_at,
        }
    }
}

/// A page of schedules, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<ScheduleBody>,
    /// Cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Declare a schedule
#[utoipa::path(
    post,
    path = "/v1/schedules", operation_id = "createSchedule",
    tag = "schedules",
    request_body = Declaration,
    responses(
        (status = 201, description = "The schedule", body = ScheduleBody,
            headers(("Location" = String, description = "Where the schedule is"))),
        (status = 400, description = "The body is not JSON"),
        (status = 404, description = "No such panel"),
        (status = 409, description = "There is a schedule of this name"),
        (status = 422, description = "Something in the body is wrong"),
    )
)]
pub async fn create(state: web::Data<State>, body: Body<Declaration>) -> Result<HttpResponse, Error> {
    let mut transaction = state.pool.begin().await?;
    if !scheduler::declare(&mut transaction, &body.0, &state.limits, Utc::now()).await? {
        // What was written over is put back.
        transaction.rollback().await?;
        return Err(Error::ScheduleExists { schedule: body.0.name });
    }
    transaction.commit().await?;
    written(&state, &body.0.name, StatusCode::CREATED).await
}

/// Declare a schedule, in place of one that may be there
///
/// One that keeps its times keeps its next occasion, too. `paused` pauses and resumes.
#[utoipa::path(
    put,
    path = "/v1/schedules/{schedule}", operation_id = "putSchedule",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Name of the schedule, as in the body")),
    request_body = Declaration,
    responses(
        (status = 200, description = "The schedule, changed", body = ScheduleBody),
        (status = 201, description = "The schedule, which is new", body = ScheduleBody,
            headers(("Location" = String, description = "Where the schedule is"))),
        (status = 400, description = "The body is not JSON"),
        (status = 404, description = "No such panel"),
        (status = 422, description = "Something in the body is wrong"),
    )
)]
pub async fn put(
    state: web::Data<State>,
    path: web::Path<String>,
    body: Body<Declaration>,
) -> Result<HttpResponse, Error> {
    if *path != body.0.name {
        return Err(Error::invalid_body("/name", "invalid-value", format!("must be `{path}`, as in the address")));
    }
    let mut connection = state.pool.acquire().await?;
    let is_new = scheduler::declare(&mut connection, &body.0, &state.limits, Utc::now()).await?;
    drop(connection);
    written(&state, &path, if is_new { StatusCode::CREATED } else { StatusCode::OK }).await
}

async fn written(state: &State, name: &str, status: StatusCode) -> Result<HttpResponse, Error> {
    let body = ScheduleBody::from(find(state, name).await?);
    match status {
        StatusCode::CREATED => respond::json_at(status, &format!("/v1/schedules/{name}"), body).await,
        _ => respond::json(status, body).await,
    }
}

async fn find(state: &State, name: &str) -> Result<Schedule, Error> {
    let schedule = db::schedule::get(&state.pool, DEFAULT_TENANT, name).await?;
    schedule.ok_or_else(|| Error::UnknownSchedule { schedule: name.to_owned() })
}

/// Read a schedule
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}", operation_id = "readSchedule",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Name of the schedule")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleBody),
        (status = 404, description = "No such schedule"),
    )
)]
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<web::Json<ScheduleBody>, Error> {
    Ok(web::Json(find(&state, &path).await?.into()))
}

/// Remove a schedule
///
/// The jobs that it made stay.
#[utoipa::path(
    delete,
    path = "/v1/schedules/{schedule}", operation_id = "deleteSchedule",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Name of the schedule")),
    responses(
        (status = 204, description = "It is removed"),
        (status = 404, description = "No such schedule"),
    )
)]
pub async fn delete(state: web::Data<State>, path: web::Path<String>) -> Result<HttpResponse, Error> {
    if db::schedule::delete(&state.pool, DEFAULT_TENANT, &path).await? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(Error::UnknownSchedule { schedule: path.into_inner() })
    }
}

/// Which schedules.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct SchedulesParameters {
    /// Name of the panel. Default: all schedules.
    panel: Option<String>,
    /// Most schedules of the page.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List schedules, by name
#[utoipa::path(
    get,
    path = "/v1/schedules", operation_id = "listSchedules",
    tag = "schedules",
    params(SchedulesParameters),
    responses(
        (status = 200, description = "A page of schedules", body = SchedulePage),
        (status = 400, description = "A parameter is wrong"),
        (status = 404, description = "No such panel"),
    )
)]
pub async fn list(
    state: web::Data<State>,
    query: Query<OfPanelQuery<String>>,
) -> Result<web::Json<SchedulePage>, Error> {
    let OfPanelQuery { panel, limit, cursor } = query.0;
    let panel_id = panels::find_id(&state.pool, panel.as_deref()).await?;
    let limit = limit.min(state.limits.page_rows_max);
    let limit_plus_one = cursor::limit_plus_one(limit);
    let rows = db::schedule::list(&state.pool, DEFAULT_TENANT, panel_id, cursor.as_deref(), limit_plus_one).await?;
    let (rows, next) = cursor::page(rows, limit, |schedule| schedule.name.clone())?;
    Ok(web::Json(SchedulePage { schedules: rows.into_iter().map(ScheduleBody::from).collect(), next }))
}
