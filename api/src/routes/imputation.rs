//! `GET /v1/panels/{panel}/imputation`: what is missing in a panel, drawn from what was observed before and after.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web};
use chrono::{DateTime, Utc};
use forecast::{QuantileLevel, SampleConfig, quantile_of_sorted};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::{FromQuery, Parameters, Query, required},
    forecasts::{body::ModelReference, request::SEED_MAX},
    levels, respond,
};
use crate::{
    Error, blocking,
    forecaster::{
        Warning,
        imputation::{Gap, Imputation, ImputationOrder, impute},
    },
    server::State,
};

/// Which gaps.
#[derive(Clone, Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query string")]
pub struct ImputationParameters {
    /// Earliest `valid_time`.
    start: DateTime<Utc>,
    /// `valid_time` before which the gaps lie.
    end: DateTime<Utc>,
    /// Use what was known at this instant. Default: what is known now.
    as_of: Option<DateTime<Utc>>,
    /// Draws of each gap.
    #[param(minimum = 1, default = 100)]
    num_samples: Option<usize>,
    /// Seed of the noise.
    #[param(default = 0)]
    seed: Option<u64>,
    /// Levels between 0 and 1, separated by commas. Default: 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95.
    quantiles: Option<String>,
    /// `true` returns the draws themselves, too.
    #[param(default = false)]
    draws: Option<bool>,
}

/// The parameters, read.
pub struct ImputationQuery {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    as_of: Option<DateTime<Utc>>,
    num_samples: usize,
    seed: u64,
    levels: Option<Vec<QuantileLevel>>,
    draws: bool,
}

impl FromQuery for ImputationQuery {
    fn from_query(parameters: &mut Parameters) -> Result<Self, Error> {
        let (start, end) = (parameters.take_time("start")?, parameters.take_time("end")?);
        let query = Self {
            start: required("start", start)?,
            end: required("end", end)?,
            as_of: parameters.take_time("as_of")?,
            num_samples: parameters
                .take_parsed("num_samples", "a positive number", |text| text.parse().ok().filter(|n: &usize| *n > 0))?
                .unwrap_or(SampleConfig::default().n_samples),
            seed: parameters
                .take_parsed("seed", &format!("a number from 0 to {SEED_MAX}"), |text| {
                    text.parse().ok().filter(|seed| *seed <= SEED_MAX)
                })?
                .unwrap_or(0),
            levels: levels::take(parameters)?,
            draws: parameters.take_parsed("draws", "`true` or `false`", |text| text.parse().ok())?.unwrap_or(false),
        };
        if query.end <= query.start {
            return Err(Error::invalid_parameter("end", "out-of-range", "must be after `start`"));
        }
        Ok(query)
    }
}

/// The gaps of a panel, filled.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ImputationBody {
    /// Name of the panel.
    #[schema(example = "valencia")]
    pub panel: String,
    /// The model that filled the gaps.
    pub model: ModelReference,
    /// Draws of each gap.
    pub num_samples: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Levels of the quantiles, ascending.
    pub quantile_levels: Vec<f64>,
    /// The series that have gaps.
    pub series: Vec<ImputedSeries>,
    /// What the reader should know.
    pub warnings: Vec<Warning>,
}

/// The gaps of one series, a value for each.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ImputedSeries {
    /// Name of the series.
    #[schema(example = "no2")]
    pub name: String,
    /// Unit of its values.
    pub unit: Option<String>,
    /// Start of each missing interval.
    pub valid_time: Vec<DateTime<Utc>>,
    /// Mean of the draws.
    pub mean: Vec<f64>,
    /// Quantiles of the draws, by level as shortest decimal number.
    #[schema(example = json!({"0.05": [11.2, 10.9], "0.5": [19.0, 20.1], "0.95": [31.7, 33.0]}))]
    pub quantiles: BTreeMap<String, Vec<f64>>,
    /// `[sample][gap]`; sample `k` is the same draw in every series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<Vec<f32>>>,
}

