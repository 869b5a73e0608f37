//! The kind `backfill`: forecasts for issue times of the past, as `plumecast backfill` makes them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Context, Failure, Reporter, Succeeded, Task};
use crate::Error;
use crate::backfilling::{self, Made, Period, Plan};
use crate::config::Limits;
use crate::instant::rfc3339_option;
use crate::metrics::Metrics;
use crate::predictor::Predictor;
use crate::problem::Violation;
use crate::routes::forecasts::request::ForecastRequest;

/// Most steps from one issue time to the next.
const EVERY_MAX: usize = 1_000_000;

/// Forecasts to be made for issue times of the past.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z", "every": 24,
    "forecast": {"panel": "valencia", "horizon": 24}}))]
pub struct BackfillOrder {
    /// The first issue time is the start of the first interval from here on.
    pub start: DateTime<Utc>,
    /// The last one is before this. Default: when the job is begun.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339_option")]
    pub end: Option<DateTime<Utc>>,
    /// Steps of the panel from one issue time to the next.
    #[serde(default = "every_default")]
    #[schema(default = 1, minimum = 1)]
    pub every: usize,
    /// What each forecast is: the body of `POST /v1/forecasts`, without `issue_time`, `covariates` and `scenario`.
    pub forecast: ForecastRequest,
}

fn every_default() -> usize {
    1
}

impl Task for BackfillOrder {
    const IS_LONG: bool = true;

    fn panel(&self) -> Option<&str> {
        Some(&self.forecast.panel)
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let mut errors = match self.forecast.order(limits) {
            Err(Error::InvalidBody { errors }) => errors
                .into_iter()
                .map(|error| Violation { pointer: error.pointer.map(|pointer| format!("/forecast{pointer}")), ..error })
                .collect(),
            Err(other) => return Err(other),
            Ok(_) => Vec::new(),
        };
        let forecast = &self.forecast;
        let no_place = [
            (
                "/forecast/issue_time",
                forecast.issue_time.is_some(),
                "must be left out: it follows from `start`, `end`, `every`",
            ),
            ("/forecast/covariates", !forecast.covariates.is_empty(), "must be left out: what was known then is used"),
            ("/forecast/scenario", forecast.scenario.is_some(), "must be left out: a backfill is of plain forecasts"),
            ("/forecast/store", !forecast.store, "must be true: nobody waits for the forecasts"),
        ];
        let wrong = no_place.into_iter().filter(|(_, is_wrong, _)| *is_wrong);
        errors.extend(wrong.map(|(pointer, _, message)| Violation::at(pointer, "invalid-value", message)));
        if !(1..=EVERY_MAX).contains(&self.every) {
            errors.push(Violation::at("/every", "out-of-range", format!("must lie between 1 and {EVERY_MAX}")));
        }
        if self.end.is_some_and(|end| end <= self.start) {
            errors.push(Violation::at("/end", "out-of-range", "must be after `start`"));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidBody { errors }) }
    }

    fn dated(self, instant: DateTime<Utc>) -> Self {
        Self { end: self.end.or(Some(instant)), ..self }
    }

    /// Each forecast is a transaction of its own. When the process ends before the job does, another attempt makes those that
    /// are not there.
    async fn perform(&self, context: &Context, reporter: &Reporter) -> Result<Succeeded, Failure> {
        let (pool, now) = (&context.pool, context.now());
        let order = self.forecast.order(&context.settings.limits())?;
        let end = self.end.unwrap_or(now).min(now);
        let period = Period { start: self.start, end, every: self.every };
        let Plan { issue_times, mut n_stored } = backfilling::plan(pool, &order, &period).await?;
        reporter.log(format!("{} forecasts to make, {n_stored} are stored", issue_times.len()));
        let metrics = Metrics::new().map_err(|error| Error::internal("setting up the metrics", error))?;
        let predictor = Predictor::start(context.artefacts()?, 1, 1, context.device()?, metrics.clone())
            .map_err(|error| Error::internal("starting the model thread", error))?;
        let n_all = issue_times.len();
        let (mut n_made, mut n_unknown) = (0, 0);
        for (index, issue_time) in issue_times.into_iter().enumerate() {
            reporter.progress(index as f64 / n_all as f64, format!("{} of {n_all} forecasts", index + 1));
            match backfilling::make(pool, &predictor, &metrics, &order, issue_time, now).await? {
                Made::Forecast(transaction) => {
                    reporter.keep(transaction).await?;
                    n_made += 1;
                }
                Made::Stored => n_stored += 1,
                Made::NoObservations => n_unknown += 1,
            }
        }
        let result = json!({ "n_made": n_made, "n_stored": n_stored, "n_without_observations": n_unknown });
        reporter.succeed(reporter.begin().await?, &result).await
    }
}
