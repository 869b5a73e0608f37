//! The page as HTML.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotly::Plot;

use super::{
    ChosenPanel, HorizonValue, ShownForecast, ShownSeries, View, assets, chart,
    format::{number, time},
};
use crate::db::{panel::Panel, series::Series};

/// The whole page.
pub fn page(view: &View) -> Markup {
    let title = view.chosen.as_ref().and_then(|chosen| chosen.shown.as_ref()).map(|shown| shown.series.name.as_str());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { @if let Some(title) = title { (title) " · " } "Plumecast" }
                link rel="stylesheet" href=(assets::address("page.css"));
                link rel="icon" href="data:,";
                script defer src=(assets::address("plotly.min.js")) {}
                script defer src=(assets::address("page.js")) {}
            }
            body {
                header {
                    a.brand href="/" { "Plumecast" }
                    nav aria-label="Service" {
                        a href="/docs/" { "API" }
                        a href="/openapi.json" { "OpenAPI" }
                        a href="/metrics" { "Metrics" }
                    }
                }
                div.columns {
                    (sidebar(view))
                    main {
                        @match &view.chosen {
                            Some(chosen) => (chosen_panel(chosen)),
                            None => (nothing_loaded()),
                        }
                    }
                }
            }
        }
    }
}

fn sidebar(view: &View) -> Markup {
    html! {
        aside aria-label="Panels" {
            @for panel in &view.panels {
                @let chosen = view.chosen.as_ref().filter(|chosen| chosen.panel.panel_id == panel.panel_id);
                section {
                    h2 {
                        a href=(address(&panel.name, None)) { (panel.name) }
                        span.quiet { (panel.frequency) }
                    }
                    @if let Some(chosen) = chosen {
                        (series_list(panel, chosen))
                    }
                }
            }
        }
    }
}

fn series_list(panel: &Panel, chosen: &ChosenPanel) -> Markup {
    let shown = chosen.shown.as_ref().map(|shown| shown.series.series_id);
    html! {
        ul {
            @for series in &chosen.series {
                @let current = (Some(series.series_id) == shown).then_some("page");
                li {
                    a href=(address(&panel.name, Some(&series.name))) aria-current=[current] { (series.name) }
                }
            }
        }
    }
}

fn nothing_loaded() -> Markup {
    html! {
        h1 { "Nothing is loaded yet" }
        p { "Bring series in with " code { "plumecast load" } ", or see two real data sets with " code { "plumecast demo" } "." }
    }
}

fn chosen_panel(chosen: &ChosenPanel) -> Markup {
    let Some(shown) = &chosen.shown else {
        return html! { h1 { (chosen.panel.name) } p { "This panel has no series." } };
    };
    let series = &shown.series;
    let title = value_title(&series.name, series);
    let fan = chart::fan(
        &title,
        chosen.time_zone.name(),
        &shown.observed,
        shown.forecast.as_ref().map(|forecast| &forecast.fan),
    );
    html! {
        h1 { (series.name) }
        p.lead {
            "Panel " (chosen.panel.name) " · every " (chosen.panel.frequency) " · " (chosen.panel.time_zone)
            @if let Some(unit) = &series.unit { " · " (unit) }
        }
        (figure("fan", "Observations, and the forecast that follows them", &fan))
        @match &shown.forecast {
            Some(forecast) => (forecast_details(chosen, shown, forecast)),
            None => p { "There is no forecast of this series yet. Make one with " code { "POST /v1/forecasts" } "." },
        }
    }
}

fn forecast_details(chosen: &ChosenPanel, shown: &ShownSeries, forecast: &ShownForecast) -> Markup {
    let value = &forecast.horizon;
    let n_steps = forecast.stored.forecast.horizon;
    let title = value_title(&format!("{} over {n_steps} steps", capital(value.word)), &shown.series);
    html! {
        div.details {
            section {
                h2 { (capital(value.word)) " over the horizon" }
                (horizon_sentence(value, n_steps, shown.series.unit.as_deref()))
                (figure("distribution", "How the value over the horizon is distributed", &chart::distribution(&title, value.draws.clone())))
            }
            section {
                h2 { "This forecast" }
                (facts(chosen, forecast))
            }
        }
    }
}

