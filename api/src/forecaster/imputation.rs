//! Filling the gaps of a panel with draws, without storing them.

use chrono::{DateTime, Utc};
use forecast::SampleConfig;
use sqlx::PgPool;

use super::serving::{Learned, Serving};
use super::{Warning, known_panel};
use crate::{
    Error, db,
    db::{DEFAULT_TENANT, model::Model, panel::Panel, series::Series},
    metrics::{Metrics, Stage},
    predictor::Predictor,
};

/// Which gaps are to be filled, and how.
#[derive(Clone, Debug)]
pub struct ImputationOrder {
    /// Name of the panel.
    pub panel: String,
    /// Earliest `valid_time`.
    pub start: DateTime<Utc>,
    /// `valid_time` before which the gaps lie.
    pub end: DateTime<Utc>,
    /// Only what was known then is used.
    pub as_of: DateTime<Utc>,
    /// How gaps are drawn.
    pub sampling: SampleConfig,
    /// Most values (draws * steps * series) that may be computed.
    pub cost_max: u64,
}

/// Gaps that have been filled.
#[derive(Clone, Debug)]
pub struct Imputation {
    /// The panel.
    pub panel: Panel,
    /// The model that filled them.
    pub model: Model,
    /// The targets, with the gaps of each.
    pub series: Vec<(Series, Vec<Gap>)>,
    /// What the reader should know.
    pub warnings: Vec<Warning>,
}

/// A value that is missing, with draws of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Start of the interval.
    pub valid_time: DateTime<Utc>,
    /// A draw of each sample; sample `k` is the same draw in every gap.
    pub draws: Vec<f32>,
}

/// Fills the gaps of a panel between two times, given what was observed before and after them, by the panel's champion. What lies
/// after the last observation of all series is no gap: that is a forecast.
///
/// # Errors
/// - [`Error::UnknownPanel`], [`Error::NoModel`], [`Error::NoObservations`]
/// - [`Error::TooCostly`] when there are more values than the order allows
/// - [`Error::InvalidParameter`] when a gap is too long, or no step has a value of every series
/// - [`Error::QueueFull`], [`Error::BrokenModel`], [`Error::Database`]
pub async fn impute(
    pool: &PgPool,
    predictor: &Predictor,
    metrics: &Metrics,
    order: &ImputationOrder,
) -> Result<Imputation, Error> {
    let mut serving = Serving::find(pool, &order.panel).await?;
    let Learned { context_length: n_before, horizon: n_after } = serving.load(predictor).await?;
    let Serving { panel, model, series, grid, checkpoint } = serving;
    let n_steps = grid.frequency.index_between(order.start, order.end, grid.time_zone).max(0);
    let n_steps = usize::try_from(n_steps).unwrap_or(usize::MAX).saturating_add(n_before + n_after);
    let cost = [n_steps, order.sampling.n_samples, series.len()]
        .into_iter()
        .fold(1_u64, |cost, factor| cost.saturating_mul(factor as u64));
    if cost > order.cost_max {
        return Err(Error::TooCostly { cost, limit: order.cost_max });
    }

    // What was observed before a gap says where it begins, what was observed after it where it must end.
    let valid_times = grid.advance(order.start, -(n_before as i64))..grid.advance(order.end, n_after as i64);
    let observations =
        db::observation::as_of(pool, DEFAULT_TENANT, model.panel_version_id, order.as_of, valid_times).await?;
    if observations.is_empty() {
        return Err(Error::NoObservations { panel: panel.name, issue_time: order.as_of });
    }
    let known = known_panel(&panel, grid, &series, &observations)?;
    let history = known.history().map_err(|error| Error::internal("building the window", error))?;
    let n_rows = history.values.n_steps();
    let window = history.window(n_rows, n_rows, 0);
    let sampling = order.sampling;
    let timed = metrics.clone();
    let imputed = predictor.run(move |models| {
        let started_at = std::time::Instant::now();
        let imputed = models.get(&checkpoint)?.impute(&window, &sampling);
        timed.observe_stage(Stage::Sample, started_at.elapsed());
        Ok(imputed)
    });
    let imputed = imputed.await?.map_err(|error| refused(error, &series, &known))?;

    let row = |time: DateTime<Utc>| usize::try_from(known.issue_row(time)).unwrap_or(0).min(n_rows);
    let rows = row(order.start)..row(order.end);
    let first = n_rows - imputed.n_steps();
    let is_gap = |row: &usize, column: usize| known.values().get(*row, column).is_nan();
    // The draws are those of the targets.
    let targets = known.targets();
    let gap = |row: usize, target: usize| Gap {
        valid_time: known.valid_time(row),
        draws: (0..imputed.n_samples()).map(|sample| imputed.value(sample, row - first, target)).collect(),
    };
    let gaps = |(target, &column): (usize, &usize)| {
        let rows = rows.start.max(first)..rows.end;
        let gaps = rows.filter(|row| is_gap(row, column)).map(|row| gap(row, target)).collect::<Vec<_>>();
        (series[column].clone(), gaps)
    };
    let has_gap = |row: &usize| targets.iter().any(|&column| is_gap(row, column));
    let n_left = (rows.start..first.min(rows.end)).filter(has_gap).count();
    let warning = || {
        let start = known.valid_time(first).to_rfc3339();
        let message =
            format!("{n_left} steps with gaps lie before {start}, the first step with a value of every series");
        Warning::new("not-imputed", message)
    };
    Ok(Imputation {
        warnings: (n_left > 0).then(warning).into_iter().collect(),
        series: targets.iter().enumerate().map(gaps).collect(),
        panel,
        model,
    })
}

/// What the model refuses to fill, as a problem with the range.
fn refused(error: forecast::Error, series: &[Series], known: &ingest::Panel) -> Error {
    match error {
        forecast::Error::GapTooLong { series: column, step, length, limit } => {
            let message = format!(
                "series `{}` has a gap of {length} steps from {}; at most {limit} can be imputed by this model",
                series[column].name,
                known.valid_time(step).to_rfc3339()
            );
            Error::invalid_parameter("start", "gap-too-long", message)
        }
        forecast::Error::NoCompleteStep => {
            let message = "no step of the range, and of the model's context before it, has a value of every series";
            Error::invalid_parameter("start", "no-complete-step", message)
        }
        forecast::Error::TooManyPins { given, limit } => {
            let message = format!("{given} known values beside a gap are too many to be met together; at most {limit}");
            Error::invalid_parameter("start", "too-many-values", message)
        }
        other => Error::internal("imputing gaps", other),
    }
}
