//! The description of REST (OpenAPI 3.1), made from the handlers.

use actix_web::HttpResponse;
use utoipa::{
    Modify, OpenApi,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder},
};

use crate::{
    Error,
    problem::{self, Problem, Violation},
    routes::{
        backtests, comparisons, drift_events, forecasts, health, imputation, job_updates, jobs, loads, models,
        observations, panels, pipelines, push, schedules, scores,
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Plumecast",
        description = "Joint probabilistic forecasts of panels of time series, as trajectories: complete, equally likely \
            futures of all series together. Quantiles at any level, totals and maxima are read off them.\n\n\
            Times are RFC 3339. Every error is a problem document (RFC 9457) with a stable `type` and, where the \
            place is known, a JSON pointer or parameter name. Lists have opaque cursors.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        forecasts::create,
        forecasts::list,
        forecasts::read,
        forecasts::quantiles::read,
        forecasts::trajectories::read,
        forecasts::aggregate::read,
        forecasts::events::read,
        forecasts::plot::read,
        forecasts::latest::read,
        panels::list,
        panels::read,
        panels::list_series,
        observations::list,
        imputation::read,
        push::create,
        loads::list,
        loads::read,
        pipelines::list,
        pipelines::read,
        pipelines::put,
        pipelines::run,
        models::list,
        models::read,
        comparisons::read,
        models::promote,
        models::roll_back,
        models::archive,
        models::delete,
        backtests::list,
        backtests::read,
        scores::list,
        drift_events::list,
        jobs::create,
        jobs::list,
        jobs::read,
        jobs::log,
        job_updates::follow,
        jobs::cancel,
        jobs::retry,
        schedules::create,
        schedules::list,
        schedules::read,
        schedules::put,
        schedules::delete,
        health::live,
        health::ready,
        health::version,
        health::metrics,
    ),
    components(schemas(Problem, Violation)),
    modifiers(&Problems),
    tags(
        (name = "forecasts", description = "Trajectories, and what is read off them"),
        (name = "panels", description = "What is measured"),
        (name = "data", description = "How values come in, and what was wrong with them"),
        (name = "models", description = "What forecasts"),
        (name = "scores", description = "How forecasts did once the truth arrived"),
        (name = "jobs", description = "Long work"),
        (name = "schedules", description = "Work that is done again and again"),
        (name = "service", description = "The service itself"),
    )
)]
struct Document;

/// Gives every failure its body, and every operation the failures that any of them can have.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten() {
                let responses = &mut operation.responses.responses;
                let failures = responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5']));
                for (_, response) in failures {
                    if let RefOr::T(response) = response {
                        *response = failure(&response.description);
                    }
                }
                for (status, description) in [
                    ("503", "The database cannot be reached, or the service is stopping; see `Retry-After`"),
                    ("504", "The request took too long"),
                    ("default", "Any other failure"),
                ] {
                    responses.entry(status.to_owned()).or_insert_with(|| failure(description).into());
                }
            }
        }
    }
}

fn failure(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(problem::CONTENT_TYPE, content).build()
}

/// The description, as `plumecast openapi` prints it.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The description, at `/openapi.json`.
///
/// # Errors
/// When it cannot be written as JSON, which a test rules out.
pub async fn read() -> Result<HttpResponse, Error> {
    let text = document().to_pretty_json().map_err(|error| Error::internal("writing the description", error))?;
    Ok(HttpResponse::Ok().content_type("application/json").body(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name_a_summary_and_a_tag_and_says_how_it_fails() {
        let document = serde_json::to_value(document()).expect("it is JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let mut names = Vec::new();
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                names.push(operation["operationId"].as_str().expect("a name"));
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(operation["tags"][0].is_string(), "{method} {path}");
                let responses = operation["responses"].as_object().expect("responses");
                assert!(responses.contains_key("default"), "{method} {path}");
                for (status, response) in responses.iter().filter(|(status, _)| !status.starts_with('2')) {
                    assert!(response["content"]["application/problem+json"].is_object(), "{method} {path} {status}");
                }
            }
        }
        let n_operations = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_operations, "names are unique");
    }
}
