//! The request for a forecast, and what is checked of it before anything is read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use forecast::SampleConfig;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Error,
    config::Limits,
    forecaster::{Order, Scenario, SuppliedFuture, SuppliedValue},
    instant::rfc3339_option,
    problem::Violation,
    routes::levels,
    schedule,
};

/// Largest seed that every JSON parser reads exactly.
pub const SEED_MAX: u64 = (1 << 53) - 1;

/// Most denoising passes of a token; more change nothing but the time.
const PASSES_MAX: usize = 256;

/// What to forecast, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"panel": "valencia", "horizon": 48, "level": [50, 80, 90], "num_samples": 100, "seed": 7}))]
pub struct ForecastRequest {
    /// Name of the panel.
    pub panel: String,
    /// Steps to forecast, in the panel's frequency. Any number up to the service's limit, whatever the model was
    /// trained for.
    #[schema(minimum = 1)]
    pub horizon: usize,
    /// When the forecast is made: only what was known then is used. Default: now, if the newest observation became
    /// known at most one trained horizon ago; otherwise the instant at which it became known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "rfc3339_option")]
    pub issue_time: Option<DateTime<Utc>>,
    /// Futures of `known` covariates, by the names of their series: values at steps of the forecast, which take the place of what
    /// is stored. Where neither is known, the covariate is drawn, and the answer has the warning `unknown-covariate`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub covariates: BTreeMap<String, Vec<SuppliedValue>>,
    /// Quantile levels, between 0 and 1. Default: 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<Vec<f64>>,
    /// Instead of `quantiles`: central intervals, in percent. 80 stands for the levels 0.1 and 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Vec<f64>>,
    /// Trajectories to draw.
    #[serde(default = "num_samples_default")]
    #[schema(minimum = 1, default = 100)]
    pub num_samples: usize,
    /// Seed of the noise: the same seed, model and data give the same trajectories.
    #[serde(default)]
    #[schema(maximum = 9007199254740991_u64)]
    pub seed: u64,
    /// Denoising passes of a token. Below 10 intervals come out too narrow; above 12 they are hardly better.
    #[serde(default = "passes_default")]
    #[schema(minimum = 1, maximum = 256, default = 12)]
    pub passes: usize,
    /// Order in which the steps are denoised: `autoregressive` (exact), `full`, `pyramid:SLOPE` or `blocks:SIZE`
    /// (whose sums over time come out too narrow).
    #[serde(default = "schedule_default")]
    #[schema(default = "autoregressive")]
    pub schedule: String,
    /// Standard deviation of the error that the network is told drawn values to have, in standard deviations of an innovation, so that it
    /// leans less on what it drew itself, from the second token on; this costs variance. Forecasts far beyond the trained horizon may need it.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.0)]
    pub stabilization: f64,
    /// What is supposed of the future. Such a forecast is a scenario: it is never taken for the latest forecast of its panel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// Whether a baseline may answer where the model cannot: the forecast's `quality` is then `fallback`, and a warning says
    /// why. A forecast under a scenario has no such baseline.
    #[serde(default = "fallback_default", skip_serializing_if = "is_fallback_default")]
    #[schema(default = true)]
    pub fallback: bool,
    /// Whether the forecast is kept, with its trajectories. What is not kept has no identifier.
    #[serde(default = "store_default")]
    #[schema(default = true)]
    pub store: bool,
}

fn num_samples_default() -> usize {
    SampleConfig::default().n_samples
}

fn passes_default() -> usize {
    SampleConfig::default().passes
}

fn schedule_default() -> String {
    schedule::name(SampleConfig::default().schedule)
}

fn fallback_default() -> bool {
    true
}

/// Left out, the fields change neither the digest of a request of before nor what a worker of the release before reads.
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

fn is_fallback_default(fallback: &bool) -> bool {
    *fallback
}

fn store_default() -> bool {
    true
}

