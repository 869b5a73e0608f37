//! The pages of the service: an overview of the panels, five pages of each (what is forecast, totals and events, what became
//! of it, models, data), and the jobs.
//!
//! HTML is made here; figures are drawn in the browser by Plotly, whose script the service brings along, so the pages
//! work without any other host.

pub mod accuracy;
mod assets;
pub mod chart;
pub mod data;
pub mod format;
pub mod jobs;
pub mod models;
mod overview;
pub mod panel;
pub mod report;
mod shell;
pub mod totals;

use actix_web::{HttpResponse, http::header};
use maud::Markup;

pub use self::{assets::asset, overview::read as overview, panel::read as panel};

/// Most panels, and most series of a panel, that a page lists.
const LISTED_MAX: i64 = 500;

/// Nothing from another host; Plotly sets styles of its own and exports pictures through `blob:`.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'";

fn respond(html: Markup) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(html.into_string())
}

/// The address of a panel's page, on the series that it is to show.
fn address_of_panel(panel: &str, series: Option<&str>) -> String {
    let series = series.map(|series| format!("?series={}", encode(series))).unwrap_or_default();
    format!("/panels/{}{series}", encode(panel))
}

/// A part of an address, percent-encoded.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(address_of_panel("a b/c", Some("NO2 & co")), "/panels/a%20b%2Fc?series=NO2%20%26%20co");
    }
}
