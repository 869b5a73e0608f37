//! The kind `forecast`: a forecast as `POST /v1/forecasts` makes it, with nobody waiting for it.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::config::Limits;
use crate::forecaster;
use crate::metrics::Metrics;
use crate::predictor::Predictor;
use crate::routes::forecasts::{body::ModelReference, request::ForecastRequest};
use crate::{Error, problem::Violation};

impl Task for ForecastRequest {
    const IS_LONG: bool = false;

    fn panel(&self) -> Option<&str> {
        Some(&self.panel)
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        self.order(limits)?;
        if self.store {
            return Ok(());
        }
        let message = "must be true: nobody waits for the forecast";
        Err(Error::InvalidBody { errors: vec![Violation::at("/store", "invalid-value", message)] })
    }

    fn dated(self, instant: DateTime<Utc>) -> Self {
        Self { issue_time: self.issue_time.or(Some(instant)), ..self }
    }

    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let order = self.order(&context.settings.limits())?;
        let metrics = Metrics::new().map_err(|error| Error::internal("setting up the metrics", error))?;
        let predictor = Predictor::start(context.artefacts()?, 1, 1, context.device()?, metrics.clone())
            .map_err(|error| Error::internal("starting the model thread", error))?;
        reporter.progress(0.0, "drawing trajectories");
        let mut forecast = forecaster::make(&context.pool, &predictor, &metrics, &order, context.now()).await?;
        // A job makes one forecast, whoever does it in the end.
        forecast.forecast_id = reporter.lease().job_id;
        reporter.progress(0.9, "storing the forecast");
        for warning in &forecast.warnings {
            reporter.log(format!("warning {}: {}", warning.code, warning.message));
        }
        let transaction = forecaster::store_uncommitted(&context.pool, &forecast, None).await?;
        let result = json!({
            "forecast_id": forecast.forecast_id, "issue_time": forecast.issue_time,
            "model": forecast.model.as_ref().map(|model| ModelReference::of(&forecast.panel, model)),
            "quality": forecast.quality().as_str(),
        });
        reporter.succeed(transaction, &result).await
    }
}
