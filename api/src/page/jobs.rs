//! Jobs, the schedules that ask for them and the workers that do them; and one job as it goes on.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{
    LISTED_MAX, address_of_panel, format,
    shell::{self, Call},
};
use crate::{
    Error, blocking,
    db::{
        self, DEFAULT_TENANT,
        job::{Filter, Job, log::Line},
        schedule::Schedule,
        words::JobState,
        worker::Worker,
    },
    routes::{self, health::STILL_AFTER},
    server::State,
};

/// Most jobs that the page lists.
const ROWS_MAX: i64 = 100;

/// Everything on the page of all jobs.
struct View {
    now: DateTime<Utc>,
    jobs: Vec<Job>,
    schedules: Vec<Schedule>,
    workers: Vec<Worker>,
}

/// `GET /jobs`: the page.
///
/// # Errors
/// Those of the database.
pub async fn list(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let pool = &state.pool;
    let view = View {
        now: Utc::now(),
        jobs: db::job::list(pool, DEFAULT_TENANT, &Filter::default(), None, ROWS_MAX).await?,
        schedules: db::schedule::list(pool, DEFAULT_TENANT, None, None, LISTED_MAX).await?,
        workers: db::worker::list(pool, DEFAULT_TENANT).await?,
    };
    let html = blocking::run("writing the page", move || {
        shell::page(Some("Jobs"), &html! { main.wide { (overview(&view)) } })
    });
    Ok(super::respond(html.await?))
}

/// `GET /jobs/{job_id}`: the page of one.
///
/// # Errors
/// [`Error::UnknownJob`]; those of the database.
pub async fn read(state: web::Data<State>, path: web::Path<String>) -> Result<HttpResponse, Error> {
    let job = routes::jobs::find(&state, &path).await?;
    let lines = db::job::log::list(&state.pool, DEFAULT_TENANT, job.job_id, None, db::job::log::LINES_MAX).await?;
    let now = Utc::now();
    let html = blocking::run("writing the page", move || {
        shell::page(Some(&format!("Job {}", job.kind)), &html! { main.wide { (one(&job, &lines, now)) } })
    });
    Ok(super::respond(html.await?))
}

fn overview(view: &View) -> Markup {
    html! {
        h1 { "Jobs" }
        p.lead { "Work that takes longer than a request: one after the other, each in a process of its own." }
        @if view.jobs.is_empty() {
            p { "Nothing has been asked for yet." }
        } @else {
            (jobs(view))
        }
        h2 { "Schedules" }
        @if view.schedules.is_empty() {
            p { "There are none. They are declared in the configuration file, or with " code { "POST /v1/schedules" } "." }
        } @else {
            (schedules(view))
        }
        h2 { "Workers" }
        @if view.workers.is_empty() {
            p { "No worker is there: jobs wait. " code { "plumecast work" } " is one; " code { "plumecast serve" } " brings one along." }
        } @else {
            (workers(view))
        }
        (shell::as_json(&[
            ("jobs", "/v1/jobs".to_owned()),
            ("schedules", "/v1/schedules".to_owned()),
            ("readiness", "/readyz".to_owned()),
        ]))
    }
}

