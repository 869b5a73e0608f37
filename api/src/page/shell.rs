//! What all pages share: head, navigation, figures.

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use plotly::Plot;
use serde_json::Value;

use super::{address_of_panel, assets, format};

/// The pages that the navigation names, and the machine-readable neighbours.
const LINKS: [(&str, &str); 5] =
    [("Panels", "/"), ("Jobs", "/jobs"), ("API", "/docs/"), ("OpenAPI", "/openapi.json"), ("Metrics", "/metrics")];

/// The pages of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// What is forecast.
    Forecast,
    /// What sums and extremes of it will be.
    Totals,
    /// What became of it.
    Accuracy,
    /// What makes it.
    Models,
    /// What it is made of.
    Data,
}

impl Tab {
    const ALL: [(Self, &str, &str); 5] = [
        (Self::Forecast, "Forecast", ""),
        (Self::Totals, "Totals", "/totals"),
        (Self::Accuracy, "Accuracy", "/accuracy"),
        (Self::Models, "Models", "/models"),
        (Self::Data, "Data", "/data"),
    ];
}

/// The way from one page of a panel to the others.
pub fn tabs(panel: &str, current: Tab) -> Markup {
    html! {
        nav.tabs aria-label="Panel" {
            @for (tab, name, path) in Tab::ALL {
                a href={ (address_of_panel(panel, None)) (path) } aria-current=[(tab == current).then_some("page")] { (name) }
            }
        }
    }
}

/// How long ago something was, with the instant for those who point at it.
pub fn age(now: DateTime<Utc>, time: DateTime<Utc>) -> Markup {
    html! { time datetime=(time.to_rfc3339()) title=(time.to_rfc3339()) { (format::age(now - time)) } }
}

/// Where the numbers of a page, or of the picture above, are for programs.
pub fn as_json(addresses: &[(impl Render, String)]) -> Markup {
    html! {
        p.quiet.links { "As JSON: " @for (name, address) in addresses { a href=(address) { (name) } } }
    }
}

/// A button that asks the service for something, with the request that it makes.
/// Afterwards the page is drawn again, or that of the job that was begun.
pub struct Call<'a> {
    /// What it does.
    pub label: &'a str,
    /// `POST`, `DELETE`, ….
    pub method: &'a str,
    /// The path.
    pub address: &'a str,
    /// JSON, where the request has a body.
    pub body: Option<&'a Value>,
    /// A question to answer first.
    pub confirm: Option<&'a str>,
}

impl Render for Call<'_> {
    fn render(&self) -> Markup {
        html! {
            button.call type="button" data-method=(self.method) data-address=(self.address)
                data-body=[self.body.map(Value::to_string)] data-confirm=[self.confirm]
                title={ (self.method) " " (self.address) } { (self.label) }
        }
    }
}

/// A whole page. `title` comes before the name of the program.
pub fn page(title: Option<&str>, content: &Markup) -> Markup {
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
                        @for (name, address) in LINKS { a href=(address) { (name) } }
                    }
                }
                (content)
                // What a button's request was answered with, where it went wrong.
                output #answer role="status" {}
            }
        }
    }
}

/// A page in one file, which needs no service: a report.
pub fn standalone(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Plumecast" }
                style { (PreEscaped(assets::STYLE)) }
            }
            body {
                main.wide { (content) }
                script { (PreEscaped(assets::plotly())) }
                script { (PreEscaped(assets::SCRIPT)) }
            }
        }
    }
}

/// A figure, drawn by the script of the page from the description beside it.
pub fn figure(name: &str, label: &str, plot: &Plot) -> Markup {
    // Within a script element some sequences that begin so have a meaning; in JSON it stands in texts only.
    let description = plot.to_json().replace('<', "\\u003c");
    html! {
        figure {
            div.plot id=(name) role="group" aria-label=(label) data-figure={ (name) "-data" } {}
            script type="application/json" id={ (name) "-data" } { (PreEscaped(description)) }
            noscript { p { "The figure needs JavaScript; its numbers are in the JSON." } }
        }
    }
}

#[cfg(test)]
mod tests {
    use plotly::{Layout, Plot};

    use super::*;

    #[test]
    fn a_name_cannot_end_the_script_element() {
        let mut plot = Plot::new();
        plot.set_layout(Layout::new().title("</script><b>"));
        let markup = figure("fan", "label", &plot).into_string();
        assert!(!markup.contains("</script><b>"));
        assert!(markup.contains("\\u003c/script>"));
    }
}
