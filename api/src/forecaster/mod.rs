//! Making a forecast: from what is known of a panel at an issue time to stored trajectories.
//!
//! This is the path of a request, a scheduled run and a backfill alike. It knows no route.

mod covariates;
mod fallback;
mod grid;
pub mod imputation;
mod inputs;
mod issue_time;
pub mod scenario;
mod serving;
mod warning;

use std::time::Instant;

use chrono::{DateTime, Utc};
use forecast::{Effort, Guided, QuantileLevel, SampleConfig, Trajectories, UnknownCovariate};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use self::inputs::Inputs;
use self::scenario::Resolved;
use self::serving::{Learned, Serving};
pub use self::{
    covariates::{SuppliedFuture, SuppliedValue},
    grid::{Grid, known_panel},
    issue_time::default_issue_time,
    scenario::{Guidance, Scenario},
    warning::Warning,
};
use crate::{
    Error,
    artefacts::Checkpoint,
    blocking, db,
    db::{
        DEFAULT_TENANT,
        forecast::{Idempotency, NewForecast, NewValues},
        model::Model,
        observation::Observation,
        panel::Panel,
        series::Series,
        words::{Quality, Role},
    },
    drift::profile::Profile,
    metrics::{Metrics, Stage},
    predictor::{Models, Predictor},
    schedule,
};

/// What is to be forecast, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the panel.
    pub panel: String,
    /// Steps from the issue time on.
    pub horizon: usize,
    /// When the forecast is made; `None` chooses by [`default_issue_time`].
    pub issue_time: Option<DateTime<Utc>>,
    /// Futures of known covariates that take the place of what is stored.
    pub covariates: Vec<SuppliedFuture>,
    /// Levels of the quantiles that are stored, ascending.
    pub quantile_levels: Vec<QuantileLevel>,
    /// How trajectories are drawn.
    pub sampling: SampleConfig,
    /// Most values (trajectories * steps * series) that may be computed.
    pub cost_max: u64,
    /// What is supposed of the future.
    pub scenario: Option<Scenario>,
    /// Whether a baseline may answer where the model cannot. It knows nothing of scenarios.
    pub fallback: bool,
}

/// Key and digest of a request that may be repeated.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// The client's key.
    pub key: String,
    /// SHA-256 of the request as it was understood, in hexadecimal.
    pub digest: String,
}

impl RequestKey {
    /// As the database takes it.
    #[must_use]
    pub fn as_idempotency(&self) -> Idempotency<'_> {
        Idempotency { key: &self.key, request_digest: &self.digest }
    }
}

/// A forecast that has been made.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Its identifier.
    pub forecast_id: Uuid,
    /// The panel.
    pub panel: Panel,
    /// The list of series that it covers.
    pub panel_version_id: i32,
    /// The model that made it; `None` where none could, and a baseline did.
    pub model: Option<Model>,
    /// The targets, in the order of the values.
    pub series: Vec<Series>,
    /// When it was made.
    pub issue_time: DateTime<Utc>,
    /// When the newest observation that was used became known.
    pub data_cutoff: DateTime<Utc>,
    /// Start of each interval, from [`Trajectories::first_step`] on.
    pub valid_times: Vec<DateTime<Utc>>,
    /// How trajectories were drawn.
    pub sampling: SampleConfig,
    /// Levels of the quantiles, ascending.
    pub quantile_levels: Vec<f64>,
    /// Mean of the trajectories, `[step, series]`.
    pub means: Vec<f64>,
    /// Quantiles of the trajectories, `[step, series, level]`.
    pub quantiles: Vec<f64>,
    /// The trajectories themselves.
    pub trajectories: Trajectories,
    /// What it supposes, as JSON.
    pub scenario: Option<serde_json::Value>,
    /// What the conditions of the scenario did.
    pub guidance: Option<Guidance>,
    /// Futures of known covariates that came with the order.
    pub covariates: Vec<SuppliedFuture>,
    /// What the reader should know.
    pub warnings: Vec<Warning>,
}

impl Forecast {
    /// The last step.
    #[must_use]
    pub fn horizon(&self) -> usize {
        self.trajectories.without_nowcasts().n_steps()
    }

