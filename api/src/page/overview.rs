//! All panels: how fresh their data and forecasts are, and what their models are worth.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{LISTED_MAX, address_of_panel, format, shell};
use crate::{
    Error, blocking,
    db::{self, DEFAULT_TENANT, overview::PanelOverview, words::Quality},
    registry::TestScores,
    server::State,
};

/// `GET /`: the page.
///
/// # Errors
/// Those of the database.
pub async fn read(state: web::Data<State>) -> Result<HttpResponse, Error> {
    let now = Utc::now();
    let panels = db::overview::list(&state.pool, DEFAULT_TENANT, now, LISTED_MAX).await?;
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
        }
        (shell::as_json(&[("panels", "/v1/panels".to_owned()), ("models", "/v1/models".to_owned())]))
    }
}

fn row(panel: &PanelOverview, now: DateTime<Utc>) -> Markup {
    let scores = panel.backtest.as_ref().and_then(TestScores::of);
    let tested = scores.as_ref().and_then(|scores| Some((scores.skill()?, scores.coverage_80)));
    let age = |time: Option<DateTime<Utc>>| match time {
        Some(time) => shell::age(now, time),
        None => html! { span.quiet { "none" } },
    };
    html! {
        tr {
            th scope="row" { a href=(address_of_panel(&panel.name, None)) { (panel.name) } }
            td.number { (panel.n_series) }
            td { (panel.frequency) }
            td { (age(panel.newest_valid_time)) }
            td {
                (age(panel.issue_time))
                @if let Some(quality) = panel.quality.filter(|quality| *quality != Quality::Ok) { " " span.alarm { (quality) } }
            }
            td { @match panel.champion { Some(version) => { "version " (version) }, None => span.quiet { "none" } } }
            td.number { @if let Some((skill, _)) = tested { (format::percent(skill)) } @else { span.quiet { "not tested" } } }
            td.number { @if let Some((_, coverage_80)) = tested { (format::percent(coverage_80)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn panel() -> PanelOverview {
        PanelOverview {
            panel_id: 1,
            name: "<load>".to_owned(),
            frequency: "1h".to_owned(),
            time_zone: "UTC".to_owned(),
            n_series: 3,
            newest_valid_time: Some(DateTime::UNIX_EPOCH),
            champion_model_id: Some(7),
            champion: Some(2),
            backtest: Some(json!([
                {"model": "plumecast", "crps": 0.3, "coverage_80": 0.81},
                {"model": "seasonal_naive", "crps": 0.4, "coverage_80": 0.6},
            ])),
            issue_time: Some(DateTime::UNIX_EPOCH),
            quality: Some(Quality::Fallback),
        }
    }

    #[test]
    fn a_panel_says_what_its_model_is_worth() {
        let html = content(&[panel()], DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(5)).into_string();
        for expected in ["&lt;load&gt;", "/panels/%3Cload%3E", "5 hours ago", "version 2", "25 %", "81 %", "fallback"] {
            assert!(html.contains(expected), "{expected} is missing in {html}");
        }
    }

    #[test]
    fn an_empty_service_says_how_to_begin() {
        assert!(content(&[], DateTime::UNIX_EPOCH).into_string().contains("Nothing is loaded yet"));
    }
}
