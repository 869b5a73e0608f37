//! The files that the page loads.

use std::sync::LazyLock;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Bytes},
};
use plotly::Plot;
use sha2::{Digest, Sha256};

use crate::Error;

/// A year: the addresses carry digests, so that what has changed has a new address.
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
    let (content_type, text) = file(&name).ok_or(Error::UnknownPath)?;
    Ok(HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::CACHE_CONTROL, CACHE_CONTROL))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(Bytes::from_static(text.as_bytes())))
}

/// The media type of an asset, and what is in it.
fn file(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "page.css" => Some(("text/css; charset=utf-8", STYLE)),
        "page.js" => Some(("text/javascript; charset=utf-8", SCRIPT)),
        "plotly.min.js" => Some(("text/javascript; charset=utf-8", plotly())),
        _ => None,
    }
}

/// The beginnings of the digests of the assets.
static DIGESTS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let digest = |name| {
        let (_, text) = file(name)?;
        Some((name, hex::encode(&Sha256::digest(text)[..6])))
    };
    ["page.css", "page.js", "plotly.min.js"].into_iter().filter_map(digest).collect()
});

/// The address of an asset, with the digest of what is in it.
#[must_use]
pub fn address(name: &str) -> String {
    let digest = DIGESTS.iter().find(|(one, _)| *one == name).map_or("", |(_, digest)| digest);
    format!("/assets/{name}?v={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_says_what_is_in_it() {
        let digests: Vec<String> = ["page.css", "page.js", "plotly.min.js"].map(address).to_vec();
        assert!(
            digests.iter().all(|address| address.len() == address.find('=').expect("it has one") + 13),
            "{digests:?}"
        );
        assert_ne!(digests[0].split('=').next_back(), digests[1].split('=').next_back());
    }

    #[test]
    fn the_script_is_plotly_alone() {
        let script = plotly();
        assert!(script.trim_start().starts_with("/**\n* plotly.js"), "{}", &script[..100]);
        assert!(script.len() > 1_000_000 && !script.contains("<script"));
    }
}
