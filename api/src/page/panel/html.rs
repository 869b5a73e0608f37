//! The page of a panel as HTML.

use std::slice;

use maud::{Markup, html};

use super::{
    Answer, ShownForecast, ShownSeries, View, links,
    look::{N_EARLIER_MAX, PATHS_MAX},
};
use crate::{
    db::words::Quality,
    page::{
        address_of_panel, chart, encode,
        format::{FUNCTIONS, capital, number, time, words},
        shell::{self, Tab},
    },
};

/// The whole page.
pub fn page(view: &View) -> Markup {
    let content = html! {
        div.columns {
            (sidebar(view))
            main {
                @match &view.shown {
                    Some(shown) => (shown_series(view, shown)),
                    None => { h1 { (view.panel.name) } p { "This panel has no series." } },
                }
            }
        }
    };
    let title = view.shown.as_ref().map_or(&view.panel.name, |shown| &shown.series.name);
    shell::page(Some(title), &content)
}

fn sidebar(view: &View) -> Markup {
    html! {
        aside aria-label="Panels" {
            @for panel in &view.panels {
                section {
                    h2 {
                        a href=(address_of_panel(&panel.name, None)) { (panel.name) }
                        span.quiet { (panel.frequency) }
                    }
                    @if panel.panel_id == view.panel.panel_id { (series_list(view)) }
                }
            }
        }
    }
}

fn series_list(view: &View) -> Markup {
    let shown = view.shown.as_ref().map(|shown| shown.series.series_id);
    html! {
        ul {
            @for series in &view.series {
                @let current = (Some(series.series_id) == shown).then_some("page");
                li {
                    a href=(address_of_panel(&view.panel.name, Some(&series.name))) aria-current=[current] { (series.name) }
                }
            }
        }
    }
}

fn shown_series(view: &View, shown: &ShownSeries) -> Markup {
    let (panel, series) = (&view.panel, &shown.series);
    let title = chart::value_title(&series.name, series.unit.as_deref());
    let (fans, earlier) = match &shown.forecast {
        Some(forecast) => (slice::from_ref(&forecast.fan), forecast.earlier.as_slice()),
        None => Default::default(),
    };
    let fan = chart::fan(&title, view.time_zone.name(), &shown.observed, fans, earlier);
    html! {
        h1 { (series.name) }
        (shell::tabs(&panel.name, Tab::Forecast))
        p.lead {
            "Panel " (panel.name) " · every " (panel.frequency) " · " (panel.time_zone)
            @match panel.holidays.as_deref() {
                None => {}
                Some("none") => " · no holidays",
                Some(country) => { " · holidays of " (country) }
            }
            @if let Some(unit) = &series.unit { " · " (unit) }
        }
        @if shown.forecast.is_some() || !view.forecasts.is_empty() { (look(view, shown)) }
        (shell::figure("fan", "Observations, and the forecast that follows them", &fan))
        div.beside {
            (shell::as_json(&links::of_fan(view, shown)))
            @if let Some(forecast) = &shown.forecast { (files(view, shown, forecast)) }
        }
        @if let Some(forecast) = &shown.forecast { (warnings(forecast)) }
        @match &shown.forecast {
            Some(forecast) => {
                div.details {
                    section #value { (value(view, shown, forecast)) }
                    section {
                        h2 { "This forecast" }
                        (facts(view, forecast))
                        h2.apart { "Another one" }
                        (ask(view))
                    }
                }
            },
            None => {
                p {
                    @if view.forecasts.is_empty() { "There is no forecast of this series yet." }
                    @else { "No trajectories of this series are stored of this forecast." }
                }
                (ask(view))
            },
        }
    }
}

/// What can be kept of the fan: its picture, and all trajectories of the series as a table.
fn files(view: &View, shown: &ShownSeries, forecast: &ShownForecast) -> Markup {
    let series = encode(&shown.series.name);
    let table = |format: &str| format!("{}/trajectories?format={format}&series={series}", links::address(forecast));
    html! {
        p.quiet.links {
            "Download: "
            a href=(links::picture(view, shown, forecast, "png")) download { "PNG" }
            a href=(links::picture(view, shown, forecast, "svg")) download { "SVG" }
            a href=(table("csv")) { "CSV" }
            a href=(table("parquet")) { "Parquet" }
        }
    }
}

/// What the reader of a forecast should know.
fn warnings(forecast: &ShownForecast) -> Markup {
    let quality = forecast.stored.forecast.quality;
    html! {
        @if quality != Quality::Ok { p { "This forecast is " span.alarm { (quality) } "." } }
        @for warning in &forecast.warnings { p.quiet { (capital(&warning.message)) "." } }
    }
}

/// Identifier of the form that everything on the page that can be chosen belongs to.
const FORM: &str = "asked";

/// Which forecast is shown, and how.
fn look(view: &View, shown: &ShownSeries) -> Markup {
    let (look, drawn) = (&view.look, &view.look.drawn);
    let intervals: Vec<String> = drawn.intervals.iter().map(u32::to_string).collect();
    html! {
        form.question id=(FORM) method="get" action=(address_of_panel(&view.panel.name, None)) {
            input type="hidden" name="series" value=(shown.series.name);
            label {
                "Made at "
                select name="forecast" {
                    option value="" selected[look.forecast.is_none()] { "latest" }
                    @for forecast in &view.forecasts {
                        option value=(forecast.forecast_id) selected[look.forecast == Some(forecast.forecast_id)] {
                            (time(forecast.issue_time, view.time_zone))
                        }
                    }
                }
            }
            label { "Intervals " input.number type="text" name="intervals" value=(intervals.join(", ")); " %" }
            label { "Trajectories " input type="number" name="paths" min="0" max=(PATHS_MAX) value=(drawn.n_paths); }
            label {
                "Highlight number "
                input type="number" name="path" min="1" max=(PATHS_MAX) placeholder="none" value=[drawn.highlighted];
            }
            label {
                "Earlier forecasts "
                input type="number" name="earlier" min="0" max=(N_EARLIER_MAX) value=(look.n_earlier);
            }
            noscript { button type="submit" { "Show" } }
        }
    }
}