/// What the trajectories say, and what adding up quantiles would have said.
fn horizon_sentence(value: &HorizonValue, n_steps: i32, unit: Option<&str>) -> Markup {
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    let (wrong_lower, wrong_upper) = value.of_quantiles;
    html! {
        p {
            "Between " strong { (number(value.lower)) } " and " strong { (number(value.upper)) (unit) }
            " with 90 % probability, half of the time above " (number(value.median)) "."
        }
        p.quiet {
            "Read off the trajectories. The 5 % and 95 % quantiles of the " (n_steps) " steps would combine to "
            (number(wrong_lower)) " … " (number(wrong_upper)) ", which is not the interval of the " (value.word) "."
        }
    }
}

fn facts(chosen: &ChosenPanel, forecast: &ShownForecast) -> Markup {
    let facts = &forecast.stored.forecast;
    let link = format!("/v1/forecasts/{}", facts.forecast_id);
    let total = format!("{link}/aggregate?fn=sum&over=series");
    html! {
        dl {
            dt { "Model" } dd { (chosen.panel.name) ", version " (forecast.stored.model.version) }
            dt { "Issue time" } dd { (time(facts.issue_time, chosen.time_zone)) }
            dt { "Newest data used" } dd { (time(facts.data_cutoff, chosen.time_zone)) }
            dt { "Horizon" } dd { (facts.horizon) " steps of " (chosen.panel.frequency) }
            dt { "Trajectories" } dd { (facts.num_samples) }
            dt { "Seed" } dd { (facts.seed) }
            dt { "Sampling" } dd { (facts.schedule) ", " (facts.passes) " passes" }
            dt { "JSON" }
            dd.links {
                a href=(link) { "forecast" }
                a href={ (link) "/quantiles?quantiles=0.01,0.5,0.99" } { "quantiles" }
                a href={ (link) "/trajectories?samples=3" } { "trajectories" }
                a href=(total) { "totals" }
            }
        }
    }
}

/// A figure, drawn by the page's script from the description beside it.
fn figure(name: &str, label: &str, plot: &Plot) -> Markup {
    // Within a script element only the sequence that ends it has a meaning.
    let description = plot.to_json().replace("</", "<\\/");
    html! {
        figure {
            div.plot id=(name) role="img" aria-label=(label) data-figure={ (name) "-data" } {}
            script type="application/json" id={ (name) "-data" } { (PreEscaped(description)) }
            noscript { p { "The figure needs JavaScript; the numbers are in the JSON below." } }
        }
    }
}

/// The address of the page for a panel or one of its series.
fn address(panel: &str, series: Option<&str>) -> String {
    let mut address = format!("/?panel={}", encode(panel));
    if let Some(series) = series {
        address.push_str("&series=");
        address.push_str(&encode(series));
    }
    address
}

/// A value of a query string, percent-encoded.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn value_title(name: &str, series: &Series) -> String {
    match &series.unit {
        Some(unit) => format!("{name} ({unit})"),
        None => name.to_owned(),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(address("a b", Some("NO2 & co")), "/?panel=a%20b&series=NO2%20%26%20co");
    }

    #[test]
    fn a_name_cannot_end_the_script_element() {
        let observed = chart::Path::default();
        let markup = figure("fan", "label", &chart::fan("</script><b>", "UTC", &observed, None)).into_string();
        assert!(!markup.contains("</script><b>"));
        assert!(markup.contains("<\\/script>"));
    }

    #[test]
    fn an_empty_service_says_how_to_begin() {
        let markup = page(&View { panels: Vec::new(), chosen: None }).into_string();
        assert!(markup.contains("Nothing is loaded yet"));
    }
}