/// Fill the gaps of a panel
///
/// Draws what is missing between two times, jointly over all series, given what was observed before and after, by the panel's
/// champion. Nothing is stored. A gap can be one step shorter than the horizon that the model was trained for. What lies after
/// the last observation of all series is no gap but a forecast.
#[utoipa::path(
    get,
    path = "/v1/panels/{panel}/imputation", operation_id = "readImputation",
    tag = "panels",
    params(("panel" = String, Path, description = "Name of the panel"), ImputationParameters),
    responses(
        (status = 200, description = "The gaps, filled", body = ImputationBody),
        (status = 400, description = "A parameter is wrong, or a gap is too long"),
        (status = 404, description = "No such panel"),
        (status = 409, description = "No model or no observations yet"),
        (status = 422, description = "The range is too large"),
    )
)]
pub async fn read(
    state: web::Data<State>,
    path: web::Path<String>,
    query: Query<ImputationQuery>,
) -> Result<HttpResponse, Error> {
    let query = query.0;
    if query.num_samples > state.limits.samples_max {
        let message = format!("must lie between 1 and {}", state.limits.samples_max);
        return Err(Error::invalid_parameter("num_samples", "out-of-range", message));
    }
    let order = ImputationOrder {
        panel: path.into_inner(),
        start: query.start,
        end: query.end,
        as_of: query.as_of.unwrap_or_else(Utc::now),
        sampling: SampleConfig { n_samples: query.num_samples, seed: query.seed, ..SampleConfig::default() },
        cost_max: state.limits.cost_max,
    };
    let imputation = impute(&state.pool, &state.predictor, &state.metrics, &order).await?;
    let levels = match query.levels {
        Some(levels) => levels,
        None => levels::stored(&levels::LEVELS_DEFAULT)?,
    };
    let body = blocking::run("summarising draws", move || body(imputation, &order, &levels, query.draws)).await?;
    respond::json(StatusCode::OK, body).await
}

fn body(imputation: Imputation, order: &ImputationOrder, levels: &[QuantileLevel], with_draws: bool) -> ImputationBody {
    let Imputation { panel, model, series, warnings } = imputation;
    let imputed = series.into_iter().filter(|(_, gaps)| !gaps.is_empty()).map(|(series, gaps)| {
        let (mean, quantiles) = summary(&gaps, levels);
        let sample = |sample: usize| gaps.iter().map(|gap| gap.draws[sample]).collect();
        ImputedSeries {
            name: series.name,
            unit: series.unit,
            valid_time: gaps.iter().map(|gap| gap.valid_time).collect(),
            mean,
            quantiles,
            samples: with_draws.then(|| (0..order.sampling.n_samples).map(sample).collect()),
        }
    });
    ImputationBody {
        series: imputed.collect(),
        model: ModelReference { name: panel.name.clone(), version: model.version },
        panel: panel.name,
        num_samples: order.sampling.n_samples,
        seed: order.sampling.seed,
        quantile_levels: levels.iter().map(|level| level.value()).collect(),
        warnings,
    }
}

/// Means of gaps, and quantiles by level.
pub fn summary(gaps: &[Gap], levels: &[QuantileLevel]) -> (Vec<f64>, BTreeMap<String, Vec<f64>>) {
    let sorted = |gap: &Gap| {
        let mut draws = gap.draws.clone();
        draws.sort_unstable_by(f32::total_cmp);
        draws
    };
    let draws: Vec<Vec<f32>> = gaps.iter().map(sorted).collect();
    let mean = |draws: &Vec<f32>| draws.iter().map(|&draw| f64::from(draw)).sum::<f64>() / draws.len() as f64;
    let numbers: Vec<f64> = levels.iter().map(|level| level.value()).collect();
    let at = |&level: &QuantileLevel| draws.iter().map(|draws| quantile_of_sorted(draws, level)).collect();
    (draws.iter().map(mean).collect(), levels::by_level(&numbers, levels.iter().map(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_summarised_one_by_one() {
        let gap = |draws: &[f32]| Gap { valid_time: DateTime::UNIX_EPOCH, draws: draws.to_vec() };
        let levels = [0.5, 0.75].map(|level| QuantileLevel::new(level).expect("between 0 and 1"));
        let (mean, quantiles) = summary(&[gap(&[3.0, 1.0, 5.0]), gap(&[2.0, 2.0, 2.0])], &levels);
        assert_eq!(mean, [3.0, 2.0]);
        assert_eq!((&quantiles["0.5"], &quantiles["0.75"]), (&vec![3.0, 2.0], &vec![4.0, 2.0]));
    }
}
