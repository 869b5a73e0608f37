//! The files that the page loads.

use std::sync::LazyLock;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Bytes},
};
use plotly::Plot;

use crate::Error;

/// A year: the addresses carry the version, so a new release has new addresses.
const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The style sheet.
pub const STYLE: &str = include_str!("../assets/page.css");

/// The script that draws the figures.
pub const SCRIPT: &str = include_str!("../assets/page.js");

/// Plotly's script, out of the text that the `plotly` crate carries for pages of its own.
static PLOTLY: LazyLock<String> = LazyLock::new(|| {
    let sources = Plot::offline_js_sources();
    let script = sources.split_once('>').map_or("", |(_, rest)| rest);
    script.split_once("</script>").map_or("", |(script, _)| script).to_owned()
});

/// Plotly's script.
pub fn plotly() -> &'static str {
    &PLOTLY
}

/// `GET /assets/{name}`.
///
/// # Errors
/// [`Error::UnknownPath`] when there is no such file.
pub async fn asset(name: web::Path<String>) -> Result<HttpResponse, Error> {
    let (content_type, bytes) = match name.as_str() {
        "page.css" => ("text/css; charset=utf-8", Bytes::from_static(STYLE.as_bytes())),
        "page.js" => ("text/javascript; charset=utf-8", Bytes::from_static(SCRIPT.as_bytes())),
        "plotly.min.js" => ("text/javascript; charset=utf-8", Bytes::from_static(plotly().as_bytes())),
        _ => return Err(Error::UnknownPath),
    };
    Ok(HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CACHE_CONTROL, CACHE_CONTROL))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(bytes))
}

/// The address of an asset, with the version of the program.
#[must_use]
pub fn address(name: &str) -> String {
    format!("/assets/{name}?v={}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_plotly_alone() {
        let script = plotly();
        assert!(script.trim_start().starts_with("/**\n* plotly.js"), "{}", &script[..100]);
        assert!(script.len() > 1_000_000 && !script.contains("<script"));
    }
}