    /// How far it can be trusted, by its inputs.
    #[must_use]
    pub fn quality(&self) -> Quality {
        if self.model.is_none() {
            Quality::Fallback
        } else if self.warnings.iter().any(inputs::is_degrading) {
            Quality::Degraded
        } else {
            Quality::Ok
        }
    }
}

/// Makes a forecast; `now` is the time by which everything up to now is known. Where the model cannot, and the order allows
/// it, a baseline does.
///
/// # Errors
/// - [`Error::UnknownPanel`], [`Error::NoModel`], [`Error::NoObservations`]
/// - [`Error::TooCostly`] when the forecast is larger than the order allows
/// - [`Error::InvalidBody`] when the issue time is after `now`, or a supplied future is none of a known covariate
/// - [`Error::QueueFull`], [`Error::BrokenModel`], [`Error::ModelFailed`], [`Error::Database`]
pub async fn make(
    pool: &PgPool,
    predictor: &Predictor,
    metrics: &Metrics,
    order: &Order,
    now: DateTime<Utc>,
) -> Result<Forecast, Error> {
    match make_by_model(pool, predictor, metrics, order, now).await {
        Err(cause) => match fallback::make(pool, order, &cause, now).await? {
            Some(forecast) => {
                tracing::warn!("a baseline forecasts panel `{}`: {}", order.panel, crate::error::causes(&cause));
                Ok(forecast)
            }
            None => Err(cause),
        },
        made => made,
    }
}

async fn make_by_model(
    pool: &PgPool,
    predictor: &Predictor,
    metrics: &Metrics,
    order: &Order,
    now: DateTime<Utc>,
) -> Result<Forecast, Error> {
    let started_at = Instant::now();
    let mut serving = Serving::find(pool, &order.panel).await?;
    check_cost(order, serving.series.len())?;
    let Learned { context_length, horizon: trained_horizon } = serving.load(predictor).await?;
    let Serving { panel, model, mut series, grid, checkpoint } = serving;
    let issue_time =
        issue_time::of_order(pool, order, &panel, model.panel_version_id, grid, trained_horizon, now).await?;
    let context_start = grid.advance(issue_time, -(context_length as i64));
    let supplied = covariates::place(&order.covariates, &series, grid, issue_time, order.horizon)?;
    // Of the future there are only values of known covariates in the window.
    let has_known = series.iter().any(|series| series.role == Role::Known);
    let n_ahead = if has_known { order.horizon as i64 } else { 0 };
    let valid_times = context_start..grid.advance(issue_time, n_ahead).max(issue_time);
    let observations =
        db::observation::as_of(pool, DEFAULT_TENANT, model.panel_version_id, issue_time, valid_times).await?;
    let data_cutoff = observations
        .iter()
        .map(|observation| observation.available_at)
        .max()
        .ok_or_else(|| Error::NoObservations { panel: panel.name.clone(), issue_time })?;
    let profile = Profile::stored(&model);
    let inputs = Inputs {
        panel: &panel,
        grid,
        series: &series,
        observations: &observations,
        profile: profile.as_ref(),
        context_length,
        trained_horizon,
        issue_time,
    };
    let is_supplied = |series: &Series| order.covariates.iter().any(|future| future.series == series.name);
    let mut warnings = inputs.warnings(is_supplied);
    warnings.extend(warning::of_order(order, trained_horizon));
    if model.trained_until().is_some_and(|end| issue_time < end) {
        warnings.push(warning::seen_in_training(model.version));
    }
    metrics.observe_stage(Stage::Load, started_at.elapsed());

    let first_valid_time = grid.frequency.ceil(issue_time, grid.time_zone);
    let supposed = match &order.scenario {
        Some(scenario) => {
            let boundaries: Vec<DateTime<Utc>> =
                (0..=order.horizon as i64).map(|step| grid.advance(first_valid_time, step)).collect();
            let resolved = scenario.resolve(&series, &boundaries)?;
            Some(Supposed { scenario: scenario.clone(), boundaries, resolved })
        }
        None => None,
    };
    let draw = Draw {
        checkpoint,
        panel: panel.clone(),
        grid,
        series: series.clone(),
        observations,
        supplied,
        issue_time,
        context_length,
        horizon: order.horizon,
        sampling: order.sampling,
        supposed,
        effort: effort(order, series.len()),
    };
    let timed = metrics.clone();
    let (Guided { trajectories, guidance }, unknown) = predictor
        .run(move |models| {
            let started_at = Instant::now();
            let guided = draw.run(models)?;
            timed.observe_stage(Stage::Sample, started_at.elapsed());
            Ok(guided)
        })
        .await?;
    warnings.extend(warning::of_guidance(&guidance));
    warnings.extend(covariates::warnings(&unknown, &series, grid, issue_time));
    series.retain(|series| series.role == Role::Target);
    metrics.trajectories.inc_by(guidance.n_drawn as u64);
    metrics.sampler_passes.inc_by(order.sampling.passes as u64);

    let started_at = Instant::now();
    let (trajectories, means, quantiles) = summarise(trajectories, &order.quantile_levels).await?;
    metrics.observe_stage(Stage::Summarise, started_at.elapsed());

    let valid_times = (0..trajectories.n_steps() as i64)
        .map(|index| grid.advance(first_valid_time, i64::from(trajectories.first_step()) - 1 + index))
        .collect();
    Ok(Forecast {
        forecast_id: Uuid::now_v7(),
        panel,
        panel_version_id: model.panel_version_id,
        model: Some(model),
        series,
        issue_time,
        data_cutoff,
        valid_times,
        sampling: order.sampling,
        quantile_levels: order.quantile_levels.iter().map(|level| level.value()).collect(),
        means,
        quantiles,
        trajectories,
        scenario: order
            .scenario
            .as_ref()
            .map(serde_json::to_value)
            .transpose()
            .map_err(|error| Error::internal("writing a scenario", error))?,
        guidance: (!guidance.conditions.is_empty()).then(|| Guidance::from(&guidance)),
        covariates: order.covariates.clone(),
        warnings,
    })
}

