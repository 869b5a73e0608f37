//! A forecast as JSON: the same for one that has just been made and one that was stored.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Error, db,
    db::{forecast::ForecastValue, model::Model, panel::Panel, series::Series},
    forecaster::{Forecast, Guidance, Scenario, Warning},
    routes::levels,
    schedule,
};

/// A forecast, with mean and quantiles of every series at every step.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "forecast_id": "0199f3a0-6a3e-7c43-9d1e-0d5f2c1f7a11",
    "panel": "valencia",
    "model": {"name": "valencia", "version": 1},
    "issue_time": "2026-01-31T12:00:00Z",
    "data_cutoff": "2026-01-31T12:00:00Z",
    "horizon": 2,
    "first_step": 1,
    "frequency": "1h",
    "num_samples": 100,
    "seed": 7,
    "passes": 12,
    "schedule": "autoregressive",
    "quantile_levels": [0.1, 0.9],
    "quality": "ok",
    "series": [{
        "name": "no2",
        "unit": "µg/m³",
        "valid_time": ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"],
        "step": [1, 2],
        "mean": [19.4, 20.6],
        "quantiles": {"0.1": [12.1, 11.8], "0.9": [28.0, 31.2]}
    }],
    "warnings": []
}))]
pub struct ForecastBody {
    /// The forecast and how it was made.
    #[serde(flatten)]
    pub summary: ForecastSummary,
    /// The values, per series.
    pub series: Vec<ForecastSeries>,
    /// What the conditions of the scenario did; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// What the reader should know.
    pub warnings: Vec<Warning>,
}

/// A forecast and how it was made, without its values.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ForecastSummary {
    /// Its identifier; absent when it was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast_id: Option<Uuid>,
    /// Name of the panel.
    #[schema(example = "valencia")]
    pub panel: String,
    /// The model that made it; null where none could, and a baseline did.
    pub model: Option<ModelReference>,
    /// When it was made: only what was known then was used.
    pub issue_time: DateTime<Utc>,
    /// When the newest observation that was used became known.
    pub data_cutoff: DateTime<Utc>,
    /// Steps from the issue time on.
    #[schema(example = 48)]
    pub horizon: i32,
    /// The first step: 1, or less where the newest intervals before the issue time were not observed yet.
    #[schema(example = 1)]
    pub first_step: i32,
    /// Length of a step.
    #[schema(example = "1h")]
    pub frequency: String,
    /// Trajectories drawn.
    #[schema(example = 100)]
    pub num_samples: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Denoising passes of a token.
    #[schema(example = 8)]
    pub passes: usize,
    /// Order in which the steps were denoised.
    #[schema(example = "autoregressive")]
    pub schedule: String,
    /// Error that the network was told drawn values to have; absent when none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabilization: Option<f64>,
    /// Levels of the quantiles, ascending.
    pub quantile_levels: Vec<f64>,
    /// `ok`; `degraded`: its inputs were less than those of training; or `fallback`: no model could make it. The warnings say
    /// in what, or why.
    #[schema(example = "ok")]
    pub quality: String,
    /// What it supposes; absent for a plain forecast.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Scenario>)]
    pub scenario: Option<Value>,
}

/// Which model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelReference {
    /// Name of the panel that it models.
    #[schema(example = "valencia")]
    pub name: String,
    /// Its version: 1, 2, ….
    #[schema(example = 1)]
    pub version: i32,
}

impl ModelReference {
    /// The reference to a model of a panel.
    #[must_use]
    pub fn of(panel: &Panel, model: &Model) -> Self {
        Self { name: panel.name.clone(), version: model.version }
    }
}

/// Mean and quantiles of one series, a value per step.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ForecastSeries {
    /// Name of the series.
    #[schema(example = "no2")]
    pub name: String,
    /// Unit of its values.
    #[schema(example = "µg/m³")]
    pub unit: Option<String>,
    /// Start of each interval.
    pub valid_time: Vec<DateTime<Utc>>,
    /// Number of each step.
    pub step: Vec<i32>,
    /// Mean of the trajectories.
    pub mean: Vec<f64>,
    /// Quantiles of the trajectories, by level as shortest decimal number.
    #[schema(example = json!({"0.05": [11.2, 10.9], "0.5": [19.0, 20.1], "0.95": [31.7, 33.0]}))]
    pub quantiles: BTreeMap<String, Vec<f64>>,
}

impl ForecastSeries {
    /// Picks the series at `index` out of the values of all: means `[step, series]`, quantiles `[step, series, level]`.
    #[must_use]
    pub fn new(
        series: &Series,
        index: usize,
        valid_times: &[DateTime<Utc>],
        steps: &[i32],
        means: &[f64],
        quantiles: &[f64],
        quantile_levels: &[f64],
    ) -> Self {
        let (n_steps, n_levels) = (steps.len(), quantile_levels.len());
        let n_series = means.len() / n_steps.max(1);
        let elements = (0..n_steps).map(|step| step * n_series + index);
        let at_level = |level| elements.clone().map(|element| quantiles[element * n_levels + level]).collect();
        Self {
            name: series.name.clone(),
            unit: series.unit.clone(),
            valid_time: valid_times.to_vec(),
            step: steps.to_vec(),
            mean: elements.clone().map(|element| means[element]).collect(),
            quantiles: levels::by_level(quantile_levels, (0..n_levels).map(at_level)),
        }
    }
}

