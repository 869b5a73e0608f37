//! REST: the table of routes, a file per resource.

pub mod backtests;
pub mod comparisons;
pub mod cursor;
pub mod drift_events;
pub mod extract;
pub mod forecasts;
pub mod health;
pub mod idempotency;
pub mod imputation;
pub mod job_updates;
pub mod jobs;
pub mod levels;
pub mod loads;
pub mod models;
pub mod observations;
pub mod panels;
pub mod pipelines;
pub mod push;
pub mod respond;
pub mod schedules;
pub mod scores;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, ServiceConfig},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{Error, config::Limits, openapi, page};

/// Everything that the service answers to.
pub fn configure(service: &mut ServiceConfig, limits: &Limits) {
    service
        .service(web::resource("/v1/forecasts").get(forecasts::list).post(forecasts::create))
        .service(web::resource("/v1/forecasts/{forecast_id}").get(forecasts::read))
        .service(web::resource("/v1/forecasts/{forecast_id}/quantiles").get(forecasts::quantiles::read))
        .service(web::resource("/v1/forecasts/{forecast_id}/trajectories").get(forecasts::trajectories::read))
        .service(web::resource("/v1/forecasts/{forecast_id}/aggregate").get(forecasts::aggregate::read))
        .service(web::resource("/v1/forecasts/{forecast_id}/events").get(forecasts::events::read))
        .service(web::resource("/v1/forecasts/{forecast_id}/plot").get(forecasts::plot::read))
        .service(web::resource("/v1/panels").get(panels::list))
        .service(web::resource("/v1/panels/{panel}").get(panels::read))
        .service(web::resource("/v1/panels/{panel}/series").get(panels::list_series))
        .service(web::resource("/v1/panels/{panel}/observations").get(observations::list))
        .service(web::resource("/v1/panels/{panel}/forecast").get(forecasts::latest::read))
        .service(web::resource("/v1/panels/{panel}/imputation").get(imputation::read))
        .service(
            web::resource("/v1/observations")
                .app_data(web::PayloadConfig::new(limits.push_bytes_max))
                .post(push::create),
        )
        .service(web::resource("/v1/loads").get(loads::list))
        .service(web::resource("/v1/loads/{load_id}").get(loads::read))
        .service(web::resource("/v1/pipelines").get(pipelines::list))
        .service(web::resource("/v1/pipelines/{pipeline}").get(pipelines::read).put(pipelines::put))
        .service(web::resource("/v1/pipelines/{pipeline}/runs").post(pipelines::run))
        .service(web::resource("/v1/models").get(models::list))
        .service(web::resource("/v1/models/{panel}/rollback").post(models::roll_back))
        .service(web::resource("/v1/models/{panel}/{version}").get(models::read).delete(models::delete))
        .service(web::resource("/v1/models/{panel}/{version}/comparison").get(comparisons::read))
        .service(web::resource("/v1/models/{panel}/{version}/promote").post(models::promote))
        .service(web::resource("/v1/models/{panel}/{version}/archive").post(models::archive))
        .service(web::resource("/v1/backtests").get(backtests::list))
        .service(web::resource("/v1/backtests/{backtest_id}").get(backtests::read))
        .service(web::resource("/v1/scores").get(scores::list))
        .service(web::resource("/v1/drift-events").get(drift_events::list))
        .service(web::resource("/v1/jobs").get(jobs::list).post(jobs::create))
        .service(web::resource("/v1/jobs/{job_id}").get(jobs::read))
        .service(web::resource("/v1/jobs/{job_id}/log").get(jobs::log))
        .service(web::resource("/v1/jobs/{job_id}/updates").get(job_updates::follow))
        .service(web::resource("/v1/jobs/{job_id}/cancel").post(jobs::cancel))
        .service(web::resource("/v1/jobs/{job_id}/retry").post(jobs::retry))
        .service(web::resource("/v1/schedules").get(schedules::list).post(schedules::create))
        .service(
            web::resource("/v1/schedules/{schedule}")
                .get(schedules::read)
                .put(schedules::put)
                .delete(schedules::delete),
        )
        .service(web::resource("/livez").get(health::live))
        .service(web::resource("/readyz").get(health::ready))
        .service(web::resource("/metrics").get(health::metrics))
        .service(web::resource("/version").get(health::version))
        .service(web::resource("/openapi.json").get(openapi::read))
        .service(web::resource("/docs").get(docs))
        .service(SwaggerUi::new("/docs/{file:.*}").config(Config::from("/openapi.json")))
        .service(web::resource("/").get(page::overview))
        .service(web::resource("/panels/{panel}").get(page::panel))
        .service(web::resource("/panels/{panel}/totals").get(page::totals::read))
        .service(web::resource("/panels/{panel}/accuracy").get(page::accuracy::read))
        .service(web::resource("/panels/{panel}/models").get(page::models::read))
        .service(web::resource("/panels/{panel}/data").get(page::data::read))
        .service(web::resource("/jobs").get(page::jobs::list))
        .service(web::resource("/jobs/{job_id}").get(page::jobs::read))
        .service(web::resource("/assets/{name}").get(page::asset))
        .default_service(web::to(unknown_path));
}

/// The documentation's own links are relative to a folder.
async fn docs() -> HttpResponse {
    HttpResponse::MovedPermanently().insert_header((header::LOCATION, "/docs/")).finish()
}

async fn unknown_path() -> Result<HttpResponse, Error> {
    Err(Error::UnknownPath)
}