/// Trajectories with their means `[step, series]` and quantiles `[step, series, level]`.
async fn summarise(
    trajectories: Trajectories,
    levels: &[QuantileLevel],
) -> Result<(Trajectories, Vec<f64>, Vec<f64>), Error> {
    let levels = levels.to_vec();
    blocking::run("summarising trajectories", move || {
        let (means, quantiles) = (trajectories.mean(), trajectories.quantiles(&levels));
        (trajectories, means, quantiles)
    })
    .await
}

/// What the model thread needs to draw trajectories.
struct Draw {
    checkpoint: Checkpoint,
    panel: Panel,
    grid: Grid,
    series: Vec<Series>,
    observations: Vec<Observation>,
    supplied: Vec<covariates::Placed>,
    issue_time: DateTime<Utc>,
    context_length: usize,
    horizon: usize,
    sampling: SampleConfig,
    supposed: Option<Supposed>,
    effort: Effort,
}

/// A scenario on the steps of a forecast.
struct Supposed {
    scenario: Scenario,
    /// Starts of the steps, and the end of the last one.
    boundaries: Vec<DateTime<Utc>>,
    resolved: Resolved,
}

impl Draw {
    /// Trajectories of the targets, and the covariates whose future is not known to the end.
    fn run(self, models: &mut Models) -> Result<(Guided, Vec<UnknownCovariate>), Error> {
        let model = models.get(&self.checkpoint)?;
        let mut window = known_panel(&self.panel, self.grid, &self.series, &self.observations)?
            .window(self.issue_time, self.context_length, self.horizon)
            .map_err(|error| Error::ModelFailed { source: error.into() })?;
        covariates::supply(&mut window, &self.supplied)?;
        let mut conditions = [].as_slice();
        if let Some(supposed) = &self.supposed {
            if let Some(future) = &supposed.resolved.future {
                covariates::suppose(&mut window, future)?;
            }
            conditions = &supposed.resolved.conditions;
        }
        let guided = model.forecast_under(&window, conditions, &self.sampling, &self.effort).map_err(|error| {
            let refuse = |supposed: &Supposed| supposed.scenario.refused(&error, &self.series, &supposed.boundaries);
            match (self.supposed.as_ref().and_then(refuse), error) {
                (Some(refused), _) => refused,
                (None, forecast::Error::NothingObserved) => {
                    Error::NoObservations { panel: self.panel.name.clone(), issue_time: self.issue_time }
                }
                (None, other) => Error::ModelFailed { source: other.into() },
            }
        })?;
        Ok((guided, model.unknown_covariates(&window)))
    }
}

