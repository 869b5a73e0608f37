//! The data of a panel: how fresh each series is, what was loaded, and what was wrong with it.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{
    LISTED_MAX, encode, format,
    shell::{self, Tab},
};
use crate::{
    Error, blocking,
    db::{self, DEFAULT_TENANT, load::Recorded, observation::Freshness, panel::Panel, series::Series},
    forecaster::Grid,
    routes::panels,
    server::State,
};

/// Steps before the newest value of a panel in which gaps are counted.
const STEPS_LOOKED_AT: i64 = 200;

/// Loads that the page lists, and those of them whose reports it shows.
const LOADS_MAX: i64 = 20;
const REPORTS_MAX: usize = 5;

/// Examples of each code that a report shows.
const EXAMPLES_MAX: usize = 3;

/// Everything on the page.
struct View {
    panel: Panel,
    now: DateTime<Utc>,
    series: Vec<(Series, Option<Freshness>)>,
    loads: Vec<Recorded>,
    reports: Vec<Recorded>,
}

/// `GET /panels/{panel}/data`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`]; those of the database.
pub async fn read(state: web::Data<State>, name: web::Path<String>) -> Result<HttpResponse, Error> {
    let (pool, now) = (&state.pool, Utc::now());
    let panel = panels::find(pool, &name).await?;
    let grid = Grid::of(&panel)?;
    let series = db::series::list(pool, DEFAULT_TENANT, panel.panel_id, None, LISTED_MAX).await?;
    let span = match db::panel_version::latest(pool, DEFAULT_TENANT, panel.panel_id).await? {
        Some(version) => db::observation::span(pool, DEFAULT_TENANT, version.panel_version_id, now).await?,
        None => None,
    };
    let newest = span.map_or(now, |span| span.last_valid_time);
    let recent = grid.advance(newest, 1 - STEPS_LOOKED_AT)..grid.advance(newest, 1);
    let fresh = db::observation::freshness(pool, DEFAULT_TENANT, panel.panel_id, recent).await?;
    let loads = db::load::list(pool, DEFAULT_TENANT, Some(&panel.name), None, None, LOADS_MAX).await?;
    let mut reports = vec![];
    for load in loads.iter().take(REPORTS_MAX) {
        reports.extend(db::load::get(pool, DEFAULT_TENANT, load.load_id).await?);
    }
    let of = |series: Series| {
        let fresh = fresh.iter().find(|fresh| fresh.series_id == series.series_id).cloned();
        (series, fresh)
    };
    let view = View { panel, now, series: series.into_iter().map(of).collect(), loads, reports };
    let html = blocking::run("writing the page", move || {
        shell::page(Some(&format!("Data of {}", view.panel.name)), &html! { main.wide { (content(&view)) } })
    });
    Ok(super::respond(html.await?))
}

fn content(view: &View) -> Markup {
    let name = &view.panel.name;
    html! {
        h1 { (name) }
        (shell::tabs(name, Tab::Data))
        (series(view))
        h2 { "What was loaded" }
        @if view.loads.is_empty() {
            p { "No load is on record." }
        } @else {
            (loads(view))
            @for load in &view.reports { (report(load)) }
        }
        (shell::as_json(&[
            ("series", format!("/v1/panels/{}/series", encode(name))),
            ("observations", format!("/v1/panels/{}/observations", encode(name))),
            ("loads", format!("/v1/loads?panel={}", encode(name))),
        ]))
    }
}

fn series(view: &View) -> Markup {
    let has_attributes = view.series.iter().any(|(series, _)| !series.attributes.is_empty());
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Series" } th { "Role" } th { "Unit" }
                        @if has_attributes { th { "Attributes" } }
                        th { "Newest value" } th.number { "It is" }
                        th.number { "Missing of the last " (STEPS_LOOKED_AT) " steps" }
                    }
                }
                tbody {
                    @for (series, fresh) in &view.series {
                        tr {
                            th scope="row" { (series.name) }
                            td { (series.role) }
                            td { @if let Some(unit) = &series.unit { (unit) } }
                            @if has_attributes { td { (attributes(series)) } }
                            @match fresh {
                                Some(fresh) => {
                                    td { (shell::age(view.now, fresh.newest_valid_time)) }
                                    td.number { (format::number(fresh.newest_value)) }
                                    td.number { (format::percent(missing(fresh))) }
                                }
                                None => { td colspan="3" { span.quiet { "nothing yet" } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What else is known of a series, in a line.
fn attributes(series: &Series) -> String {
    let said = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name} {text}"),
        value => format!("{name} {value}"),
    };
    series.attributes.iter().map(said).collect::<Vec<_>>().join(", ")
}

fn missing(fresh: &Freshness) -> f64 {
    (1.0 - fresh.n_recent as f64 / STEPS_LOOKED_AT as f64).max(0.0)
}

fn loads(view: &View) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "When" } th { "Source" } th { "Pipeline" } th { "State" } th.number { "New" } th.number { "Corrected" }
                        th.number { "Known already" } th.number { "Rejected" }
                    }
                }
                tbody {
                    @for load in &view.loads {
                        tr {
                            th scope="row" { a href={ "/v1/loads/" (load.load_id) } { (shell::age(view.now, load.started_at)) } }
                            td.text { (load.source) }
                            td { @if let Some(pipeline) = &load.pipeline { (pipeline) } }
                            td { @if load.status == "failed" { span.alarm { "failed" } } @else { (load.status) } }
                            @for count in [load.n_inserted, load.n_corrected, load.n_unchanged, load.n_rejected] {
                                td.number { (format::whole(count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a stored report says of what was wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrong {
    n_rejected: BTreeMap<String, u64>,
    rejected: Vec<Value>,
    n_findings: BTreeMap<String, u64>,
    findings: Vec<Value>,
}

fn report(load: &Recorded) -> Markup {
    let wrong = load.report.as_ref().and_then(|report| Wrong::deserialize(report).ok()).unwrap_or_default();
    if load.failure.is_none() && wrong.n_rejected.is_empty() && wrong.n_findings.is_empty() {
        return html! {};
    }
    html! {
        section.report {
            h2 { (load.source) span.quiet { " " (load.started_at.format("%-d %B %Y, %H:%M UTC")) } }
            @if let Some(failure) = &load.failure { p.alarm { (failure) } }
            dl {
                @for (code, count) in &wrong.n_rejected {
                    dt { code { (code) } " × " (count) }
                    dd { @for example in examples(&wrong.rejected, "reason", code) { div { (rejection(example)) } } }
                }
                @for (code, count) in &wrong.n_findings {
                    dt { code { (code) } " × " (count) }
                    dd { @for example in examples(&wrong.findings, "code", code) { div { (finding(example)) } } }
                }
            }
            @if let Some(quarantine) = &load.quarantine {
                p.quiet { "What was not taken is kept in " code { (quarantine) } " below the data folder." }
            }
        }
    }
}

fn examples<'a>(all: &'a [Value], field: &'a str, code: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |example| example[field] == code).take(EXAMPLES_MAX)
}

fn rejection(example: &Value) -> Markup {
    let text = |field: &str| example[field].as_str().unwrap_or_default();
    html! {
        (text("file"))
        @match example["pointer"].as_str() { Some(pointer) => { " " code { (pointer) } }, None => { ", line " (example["line"]) } }
        ", column " code { (text("column")) } ": " code { (text("value")) }
    }
}

fn finding(example: &Value) -> Markup {
    html! {
        @if let Some(series) = example["series"].as_str() { (series) }
        @if let Some(start) = example["start"].as_str() { " from " (start) }
        ": " (example["message"].as_str().unwrap_or_default())
    }
}