fn jobs(view: &View) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th { "Kind" } th { "Panel" } th { "State" } th { "Asked for" } th { "By" } th { "What it does, or why not" } } }
                tbody {
                    @for job in &view.jobs {
                        tr {
                            th scope="row" { a href={ "/jobs/" (job.job_id) } { (job.kind) } }
                            td { @if let Some(panel) = &job.panel { a href=(address_of_panel(panel, None)) { (panel) } } }
                            td { span.state.(job.state.as_str()) { (job.state) } }
                            td { (shell::age(view.now, job.created_at)) }
                            td { (job.asked_by) }
                            td.text {
                                @if job.state == JobState::Running { (format::percent(job.progress.into())) ": " }
                                (job.failure.as_ref().unwrap_or(&job.activity))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn schedules(view: &View) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th { "Name" } th { "Kind" } th { "Panel" } th { "When" } th { "Zone" } th { "Next" } th { "Last" } } }
                tbody {
                    @for schedule in &view.schedules {
                        tr {
                            th scope="row" { (schedule.name) }
                            td { (schedule.kind) }
                            td { @if let Some(panel) = &schedule.panel { a href=(address_of_panel(panel, None)) { (panel) } } }
                            td { code { (schedule.cron) } }
                            td { (schedule.time_zone) }
                            td {
                                @match (schedule.paused, schedule.next_run) {
                                    (true, _) => span.quiet { "paused" },
                                    (false, Some(time)) => { (shell::age(view.now, time)) @if is_late(view.now, time) { span.alarm { " overdue" } } },
                                    (false, None) => span.quiet { "never" },
                                }
                            }
                            td {
                                @match (schedule.last_run, schedule.last_job_id) {
                                    (Some(time), Some(job)) => a href={ "/jobs/" (job) } { (shell::age(view.now, time)) },
                                    (Some(time), None) => (shell::age(view.now, time)),
                                    (None, _) => span.quiet { "not yet" },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn workers(view: &View) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th { "Name" } th { "Since" } th { "Last seen" } th { "Last looked after schedules" } } }
                tbody {
                    @for worker in &view.workers {
                        tr {
                            th scope="row" { (worker.name) }
                            td { (shell::age(view.now, worker.started_at)) }
                            td { (shell::age(view.now, worker.seen_at)) @if is_late(view.now, worker.seen_at) { span.alarm { " silent" } } }
                            td { @match worker.scheduled_at { Some(time) => (shell::age(view.now, time)), None => span.quiet { "never" } } }
                        }
                    }
                }
            }
        }
    }
}

fn is_late(now: DateTime<Utc>, time: DateTime<Utc>) -> bool {
    now - time > STILL_AFTER
}

/// One job. What changes while it runs has names, by which the page's script finds it.
fn one(job: &Job, lines: &[Line], now: DateTime<Utc>) -> Markup {
    let address = format!("/v1/jobs/{}", job.job_id);
    let is_over = job.state.is_over();
    let last_line = lines.last().map_or(0, |line| line.line_id);
    html! {
        h1 { (job.kind) @if let Some(panel) = &job.panel { " " a href=(address_of_panel(panel, None)) { (panel) } } }
        p.lead { "Asked for by " (job.asked_by) ", " (shell::age(now, job.created_at)) " · " a href="/jobs" { "all jobs" } }
        section #job data-updates=[(!is_over).then(|| format!("{address}/updates"))] data-line=(last_line) aria-live="polite" {
            p {
                span.state.(job.state.as_str()) data-field="state" { (job.state) }
                " " progress aria-label="Progress" max="1" value=(job.progress) data-field="progress" {}
                " " span data-field="activity" { (job.activity) }
            }
            @if let Some(failure) = &job.failure { p.alarm { (failure) } }
        }
        p.actions { (actions(job, &address)) }
        h2 { "Log" }
        ol.log #log { @for line in lines { li { time { (line.written_at.format("%H:%M:%S")) } " " (line.text) } } }
        h2 { "Facts" }
        dl {
            dt { "Attempts" } dd { (job.attempts) " of " (job.attempts_max) }
            @if let Some(worker) = &job.worker { dt { "Worker" } dd { (worker) } }
            @if let Some(time) = job.started_at { dt { "Begun" } dd { (shell::age(now, time)) } }
            @if let Some(time) = job.finished_at { dt { "Over" } dd { (shell::age(now, time)) } }
            dt { "Arguments" } dd { pre { (pretty(&job.arguments)) } }
            @if let Some(result) = &job.result { dt { "Result" } dd { pre { (pretty(result)) } } }
            dt { "JSON" } dd.links { a href=(address) { "job" } a href={ (address) "/log" } { "log" } }
        }
    }
}

fn actions(job: &Job, address: &str) -> Markup {
    let (cancel, retry) = (format!("{address}/cancel"), format!("{address}/retry"));
    html! {
        @match job.state {
            JobState::Waiting | JobState::Running => {
                (Call { label: "Cancel", method: "POST", address: &cancel, body: None, confirm: Some("The job is to stop?") })
            }
            JobState::Failed | JobState::Cancelled => {
                (Call { label: "Repeat", method: "POST", address: &retry, body: None, confirm: None })
            }
            JobState::Succeeded => {}
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}