/// How much is drawn to meet conditions: as much as usual, if that many candidates are within the order's cost.
fn effort(order: &Order, n_series: usize) -> Effort {
    let usual = Effort::default();
    let n_affordable = order.cost_max / (order.horizon * n_series).max(1) as u64;
    Effort { n_candidates: usual.n_candidates.min(usize::try_from(n_affordable).unwrap_or(usize::MAX)), ..usual }
}

/// Stores a forecast with everything that was computed.
///
/// # Errors
/// [`db::Error::IdempotencyKeyInUse`] when another request with the key was faster; those of the database.
pub async fn store(
    pool: &PgPool,
    metrics: &Metrics,
    forecast: &Forecast,
    request_key: Option<&RequestKey>,
) -> Result<(), db::Error> {
    let started_at = Instant::now();
    store_uncommitted(pool, forecast, request_key).await?.commit().await?;
    metrics.observe_stage(Stage::Store, started_at.elapsed());
    metrics.forecasts.with_label_values(&[forecast.quality().as_str()]).inc();
    Ok(())
}

/// Like [`store`], in a transaction that is left to the caller to commit.
///
/// # Errors
/// Those of [`store`].
pub async fn store_uncommitted(
    pool: &PgPool,
    forecast: &Forecast,
    request_key: Option<&RequestKey>,
) -> Result<Transaction<'static, Postgres>, db::Error> {
    let schedule = schedule::name(forecast.sampling.schedule);
    let mut params = serde_json::json!({
        "panel": forecast.panel.name,
        "horizon": forecast.horizon(),
        "issue_time": forecast.issue_time,
        "quantiles": forecast.quantile_levels,
        "num_samples": forecast.sampling.n_samples,
        "seed": forecast.sampling.seed,
        "passes": forecast.sampling.passes,
        "schedule": schedule,
        "guidance": forecast.guidance,
        "warnings": forecast.warnings,
    });
    if forecast.sampling.stabilization > 0.0 {
        params["stabilization"] = serde_json::json!(forecast.sampling.stabilization);
    }
    if !forecast.covariates.is_empty() {
        params["covariates"] = serde_json::json!(forecast.covariates);
    }
    let series_ids: Vec<i32> = forecast.series.iter().map(|series| series.series_id).collect();

    db::forecast::insert_uncommitted(
        pool,
        DEFAULT_TENANT,
        &NewForecast {
            forecast_id: forecast.forecast_id,
            panel_version_id: forecast.panel_version_id,
            model_id: forecast.model.as_ref().map(|model| model.model_id),
            issue_time: forecast.issue_time,
            data_cutoff: forecast.data_cutoff,
            first_step: forecast.trajectories.first_step(),
            num_samples: forecast.trajectories.n_samples(),
            seed: i64::try_from(forecast.sampling.seed).unwrap_or(i64::MAX),
            schedule: &schedule,
            passes: i32::try_from(forecast.sampling.passes).unwrap_or(i32::MAX),
            quantile_levels: &forecast.quantile_levels,
            params: &params,
            quality: forecast.quality(),
            scenario: forecast.scenario.as_ref(),
            idempotency: request_key.map(RequestKey::as_idempotency),
        },
        &NewValues {
            series_ids: &series_ids,
            valid_times: &forecast.valid_times,
            means: &forecast.means,
            quantiles: &forecast.quantiles,
            trajectories: forecast.trajectories.values(),
        },
    )
    .await
}

fn check_cost(order: &Order, n_series: usize) -> Result<(), Error> {
    let cost = [order.horizon, order.sampling.n_samples, n_series]
        .into_iter()
        .fold(1_u64, |cost, factor| cost.saturating_mul(factor as u64));
    if cost > order.cost_max { Err(Error::TooCostly { cost, limit: order.cost_max }) } else { Ok(()) }
}