impl ForecastRequest {
    /// The order that the request stands for.
    ///
    /// # Errors
    /// [`Error::InvalidBody`] with everything that is out of range.
    pub fn order(&self, limits: &Limits) -> Result<Order, Error> {
        let mut errors = Vec::new();
        for (pointer, number, most) in [
            ("/horizon", self.horizon, limits.horizon_max),
            ("/num_samples", self.num_samples, limits.samples_max),
            ("/passes", self.passes, PASSES_MAX),
        ] {
            if !(1..=most).contains(&number) {
                errors.push(Violation::at(pointer, "out-of-range", format!("must lie between 1 and {most}")));
            }
        }
        if self.seed > SEED_MAX {
            errors.push(Violation::at("/seed", "out-of-range", format!("must lie between 0 and {SEED_MAX}")));
        }
        if !(0.0..=1.0).contains(&self.stabilization) {
            errors.push(Violation::at("/stabilization", "out-of-range", "must lie between 0 and 1".to_string()));
        }
        let schedule = schedule::parse(&self.schedule);
        if schedule.is_none() {
            errors.push(Violation::at("/schedule", "unknown-schedule", format!("must be {}", schedule::FORMS)));
        }
        let quantile_levels = match levels::from_body(self.quantiles.as_deref(), self.level.as_deref()) {
            Ok(levels) => levels,
            Err(Error::InvalidBody { errors: of_levels }) => {
                errors.extend(of_levels);
                Vec::new()
            }
            Err(other) => return Err(other),
        };
        errors.extend(self.scenario.iter().flat_map(Scenario::violations));
        let Some(schedule) = schedule.filter(|_| errors.is_empty()) else {
            return Err(Error::InvalidBody { errors });
        };
        Ok(Order {
            panel: self.panel.clone(),
            horizon: self.horizon,
            issue_time: self.issue_time,
            covariates: self
                .covariates
                .iter()
                .map(|(series, values)| SuppliedFuture { series: series.clone(), values: values.clone() })
                .collect(),
            quantile_levels,
            sampling: SampleConfig {
                n_samples: self.num_samples,
                seed: self.seed,
                passes: self.passes,
                schedule,
                stabilization: self.stabilization,
            },
            cost_max: limits.cost_max,
            scenario: self.scenario.clone(),
            fallback: self.fallback,
        })
    }
}

#[cfg(test)]
mod tests {
    use forecast::Schedule;
    use serde_json::json;

    use super::*;
    use crate::routes::idempotency::digest;

    fn request(body: serde_json::Value) -> ForecastRequest {
        serde_json::from_value(body).expect("a request")
    }

    /// Pointers of everything that is wrong with a request.
    fn wrong(body: serde_json::Value) -> Vec<String> {
        match request(body).order(&Limits::default()) {
            Err(Error::InvalidBody { errors }) => errors.into_iter().filter_map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_panel_and_horizon_are_required() {
        let order = request(json!({"panel": "a", "horizon": 24})).order(&Limits::default()).expect("it is valid");
        assert_eq!(order.sampling, SampleConfig::default());
        assert_eq!(order.sampling.schedule, Schedule::Autoregressive);
        assert_eq!(order.quantile_levels.len(), 7);
        assert_eq!(order.issue_time, None);
    }

    #[test]
    fn everything_out_of_range_is_told_at_once() {
        assert_eq!(
            wrong(json!({
                "panel": "a", "horizon": 0, "num_samples": 1_000_000, "passes": 0, "seed": SEED_MAX + 1, "stabilization": 1.5,
                "schedule": "backwards", "quantiles": [1.5],
            })),
            ["/horizon", "/num_samples", "/passes", "/seed", "/stabilization", "/schedule", "/quantiles/0"]
        );
        assert_eq!(wrong(json!({"panel": "a", "horizon": 1_000_000})), ["/horizon"]);
    }

    #[test]
    fn the_same_request_has_the_same_digest_however_it_is_written() {
        let digest =
            |text: &str| digest(&serde_json::from_str::<ForecastRequest>(text).expect("a request")).expect("JSON");
        let short = digest(r#"{"panel": "a", "horizon": 3}"#);
        assert_eq!(short, digest(r#"{"seed": 0, "horizon": 3, "store": true,   "panel": "a"}"#));
        assert_ne!(short, digest(r#"{"panel": "a", "horizon": 4}"#));
        assert_eq!(short.len(), 64);
    }
}
