//! Refuses what pages of other sites have a browser do.
//!
//! There are no sessions: whoever reaches the address may change everything, and a browser there sends what any page
//! asks for. Programs that are no browsers pass.

use actix_web::{
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName},
    middleware::Next,
};

use crate::Error;

/// Header in which a browser says whose page makes a request; to another machine it sends it by HTTPS alone.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Hands on what reads, and what changes something unless a page of another site asks for it.
///
/// # Errors
/// [`Error::CrossSite`]
pub async fn refuse(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if !request.method().is_safe() && is_cross_site(request.headers()) {
        return Err(Error::CrossSite.into());
    }
    next.call(request).await
}

/// Whether a page of another site makes a request with these headers.
fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return matches!(site.as_bytes(), b"cross-site" | b"same-site");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let of_page = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, address)| address);
    let ours = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    of_page.zip(ours).is_none_or(|(of_page, ours)| !of_page.eq_ignore_ascii_case(ours))
}
