//! The models of a panel: which one serves, how the others compared with it, and what live scores say.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::json;

use super::{
    encode, format,
    shell::{self, Call, Tab},
};
use crate::{
    Error, blocking,
    db::{
        self, DEFAULT_TENANT,
        comparison::Comparison,
        drift_event::DriftEvent,
        model::Model,
        panel::Panel,
        words::{Decision, Stage},
    },
    registry::TestScores,
    routes::panels,
    server::State,
};

/// Most models and alarms that the page lists.
const ROWS_MAX: i64 = 50;

/// Everything on the page.
struct View {
    panel: Panel,
    now: DateTime<Utc>,
    models: Vec<Model>,
    comparisons: Vec<Comparison>,
    drift_events: Vec<DriftEvent>,
}

/// `GET /panels/{panel}/models`: the page.
///
/// # Errors
/// [`Error::UnknownPanel`]; those of the database.
pub async fn read(state: web::Data<State>, name: web::Path<String>) -> Result<HttpResponse, Error> {
    let pool = &state.pool;
    let panel = panels::find(pool, &name).await?;
    let view = View {
        models: db::model::list(pool, DEFAULT_TENANT, panel.panel_id, None, ROWS_MAX).await?,
        comparisons: db::comparison::list(pool, DEFAULT_TENANT, panel.panel_id, ROWS_MAX).await?,
        drift_events: db::drift_event::list(pool, DEFAULT_TENANT, Some(panel.panel_id), None, ROWS_MAX).await?,
        now: Utc::now(),
        panel,
    };
    let html = blocking::run("writing the page", move || {
        shell::page(Some(&format!("Models of {}", view.panel.name)), &html! { main.wide { (content(&view)) } })
    });
    Ok(super::respond(html.await?))
}

fn content(view: &View) -> Markup {
    let name = &view.panel.name;
    html! {
        h1 { (name) }
        (shell::tabs(name, Tab::Models))
        p.actions { (retrain(name)) (roll_back(view)) }
        @if view.models.is_empty() {
            p { "No model has been trained yet: " code { "plumecast train --panel " (name) " --horizon …" } }
        } @else {
            (models(view))
        }
        @if !view.drift_events.is_empty() { (drift(view)) }
        (shell::as_json(&[
            ("models", format!("/v1/models?panel={}", encode(name))),
            ("drift events", format!("/v1/drift-events?panel={}", encode(name))),
            ("scores by model", format!("/v1/scores?by=model&panel={}", encode(name))),
        ]))
    }
}

fn retrain(panel: &str) -> Markup {
    let body = json!({ "kind": "retrain", "arguments": { "panel": panel } });
    html! { (Call { label: "Retrain", method: "POST", address: "/v1/jobs", body: Some(&body), confirm: None }) }
}

fn roll_back(view: &View) -> Markup {
    let champion = view.models.iter().find(|model| model.stage == Stage::Champion);
    let Some((champion, replaced)) = champion.and_then(|model| Some((model, model.replaced_model_id?))) else {
        return html! {};
    };
    let before = view.models.iter().find(|model| model.model_id == replaced);
    let label =
        before.map_or_else(|| "Roll back".to_owned(), |model| format!("Roll back to version {}", model.version));
    let address = format!("/v1/models/{}/rollback?from={}", encode(&view.panel.name), champion.version);
    let confirm = format!("Version {} is to serve no longer?", champion.version);
    html! { (Call { label: &label, method: "POST", address: &address, body: None, confirm: Some(&confirm) }) }
}

fn models(view: &View) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Version" } th { "Stage" } th { "Trained" } th { "Data until" } th.number { "Skill" }
                        th.number { "80 % holds" } th.number { "CRPS compared" } th { "Why" } th { "Actions" }
                    }
                }
                tbody {
                    @for model in &view.models {
                        @let comparison = view.comparisons.iter().find(|comparison| comparison.model_id == model.model_id);
                        (row(view, model, comparison))
                    }
                }
            }
        }
        p.quiet {
            "Skill and interval: on the test windows of training, as on the list of panels. CRPS: mean difference to the model "
            "that it was to replace, on windows that neither had seen, with its confidence interval; below zero is better."
        }
    }
}

fn row(view: &View, model: &Model, comparison: Option<&Comparison>) -> Markup {
    let tested = TestScores::of(&model.metrics["backtest"]);
    let address = format!("/v1/models/{}/{}", encode(&view.panel.name), model.version);
    html! {
        tr {
            th scope="row" { a href=(address) { (model.version) } }
            td { span.stage.(model.stage.as_str()) { (model.stage) } }
            td { (shell::age(view.now, model.created_at)) }
            td { (shell::age(view.now, model.data_cutoff)) }
            td.number { @if let Some(skill) = tested.and_then(|tested| tested.skill()) { (format::percent(skill)) } }
            td.number { @if let Some(tested) = tested { (format::percent(tested.coverage_80)) } }
            td.number { @if let Some(comparison) = comparison { (compared(&address, comparison)) } }
            td.text { @if let Some(reason) = &model.reason { (reason) } }
            td.actions { (actions(&address, model)) }
        }
    }
}

fn compared(address: &str, comparison: &Comparison) -> Markup {
    let signed = |share: f64| format!("{:+.1} %", 100.0 * share);
    let Comparison { difference, difference_lower, difference_upper, decision, .. } = comparison;
    html! {
        a href={ (address) "/comparison" } {
            @match (difference, difference_lower, difference_upper) {
                (Some(mean), Some(lower), Some(upper)) => { (signed(*mean)) " (" (signed(*lower)) " … " (signed(*upper)) ")" }
                _ => (decision),
            }
        }
        @if *decision == Decision::Undecided || comparison.is_flagged { span.quiet { " to be looked at" } }
    }
}

fn actions(address: &str, model: &Model) -> Markup {
    let (promote, archive) = (format!("{address}/promote"), format!("{address}/archive"));
    let question = format!("Version {} is to serve from now on?", model.version);
    let promote = Call { label: "Promote", method: "POST", address: &promote, body: None, confirm: Some(&question) };
    let archive = Call { label: "Archive", method: "POST", address: &archive, body: None, confirm: None };
    html! {
        @if model.stage != Stage::Champion { (promote) }
        @if matches!(model.stage, Stage::Candidate | Stage::Rejected) { (archive) }
    }
}

fn drift(view: &View) -> Markup {
    html! {
        h2 { "Alarms" }
        div.scroll {
            table {
                thead { tr { th { "Noticed" } th { "Up to" } th.number { "Version" } th { "What" } } }
                tbody {
                    @for event in &view.drift_events {
                        tr {
                            td { (shell::age(view.now, event.raised_at)) }
                            td { (shell::age(view.now, event.issue_time)) }
                            td.number { (event.version) }
                            td.text { (event.message) }
                        }
                    }
                }
            }
        }
    }
}
