//! All panels: how fresh their data and forecasts are, and what their models are worth.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::{LISTED_MAX, address_of_panel, format, shell};
use crate::{
    Error, blocking,
    db::{self, DEFAULT_TENANT, overview::PanelOverview},
    server::State,
};

/// `GET /`: the page.
///
/// # Errors
/// Those of the database.
pub async fn read(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let panels = db::overview::list(&state.pool, DEFAULT_TENANT, LISTED_MAX).await?;
    let now = Utc::now();
    let html =
        blocking::run("writing the page", move || shell::page(None, &html! { main.wide { (content(&panels, now)) } }));
    Ok(super::respond(html.await?))
}

fn content(panels: &[PanelOverview], now: DateTime<Utc>) -> Markup {
    if panels.is_empty() {
        return html! {
            h1 { "Nothing is loaded yet" }
            p {
                "Bring series in with " code { "plumecast load" } ", or see two real data sets with "
                code { "plumecast demo" } "."
            }
        };
    }
    html! {
        h1 { "Panels" }
        p.lead { "Groups of series that are forecast together." }
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Panel" } th.number { "Series" } th { "Step" } th { "Newest value" } th { "Newest forecast" }
                        th { "Model" } th.number { "Skill" } th.number { "80 % interval holds" }
                    }
                }
                tbody { @for panel in panels { (row(panel, now)) } }
            }
        }
        p.quiet {
            "Skill: by how much the CRPS of the model is lower than that of the seasonal naive forecast, on test windows "
            "that training did not see. The last column: the share of their values that fell into the 80 % interval. "
            "As JSON: " a href="/v1/panels" { "panels" } ", " a href="/v1/models" { "models" } "."
        }
    }
}

fn row(panel: &PanelOverview, now: DateTime<Utc>) -> Markup {
    let scores = panel.backtest.as_ref().and_then(TestScores::of);
    let age = |time: Option<DateTime<Utc>>| match time {
        Some(time) => {
            html! { time datetime=(time.to_rfc3339()) title=(time.to_rfc3339()) { (format::age(now - time)) } }
        }
        None => html! { span.quiet { "none" } },
    };
    html! {
        tr {
            th scope="row" { a href=(address_of_panel(&panel.name, None)) { (panel.name) } }
            td.number { (panel.n_series) }
            td { (panel.frequency) }
            td { (age(panel.newest_valid_time)) }
            td { (age(panel.issue_time)) }
            td { @match panel.champion { Some(version) => { "version " (version) }, None => span.quiet { "none" } } }
            td.number { @if let Some(scores) = &scores { (format::percent(scores.skill)) } @else { span.quiet { "not tested" } } }
            td.number { @if let Some(scores) = &scores { (format::percent(scores.coverage_80)) } }
        }
    }
}

/// What a model's test windows gave.
struct TestScores {
    /// One minus CRPS over that of the seasonal naive forecast.
    skill: f64,
    coverage_80: f64,
}

impl TestScores {
    /// Reads the stored rows; `None` where a model was not tested.
    fn of(backtest: &serde_json::Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Row {
            model: String,
            crps: f64,
            coverage_80: f64,
        }
        let rows = Vec::<Row>::deserialize(backtest).ok()?;
        let of = |model: &str| rows.iter().find(|row| row.model == model);
        let (ours, naive) = (of("plumecast")?, of("seasonal_naive")?);
        let skill = 1.0 - ours.crps / naive.crps;
        skill.is_finite().then_some(Self { skill, coverage_80: ours.coverage_80 })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn panel() -> PanelOverview {
        PanelOverview {
            name: "<load>".to_owned(),
            frequency: "1h".to_owned(),
            time_zone: "UTC".to_owned(),
            n_series: 3,
            newest_valid_time: Some(DateTime::UNIX_EPOCH),
            champion: Some(2),
            backtest: Some(json!([
                {"model": "plumecast", "crps": 0.3, "coverage_80": 0.81},
                {"model": "seasonal_naive", "crps": 0.4, "coverage_80": 0.6},
            ])),
            issue_time: None,
        }
    }

    #[test]
    fn a_panel_says_what_its_model_is_worth() {
        let html = content(&[panel()], DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(5)).into_string();
        for expected in ["&lt;load&gt;", "/panels/%3Cload%3E", "5 hours ago", "version 2", "25 %", "81 %", "none"] {
            assert!(html.contains(expected), "{expected} is missing in {html}");
        }
    }

    #[test]
    fn a_model_that_was_not_tested_has_no_skill() {
        for backtest in [json!([]), json!(null), json!([{"model": "plumecast", "crps": 0.3, "coverage_80": 0.8}])] {
            assert!(TestScores::of(&backtest).is_none(), "{backtest}");
        }
    }

    #[test]
    fn an_empty_service_says_how_to_begin() {
        assert!(content(&[], DateTime::UNIX_EPOCH).into_string().contains("Nothing is loaded yet"));
    }
}