/// Asks for a new forecast, as a program would.
fn ask(view: &View) -> Markup {
    let Some(horizon) = view.trained_horizon else {
        return html! { p.quiet { "No model serves this panel: train one, or promote one." } };
    };
    html! {
        form.call.question data-address="/v1/forecasts" {
            input type="hidden" name="panel" value=(view.panel.name);
            label { "Steps " input type="number" name="horizon" min="1" value=(horizon) required; }
            label { "Trajectories " input type="number" name="num_samples" min="1" max=(PATHS_MAX) value="100" required; }
            button type="submit" { "Make a forecast" }
        }
    }
}

/// The question, its answer, and how to get the numbers.
fn value(view: &View, shown: &ShownSeries, forecast: &ShownForecast) -> Markup {
    let answer = &forecast.answer;
    let (function, word) = words(answer.function);
    let steps = (answer.steps.start(), answer.steps.end());
    let title = format!("{} of steps {} to {}", capital(word), steps.0, steps.1);
    let title = chart::value_title(&title, shown.series.unit.as_deref());
    let threshold = answer.above.map(|(threshold, _)| threshold);
    html! {
        h2 { "What will the " (word) " be?" }
        (question(view, shown, forecast, function))
        (sentences(answer, word, shown.series.unit.as_deref()))
        (shell::figure(
            "distribution",
            "How the value is distributed over the trajectories",
            &chart::distribution(&title, answer.draws.clone(), threshold),
        ))
        (shell::as_json(&links::of_answer(forecast, function)))
    }
}

/// The question as a form, which works without a script, too.
fn question(view: &View, shown: &ShownSeries, forecast: &ShownForecast, function: &str) -> Markup {
    let (answer, horizon) = (&forecast.answer, forecast.horizon());
    let alike = view.series.iter().filter(|one| one.unit == shown.series.unit && one.kind == shown.series.kind).count();
    html! {
        div.question {
            label {
                "The "
                select name="fn" form=(FORM) {
                    @for (name, _, word) in FUNCTIONS { option value=(name) selected[name == function] { (word) } }
                }
            }
            @if alike > 1 {
                label {
                    " of "
                    select name="of" form=(FORM) {
                        option value="series" selected[!answer.with_same_unit] { (shown.series.name) }
                        option value="unit" selected[answer.with_same_unit] { "all " (alike) " series alike, added up" }
                    }
                }
            }
            label { " from step " input type="number" name="first" form=(FORM) min="1" max=(horizon) value=(answer.steps.start()); }
            label { " to " input type="number" name="last" form=(FORM) min="1" max=(horizon) value=(answer.steps.end()); }
            label {
                " above "
                input.number type="text" inputmode="decimal" name="above" form=(FORM) placeholder="threshold"
                    value=[answer.above.map(|(threshold, _)| threshold)];
            }
            button type="submit" form=(FORM) { "Show" }
        }
    }
}

/// What the trajectories say, and what combining quantiles would have said.
fn sentences(answer: &Answer, word: &str, unit: Option<&str>) -> Markup {
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    let ([lower, median, upper], (wrong_lower, wrong_upper)) = (answer.quantiles, answer.of_quantiles);
    let n_draws = answer.draws.len();
    html! {
        p {
            "Between " strong { (number(lower)) } " and " strong { (number(upper)) (unit) }
            " with 90 % probability, half of the time above " (number(median)) "."
            @if let Some((threshold, n_above)) = answer.above {
                " Above " (threshold) (unit) " in " strong { (n_above) " of " (n_draws) } " trajectories."
            }
        }
        p.quiet {
            "Read off the trajectories. The 5 % and 95 % quantiles of the single values would combine to "
            (number(wrong_lower)) " … " (number(wrong_upper)) ", which is not the interval of the " (word) "."
        }
    }
}

fn facts(view: &View, forecast: &ShownForecast) -> Markup {
    let facts = &forecast.stored.forecast;
    html! {
        dl {
            dt { "Model" }
            dd {
                @match &forecast.stored.model {
                    Some(model) => { (view.panel.name) ", version " (model.version) }
                    None => "none: a baseline",
                }
            }
            dt { "Issue time" } dd { (time(facts.issue_time, view.time_zone)) }
            dt { "Newest data used" } dd { (time(facts.data_cutoff, view.time_zone)) }
            dt { "Horizon" } dd { (facts.horizon) " steps of " (view.panel.frequency) }
            dt { "Trajectories" } dd { (facts.num_samples) }
            dt { "Seed" } dd { (facts.seed) }
            dt { "Sampling" } dd { (facts.schedule) ", " (facts.passes) " passes" }
            dt { "JSON" }
            dd.links { a href=(links::address(forecast)) { "forecast" } }
            dt { "All series" }
            dd.links {
                a href={ (links::address(forecast)) "/trajectories?format=csv" } { "CSV" }
                a href={ (links::address(forecast)) "/trajectories?format=parquet" } { "Parquet" }
            }
        }
    }
}