impl ForecastBody {
    /// A forecast that has just been made; it has an identifier when it was stored.
    #[must_use]
    pub fn of_made(forecast: &Forecast, is_stored: bool) -> Self {
        let first_step = forecast.trajectories.first_step();
        let steps: Vec<i32> = (first_step..).take(forecast.valid_times.len()).collect();
        let series = forecast.series.iter().enumerate().map(|(index, series)| {
            ForecastSeries::new(
                series,
                index,
                &forecast.valid_times,
                &steps,
                &forecast.means,
                &forecast.quantiles,
                &forecast.quantile_levels,
            )
        });
        Self {
            summary: ForecastSummary {
                forecast_id: is_stored.then_some(forecast.forecast_id),
                panel: forecast.panel.name.clone(),
                model: forecast.model.as_ref().map(|model| ModelReference::of(&forecast.panel, model)),
                issue_time: forecast.issue_time,
                data_cutoff: forecast.data_cutoff,
                horizon: steps.last().copied().unwrap_or(0),
                first_step,
                frequency: forecast.panel.frequency.clone(),
                num_samples: forecast.trajectories.n_samples(),
                seed: forecast.sampling.seed,
                passes: forecast.sampling.passes,
                schedule: schedule::name(forecast.sampling.schedule),
                stabilization: Some(forecast.sampling.stabilization).filter(|&sd| sd > 0.0),
                quantile_levels: forecast.quantile_levels.clone(),
                quality: forecast.quality().to_string(),
                scenario: forecast.scenario.clone(),
            },
            series: series.collect(),
            guidance: forecast.guidance.clone(),
            warnings: forecast.warnings.clone(),
        }
    }

    /// A stored forecast, from its rows; `values` are in the order of the series and steps.
    #[must_use]
    pub fn of_stored(
        summary: ForecastSummary,
        series: &[Series],
        values: &[ForecastValue],
        guidance: Option<Guidance>,
        warnings: Vec<Warning>,
    ) -> Self {
        let by_series: BTreeMap<i32, &[ForecastValue]> =
            values.chunk_by(|a, b| a.series_id == b.series_id).map(|rows| (rows[0].series_id, rows)).collect();
        let series = series.iter().map(|series| {
            let rows = by_series.get(&series.series_id).copied().unwrap_or_default();
            let at_level = |level: usize| rows.iter().filter_map(|row| row.quantiles.get(level).copied()).collect();
            ForecastSeries {
                name: series.name.clone(),
                unit: series.unit.clone(),
                valid_time: rows.iter().map(|row| row.valid_time).collect(),
                step: rows.iter().map(|row| row.step).collect(),
                mean: rows.iter().map(|row| row.mean).collect(),
                quantiles: levels::by_level(&summary.quantile_levels, (0..summary.quantile_levels.len()).map(at_level)),
            }
        });
        let series = series.collect();
        Self { summary, series, guidance, warnings }
    }
}

impl ForecastSummary {
    /// The summary of a stored forecast.
    #[must_use]
    pub fn of_stored(forecast: &db::forecast::Forecast, panel: &Panel, model: Option<&Model>) -> Self {
        Self {
            forecast_id: Some(forecast.forecast_id),
            panel: panel.name.clone(),
            model: model.map(|model| ModelReference::of(panel, model)),
            issue_time: forecast.issue_time,
            data_cutoff: forecast.data_cutoff,
            horizon: forecast.horizon,
            first_step: forecast.first_step,
            frequency: panel.frequency.clone(),
            num_samples: forecast.num_samples.unsigned_abs() as usize,
            seed: forecast.seed.unsigned_abs(),
            passes: forecast.passes.unsigned_abs() as usize,
            schedule: forecast.schedule.clone(),
            stabilization: forecast.params.get("stabilization").and_then(Value::as_f64),
            quantile_levels: forecast.quantile_levels.clone(),
            quality: forecast.quality.to_string(),
            scenario: forecast.scenario.clone(),
        }
    }
}

/// What the conditions of a stored scenario did.
///
/// # Errors
/// When the stored text is not what this service writes.
pub fn stored_guidance(forecast: &db::forecast::Forecast) -> Result<Option<Guidance>, Error> {
    let guidance = forecast.params.get("guidance").cloned().unwrap_or(Value::Null);
    serde_json::from_value(guidance).map_err(|error| Error::internal("reading a forecast's guidance", error))
}

/// The warnings stored with a forecast.
///
/// # Errors
/// When the stored text is not what this service writes.
pub fn stored_warnings(forecast: &db::forecast::Forecast) -> Result<Vec<Warning>, Error> {
    let warnings = forecast.params.get("warnings").cloned().unwrap_or_else(|| serde_json::json!([]));
    serde_json::from_value(warnings).map_err(|error| Error::internal("reading a forecast's warnings", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::words::{Kind, Role};

    #[test]
    fn the_values_of_a_series_are_picked_out_of_all() {
        let series = Series {
            series_id: 2,
            panel_id: 1,
            name: "b".to_owned(),
            role: Role::Target,
            kind: Kind::Mean,
            unit: None,
            lower_bound: None,
            upper_bound: None,
            is_integer: false,
            attributes: serde_json::Map::new(),
        };
        let times = [DateTime::UNIX_EPOCH; 2];
        let means = [1.0, 10.0, 2.0, 20.0];
        let quantiles = [0.5, 1.5, 9.0, 11.0, 1.5, 2.5, 19.0, 21.0];
        let picked = ForecastSeries::new(&series, 1, &times, &[1, 2], &means, &quantiles, &[0.1, 0.9]);
        assert_eq!(picked.mean, [10.0, 20.0]);
        assert_eq!(picked.quantiles["0.1"], [9.0, 19.0]);
        assert_eq!(picked.quantiles["0.9"], [11.0, 21.0]);
    }
}
