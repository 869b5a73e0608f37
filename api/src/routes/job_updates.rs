//! `GET /v1/jobs/{id}/updates`: a job as it goes on, as server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    body::{BodySize, MessageBody},
    http::header::{self, ContentEncoding},
    web::{self, Bytes},
};
use serde::Serialize;
use sqlx::PgPool;
use tokio::{sync::mpsc, time};
use uuid::Uuid;

use super::jobs::{self, JobBody, JobLogLine};
use crate::{
    Error,
    db::{self, DEFAULT_TENANT},
    server::State,
};

/// Clients that may watch jobs at a time.
pub const WATCHERS_MAX: usize = 64;

/// Seconds between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks without news after which a comment keeps the connection open.
const QUIET_LOOKS_MAX: u32 = 15;

/// Lines of the log in one look.
const LINES_AT_ONCE: i64 = 200;

/// Follow a job
///
/// Server-sent events: `job` is the job whenever it has changed, `line` a line of its log; both as JSON. The stream ends with
/// the job, and goes on after `Last-Event-ID`, the number of a line, where a client comes back.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job_id}/updates", operation_id = "followJob",
    tag = "jobs",
    params(
        ("job_id" = Uuid, Path, description = "Identifier of the job"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last line that the client has"),
    ),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 404, description = "No such job"),
        (status = 503, description = "Too many clients watch jobs"),
    )
)]
pub async fn follow(
    request: actix_web::HttpRequest,
    state: web::Data<State>,
    path: web::Path<String>,
) -> Result<HttpResponse, Error> {
    let job_id = jobs::find(&state, &path).await?.job_id;
    let permit = state.watchers.clone().try_acquire_owned().map_err(|_| Error::TooManyWatchers)?;
    let last_line = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (events, body) = mpsc::channel(1);
    let (pool, mut stopping) = (state.pool.clone(), state.stopping.clone());
    actix_web::rt::spawn(async move {
        let watch = Watch { pool, job_id, last_line, last_body: None, events: events.clone() };
        tokio::select! {
            () = watch.run() => {},
            () = events.closed() => {},
            _ = stopping.wait_for(|is_stopping| *is_stopping) => {},
        }
        drop(permit);
    });
    // Compressed, events would wait for each other.
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(ContentEncoding::Identity)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(Events(body)))
}

/// What one client watches.
struct Watch {
    pool: PgPool,
    job_id: Uuid,
    last_line: Option<i64>,
    last_body: Option<String>,
    events: mpsc::Sender<Bytes>,
}

impl Watch {
    /// Sends what is new until the job is over, the client is gone or the database is.
    async fn run(mut self) {
        let mut n_quiet_looks = 0;
        loop {
            match self.look().await {
                Ok(Look { is_over: true, .. }) => return,
                Ok(Look { n_events: 0, .. }) if n_quiet_looks < QUIET_LOOKS_MAX => n_quiet_looks += 1,
                Ok(Look { n_events: 0, .. }) => {
                    n_quiet_looks = 0;
                    self.send(": still there\n\n".to_owned()).await;
                }
                Ok(_) => n_quiet_looks = 0,
                Err(error) => {
                    // The client comes back by itself.
                    tracing::warn!("cannot follow job {}: {error}", self.job_id);
                    return;
                }
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<Look, Error> {
        // The job before its log: what a job that is over has said is then in it.
        let Some(job) = db::job::get(&self.pool, DEFAULT_TENANT, self.job_id).await? else {
            return Ok(Look { n_events: 0, is_over: true });
        };
        let is_over = job.state.is_over();
        let mut n_events = 0;
        loop {
            let lines =
                db::job::log::list(&self.pool, DEFAULT_TENANT, self.job_id, self.last_line, LINES_AT_ONCE).await?;
            let n_lines = i64::try_from(lines.len()).unwrap_or(LINES_AT_ONCE);
            for line in lines {
                self.last_line = Some(line.line_id);
                let data = json(&JobLogLine { attempt: line.attempt, written_at: line.written_at, text: line.text })?;
                self.send(format!("event: line\nid: {}\ndata: {data}\n\n", line.line_id)).await;
                n_events += 1;
            }
            if n_lines < LINES_AT_ONCE {
                break;
            }
        }
        let body = json(&JobBody::from(job))?;
        if self.last_body.as_ref() != Some(&body) {
            self.send(format!("event: job\ndata: {body}\n\n")).await;
            self.last_body = Some(body);
            n_events += 1;
        }
        Ok(Look { n_events, is_over })
    }

    async fn send(&self, event: String) {
        // A client that is gone ends the whole watch.
        let _ = self.events.send(Bytes::from(event)).await;
    }
}

/// What one look at a job found.
struct Look {
    n_events: usize,
    is_over: bool,
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::internal("writing an event", error))
}

/// A body that grows while its events come.
struct Events(mpsc::Receiver<Bytes>);

impl MessageBody for Events {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}
