//! What all pages share: head, navigation, figures.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotly::Plot;

use super::assets;

/// The pages that the navigation names, and the machine-readable neighbours.
const LINKS: [(&str, &str); 3] = [("API", "/docs/"), ("OpenAPI", "/openapi.json"), ("Metrics", "/metrics")];

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
    // Within a script element only the sequence that ends it has a meaning.
    let description = plot.to_json().replace("</", "<\\/");
    html! {
        figure {
            div.plot id=(name) role="img" aria-label=(label) data-figure={ (name) "-data" } {}
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
        assert!(markup.contains("<\\/script>"));
    }
}
